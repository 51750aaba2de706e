"""Looks that may block, made off the event loop; and how much is left for runs."""

import asyncio
import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol, final

from secureworker.core.happening import Hindrance

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
"""All looks take well below a millisecond together. A disk that is gone, or hangs, may keep one for ever."""


class Look(Protocol):
    """One thing that is looked at. Called from a thread, never twice at a time."""

    def __call__(self, runs: int) -> tuple[Hindrance, ...]:
        """Say what speaks against `runs` more tasks."""


@final
class Looking:
    """The port `HostGuard` for looks that may block: in one thread, and never more than that."""

    def __init__(self, looks: tuple[Look, ...], seconds: float = LOOK_SECONDS) -> None:
        self._looks = looks
        self._seconds = seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="looking")
        self._under_way: asyncio.Future[tuple[Hindrance, ...]] | None = None
        self._at = ""

    async def hindrances(self, runs: int) -> tuple[Hindrance, ...]:
        """See `ports.HostGuard`. A look that does not end is a hindrance, and no other is begun until it does."""
        fresh = self._under_way is None
        if self._under_way is None:
            look = functools.partial(self._look, runs)
            self._under_way = asyncio.get_running_loop().run_in_executor(self._thread, look)
        await asyncio.wait((self._under_way,), timeout=self._seconds)
        if not self._under_way.done():
            return (Hindrance("host", f"looking at this host does not end, at {self._at}; does a disk hang?"),)
        found, self._under_way = self._under_way.result(), None
        # What an earlier look has found at last is old by now.
        return found if fresh else await self.hindrances(runs)

    def close(self) -> None:
        """Let the thread end; one that hangs is left to the process's end."""
        self._thread.shutdown(wait=False)

    def _look(self, runs: int) -> tuple[Hindrance, ...]:
        found: list[Hindrance] = []
        for look in self._looks:
            self._at = type(look).__name__
            try:
                found += look(runs)
            except Exception as error:
                logger.exception("%s could not look at this host", self._at)
                found.append(Hindrance("host", f"{self._at} failed: {error}"))
        return tuple(found)


@dataclass
class Headroom:
    """Whether there is enough of something for more runs, and for what those under way may still take.

    They take what they take: counted is what was free when there were none. So a run that has used half of its limit
    does not look like somebody else who fills the disk.
    """

    per_run: int
    reserve: int
    """For the worker itself, and for what nobody counts."""
    running: Callable[[], int] = lambda: 0
    """How many runs are under way. Called from a thread."""
    needed: int = 0
    """What would have to be free if nothing ran; as of the last look."""
    _idle: int = 0
    """What was free at the last look without runs."""

    def missing(self, free: int, runs: int) -> int:
        """Say how much is missing for `runs` more; 0 or less: nothing."""
        running = self.running()
        if not running:
            self._idle = free
        used = min(max(0, self._idle - free), running * self.per_run)
        self.needed = (runs + running) * self.per_run + self.reserve
        return self.needed - used - free
