"""What the Queue hands a worker: a claim on one run of one task. Credentials in it hide themselves."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias, final

from secureworker.core.ids import RunId, TaskId, WorkerIdentity, WorkerPool

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
"""A value of RFC 8259, as `json.loads` gives it."""


@final
class Secret:
    """A string that no `repr`, log line or traceback shows."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Give the value; call it only where it is put on the wire or compared."""
        return self._value

    def __repr__(self) -> str:
        return "<hidden>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a secret is not pickled")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Taskcluster credentials; temporary ones carry a certificate (a JSON string)."""

    client_id: str
    access_token: Secret
    certificate: Secret | None = None


@dataclass(frozen=True, slots=True)
class TaskDefinition:
    """A task as its author wrote it and the Queue completed it (schema `task.json` of queue v1)."""

    pool: WorkerPool
    scheduler_id: str
    project_id: str
    task_group_id: str
    dependencies: tuple[str, ...]
    scopes: tuple[str, ...]
    payload: Mapping[str, Json]
    created: datetime
    deadline: datetime
    expires: datetime
    name: str
    source: str
    verbatim: Mapping[str, Json]
    """The definition exactly as the Queue sent it: what is signed, and what `task.json` holds. Not to be changed."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One run of one task, ours until `taken_until`."""

    task_id: TaskId
    run_id: RunId
    worker: WorkerIdentity
    """Who the Queue says holds the run."""
    taken_until: datetime
    credentials: Credentials
    """The first credentials of the run; later ones live in `ClaimedRun`."""
    task: TaskDefinition

    def __str__(self) -> str:
        return f"{self.task_id}/{self.run_id}"
