"""What worker and signer say to each other: JSON objects, one after the other, each with its length before it.

A request names its kind, and everything else in it belongs to that kind. What the signer is told of a claim is what
goes into a statement: the credentials of a run never cross over.
"""

import json
import socket
import struct
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from secureworker.core.claim import Claim, Credentials, Secret, parse_definition, parse_time
from secureworker.core.doors import Traffic
from secureworker.core.ids import ArtifactName, RunId, ScriptName, Sha256, TaskId, WorkerIdentity, WorkerPool
from secureworker.core.outcome import Execution, ExitCode, ExitStatus, KilledBySignal, Usage
from secureworker.ports import Artifact, Statement, VerifiedInput

PROTOCOL: Final = 1
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
"""A statement over 10,000 artifacts with the longest names has 13 MB, and as base64 within an answer 18."""
_LENGTH: Final = struct.Struct(">I")
_PIECE_BYTES: Final = 1 << 20
_STATEMENT: Final = (
    *("taskId", "runId", "worker", "task", "execution", "artifacts"),
    *("policySha256", "script", "scriptSha256", "rootUrl", "inputs"),
)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)
_NOBODY: Final = Credentials("", Secret(""))


class BadFrame(ValueError):
    """What the other side sent is not in its form; nothing more is read from it."""


def send(channel: socket.socket, message: Mapping[str, Any]) -> None:
    """Send one message.

    Raises:
        BadFrame: it is larger than anything that is read.
        RecursionError, ValueError: it is no JSON.
        OSError: the other side is gone.
    """
    body = json.dumps(message, allow_nan=False, separators=(",", ":")).encode("ascii")
    if len(body) > MAX_FRAME_BYTES:
        raise BadFrame(f"a message of {len(body)} bytes is larger than any that is read")
    channel.sendall(_LENGTH.pack(len(body)) + body)


def receive(channel: socket.socket, most: int = MAX_FRAME_BYTES) -> dict[str, Any] | None:
    """Receive one message within the time-out of `channel`; None where the other side has ended.

    Raises:
        BadFrame: it is longer than `most`, torn, no JSON object, or has a key twice.
        OSError: it cannot be read, or did not come in time.
    """
    timeout = channel.gettimeout()
    try:
        return _receive(channel, most, None if timeout is None else time.monotonic() + timeout)
    finally:
        channel.settimeout(timeout)


def _receive(channel: socket.socket, most: int, deadline: float | None) -> dict[str, Any] | None:
    head = _exactly(channel, _LENGTH.size, deadline, end_is_fine=True)
    if not head:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > most:
        raise BadFrame(f"a message of {length} bytes is announced; at most {most} are read")
    try:
        message = json.loads(
            _exactly(channel, length, deadline), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"what was sent is no JSON: {error}") from error
    if not isinstance(message, dict):
        raise BadFrame("what was sent is no JSON object")
    return message


def _exactly(channel: socket.socket, length: int, deadline: float | None, *, end_is_fine: bool = False) -> bytes:
    received = bytearray()
    while len(received) < length:
        if deadline is not None:
            # At least a millisecond: 0 would mean not to wait at all, which says something else.
            channel.settimeout(max(deadline - time.monotonic(), 0.001))
        piece = channel.recv(min(length - len(received), _PIECE_BYTES))
        if not piece:
            if end_is_fine and not received:
                break
            raise BadFrame("the other side ended in the middle of a message")
        received += piece
    return bytes(received)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) != len(pairs):
        raise ValueError("a key is in one object twice")
    return built


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def exactly(message: Mapping[str, Any], *keys: str) -> tuple[Any, ...]:
    """Give the values of `keys`, in this order.

    Raises:
        BadFrame: one is missing, or there is another.
    """
    if set(message) != set(keys):
        raise BadFrame(f"the keys {', '.join(keys)} are expected")
    return tuple(message[key] for key in keys)


def statement_as_json(statement: Statement) -> dict[str, Any]:
    """Give what the signer is told of a run: no credential, no path of this host."""
    claim = statement.claim
    return {
        "taskId": claim.task_id,
        "runId": int(claim.run_id),
        "worker": worker_as_json(claim.worker),
        "task": dict(claim.task.verbatim),
        "execution": _execution_as_json(statement.execution),
        "artifacts": [
            [artifact.name, artifact.size, artifact.sha256, artifact.content_type, _time(artifact.expires)]
            for artifact in statement.artifacts
        ],
        "policySha256": statement.policy_sha256,
        "script": statement.script,
        "scriptSha256": statement.script_sha256,
        "rootUrl": statement.root_url,
        "inputs": [[one.task_id, int(one.run_id), one.name, one.sha256] for one in statement.inputs],
    }


