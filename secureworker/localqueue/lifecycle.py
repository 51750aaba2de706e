"""A task's states, and every step between them, as functions from a task to a task. No requests, no storage."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

from secureworker.localqueue.times import javascript, parse

MAX_RUNS = 50
"""Of one task, reruns included (queue, `MAX_RUNS_ALLOWED`)."""
RETRIED = {"worker-shutdown": "retry", "intermittent-task": "task-retry", "claim-expired": "retry"}
"""Reasons of an exception that lead to another run while retries are left, and why that run says it was created."""
ACTIVE = frozenset({"unscheduled", "pending", "running"})

_TIMES = {"scheduled": "scheduled", "started": "started", "resolved": "resolved", "taken_until": "takenUntil"}
_TEXTS = {
    "state": "state",
    "reason_created": "reasonCreated",
    "reason_resolved": "reasonResolved",
    "worker_group": "workerGroup",
    "worker_id": "workerId",
}
_ORDER = (
    "runId",
    "state",
    "reasonCreated",
    "reasonResolved",
    "workerGroup",
    "workerId",
    "takenUntil",
    "scheduled",
    "started",
    "resolved",
)


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt. What is None has not happened, or never will."""

    state: str
    reason_created: str
    scheduled: datetime
    reason_resolved: str | None = None
    worker_group: str | None = None
    worker_id: str | None = None
    taken_until: datetime | None = None
    started: datetime | None = None
    resolved: datetime | None = None

    def wire(self, run_id: int) -> dict[str, Any]:
        """Give the run as it is in a status."""
        known: dict[str, Any] = {"runId": run_id}
        for field, key in _TEXTS.items():
            known[key] = getattr(self, field)
        for field, key in _TIMES.items():
            moment = getattr(self, field)
            known[key] = None if moment is None else javascript(moment)
        return {key: known[key] for key in _ORDER if known[key] is not None}

    @classmethod
    def read(cls, wire: dict[str, Any]) -> Self:
        """Read what `wire` wrote."""
        texts = {field: wire.get(key) for field, key in _TEXTS.items()}
        times = {field: parse(wire[key]) for field, key in _TIMES.items() if key in wire}
        return cls(**texts, **times)  # type: ignore[arg-type]  # each field gets what wire() took from it


@dataclass(frozen=True, slots=True)
class Task:
    """A task and what became of it."""

    task_id: str
    definition: dict[str, Any]
    """Complete, as claimWork gives it. Not to be changed."""
    runs: tuple[Run, ...]
    retries_left: int

    @property
    def state(self) -> str:
        """The last run's."""
        return self.runs[-1].state if self.runs else "unscheduled"

    @property
    def deadline(self) -> datetime:
        """When it must be resolved."""
        return parse(self.definition["deadline"])

    @property
    def expires(self) -> datetime:
        """When it may be forgotten."""
        return parse(self.definition["expires"])

    @property
    def pool(self) -> str:
        """The task queue id."""
        return str(self.definition["taskQueueId"])

    def running(self, run_id: int) -> bool:
        """Whether it is this run that runs."""
        return run_id == len(self.runs) - 1 and self.runs[run_id].state == "running"

    def status(self) -> dict[str, Any]:
        """Give the status structure of the API."""
        copied = ("provisionerId", "workerType", "taskQueueId", "schedulerId", "projectId", "taskGroupId", "priority")
        return {
            "taskId": self.task_id,
            **{key: self.definition[key] for key in copied},
            "deadline": self.definition["deadline"],
            "expires": self.definition["expires"],
            "retriesLeft": self.retries_left,
            "state": self.state,
            "runs": [run.wire(number) for number, run in enumerate(self.runs)],
        }


def scheduled(task: Task, now: datetime, *, reason: str = "scheduled") -> Task:
    """Add a pending run."""
    return replace(task, runs=(*task.runs, Run("pending", reason, now)))


def claimed(task: Task, worker_group: str, worker_id: str, now: datetime, taken_until: datetime) -> Task:
    """Give the pending run to a worker."""
    run = replace(
        task.runs[-1],
        state="running",
        worker_group=worker_group,
        worker_id=worker_id,
        started=now,
        taken_until=taken_until,
    )
    return replace(task, runs=(*task.runs[:-1], run))


def reclaimed(task: Task, taken_until: datetime) -> Task:
    """Renew the running run's claim."""
    return replace(task, runs=(*task.runs[:-1], replace(task.runs[-1], taken_until=taken_until)))


def resolved(task: Task, state: str, reason: str, now: datetime) -> Task:
    """End the last run; add another where `RETRIED` says so and retries are left."""
    run = replace(task.runs[-1], state=state, reason_resolved=reason, resolved=now)
    ended = replace(task, runs=(*task.runs[:-1], run))
    if reason not in RETRIED or not task.retries_left:
        return ended
    return scheduled(replace(ended, retries_left=task.retries_left - 1), now, reason=RETRIED[reason])


def stopped(task: Task, reason: str, now: datetime) -> Task:
    """Cancel, or let the deadline pass.

    A task that was never scheduled gets a run that says so; one that is resolved stays as it is.
    """
    if task.state == "unscheduled":
        run = Run("exception", "exception", now, reason_resolved=reason, resolved=now)
        return replace(task, runs=(run,))
    if task.state not in ACTIVE:
        return task
    return resolved(task, "exception", reason, now)


def rerun(task: Task, now: datetime) -> Task:
    """Run again from scratch, with all retries; a task that is pending or running stays as it is."""
    if task.state in {"pending", "running"} or len(task.runs) >= MAX_RUNS:
        return task
    again = scheduled(task, now, reason="rerun")
    return replace(again, retries_left=min(task.definition["retries"], MAX_RUNS - len(again.runs)))
