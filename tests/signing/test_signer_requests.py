"""What a signer can be asked for, what it refuses, and what it writes down before it answers."""

import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secureworker.audit.shards import LogKey, origin_of
from secureworker.core.audit import AuditRecord, Ending, Event, read_record
from secureworker.core.checkpoint import check_proof, parse_proof
from secureworker.core.errors import AuditError, BadPayload, HostError, KeyUnusable
from secureworker.core.ids import RunId, Sha256, WorkerIdentity
from secureworker.signing import wire
from secureworker.signing.client import SignerClient
from secureworker.signing.desk import Bounds, Desk, SignedRuns
from secureworker.signing.keys import SigningKey
from secureworker.signing.process import MAX_CLIENTS, Server, describe_error, requests
from secureworker.testing import IDENTITY, SHA256, TASK_ID, a_claim, an_artifact
from tests.signing.served import BOUNDS, LogTrail, a_statement, client_of, opened, records, serving


class SignersWord:
    """A ledger on a log."""

    def __init__(self, trail: LogTrail) -> None:
        self._trail = trail

    def write(self, record: AuditRecord) -> None:
        self._trail.write(record, "signer")


OTHER_POOL = {
    **a_claim().task.verbatim,
    "workerType": "other-pool",
    "taskQueueId": "test-provisioner/other-pool",
}


@pytest.fixture
def place(tmp_path: Path, key: SigningKey) -> Iterator[tuple[LogTrail, SignedRuns]]:
    with opened(tmp_path / "audit", key) as parts:
        yield parts


@pytest.fixture
def client(place: tuple[LogTrail, SignedRuns], key: SigningKey) -> Iterator[SignerClient]:
    with client_of(*place, key) as made:
        yield made


async def test_what_is_signed_is_written_down_and_the_proof_of_it_is_given(
    client: SignerClient, key: SigningKey, tmp_path: Path
) -> None:
    files = {str(file.name): file for file in await client.sign(a_statement(an_artifact("public/a")))}

    body = files["public/chain-of-trust.json"].content
    assert key.public.verifies(files["public/chain-of-trust.json.sig"].content, body)
    proof = parse_proof(files["public/audit.tlog-proof"].content)
    log_key = LogKey(key.public.raw, key.public.verifies).named(origin_of(IDENTITY, 1))
    check_proof(proof, proof.extra, log_key)
    record, stamp = read_record(proof.extra)
    assert record == records(tmp_path)[-1]
    assert (record.event, record.run, stamp.writer) == (Event.SIGNATURE, (TASK_ID, 0), "signer")
    assert dict(record.digests)["chainOfTrust"] == hashlib.sha256(body).hexdigest()
    assert dict(record.details) == {"key": key.public.fingerprint, "artifacts": 1}


async def test_a_signer_says_who_it_is(client: SignerClient, key: SigningKey) -> None:
    await client.hello(IDENTITY)

    assert client.public_key == key.public


async def test_the_signer_of_another_worker_is_not_used(client: SignerClient) -> None:
    with pytest.raises(HostError, match="the signer is that of test-provisioner/test-pool/test-group/test-worker"):
        await client.hello(WorkerIdentity(IDENTITY.pool, "test-group", "other"))


async def test_the_same_statement_is_signed_again_with_the_same_bytes(client: SignerClient) -> None:
    first, second = [await client.sign(a_statement()) for _ in range(2)]

    assert first[:2] == second[:2]


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        (
            replace(a_statement(), claim=replace(a_claim(), worker=WorkerIdentity(IDENTITY.pool, "g", "w"))),
            "refuses a statement of test-provisioner/test-pool/g/w",
        ),
        (
            replace(a_statement(), claim=replace(a_claim(), task=replace(a_claim().task, verbatim=OTHER_POOL))),
            "refuses a task of the pool test-provisioner/other-pool",
        ),
        (replace(a_statement(), policy_sha256=Sha256("0" * 64)), "signs under the policy 5f5f"),
        (replace(a_statement(), root_url="https://other.example.com"), "refuses a statement for https://other"),
        (a_statement(an_artifact("public/a"), an_artifact("public/a")), "listed twice"),
    ],
)
async def test_what_is_not_its_workers_to_say_is_refused_and_that_is_written_down(
    client: SignerClient, tmp_path: Path, statement: Any, why: str
) -> None:
    with pytest.raises(HostError, match=why):
        await client.sign(statement)

    (record,) = records(tmp_path)
    assert (record.event, record.ending, record.run) == (Event.REFUSAL, Ending.REFUSED, (TASK_ID, 0))


