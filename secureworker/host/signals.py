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
    signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)


@final
class Signals:
    """SIGUSR1: `drain`. SIGTERM and SIGINT: `stop`, and from the second one on `now`."""

    def __init__(self) -> None:
        self._asked: asyncio.Queue[str] = asyncio.Queue()
        self._stops = 0

    async def shutdowns(self) -> AsyncIterator[str]:
        """Give what was asked for since the signals were caught, and go on."""
        while True:
            yield await self._asked.get()

    def _drain(self) -> None:
        self._asked.put_nowait("drain")

    def _stop(self) -> None:
        self._stops += 1
        self._asked.put_nowait("stop" if self._stops == 1 else "now")

    @contextmanager
    def caught(self) -> Iterator["Signals"]:
        """Catch the signals while this context is open, those too that were on hold."""
        loop = asyncio.get_running_loop()
        for number in CAUGHT:
            loop.add_signal_handler(number, self._drain if number == signal.SIGUSR1 else self._stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
        try:
            yield self
        finally:
            for number in CAUGHT:
                loop.remove_signal_handler(number)


class Nobody:
    """An operator who never asks for anything: the port `Events` for a worker that ends by itself."""

    async def shutdowns(self) -> AsyncIterator[str]:
        """Give nothing."""
        return
        yield ""
