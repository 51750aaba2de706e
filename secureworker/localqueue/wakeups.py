"""How a long poll learns that there may be a task, or that the server ends."""

import asyncio

from secureworker.localqueue.lifecycle import ACTIVE, Task


class Wakeups:
    """Events of the pools; told about every task that changes."""

    def __init__(self, hint_interval: float) -> None:
        self._interval = hint_interval
        self._pools: dict[str, asyncio.Event] = {}
        self.closing = asyncio.Event()
        """Set once; then every poll is answered, and none waits any more."""
        self._resolved: set[str] = set()

    def changed(self, task: Task) -> None:
        """Wake the pool's polls where a task became pending; remember that one was resolved."""
        if task.state == "pending":
            event = self._pools.pop(task.pool, None)
            if event is not None:
                event.set()
        if task.state not in ACTIVE:
            self._resolved.add(task.task_id)

    def resolutions(self) -> set[str]:
        """Give the tasks that were resolved since this was last asked."""
        resolved, self._resolved = self._resolved, set()
        return resolved

    async def wait(self, pool: str, seconds: float) -> None:
        """Return when it is time to look again, after `seconds` at the latest."""
        if self._interval > 0:
            await _wait(self.closing, min(seconds, self._interval))
        else:
            await _wait(self._pools.setdefault(pool, asyncio.Event()), seconds)

    def close(self) -> None:
        """End all waiting."""
        self.closing.set()
        for event in self._pools.values():
            event.set()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
