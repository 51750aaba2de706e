"""What is written into the audit log: the vocabulary of its records, and their one form as bytes.

A record says who, what, when, for which task and run, with which digests, and how it ended. Every event has its own
closed list of details; there is no place for anything else, and so none for a secret.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, TypeAlias

import rfc8785

from secureworker.core.ids import RunId, Sha256, TaskId, WorkerIdentity, WorkerPool

VERSION: Final = 1
MAX_TEXT: Final = 2000
"""Characters of a detail; longer ones are cut by `text`. With 8 details, a line stays below `MAX_LINE_BYTES`."""
MAX_LINE_BYTES: Final = 256 * 1024
_MAX_INTEGER: Final = 2**53 - 1
"""JSON's numbers are doubles to most readers (RFC 7493 section 2.2)."""
_BOOT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Detail: TypeAlias = str | int | bool


class BadRecord(ValueError):
    """A record is not in its form."""


class Event(Enum):
    """What happened."""

    WORKER_START = "worker-start"
    WORKER_STOP = "worker-stop"
    POLICY_LOAD = "policy-load"
    SWEEP = "sweep"
    """What an earlier worker left on the host, whose end was none of its own, was removed before the first claim."""
    SELF_TEST = "self-test"
    CLAIM = "claim"
    DECISION = "decision"
    INPUT_VERIFICATION = "input-verification"
    CREDENTIAL_ISSUE = "credential-issue"
    SANDBOX_START = "sandbox-start"
    SANDBOX_END = "sandbox-end"
    SEAL = "seal"
    UPLOAD = "upload"
    RESOLVE = "resolve"
    SIGNER_START = "signer-start"
    SIGNER_STOP = "signer-stop"
    KEY_LOAD = "key-load"
    SIGNATURE = "signature"
    REFUSAL = "refusal"
    """The signer refused to sign."""
    RECOVERY = "recovery"
    """What the log's last stop left behind was removed."""
    ROTATION = "rotation"
    """The first record of every shard but the first: what the shard before ended with."""
    CLOCK_JUMP = "clock-jump"


class Ending(Enum):
    """How it ended."""

    OK = "ok"
    REFUSED = "refused"
    """By a rule."""
    FAILED = "failed"


DETAILS: Final[Mapping[Event, frozenset[str]]] = {
    Event.WORKER_START: frozenset({"version", "pid"}),
    Event.WORKER_STOP: frozenset({"reason", "tasks"}),
    Event.POLICY_LOAD: frozenset({"pool", "rootUrl", "scripts"}),
    Event.SWEEP: frozenset({"containers", "workspaces", "logs", "secrets"}),
    Event.SELF_TEST: frozenset({"runtime", "probes", "reason"}),
    Event.CLAIM: frozenset({"takenUntil", "name", "taskGroupId", "reason"}),
    Event.DECISION: frozenset({"script", "rules", "reasons"}),
    Event.INPUT_VERIFICATION: frozenset({"upstreamTaskId", "upstreamRunId", "artifact", "pool", "key", "reason"}),
    Event.CREDENTIAL_ISSUE: frozenset({"scopes", "routes", "destinations", "secrets", "reason"}),
    Event.SANDBOX_START: frozenset({"script", "uid"}),
    Event.SANDBOX_END: frozenset({"exitCode", "signal", "outOfMemory", "runtime", "seconds", "reason"}),
    Event.SEAL: frozenset({"artifacts", "bytes", "reason"}),
    Event.UPLOAD: frozenset({"artifacts", "bytes", "reason"}),
    Event.RESOLVE: frozenset({"resolution", "reason"}),
    Event.SIGNER_START: frozenset({"version", "pid", "uid", "seccomp"}),
    Event.SIGNER_STOP: frozenset({"reason"}),
    Event.KEY_LOAD: frozenset({"scheme", "fingerprint"}),
    Event.SIGNATURE: frozenset({"key", "statement", "artifacts"}),
    Event.REFUSAL: frozenset({"request", "reason"}),
    Event.RECOVERY: frozenset({"bytes", "lines"}),
    Event.ROTATION: frozenset({"origin", "size"}),
    Event.CLOCK_JUMP: frozenset({"milliseconds", "since"}),
}
"""The details that each event may have. None of them is ever made of a credential."""

SIGNERS_OWN: Final = frozenset(
    {
        Event.SIGNER_START,
        Event.SIGNER_STOP,
        Event.KEY_LOAD,
        Event.SIGNATURE,
        Event.REFUSAL,
        Event.RECOVERY,
        Event.ROTATION,
        Event.CLOCK_JUMP,
    }
)
"""Written by the signer about itself; no worker may ask for one of these."""

DIGESTS: Final = frozenset(
    {
        "policy",
        "trust",
        "task",
        "script",
        "sandboxTemplate",
        "sandboxBundle",
        "artifacts",
        "artifact",
        "chainOfTrust",
        "provenance",
        "verificationSummary",
        "previousRoot",
        "dropped",
    }
)


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """What happened, without when and who: those are the signer's to say."""

    event: Event
    ending: Ending = Ending.OK
    run: tuple[TaskId, RunId] | None = None
    digests: tuple[tuple[str, Sha256], ...] = ()
    details: tuple[tuple[str, Detail], ...] = ()

    def __post_init__(self) -> None:
        for what, given, known in (
            ("digest", self.digests, DIGESTS),
            ("detail", self.details, DETAILS[self.event]),
        ):
            names = [name for name, _ in given]
            unknown = sorted(set(names) - known)
            if unknown or len(set(names)) != len(names):
                raise BadRecord(f"a record of {self.event.value} has no {what} {', '.join(unknown) or 'twice'}")
        for name, value in self.details:
            _check_detail(name, value)