async def test_a_second_statement_for_a_run_is_refused_for_ever(
    client: SignerClient, place: tuple[LogTrail, SignedRuns], key: SigningKey, tmp_path: Path
) -> None:
    await client.sign(a_statement(an_artifact("public/a", b"one")))
    with pytest.raises(HostError, match="a different statement was already signed for the run"):
        await client.sign(a_statement(an_artifact("public/a", b"two")))
    client.close()
    place[0].log.close()

    with opened(tmp_path / "audit", key) as (trail, signed), client_of(trail, signed, key) as after:
        with pytest.raises(HostError, match="a different statement was already signed for the run"):
            await after.sign(a_statement(an_artifact("public/a", b"two")))
        await after.sign(a_statement(an_artifact("public/a", b"one")))
        other_run = replace(a_claim(), run_id=RunId(1))
        await after.sign(replace(a_statement(an_artifact("public/a", b"two")), claim=other_run))


async def test_what_cannot_be_written_down_is_not_signed(
    client: SignerClient, place: tuple[LogTrail, SignedRuns], tmp_path: Path
) -> None:
    (tmp_path / "audit" / "checkpoint.new").mkdir()

    with pytest.raises(AuditError, match="takes no more records"):
        await client.sign(a_statement())
    with pytest.raises(AuditError, match="takes no more records"):
        await client.append(AuditRecord(Event.WORKER_STOP))
    with pytest.raises(AuditError, match="takes no more records"):
        await client.check()


async def test_what_was_about_to_be_signed_when_the_log_failed_is_all_that_may_be(
    place: tuple[LogTrail, SignedRuns], key: SigningKey, tmp_path: Path
) -> None:
    trail, signed = place
    with client_of(trail, signed, key) as client:
        (tmp_path / "audit" / "checkpoint.new").mkdir()
        with pytest.raises(AuditError):
            await client.sign(a_statement(an_artifact("public/a", b"one")))

    assert len(signed) == 1
    assert signed.differs((a_claim().task_id, RunId(0)), b"two")


async def test_a_definition_that_cannot_be_written_is_its_authors_fault(client: SignerClient) -> None:
    deep: Any = 0
    for _ in range(2000):
        deep = [deep]
    claim = a_claim()
    too_deep = replace(claim, task=replace(claim.task, verbatim={**claim.task.verbatim, "extra": {"deep": deep}}))
    with pytest.raises(BadPayload, match="nested too deep"):
        await client.sign(replace(a_statement(), claim=too_deep))
    no_json = replace(claim, task=replace(claim.task, verbatim={**claim.task.verbatim, "extra": {"x": float("nan")}}))
    with pytest.raises(BadPayload, match="cannot be signed"):
        await client.sign(replace(a_statement(), claim=no_json))

    await client.sign(a_statement())


async def test_a_worker_can_have_its_own_events_written_down(client: SignerClient, tmp_path: Path) -> None:
    record = AuditRecord(Event.POLICY_LOAD, digests=(("policy", SHA256),), details=(("scripts", 2),))

    await client.check()
    await client.append(record)

    assert records(tmp_path) == [record]


