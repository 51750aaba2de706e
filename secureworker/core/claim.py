"""What the Queue hands a worker: a claim on one run of one task. Credentials in it hide themselves.

Reading is strict: a value of the wrong type, or a claim that is not for this worker, is a ValueError that names the
key and never shows the value of a secret.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias, final

from secureworker.core.ids import RunId, TaskId, WorkerIdentity, WorkerPool

MAX_NESTING = 200
"""Levels of lists and objects in a task definition. CPython 3.11 reads and writes JSON recursively and gives up near
1,000 levels, less the depth of the stack it is called at; no task that people write comes near 200."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d(:?\d\d)?)", re.ASCII)

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
    defects: tuple[str, ...] = ()
    """Why the definition cannot be worked with as it is, a sentence each. A task that has any is refused."""


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
    length: timedelta | None = None
    """From the claim to its end, both by the Queue's clock: no claim is ours for longer, whatever time it is here. None
    where the Queue does not say when the run began."""

    def __str__(self) -> str:
        return f"{self.task_id}/{self.run_id}"


def parse_time(value: Json) -> datetime:
    """Read a time in any form the Queue writes: `...14.294+00:00`, `...34.97+00:00`, `...34+00:00`, `...375Z`.

    claimWork's `takenUntil` is PostgreSQL's JSON text, which drops trailing zeros of the fraction, and the fraction
    with them; all other times end in milliseconds and `Z`.
    """
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise ValueError(f"{str(value)[:40]!r} is no time: 2026-01-31T12:00:00.000Z is expected")
    return datetime.fromisoformat(value).astimezone(UTC)


def nesting(value: Json) -> int:
    """Count the levels of lists and objects in `value`, without recursion."""
    levels = 0
    layer = [value]
    while any(isinstance(item, list | dict) for item in layer):
        levels += 1
        layer = [
            item
            for container in layer
            if isinstance(container, list | dict)
            for item in (container.values() if isinstance(container, dict) else container)
        ]
    return levels


def _text(document: Mapping[str, Json], key: str, default: str | None = None) -> str:
    value = document.get(key, default)
    if value is None:
        raise ValueError(f"{key} is missing, a string is expected")
    if not isinstance(value, str):
        raise ValueError(f"{key} is {type(value).__name__}, a string is expected")
    return value


def _texts(document: Mapping[str, Json], key: str) -> tuple[str, ...]:
    value = document.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{key} is no list of strings")
    return tuple(str(item) for item in value)


def _object(document: Mapping[str, Json], key: str) -> dict[str, Json]:
    value = document.get(key)
    if value is None:
        raise ValueError(f"{key} is missing, an object is expected")
    if not isinstance(value, dict):
        raise ValueError(f"{key} is {type(value).__name__}, an object is expected")
    return value


def _time(document: Mapping[str, Json], key: str) -> datetime:
    try:
        return parse_time(document.get(key))
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def parse_credentials(document: Mapping[str, Json]) -> Credentials:
    """Read `{clientId, accessToken, certificate?}`; the error never shows a value."""
    certificate = document.get("certificate")
    if certificate is not None and not isinstance(certificate, str):
        raise ValueError("certificate must be the JSON text of a certificate")
    return Credentials(
        client_id=_text(document, "clientId"),
        access_token=Secret(_text(document, "accessToken")),
        certificate=Secret(certificate) if certificate else None,
    )


def parse_definition(document: Mapping[str, Json]) -> TaskDefinition:
    """Read a task definition as `queue.task` or a claim gives it; absent keys get the Queue's own defaults."""
    levels = nesting(dict(document))
    return TaskDefinition(
        pool=_pool(document),
        scheduler_id=_text(document, "schedulerId", "-"),
        project_id=_text(document, "projectId", "none"),
        task_group_id=_text(document, "taskGroupId", ""),
        dependencies=_texts(document, "dependencies"),
        scopes=_texts(document, "scopes"),
        payload=_object(document, "payload"),
        created=_time(document, "created"),
        deadline=_time(document, "deadline"),
        expires=_time(document, "expires"),
        name=_text(_object(document, "metadata"), "name"),
        source=_text(_object(document, "metadata"), "source"),
        verbatim=document,
        defects=(f"the task is nested {levels} levels deep; at most {MAX_NESTING} are read",)
        if levels > MAX_NESTING
        else (),
    )


def _pool(document: Mapping[str, Json]) -> WorkerPool:
    """Prefer `taskQueueId`; the Queue's answers carry it and its two parts, which must then agree."""
    if "taskQueueId" not in document:
        return WorkerPool(_text(document, "provisionerId"), _text(document, "workerType"))
    pool = WorkerPool.parse(_text(document, "taskQueueId"))
    parts = (
        _text(document, "provisionerId", pool.provisioner_id),
        _text(document, "workerType", pool.worker_type),
    )
    if parts != (pool.provisioner_id, pool.worker_type):
        raise ValueError(f"taskQueueId is {pool}, but provisionerId and workerType are {parts[0]}/{parts[1]}")
    return pool


def parse_run(document: Mapping[str, Json]) -> tuple[TaskId, RunId]:
    """Read which run one of claimWork's `tasks` is about: enough, with its credentials, to resolve it."""
    run_id = document.get("runId")
    if not isinstance(run_id, int):
        raise ValueError(f"runId is {type(run_id).__name__}, a number is expected")
    return TaskId(_text(_object(document, "status"), "taskId")), RunId(run_id)


def parse_claim(document: Mapping[str, Json], identity: WorkerIdentity) -> Claim:
    """Read one of claimWork's `tasks`, which must be a claim of this very worker.

    Raises:
        ValueError: a key is missing or has the wrong type, or the claim is not for `identity`.
    """
    # 1. The run, and who the Queue says holds it.
    task_id, run_id = parse_run(document)
    task = parse_definition(_object(document, "task"))
    worker = WorkerIdentity(task.pool, _text(document, "workerGroup"), _text(document, "workerId"))
    # 2. It is us: a claim that was meant for another worker is none that we may work on.
    if worker != identity:
        raise ValueError(f"the claim is for {worker}, this worker is {identity}")
    taken_until = _time(document, "takenUntil")
    return Claim(
        task_id=task_id,
        run_id=run_id,
        worker=worker,
        taken_until=taken_until,
        credentials=parse_credentials(_object(document, "credentials")),
        task=task,
        length=_length(_object(document, "status"), run_id, taken_until),
    )


def _length(status: Mapping[str, Json], run_id: RunId, taken_until: datetime) -> timedelta | None:
    """Find out how long a claim is that was just made. What is not there, or is no sense, bounds nothing."""
    match status.get("runs"):
        case list(runs) if len(runs) > run_id:
            pass
        case _:
            return None
    match runs[run_id]:
        case {"started": str(started)}:
            try:
                length = taken_until - parse_time(started)
            except ValueError:
                return None
            return length if length > timedelta(0) else None
        case _:
            return None
