"""Names and numbers that have a form: parsed once, then trusted.

Each type checks its form when it is made, so that a value that exists is legal. Forms are those of
Taskcluster's published schemas (queue v1). Nothing here looks anything up.
"""

import re
from dataclasses import dataclass
from typing import Self

_SLUG = re.compile(r"[A-Za-z0-9_-]{8}[Q-T][A-Za-z0-9_-][CGKOSWaeimquy26-][A-Za-z0-9_-]{10}[AQgw]")
_IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,38}")
_WORKER_TYPE = re.compile(r"[a-z]([-a-z0-9]{0,36}[a-z0-9])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCRIPT_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_ARTIFACT_NAME = re.compile(r"[\x20-\x7e]{1,1024}")
MAX_RUN_ID = 1000
"""The largest run id of Taskcluster's schemas."""


class TaskId(str):
    """A slugid: 22 characters of URL-safe base64, a version 4 UUID."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        """Raise ValueError where `value` is no slugid."""
        if not _SLUG.fullmatch(value):
            raise ValueError(f"{value!r} is no task id: 22 characters of URL-safe base64 are expected")
        return super().__new__(cls, value)


class RunId(int):
    """The number of a task's run, from 0."""

    __slots__ = ()

    def __new__(cls, value: int) -> Self:
        """Raise ValueError outside 0 to `MAX_RUN_ID`."""
        if isinstance(value, bool) or not 0 <= value <= MAX_RUN_ID:
            raise ValueError(f"{value!r} is no run id: a number from 0 to {MAX_RUN_ID} is expected")
        return super().__new__(cls, value)


class Sha256(str):
    """A SHA-256 digest as 64 lower-case hexadecimal digits."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        """Raise ValueError where `value` is no such digest."""
        if not _SHA256.fullmatch(value):
            raise ValueError(f"{value!r} is no sha256: 64 lower-case hexadecimal digits are expected")
        return super().__new__(cls, value)


class ScriptName(str):
    """The key of a rule under `scripts:` in the policy."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        """Raise ValueError where `value` is no such name."""
        if not _SCRIPT_NAME.fullmatch(value):
            raise ValueError(f"{value!r} is no script name: lower-case letters, digits and dashes are expected")
        return super().__new__(cls, value)


class ArtifactName(str):
    """The name of an artifact, as the Queue takes it (printable ASCII), and without `..`, `.` or empty segments."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        """Raise ValueError where the Queue, or a reader's file system, would not take `value`."""
        if not _ARTIFACT_NAME.fullmatch(value):
            raise ValueError(f"{value[:80]!r} is no artifact name: 1 to 1024 printable ASCII characters are expected")
        if any(segment in {"", ".", ".."} for segment in value.split("/")):
            raise ValueError(f"{value[:80]!r} is no artifact name: it has an empty segment, '.' or '..'")
        return super().__new__(cls, value)


def _check_identifier(what: str, value: str) -> None:
    if not _IDENTIFIER.fullmatch(value):
        raise ValueError(f"{value[:80]!r} is no {what}: 1 to 38 letters, digits, '-' or '_' are expected")


@dataclass(frozen=True, slots=True)
class WorkerPool:
    """`<provisionerId>/<workerType>`, also called task queue id."""

    provisioner_id: str
    worker_type: str

    def __post_init__(self) -> None:
        _check_identifier("provisioner id", self.provisioner_id)
        if not _WORKER_TYPE.fullmatch(self.worker_type):
            raise ValueError(
                f"{self.worker_type[:80]!r} is no worker type: [a-z]([-a-z0-9]{{0,36}}[a-z0-9])? is expected"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `a/b`; raise ValueError where it is anything else."""
        provisioner_id, slash, worker_type = text.partition("/")
        if not slash:
            raise ValueError(f"{text[:80]!r} is no worker pool: <provisionerId>/<workerType> is expected")
        return cls(provisioner_id, worker_type)

    def __str__(self) -> str:
        return f"{self.provisioner_id}/{self.worker_type}"


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Who this worker is at the Queue."""

    pool: WorkerPool
    worker_group: str
    worker_id: str

    def __post_init__(self) -> None:
        _check_identifier("worker group", self.worker_group)
        _check_identifier("worker id", self.worker_id)

    def __str__(self) -> str:
        return f"{self.pool}/{self.worker_group}/{self.worker_id}"
