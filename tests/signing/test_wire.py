"""What crosses between worker and signer, and what does not."""

import socket
import struct
from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from datetime import timedelta
from typing import Any

import pytest

from secureworker.core.claim import Credentials, Secret
from secureworker.core.doors import Traffic
from secureworker.core.ids import ArtifactName, RunId, Sha256, TaskId
from secureworker.core.outcome import KilledBySignal, Usage
from secureworker.ports import VerifiedInput
from secureworker.signing import wire
from secureworker.signing.wire import BadFrame, parse_statement, statement_as_json
from secureworker.testing import EPOCH, SHA256, TASK_ID, an_artifact, an_execution
from tests.signing.served import a_statement

STATEMENT = replace(
    a_statement(an_artifact("public/a", b"content"), payload={"text": "ä\U0001f600", "number": 1.5}),
    execution=replace(
        an_execution(KilledBySignal(9, out_of_memory=True), EPOCH, EPOCH + timedelta(seconds=1.25)),
        usage=Usage(0.25, 1024, None),
        traffic=(Traffic("example.com:443", 2, 100, 10_000),),
        unlimited=True,
    ),
    inputs=(VerifiedInput(TaskId(TASK_ID), RunId(2), ArtifactName("public/in"), SHA256),),
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair()
    for end in ends:
        end.settimeout(5)
    yield ends
    for end in ends:
        end.close()


@pytest.mark.parametrize("statement", [STATEMENT, a_statement()])
def test_a_statement_crosses_over_without_the_runs_credentials(statement: Any) -> None:
    crossed = parse_statement(statement_as_json(statement))

    # Nor its times: when a claim ends is nothing that is signed.
    without = {"credentials": Credentials("", Secret("")), "taken_until": crossed.claim.taken_until, "length": None}
    claim = replace(statement.claim, **without)
    artifacts = tuple(replace(artifact, path="") for artifact in statement.artifacts)
    assert crossed == replace(statement, claim=claim, artifacts=artifacts)
    assert "a-secret" not in repr(statement_as_json(statement))
    assert "nonexistent" not in repr(statement_as_json(statement))


def test_every_field_of_a_statement_crosses_over() -> None:
    """A field that somebody adds later must be added to the wire, or the signer would not know of it."""
    for value in (STATEMENT, STATEMENT.execution):
        for field in fields(value):
            default = field.default if field.default is not MISSING else None
            assert getattr(value, field.name) != default, field.name


def _changed(key: str, value: Any) -> dict[str, Any]:
    return {**statement_as_json(STATEMENT), key: value}


@pytest.mark.parametrize(
    "message",
    [
        {},
        {**statement_as_json(STATEMENT), "extra": 1},
        _changed("taskId", "short"),
        _changed("runId", 1.0),
        _changed("runId", 1001),
        _changed("runId", "0"),
        _changed("rootUrl", 1),
        _changed("worker", {"pool": "x"}),
        _changed("worker", []),
        _changed("task", {}),
        _changed("task", None),
        _changed("script", "Not A Name"),
        _changed("scriptSha256", "5f"),
        _changed("policySha256", None),
        _changed("artifacts", [["public/../a", 1, SHA256, "text/plain", "2026-01-31T12:00:00Z"]]),
        _changed("artifacts", [["public/a", -1, SHA256, "text/plain", "2026-01-31T12:00:00Z"]]),
        _changed("artifacts", [["public/a", 1, SHA256, None, "2026-01-31T12:00:00Z"]]),
        _changed("artifacts", [["public/a", 1, SHA256, "text/plain", "yesterday"]]),
        _changed("artifacts", [["public/a"]]),
        _changed("artifacts", 5),
        _changed("inputs", [[TASK_ID, True, "public/in", SHA256]]),
        _changed("inputs", [[TASK_ID]]),
        _changed("execution", {**statement_as_json(STATEMENT)["execution"], "status": [True]}),
        _changed("execution", {**statement_as_json(STATEMENT)["execution"], "status": []}),
        _changed("execution", {**statement_as_json(STATEMENT)["execution"], "status": [9, 1]}),
        _changed("execution", {**statement_as_json(STATEMENT)["execution"], "usage": ["1", None, None]}),
        _changed("execution", {**statement_as_json(STATEMENT)["execution"], "usage": [1]}),
        _changed("execution", {**statement_as_json(STATEMENT)["execution"], "runtime": 1}),
        _changed("execution", {**statement_as_json(STATEMENT)["execution"], "unlimited": "none"}),
        _changed("execution", {**statement_as_json(STATEMENT)["execution"], "traffic": [["a:1", 1, 1, -1]]}),
        _changed("execution", {**statement_as_json(STATEMENT)["execution"], "traffic": [[1, 1, 1, 1]]}),
        _changed("execution", {**statement_as_json(STATEMENT)["execution"], "traffic": [["a:1"]]}),
        _changed("execution", {**statement_as_json(STATEMENT)["execution"], "started": 5}),
    ],
)
def test_what_has_another_form_is_no_statement(message: dict[str, Any]) -> None:
    with pytest.raises(BadFrame):
        parse_statement(message)


def test_messages_come_out_as_they_went_in(pair: tuple[socket.socket, socket.socket]) -> None:
    for message in ({}, {"a": [1, "ä", None]}):
        wire.send(pair[0], message)
        assert wire.receive(pair[1]) == message
    pair[0].close()
    assert wire.receive(pair[1]) is None
    assert pair[1].gettimeout() == 5


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"\xff\xff\xff\xff", "at most 1000 are read"),
        (struct.pack(">I", 1001), "at most 1000 are read"),
        (b"\0\0", "in the middle"),
        (struct.pack(">I", 10) + b"{}", "in the middle"),
        (struct.pack(">I", 2) + b"[]", "no JSON object"),
        (struct.pack(">I", 2) + b"{{", "no JSON"),
        (struct.pack(">I", 2) + b"\xff\xff", "no JSON"),
        (struct.pack(">I", 13) + b'{"a":1,"a":1}', "twice"),
        (struct.pack(">I", 9) + b'{"a":NaN}', "no JSON"),
    ],
)
def test_what_is_no_message_is_refused(pair: tuple[socket.socket, socket.socket], sent: bytes, why: str) -> None:
    pair[0].sendall(sent)
    pair[0].shutdown(socket.SHUT_WR)

    with pytest.raises(BadFrame, match=why):
        wire.receive(pair[1], most=1000)


def test_nesting_without_end_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    body = b'{"a":' + b"[" * 50_000
    pair[0].sendall(struct.pack(">I", len(body)) + body)

    with pytest.raises(BadFrame, match="no JSON"):
        wire.receive(pair[1])


def test_a_message_must_come_in_time_and_not_only_each_of_its_bytes(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].settimeout(0.05)
    pair[0].sendall(struct.pack(">I", 10) + b"{")

    with pytest.raises(TimeoutError):
        wire.receive(pair[1])


def test_a_message_without_a_time_limit_is_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].settimeout(None)
    wire.send(pair[0], {"a": 1})

    assert wire.receive(pair[1]) == {"a": 1}


def test_a_message_larger_than_any_that_is_read_is_not_sent(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(BadFrame, match="larger than any"):
        wire.send(pair[0], {"a": "x" * wire.MAX_FRAME_BYTES})


def test_a_digest_stays_one() -> None:
    assert isinstance(parse_statement(statement_as_json(STATEMENT)).policy_sha256, Sha256)
