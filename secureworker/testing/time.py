"""Virtual time: it moves only when everybody sleeps."""

import asyncio
import itertools
import selectors
from collections import defaultdict, deque
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
"""When virtual time begins."""


class _IdleSelector(selectors.DefaultSelector):
    """Never waits: what the loop would have slept is added to its clock instead."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for real only where nothing is timed: then only another thread can go on."""
        if timeout is None:
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self.skipped += timeout
        return ready


class _NumberedTask(asyncio.Task[Any]):
    """A task that is hashed by its number: a TaskGroup cancels its set of tasks in the same order every time."""

    def __init__(self, coro: Coroutine[Any, Any, Any], number: int, **more: Any) -> None:
        # Before the task is made: asyncio keeps every new one in a set.
        self._number = number
        super().__init__(coro, **more)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock moves only when every task sleeps. Not for real I/O or threads with timeouts.

    The same program runs in the same order every time, for it depends on no address in memory either.
    """

    def __init__(self) -> None:
        self._idle = _IdleSelector()
        super().__init__(self._idle)
        self._numbers = itertools.count(1)
        self.set_task_factory(self._numbered)

    def _numbered(self, loop: asyncio.AbstractEventLoop, coro: Any, **more: Any) -> _NumberedTask:
        return _NumberedTask(coro, next(self._numbers), loop=loop, **more)

    def time(self) -> float:
        """Give the seconds that were slept."""
        return self._idle.skipped


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class FakeClock:
    """A clock on the running loop's time; virtual under `run_virtual`. It is `start` when it is made."""

    def __init__(self, start: datetime = EPOCH) -> None:
        self._start = start
        self._made = asyncio.get_running_loop().time()
        self.jumped = timedelta(0)
        """Set it to make the wall clock jump; the monotonic one does not."""

    def now(self) -> datetime:
        """Give the time since the loop began, as a wall clock that began at `start`."""
        return self._start + timedelta(seconds=self.monotonic() - self._made) + self.jumped

    def monotonic(self) -> float:
        """Give the loop's time."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Sleep virtually."""
        # At least so long that the loop's float moves: who sleeps until a moment, and then looks again, must arrive.
        await asyncio.sleep(max(seconds, 1e-6) if seconds > 0 else 0)


class Failures:
    """Errors to raise, by method, in the order given."""

    def __init__(self) -> None:
        self._pending: dict[str, deque[Exception]] = defaultdict(deque)

    def add(self, method: str, error: Exception, times: int = 1) -> None:
        """Make the next `times` calls of `method` raise `error`."""
        self._pending[method].extend([error] * times)

    def strike(self, method: str) -> None:
        """Raise what is due for `method`, if anything is."""
        if self._pending[method]:
            raise self._pending[method].popleft()