async def test_without_policies_of_its_own_a_signer_signs_under_those_that_the_log_has_as_loaded(
    place: tuple[LogTrail, SignedRuns], key: SigningKey
) -> None:
    load = AuditRecord(Event.POLICY_LOAD, digests=(("policy", SHA256),))
    with client_of(*place, key, bounds=Bounds(IDENTITY)) as client:
        for before in (AuditRecord(Event.WORKER_START), replace(load, ending=Ending.FAILED)):
            await client.append(before)
            with pytest.raises(HostError, match=r"signs under the policy \(none yet\)"):
                await client.sign(a_statement())

        await client.append(load)
        await client.sign(a_statement())
        with pytest.raises(HostError, match="signs under the policy 5f5f"):
            await client.sign(replace(a_statement(), policy_sha256=Sha256("0" * 64)))
        with pytest.raises(HostError, match="has a digest"):
            await client.append(AuditRecord(Event.POLICY_LOAD))


@pytest.mark.parametrize(
    "event", [Event.SIGNATURE, Event.SIGNER_START, Event.RECOVERY, Event.ROTATION, Event.CLOCK_JUMP, Event.KEY_LOAD]
)
async def test_a_worker_cannot_speak_for_the_signer(client: SignerClient, tmp_path: Path, event: Event) -> None:
    with pytest.raises(HostError, match="is the signer's own to write"):
        await client.append(AuditRecord(event))

    assert records(tmp_path) == []


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"request": "sign-bytes", "bytes": "00"},
        {"request": "sign"},
        {"request": "sign", "statement": "text"},
        {"request": "sign", "statement": {}},
        {"request": "sign", "statement": {}, "more": 1},
        {"request": ["sign"], "statement": {}},
        {"request": "record", "record": {"event": "other"}},
        {"request": "record", "record": None},
        {"request": "check", "more": 1},
        {"request": "hello"},
    ],
)
def test_what_is_not_in_the_table_ends_the_conversation(
    place: tuple[LogTrail, SignedRuns], key: SigningKey, tmp_path: Path, message: dict[str, Any]
) -> None:
    with serving(*place, key) as channel:
        wire.send(channel, message)

        told = wire.receive(channel)
        assert told is not None
        assert told["error"] == "host"
        assert wire.receive(channel) is None
    assert records(tmp_path) == []


def test_a_worker_of_another_version_is_told_so(place: tuple[LogTrail, SignedRuns], key: SigningKey) -> None:
    with serving(*place, key) as channel:
        wire.send(channel, {"request": "hello", "protocol": 0})

        told = wire.receive(channel)
        assert told is not None
        assert "of one version" in told["reasons"][0]


def test_a_torn_message_ends_the_conversation(place: tuple[LogTrail, SignedRuns], key: SigningKey) -> None:
    with serving(*place, key) as channel:
        channel.sendall(b"\0\0\0\x05{")
        channel.shutdown(socket.SHUT_WR)
        told = wire.receive(channel)
        assert told is not None
        assert "in the middle of a message" in told["reasons"][0]


def test_a_client_that_resets_is_forgotten(place: tuple[LogTrail, SignedRuns], key: SigningKey) -> None:
    with serving(*place, key) as channel:
        wire.send(channel, {"request": "check"})
        wire.send(channel, {"request": "nothing"})
        # Closed with answers unread: the server's next message meets a broken pipe, or a reset.


def test_a_process_of_another_user_is_refused(place: tuple[LogTrail, SignedRuns], key: SigningKey) -> None:
    with serving(*place, key, allowed_uids=frozenset({4_000_000})) as channel:
        assert channel.recv(1) == b""


