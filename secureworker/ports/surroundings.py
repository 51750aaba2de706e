"""What surrounds every run: time, the operator, the host, who watches, and the log of a task."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Protocol

from secureworker.core.happening import Happening, Hindrance


class Clock(Protocol):
    """Time. The fake's runs only when everybody sleeps."""

    def now(self) -> datetime:
        """Give the wall clock's time, UTC, aware."""

    def monotonic(self) -> float:
        """Give seconds that never go back and are not those of the wall clock."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`, or at once where that is 0 or less."""


class Events(Protocol):
    """Signals from the operator."""

    def shutdowns(self) -> AsyncIterator[str]:
        """Give `drain`, `stop` or `now`, each time one is asked for."""


class HostGuard(Protocol):
    """Looks whether this host can take on tasks now."""

    async def hindrances(self, runs: int) -> tuple[Hindrance, ...]:
        """Say what speaks against claiming up to `runs` more tasks now; empty: nothing.

        Asked before every claim, so it takes milliseconds; what it cannot find out is a hindrance, not an error.

        Raises:
            HostError: one of `core.errors.NEED_NEW_START`, and no other: waiting mends nothing.
        """


class Watcher(Protocol):
    """Shows an operator what happens. Nothing depends on it."""

    def saw(self, happening: Happening) -> None:
        """Take note of it, in a moment, and without raising whatever it is."""


class TaskLog(Protocol):
    """The public log of one run. The only writer of it: sanitises, masks, caps. Safe to call from threads."""

    def note(self, text: str) -> None:
        """Write a line of the worker's own: `[taskcluster <time>] <text>`."""

    def error(self, text: str) -> None:
        """Write a line of the worker's own that says why the run ends badly: `[taskcluster:error] <text>`."""

    def output(self, chunk: bytes) -> None:
        """Write output of the script, in any pieces; never fails because of what is in it."""
