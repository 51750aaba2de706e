"""What happens without a request: claims expire, deadlines pass, dependencies are satisfied."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from secureworker.localqueue import lifecycle, times
from secureworker.localqueue.database import Database
from secureworker.localqueue.journal import CLAIM_RESOLVER, DEADLINE_RESOLVER, DEPENDENCY_RESOLVER
from secureworker.localqueue.lifecycle import Task
from secureworker.localqueue.queue_tasks import satisfied
from secureworker.localqueue.settings import Settings
from secureworker.localqueue.task_rows import TaskRows
from secureworker.localqueue.wakeups import Wakeups


class Resolvers:
    """The three, each to be called as often as the settings say; calling them more often does no harm."""

    def __init__(self, database: Database, tasks: TaskRows, wakeups: Wakeups, settings: Settings) -> None:
        self._database = database
        self._tasks = tasks
        self._wakeups = wakeups
        self._clock = settings.clock
        self._caught_up = False
        self._delay = timedelta(seconds=settings.deadline_delay)

    def expire_claims(self) -> None:
        """Resolve `claim-expired` what was not reclaimed in time, and retry it."""
        now = times.truncate(self._clock())
        expired = [lifecycle.resolved(t, "exception", "claim-expired", now) for t in self._tasks.expired_claims(now)]
        self._save(expired, CLAIM_RESOLVER)

    def pass_deadlines(self) -> None:
        """Resolve `deadline-exceeded` what is not resolved some time after its deadline."""
        now = times.truncate(self._clock())
        overdue = self._tasks.overdue(now - self._delay)
        self._save([lifecycle.stopped(task, "deadline-exceeded", now) for task in overdue], DEADLINE_RESOLVER)

    def schedule_dependents(self) -> None:
        """Schedule tasks whose dependencies are resolved as they require."""
        resolved = self._wakeups.resolutions()
        waiting = [task for needed in sorted(resolved) for task in self._tasks.dependents(needed)]
        if not self._caught_up:
            # What was resolved before this server started is not remembered.
            waiting, self._caught_up = self._tasks.unscheduled(), True
        now = times.truncate(self._clock())
        ready = {
            task.task_id: lifecycle.scheduled(task, now)
            for task in waiting
            if task.state == "unscheduled"
            and task.deadline > now
            and satisfied(task, self._tasks.states(task.definition["dependencies"]))
        }
        self._save(list(ready.values()), DEPENDENCY_RESOLVER)

    def _save(self, tasks: list[Task], by: str) -> None:
        if tasks:
            with self._database.step():
                for task in tasks:
                    self._tasks.save(task, by)

    def start(self, group: asyncio.TaskGroup, settings: Settings) -> tuple[asyncio.Task[None], ...]:
        """Run all three until they are cancelled."""
        return (
            group.create_task(_every(settings.claim_resolver_interval, self.expire_claims)),
            group.create_task(_every(settings.deadline_resolver_interval, self.pass_deadlines)),
            group.create_task(_every(settings.dependency_resolver_interval, self.schedule_dependents)),
        )


async def _every(seconds: float, act: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        act()
