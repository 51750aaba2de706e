"""Who may be at work beside whom: runs of ordinary scripts together, a run of an exclusive script alone.

A run is at work from the making of its workspace to the storing of its outputs.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import final

from secureworker.core.happening import Phase
from secureworker.core.plan import Plan
from secureworker.ports import TaskLog
from secureworker.worker.progress import Progress


@dataclass(eq=False, slots=True)
class _Place:
    """A run in the queue, or at work."""

    alone: bool
    come: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is its turn."""


@final
class Turns:
    """A lock that many hold together, or one alone; first come, first served, whichever they are.

    Nobody overtakes: one that must be alone gets its turn once those before it are done, and those who came after it
    wait until it is done too. Its state is in one event loop, and changes only between awaits.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Place] = deque()
        self._at_work: set[_Place] = set()

    @property
    def at_work(self) -> int:
        """How many have their turn now."""
        return len(self._at_work)

    @property
    def waiting(self) -> int:
        """How many wait for theirs."""
        return len(self._waiting)

    def would_wait(self, *, alone: bool) -> bool:
        """Say whether who comes now would have to wait."""
        return bool(self._waiting) or not self._admits(_Place(alone))

    @asynccontextmanager
    async def take(self, *, alone: bool) -> AsyncIterator[None]:
        """Wait for a turn, and hold it while the block runs. Cancelled while waiting, it is as if it had never come.

        Args:
            alone: whether nobody else may have a turn meanwhile.
        """
        place = _Place(alone)
        self._waiting.append(place)
        self._call()
        try:
            await place.come.wait()
            yield
        finally:
            # Also where it was called and cancelled in the same moment: its turn passes on, or everybody behind it
            # would wait for ever.
            if place in self._at_work:
                self._at_work.discard(place)
            else:
                self._waiting.remove(place)
            self._call()

    def _call(self) -> None:
        """Let those go on whose turn it is."""
        while self._waiting and self._admits(self._waiting[0]):
            place = self._waiting.popleft()
            self._at_work.add(place)
            place.come.set()

    def _admits(self, place: _Place) -> bool:
        return not self._at_work or not (place.alone or any(other.alone for other in self._at_work))


@asynccontextmanager
async def in_turn(turns: Turns, plan: Plan, progress: Progress, log: TaskLog) -> AsyncIterator[None]:
    """Hold a run's turn while the block runs: `WAITING` until it has come, then `PREPARING`.

    Meanwhile the run's guards keep its claim, and end it as at any other step. How long it waits is not of its time.
    """
    if turns.would_wait(alone=plan.exclusive):
        progress.enter(Phase.WAITING)
        log.note(_why(turns, plan))
    async with turns.take(alone=plan.exclusive):
        progress.enter(Phase.PREPARING)
        yield


def _why(turns: Turns, plan: Plan) -> str:
    # How many others there are, and nothing else of them: this log is public.
    others = f"{turns.at_work} at work now, {turns.waiting} waiting before this one"
    if plan.exclusive:
        return f"waiting: the script {plan.script} runs alone on this worker; other runs: {others}"
    return f"waiting: a run that is alone on this worker is at work, or before this one; other runs: {others}"
