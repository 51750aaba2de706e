"""What the operator asks for by signal: the port `Events`."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import final


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
        """Catch the signals while this context is open. Do so first of all: uncaught, SIGUSR1 kills the process."""
        loop = asyncio.get_running_loop()
        actions = {signal.SIGUSR1: self._drain, signal.SIGTERM: self._stop, signal.SIGINT: self._stop}
        for number, action in actions.items():
            loop.add_signal_handler(number, action)
        try:
            yield self
        finally:
            for number in actions:
                loop.remove_signal_handler(number)


class Nobody:
    """An operator who never asks for anything: the port `Events` for a worker that ends by itself."""

    async def shutdowns(self) -> AsyncIterator[str]:
        """Give nothing."""
        return
        yield ""