def _check_detail(name: str, value: object) -> None:
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise BadRecord(f"the detail {name} has {len(value)} characters; at most {MAX_TEXT} are written")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise BadRecord(f"the detail {name} holds half of a surrogate pair, which no UTF-8 can")
    elif not isinstance(value, int) or abs(value) > _MAX_INTEGER:
        raise BadRecord(f"the detail {name} is neither text nor boolean nor a whole number that JSON can hold")


def text(value: str) -> str:
    """Make a detail of any text: what no UTF-8 can hold is replaced, and what is too long is cut."""
    whole = value.encode("utf-8", "replace").decode()
    return whole if len(whole) <= MAX_TEXT else f"{whole[: MAX_TEXT - 1]}…"


@dataclass(frozen=True, slots=True)
class Stamp:
    """Who wrote a record, and when."""

    index: int
    """In its shard, from 0."""
    time: datetime
    """Of the wall clock, aware; milliseconds count."""
    monotonic_ms: int
    """Since the boot that `boot` names (CLOCK_BOOTTIME)."""
    boot: str
    """The kernel's `random/boot_id`."""
    writer: str
    """`worker` or `signer`."""
    worker: WorkerIdentity

    def __post_init__(self) -> None:
        if self.writer not in {"worker", "signer"}:
            raise BadRecord("a record's writer is the worker or the signer")
        if not _BOOT.fullmatch(self.boot):
            raise BadRecord("a record's boot id has another form")
        for number in (self.index, self.monotonic_ms):
            if type(number) is not int or not 0 <= number <= _MAX_INTEGER:
                raise BadRecord("a record's index and monotonic time are whole numbers, 0 or more")


def record_as_json(record: AuditRecord) -> dict[str, Any]:
    """Give what a worker says; the form in which it asks for a record."""
    document: dict[str, Any] = {
        "event": record.event.value,
        "outcome": record.ending.value,
        "digests": {name: str(digest) for name, digest in record.digests},
        "details": dict(record.details),
    }
    if record.run is not None:
        document["run"] = {"taskId": str(record.run[0]), "runId": int(record.run[1])}
    return document


def parse_record(document: object) -> AuditRecord:
    """Read what `record_as_json` gives.

    Raises:
        BadRecord: it is anything else.
    """
    try:
        if not isinstance(document, dict):
            raise BadRecord("no object")
        body = {"run": None, **document}
        if set(body) != {"event", "outcome", "run", "digests", "details"}:
            raise BadRecord("its keys are not event, outcome, digests, details and perhaps run")
        if not isinstance(body["digests"], dict) or not isinstance(body["details"], dict):
            raise BadRecord("digests and details are objects")
        return AuditRecord(
            Event(body["event"]),
            Ending(body["outcome"]),
            _parse_run(body["run"]),
            tuple((name, Sha256(digest)) for name, digest in sorted(body["digests"].items())),
            tuple(sorted(body["details"].items())),
        )
    except (ValueError, TypeError) as error:
        raise BadRecord(f"it is no audit record: {error}") from error


def _parse_run(run: object) -> tuple[TaskId, RunId] | None:
    if run is None:
        return None
    if not isinstance(run, dict) or set(run) != {"taskId", "runId"} or type(run["runId"]) is not int:
        raise BadRecord("a run has exactly a task id and a run id")
    return TaskId(run["taskId"]), RunId(run["runId"])


def write_record(record: AuditRecord, stamp: Stamp) -> bytes:
    """Give the record's bytes: canonical JSON (RFC 8785), without a newline. They are the leaf of the log's tree."""
    worker = stamp.worker
    return rfc8785.dumps(
        {
            **record_as_json(record),
            "version": VERSION,
            "index": stamp.index,
            "time": stamp.time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "monotonicMs": stamp.monotonic_ms,
            "bootId": stamp.boot,
            "writer": stamp.writer,
            "worker": {
                "pool": str(worker.pool),
                "workerGroup": worker.worker_group,
                "workerId": worker.worker_id,
            },
        }
    )


def read_record(line: bytes) -> tuple[AuditRecord, Stamp]:
    """Read one line of a log, without its newline. There is one form: what is read would be written the same.

    Raises:
        BadRecord: it is no record of this version, or is written in another form.
    """
    if len(line) > MAX_LINE_BYTES:
        raise BadRecord(f"it has more than {MAX_LINE_BYTES} bytes")
    try:
        document = json.loads(line)
        if not isinstance(document, dict) or document.pop("version") != VERSION:
            raise BadRecord("it is no record of version 1")
        worker = document.pop("worker")
        stamp = Stamp(
            document.pop("index"),
            datetime.fromisoformat(document.pop("time")),
            document.pop("monotonicMs"),
            document.pop("bootId"),
            document.pop("writer"),
            WorkerIdentity(WorkerPool.parse(worker["pool"]), worker["workerGroup"], worker["workerId"]),
        )
        record = parse_record(document)
        same = write_record(record, stamp) == line
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, rfc8785.CanonicalizationError) as error:
        raise BadRecord(f"it is no audit record: {error}") from error
    if not same:
        raise BadRecord("it is not written in its canonical form")
    return record, stamp
