"""What the operator asks for by signal: the port `Events`."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final, final

CAUGHT: Final = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)


def hold() -> None:
    """Let signals wait until `Signals.caught`. Call it first of all: SIGUSR1 kills a process that does not expect it.

    A container platform may send it at any time, and loading the program takes a while.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, (*CAUGHT, signal.SIGHUP))


@final
class Signals:
    """SIGUSR1: `drain`. SIGTERM and SIGINT: `stop`, and from the second one on `now`. SIGHUP: `reload`, for a daemon.

    Args:
        daemon: whether SIGHUP is caught. Where it is not, it means that the terminal is gone, and ends the process.
    """

    def __init__(self, *, daemon: bool = False) -> None:
        self._caught = (*CAUGHT, signal.SIGHUP) if daemon else CAUGHT
        self._asked: asyncio.Queue[str] = asyncio.Queue()
        self._stops = 0

    async def shutdowns(self) -> AsyncIterator[str]:
        """Give what was asked for since the signals were caught, and go on."""
        while True:
            yield await self._asked.get()

    def _drain(self) -> None:
        self._asked.put_nowait("drain")

    def _reload(self) -> None:
        self._asked.put_nowait("reload")

    def _stop(self) -> None:
        self._stops += 1
        self._asked.put_nowait("stop" if self._stops == 1 else "now")

    @contextmanager
    def caught(self) -> Iterator["Signals"]:
        """Catch the signals while this context is open, those too that were on hold."""
        loop = asyncio.get_running_loop()
        actions = {signal.SIGUSR1: self._drain, signal.SIGHUP: self._reload}
        for number in self._caught:
            loop.add_signal_handler(number, actions.get(number, self._stop))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*CAUGHT, signal.SIGHUP))
        try:
            yield self
        finally:
            for number in self._caught:
                loop.remove_signal_handler(number)


class Nobody:
    """An operator who never asks for anything: the port `Events` for a worker that ends by itself."""

    async def shutdowns(self) -> AsyncIterator[str]:
        """Give nothing."""
        return
        yield ""