def test_there_are_only_so_many_clients(place: tuple[LogTrail, SignedRuns], key: SigningKey, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    stop, told = socket.socketpair()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        server = Server(requests(key, BOUNDS, place[0], place[1]), frozenset({os.geteuid()}), listener)
        thread = threading.Thread(target=server.serve, kwargs={"stop": stop})
        thread.start()
        clients = [socket.socket(socket.AF_UNIX) for _ in range(MAX_CLIENTS + 1)]
        for one in clients:
            one.settimeout(5)
            one.connect(path)
        for one in clients[:-1]:
            wire.send(one, {"request": "check"})
            assert wire.receive(one) == {}
        assert clients[-1].recv(1) == b""
        told.send(b"x")
        thread.join(5)
        for one in (*clients, stop, told):
            one.close()
    assert not thread.is_alive()


async def test_when_the_signer_is_gone_everything_fails(place: tuple[LogTrail, SignedRuns], key: SigningKey) -> None:
    ours, its = socket.socketpair()
    its.close()
    client = SignerClient(ours)

    for _ in range(2):
        with pytest.raises(HostError, match="the signer"):
            await client.sign(a_statement())
    with pytest.raises(HostError, match="nothing can be signed"):
        await client.check()


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"files": 5},
        {"files": [["public/../a", "", "text/plain"]]},
        {"files": [["public/a", "!", "text/plain"]]},
        {"files": [], "more": 1},
    ],
)
async def test_an_answer_that_is_none_is_refused(told: dict[str, Any]) -> None:
    ours, its = socket.socketpair()
    client = SignerClient(ours)
    wire.send(its, told)
    with its, pytest.raises(HostError, match="answer is none"):
        await client.sign(a_statement())
    client.close()


async def test_what_is_no_signer_is_not_taken_for_one() -> None:
    ours, its = socket.socketpair()
    client = SignerClient(ours)
    wire.send(its, {"version": "1", "pid": 1, "publicKey": "no key", "worker": {}})
    with its, pytest.raises(HostError, match="what answers as the signer is none"):
        await client.hello(IDENTITY)
    client.close()


@pytest.mark.parametrize(
    "error", [HostError("a"), AuditError("b"), KeyUnusable("c"), BadPayload(("d", "e")), BadPayload(())]
)
async def test_an_error_crosses_over_as_what_it_is(error: Exception) -> None:
    ours, its = socket.socketpair()
    client = SignerClient(ours)
    wire.send(its, describe_error(error))  # type: ignore[arg-type] # one of ours
    with its, pytest.raises(type(error)) as raised:
        await client.check()
    client.close()

    assert type(raised.value) is type(error)
    assert str(raised.value) == str(error)


async def test_an_answer_that_does_not_come_in_time_ends_the_conversation() -> None:
    ours, its = socket.socketpair()
    client = SignerClient(ours, answer_seconds=0.05)
    with its, pytest.raises(HostError, match="the signer does not answer: timed out"):
        await client.check()
    with pytest.raises(HostError, match="nothing can be signed"):
        await client.check()


async def test_a_definition_that_only_the_signer_finds_too_deep_is_its_authors_fault_and_written_down(
    place: tuple[LogTrail, SignedRuns], key: SigningKey, tmp_path: Path
) -> None:
    deep: Any = 0
    for _ in range(2000):
        deep = [deep]
    claim = a_claim()
    too_deep = replace(claim, task=replace(claim.task, verbatim={**claim.task.verbatim, "extra": {"deep": deep}}))
    desk = Desk(key, BOUNDS, SignersWord(place[0]), place[1])

    with pytest.raises(BadPayload, match="nested too deep"):
        desk.sign(replace(a_statement(), claim=too_deep))

    (record,) = records(tmp_path)
    assert record.event is Event.REFUSAL


def test_a_signer_remembers_only_so_many_runs() -> None:
    signed = SignedRuns(most=1)
    signed.remember((a_claim().task_id, RunId(0)), b"one")
    signed.remember((a_claim().task_id, RunId(0)), b"one")

    with pytest.raises(HostError, match="start it with a new audit log"):
        signed.remember((a_claim().task_id, RunId(1)), b"one")


def test_answers_are_json() -> None:
    assert json.dumps(describe_error(BadPayload(("a", "b")))) == '{"error": "payload", "reasons": ["a", "b"]}'