def parse_statement(message: Mapping[str, Any]) -> Statement:
    """Read what `statement_as_json` gives.

    Raises:
        BadFrame: it is anything else.
    """
    task_id, run_id, worker, task, execution, artifacts, policy, script, script_sha256, root_url, inputs = exactly(
        message, *_STATEMENT
    )
    try:
        if type(run_id) is not int or not isinstance(root_url, str):
            raise BadFrame("the run id is a number, and the root URL a text")
        claim = Claim(TaskId(task_id), RunId(run_id), parse_worker(worker), _NEVER, _NOBODY, parse_definition(task))
        return Statement(
            claim,
            _parse_execution(execution),
            tuple(map(_parse_artifact, artifacts)),
            Sha256(policy),
            ScriptName(script),
            Sha256(script_sha256),
            root_url,
            tuple(map(_parse_input, inputs)),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise BadFrame(f"it is no statement: {error}") from error


def worker_as_json(worker: WorkerIdentity) -> dict[str, str]:
    """Give a worker as the wire has it."""
    return {"pool": str(worker.pool), "workerGroup": worker.worker_group, "workerId": worker.worker_id}


def parse_worker(message: Mapping[str, Any]) -> WorkerIdentity:
    """Read what `worker_as_json` gives; raise ValueError where it is anything else."""
    pool, group, worker_id = exactly(message, "pool", "workerGroup", "workerId")
    return WorkerIdentity(WorkerPool.parse(pool), group, worker_id)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _execution_as_json(execution: Execution) -> dict[str, Any]:
    usage = execution.usage
    return {
        "status": _status_as_json(execution.status),
        "started": _time(execution.started),
        "finished": _time(execution.finished),
        "usage": [usage.cpu_seconds, usage.memory_peak_bytes, usage.processes_peak],
        "runtime": execution.runtime,
        "templateSha256": execution.template_sha256,
        "bundleSha256": execution.bundle_sha256,
        "traffic": [
            [one.destination, one.connections, one.sent_bytes, one.received_bytes] for one in execution.traffic
        ],
        "unlimited": execution.unlimited,
    }


def _parse_execution(message: Mapping[str, Any]) -> Execution:
    keys = (
        "status",
        "started",
        "finished",
        "usage",
        "runtime",
        "templateSha256",
        "bundleSha256",
        "traffic",
        "unlimited",
    )
    status, started, finished, usage, runtime, template, bundle, traffic, unlimited = exactly(message, *keys)
    cpu_seconds, memory_peak, processes_peak = usage
    for number, kind in ((cpu_seconds, float), (memory_peak, int), (processes_peak, int)):
        if number is not None and type(number) not in {int, kind}:
            raise BadFrame("what a run used is in numbers")
    if not isinstance(runtime, str) or not isinstance(unlimited, bool):
        raise BadFrame("the runtime is a text, and unlimited true or false")
    return Execution(
        _parse_status(status),
        parse_time(started),
        parse_time(finished),
        Usage(cpu_seconds, memory_peak, processes_peak),
        runtime,
        Sha256(template),
        Sha256(bundle),
        tuple(map(_parse_traffic, traffic)),
        unlimited,
    )


def _parse_traffic(message: Any) -> Traffic:
    destination, *counts = message
    connections, sent, received = counts
    if not isinstance(destination, str) or not all(type(count) is int and count >= 0 for count in counts):
        raise BadFrame("traffic is a destination and three counts")
    return Traffic(destination, connections, sent, received)


def _status_as_json(status: ExitStatus) -> list[int | bool]:
    return [status.code] if isinstance(status, ExitCode) else [status.signal, status.out_of_memory]


def _parse_status(status: Any) -> ExitStatus:
    match status:
        case [int(code)] if type(code) is int:
            return ExitCode(code)
        case [int(number), bool(out_of_memory)] if type(number) is int:
            return KilledBySignal(number, out_of_memory)
        case _:
            raise BadFrame("an exit status is a code, or a signal and whether memory ran out")


def _parse_input(message: Any) -> VerifiedInput:
    task_id, run_id, name, sha256 = message
    if type(run_id) is not int:
        raise BadFrame("the run id of an input is a number")
    return VerifiedInput(TaskId(task_id), RunId(run_id), ArtifactName(name), Sha256(sha256))


def _parse_artifact(message: Any) -> Artifact:
    name, size, sha256, content_type, expires = message
    if type(size) is not int or size < 0 or not isinstance(content_type, str):
        raise BadFrame("an artifact has a size, and a content type")
    return Artifact(ArtifactName(name), size, Sha256(sha256), "", content_type, parse_time(expires))
