"""A witness over real HTTP: what it signs is kept, what it refuses is an alarm, what else it says is nothing."""

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from click.testing import CliRunner

from secureworker.audit.inspect import STEP_COUNT, verify_log
from secureworker.audit.journal import Journal
from secureworker.audit.proofs import prove, verify_proof
from secureworker.audit.push import Push
from secureworker.audit.watch import Watch
from secureworker.audit.witness import LIMITS, Pusher, Store, Witness, checkpoint_of
from secureworker.cli.main import cli
from secureworker.core.checkpoint import BadNote, Checkpoint, sign_checkpoint, write_proof
from secureworker.core.errors import AuditError, ServiceError
from secureworker.core.witness import (
    WitnessKey,
    check_cosigned,
    cosignature_message,
    parse_vkey,
    read_conflict,
    with_cosignature,
    write_request,
)
from secureworker.host.http import open_session
from secureworker.signing.publickeys import PublicKey
from secureworker.testing import IDENTITY
from tests.audit.conftest import Place, a_key, fill, log_key
from tests.audit.witness_server import TIME, WitnessServer

ORIGIN = f"secureworker/{IDENTITY}/000001"


@pytest.fixture
async def witness(place: Place) -> AsyncIterator[WitnessServer]:
    async with WitnessServer(place.key) as served:
        yield served


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session(LIMITS) as opened:
        yield opened


@pytest.fixture
async def pusher(
    place: Place, witness: WitnessServer, session: aiohttp.ClientSession, tmp_path: Path
) -> AsyncIterator[Pusher]:
    store = Store(str(tmp_path / "witnessed"), witness.witness_key)
    yield Pusher(str(place.directory), Witness(session, witness.url, witness.witness_key), store)
    store.close()


def kept(tmp_path: Path, shard: int = 1) -> bytes:
    return (tmp_path / "witnessed" / f"{shard:06d}.checkpoint").read_bytes()


# What a witness signs


async def test_a_witness_signs_for_a_log_as_it_grows_and_that_is_kept(
    place: Place, witness: WitnessServer, pusher: Pusher, tmp_path: Path
) -> None:
    for count in (1, 2, 5, 6):
        fill(place, count)
        (checkpoint,) = await pusher.push()
        assert witness.state[ORIGIN] == checkpoint

    assert witness.asked == [(0, 1), (1, 3), (3, 8), (8, 14)]
    note = kept(tmp_path)
    assert note.startswith(place.checkpoint().read_bytes())
    assert check_cosigned(note, witness.witness_key).timestamp() == TIME
    assert (tmp_path / "witnessed" / "000001.checkpoint").stat().st_mode & 0o777 == 0o644


async def test_what_is_signed_for_already_is_not_asked_again(
    place: Place, witness: WitnessServer, pusher: Pusher
) -> None:
    fill(place, 3)
    assert len(await pusher.push()) == 1

    assert await pusher.push() == []
    assert len(witness.asked) == 1


async def test_each_shard_is_a_log_of_its_own_to_the_witness(
    place: Place, witness: WitnessServer, pusher: Pusher, tmp_path: Path
) -> None:
    place.shard_records = 4
    fill(place, 6)

    assert [checkpoint.size for checkpoint in await pusher.push()] == [4, 3]
    assert len(witness.state) == 2
    check_cosigned(kept(tmp_path, 2), witness.witness_key)


async def test_an_empty_log_is_not_shown(place: Place, witness: WitnessServer, pusher: Pusher) -> None:
    fill(place, 0)

    assert await pusher.push() == []
    assert witness.asked == []


async def test_a_store_that_was_lost_is_made_anew_with_what_the_witness_knows(
    place: Place, witness: WitnessServer, pusher: Pusher, tmp_path: Path
) -> None:
    fill(place, 3)
    await pusher.push()
    (tmp_path / "witnessed" / "000001.checkpoint").unlink()
    fill(place, 2)

    await pusher.push()

    assert witness.asked == [(0, 3), (0, 5), (3, 5)]
    check_cosigned(kept(tmp_path), witness.witness_key)


@pytest.mark.parametrize("content", [b"", b"nonsense", bytes(100_000), b"\n\n"])
async def test_a_store_that_was_changed_is_made_anew(
    place: Place, witness: WitnessServer, pusher: Pusher, tmp_path: Path, content: bytes
) -> None:
    fill(place, 3)
    await pusher.push()
    (tmp_path / "witnessed" / "000001.checkpoint").write_bytes(content)

    await pusher.push()

    check_cosigned(kept(tmp_path), witness.witness_key)


async def test_a_log_is_pushed_while_a_record_is_under_way(place: Place, pusher: Pusher) -> None:
    fill(place, 3)
    with place.records().open("ab") as file:
        file.write(b'{"half of a rec')

    (checkpoint,) = await pusher.push()

    assert checkpoint.size == 3


# What it refuses


async def test_a_log_that_was_cut_is_found_out_by_its_witness(
    place: Place, witness: WitnessServer, pusher: Pusher, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    fill(place, 2)
    earlier = place.files()
    fill(place, 3)
    await pusher.push()
    for name, content in earlier.items():
        (place.directory / name).write_bytes(content)

    # By who remembers, and by who has forgotten everything.
    other = Pusher(
        str(place.directory),
        Witness(session, witness.url, witness.witness_key),
        Store(str(tmp_path / "new"), witness.witness_key),
    )
    with pytest.raises(AuditError, match="do not come to its checkpoint"):
        await pusher.push()
    with pytest.raises(AuditError, match=r"has seen 5 records of .*, which has 2 here"):
        await other.push()
    assert kept(tmp_path).startswith(ORIGIN.encode() + b"\n5\n")


async def test_a_log_that_has_less_than_was_cosigned_is_found_out_without_the_witness(
    place: Place, witness: WitnessServer, pusher: Pusher
) -> None:
    fill(place, 2)
    earlier = place.files()
    fill(place, 3)
    await pusher.push()
    for name, content in earlier.items():
        (place.directory / name).write_bytes(content)

    # Started anew, with the store that it had.
    pusher._shards.clear()
    with pytest.raises(AuditError, match="5 records were cosigned, and the log has 2: it was cut, or replaced"):
        await pusher.push()
    assert len(witness.asked) == 1


async def test_what_cannot_be_kept_is_said(place: Place, pusher: Pusher, tmp_path: Path) -> None:
    fill(place, 2)
    (tmp_path / "witnessed").rmdir()

    with pytest.raises(AuditError, match="a cosigned checkpoint cannot be kept: No such file or directory"):
        await pusher.push()


@pytest.mark.parametrize("count", [5, 8], ids=["same size", "larger"])
async def test_a_log_that_was_written_anew_is_found_out_by_its_witness(
    place: Place, witness: WitnessServer, pusher: Pusher, session: aiohttp.ClientSession, tmp_path: Path, count: int
) -> None:
    fill(place, 5)
    await pusher.push()
    anew = Place(tmp_path / "anew", key=place.key)
    anew.clocks.pass_time(100)
    fill(anew, count)

    thief = Pusher(
        str(anew.directory),
        Witness(session, witness.url, witness.witness_key),
        Store(str(tmp_path / "x"), witness.witness_key),
    )
    with pytest.raises(AuditError, match=r"has seen 5 records|does not take the proof"):
        await thief.push()
    # With our own store as well, which he has copied.
    pusher.directory = str(anew.directory)
    pusher._shards.clear()
    with pytest.raises(AuditError, match=r"has seen 5 records|does not take the proof"):
        await pusher.push()
    assert witness.state[ORIGIN].size == 5


async def test_a_log_whose_records_do_not_come_to_its_checkpoint_is_not_shown(
    place: Place, witness: WitnessServer, pusher: Pusher
) -> None:
    fill(place, 3)
    lines = place.records().read_bytes()
    place.records().write_bytes(lines.replace(b'"pid":1', b'"pid":7'))

    with pytest.raises(AuditError, match="do not come to its checkpoint"):
        await pusher.push()
    assert witness.asked == []


async def test_a_log_that_the_witness_does_not_know_is_said_to_be_unknown(
    place: Place, witness: WitnessServer, pusher: Pusher
) -> None:
    fill(place, 1)
    witness.log = a_key()

    with pytest.raises(AuditError, match="does not know this log's key"):
        await pusher.push()


# What else it may answer


async def answered(witness: WitnessServer, **response: object) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(**response)  # type: ignore[arg-type]  # each has its type

    witness.instead = answer


@pytest.mark.parametrize(
    ("response", "says"),
    [
        ({"status": 500}, "answers with 500"),
        ({"status": 302, "headers": {"Location": "/w/add-checkpoint"}}, "answers with 302"),
        ({"status": 307, "headers": {"Location": "/w/add-checkpoint"}}, "answers with 307"),
        ({"text": "<html><body>Welcome to the café</body></html>", "content_type": "text/html"}, "are none"),
        ({"text": ""}, "is not cosigned by the witness"),
        ({"body": b"\xff\xfe"}, "are none"),
        ({"text": "\u2014 witness.example.org/w1 AAAA\n"}, "is not cosigned by the witness"),
        ({"text": "\u2014 witness.example.org/w1 !!!!\n"}, "are none"),
        ({"status": 409, "text": "not a size"}, "does not say which"),
        ({"status": 409, "text": "007\n"}, "does not say which"),
        ({"status": 409, "text": "-1\n"}, "does not say which"),
        ({"status": 409, "text": "9" * 40}, "does not say which"),
    ],
)
async def test_what_is_no_answer_of_a_witness_is_kept_nowhere(
    place: Place, witness: WitnessServer, pusher: Pusher, tmp_path: Path, response: dict[str, object], says: str
) -> None:
    fill(place, 3)
    await answered(witness, **response)

    with pytest.raises(ServiceError, match=says):
        await pusher.push()
    assert list((tmp_path / "witnessed").iterdir()) == []


async def test_a_witness_that_answers_without_end_is_left(place: Place, witness: WitnessServer, pusher: Pusher) -> None:
    sent = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(10_000):  # 10 GB
            await response.write(bytes(1 << 20))
            sent += 1
        return response

    fill(place, 3)
    witness.instead = flood

    with pytest.raises(ServiceError, match="AnswerTooLarge"):
        await pusher.push()
    assert sent < 100


async def test_a_witness_that_is_gone_is_no_answer(
    place: Place, session: aiohttp.ClientSession, pusher: Pusher
) -> None:
    fill(place, 3)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        pusher.witness._url = f"http://127.0.0.1:{bound.getsockname()[1]}/add-checkpoint"

        with pytest.raises(ServiceError, match="cannot be asked"):
            await pusher.push()


@pytest.mark.parametrize(
    "forgery", ["another text", "another key", "another time", "a plain signature", "cut", "no time"]
)
async def test_a_cosignature_of_something_else_is_not_kept(
    place: Place, witness: WitnessServer, pusher: Pusher, tmp_path: Path, forgery: str
) -> None:
    fill(place, 3)
    text = place.checkpoint().read_bytes().rpartition(b"\n\n")[0] + b"\n"
    good = base64.b64decode(witness.line(text).split(" ")[2])
    head = witness.witness_key.id
    stranger = a_key()
    blob = {
        "another text": base64.b64decode(witness.line(text.replace(b"\n3\n", b"\n4\n")).split(" ")[2]),
        "another key": head + good[4:12] + stranger.sign(cosignature_message(text, TIME)),
        "another time": head + (TIME + 1).to_bytes(8, "big") + good[12:],
        "a plain signature": head + good[4:12] + witness.key.sign(text),
        "cut": good[:-1],
        "no time": head + bytes(8) + witness.key.sign(cosignature_message(text, 0)),
    }[forgery]
    await answered(witness, text=f"\u2014 {witness.name} {base64.b64encode(blob).decode()}\n")

    with pytest.raises(ServiceError, match="gives no answer that counts"):
        await pusher.push()
    assert list((tmp_path / "witnessed").iterdir()) == []


async def test_lines_of_others_in_an_answer_are_not_kept(
    place: Place, witness: WitnessServer, pusher: Pusher, tmp_path: Path
) -> None:
    fill(place, 3)
    text = place.checkpoint().read_bytes().rpartition(b"\n\n")[0] + b"\n"
    await answered(witness, text="\u2014 somebody.else AAAA\n" + witness.line(text) + "\u2014 a.third AAAA\n")

    await pusher.push()

    assert b"somebody" not in kept(tmp_path)
    assert b"third" not in kept(tmp_path)


async def test_a_witness_that_never_agrees_on_a_size_is_left(
    place: Place, witness: WitnessServer, pusher: Pusher
) -> None:
    sizes = iter([2, 1, 2, 1])

    async def fickle(_: web.Request) -> web.Response:
        return web.Response(status=409, text=f"{next(sizes)}\n")

    fill(place, 3)
    witness.instead = fickle

    with pytest.raises(ServiceError, match="now one size, and now another"):
        await pusher.push()


# What auditors make of it


async def test_a_verification_can_demand_the_witness(
    place: Place, witness: WitnessServer, pusher: Pusher, tmp_path: Path
) -> None:
    fill(place, 3)
    await pusher.push()
    fill(place, 2)
    keys = (log_key(place.key),)

    steps = verify_log(str(place.directory), keys, (kept(tmp_path),), (witness.witness_key,))

    assert len(steps) == STEP_COUNT
    assert all(step.passed for step in steps)
    assert steps[2].details == (f"1 checkpoints that were kept elsewhere, cosigned by {witness.name}",)
    assert "they hold 3 of the 5 records" in steps[6].details[0]


async def test_a_demanded_witness_that_did_not_sign_is_missed(
    place: Place, witness: WitnessServer, pusher: Pusher, tmp_path: Path
) -> None:
    place.shard_records = 4
    fill(place, 3)
    await pusher.push()
    keys, stranger = (log_key(place.key),), WitnessServer(place.key, name=witness.name).witness_key

    def failed(earlier: tuple[bytes, ...], by: WitnessKey) -> str:
        step = verify_log(str(place.directory), keys, earlier, (by,))[-1]
        assert not step.passed
        return step.details[0]

    assert "no checkpoint that it could have signed is given" in failed((), witness.witness_key)
    assert "not cosigned by" in failed((kept(tmp_path),), stranger)
    assert "not cosigned by" in failed((place.checkpoint().read_bytes(),), witness.witness_key)
    # What follows in a shard that no witness has seen could have been written anew as often as one likes.
    fill(place, 3)
    assert "is cosigned, and it has 3 records" in failed((kept(tmp_path),), witness.witness_key)


async def test_a_thief_who_writes_the_log_anew_is_found_by_what_the_witness_signed(
    place: Place, witness: WitnessServer, pusher: Pusher, tmp_path: Path
) -> None:
    fill(place, 3)
    await pusher.push()
    cosigned = kept(tmp_path)
    anew = Place(tmp_path / "anew", key=place.key)
    anew.clocks.pass_time(100)
    fill(anew, 3)
    # He puts the witness' line below his own checkpoint, too.
    line = cosigned.rpartition("\u2014 ".encode())[2]
    spliced = anew.checkpoint().read_bytes() + "\u2014 ".encode() + line

    for note, why in ((cosigned, "the root there is another"), (spliced, "not one over this checkpoint")):
        step = verify_log(str(anew.directory), (log_key(place.key),), (note,), (witness.witness_key,))[-1]
        assert (step.passed, why in step.details[0]) == (False, True)


async def test_a_proof_as_of_a_cosigned_checkpoint_is_cosigned(
    place: Place, witness: WitnessServer, pusher: Pusher, tmp_path: Path
) -> None:
    fill(place, 3)
    await pusher.push()
    fill(place, 2)
    keys = (log_key(place.key),)

    proof = write_proof(prove(str(place.directory), 1, 1, kept(tmp_path)))

    assert verify_proof(proof, keys, (witness.witness_key,)).stamp.index == 1
    with pytest.raises(AuditError, match="not cosigned"):
        verify_proof(write_proof(prove(str(place.directory), 1, 1)), keys, (witness.witness_key,))


# Keys and requests, as bytes


def key_of(text: str) -> WitnessKey:
    return parse_vkey(text, lambda raw: PublicKey(raw).verifies)


def test_a_witness_key_is_read_as_it_is_published(place: Place) -> None:
    key = WitnessServer(place.key).witness_key

    read = key_of(f"{key.vkey}\n")

    assert (read.name, read.raw, read.vkey) == (key.name, key.raw, key.vkey)


@pytest.mark.parametrize(
    ("found", "written", "says"),
    [
        ("+", " ", "is one word"),
        ("witness.example.org/w1", "", "begins with its name"),
        ("witness.example.org/w1", "a b", "begins with its name"),
        ("witness", "Witness", "copy it anew"),
        ("+BA", "+AQ", "Ed25519 cosignatures"),
        ("+BA", "+", "one word"),
    ],
)
def test_what_is_no_key_of_a_witness_is_refused(place: Place, found: str, written: str, says: str) -> None:
    served = WitnessServer(place.key)
    while not served.witness_key.vkey.split("+", 2)[2].startswith("BA"):
        served.key = a_key()
    text = served.witness_key.vkey.replace(found, written)

    with pytest.raises(ValueError, match=says):
        key_of(text)


def test_a_request_is_as_the_protocol_says() -> None:
    assert write_request(0, (), b"note") == b"old 0\n\nnote"
    assert write_request(7, (bytes(32),), b"note") == b"old 7\n" + base64.b64encode(bytes(32)) + b"\n\nnote"


@pytest.mark.parametrize(("body", "size"), [(b"0", 0), (b"12\n", 12)])
def test_a_size_that_the_witness_knows_is_read(body: bytes, size: int) -> None:
    assert read_conflict(body) == size


def test_what_is_no_note_is_not_cosigned(place: Place) -> None:
    key = WitnessServer(place.key).witness_key
    for note in (b"", b"text only\n", b"a\n\n" + bytes(100_000)):
        with pytest.raises(BadNote):
            check_cosigned(note, key)
    with pytest.raises(BadNote, match="more than"):
        with_cosignature(b"a\n\n", bytes(100_000), key)


def test_a_time_beyond_all_calendars_is_none(place: Place) -> None:
    served = WitnessServer(place.key)
    note = b"a\n\n" + served.line(b"a\n", 1 << 62).encode()

    with pytest.raises(BadNote, match="no time that there is"):
        check_cosigned(note, served.witness_key)


def test_a_checkpoint_of_no_form_is_not_shown(place: Place, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="is none"):
        checkpoint_of(b"nonsense")
    with pytest.raises(AuditError, match="cannot be kept in"):
        Store(str(tmp_path / "a" / "b" / ("c" * 300)), WitnessServer(place.key).witness_key)


# That it keeps up, for a signer that requires it


def test_a_signer_begins_nothing_new_once_its_witness_is_too_far_behind(place: Place, tmp_path: Path) -> None:
    served, now = WitnessServer(place.key), [1000.0]
    watch = Watch(str(tmp_path / "witnessed"), served.witness_key, 60, lambda: now[0])
    fill(place, 3)

    watch.check(1, ORIGIN, 3)
    now[0] += 60
    watch.check(1, ORIGIN, 3)
    now[0] += 1
    with pytest.raises(
        AuditError, match=r"has signed for 0 records of .*, and 3 were there 61 s ago \(.*cannot be read"
    ):
        watch.check(1, ORIGIN, 3)
    # It comes back.
    (tmp_path / "witnessed").mkdir()
    (tmp_path / "witnessed" / "000001.checkpoint").write_bytes(served.cosign(place.checkpoint().read_bytes()))
    watch.check(1, ORIGIN, 5)
    now[0] += 61
    with pytest.raises(AuditError, match=r"has signed for 3 records of .*, and 5 were there 61 s ago"):
        watch.check(1, ORIGIN, 9)


@pytest.mark.parametrize("what", ["nonsense", "not cosigned", "another log", "another witness", "a link"])
def test_what_is_stored_counts_for_a_signer_only_if_its_witness_signed_it(
    place: Place, tmp_path: Path, what: str
) -> None:
    served, now = WitnessServer(place.key), [0.0]
    fill(place, 3)
    note = place.checkpoint().read_bytes()
    elsewhere = sign_checkpoint(
        Checkpoint(ORIGIN.replace("000001", "000002"), 9, bytes(32)),
        log_key(place.key).named(ORIGIN.replace("000001", "000002")),
        place.key.sign,
    )
    store = tmp_path / "witnessed"
    store.mkdir()
    stored = store / "000001.checkpoint"
    if what == "a link":
        (store / "real").write_bytes(served.cosign(note))
        stored.symlink_to("real")
    else:
        stored.write_bytes(
            {
                "nonsense": b"nonsense",
                "not cosigned": note,
                "another log": served.cosign(elsewhere),
                "another witness": WitnessServer(place.key, name=served.name).cosign(note),
            }[what]
        )
    watch = Watch(str(store), served.witness_key, 60, lambda: now[0])

    watch.check(1, ORIGIN, 3)
    now[0] = 61
    with pytest.raises(AuditError, match=r"has signed for 0 records of .*, and 3 were there 61 s ago \(.+\); see"):
        watch.check(1, ORIGIN, 3)


def test_a_store_that_the_signer_cannot_read_is_said_to_be(place: Place, tmp_path: Path) -> None:
    now = [0.0]
    watch = Watch(str(tmp_path / "none"), WitnessServer(place.key).witness_key, 60, lambda: now[0])

    watch.check(1, ORIGIN, 3)
    now[0] = 61
    with pytest.raises(AuditError, match=r"/none cannot be read: No such file or directory\)"):
        watch.check(1, ORIGIN, 3)


# The journal


def test_the_journal_has_a_line_for_each_checkpoint(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        Journal(str(tmp_path / "journal")).tell(Checkpoint(ORIGIN, 7, bytes(32)))

        fields = dict(line.split("=", 1) for line in journal.recv(4096).decode().splitlines())

    root = base64.b64encode(bytes(32)).decode()
    assert fields == {
        "MESSAGE": f"audit log {ORIGIN}: 7 records, root {root}",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "secureworker-audit",
        "SECUREWORKER_LOG": ORIGIN,
        "SECUREWORKER_LOG_SIZE": "7",
        "SECUREWORKER_LOG_ROOT": root,
    }


async def test_a_journal_that_is_gone_or_does_not_read_does_not_keep_the_witness_from_being_told(
    place: Place, witness: WitnessServer, pusher: Pusher, tmp_path: Path
) -> None:
    fill(place, 3)
    told: list[Checkpoint] = []

    problems = await Push(str(place.directory), pusher, Journal(str(tmp_path / "none"))).round(told.append)

    assert [checkpoint.size for checkpoint in told] == [3]
    assert problems == (f"the journal at {tmp_path}/none takes nothing: No such file or directory",)


async def test_a_witness_that_is_gone_does_not_keep_the_journal_from_being_told_and_is_asked_again(
    place: Place, witness: WitnessServer, pusher: Pusher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(place, 3)
    done, cosigned = asyncio.Event(), asyncio.Event()

    async def unwell(_: web.Request) -> web.Response:
        witness.instead = None
        return web.Response(status=503)

    witness.instead = unwell
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        push = Push(str(place.directory), pusher, Journal(str(tmp_path / "journal")))
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(push.until(done, 0.01, lambda _: cosigned.set()))
            await cosigned.wait()
            done.set()
        journal.settimeout(0)
        assert journal.recv(4096).startswith(b"MESSAGE=")
        with pytest.raises(BlockingIOError):
            journal.recv(4096)

    assert "answers with 503; tried again in 0.01 s" in caplog.text


# The command


def command(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["audit", *map(str, arguments)])
    return result.exit_code, result.output


async def pushed(place: Place, witness: WitnessServer, store: Path, *more: object) -> tuple[int, str]:
    options = ("--url", witness.url, "--witness", witness.witness_key.vkey, "--store", store, *more)
    return await asyncio.to_thread(command, "push", place.directory, *options)


async def test_push_has_a_log_cosigned_and_verify_export_and_prove_take_it(
    place: Place, witness: WitnessServer, tmp_path: Path
) -> None:
    fill(place, 3)
    vkey, store = tmp_path / "witness.vkey", tmp_path / "witnessed"
    vkey.write_text(witness.witness_key.vkey)

    assert await pushed(place, witness, store) == (0, f"cosigned: 3 records of {ORIGIN}\n")

    demands = ("--key", place.key.public.base64, "--witness", vkey)
    code, said = command("verify", place.directory, *demands, "--checkpoint", store)
    assert (code, f"cosigned by {witness.name}" in said) == (0, True)
    assert command("verify", place.directory, *demands)[0] == 1
    assert command(
        "prove", place.directory, 1, "--checkpoint", store / "000001.checkpoint", "--output", tmp_path / "p"
    ) == (0, "")
    assert command("verify", tmp_path / "p", *demands)[0] == 0
    assert command("prove", place.directory, 1, "--output", tmp_path / "plain") == (0, "")
    code, said = command("verify", tmp_path / "plain", *demands)
    assert (code, "is not cosigned by" in said) == (1, True)
    # What was written since is proved as of the newest checkpoint, and all else as of the cosigned one.
    fill(place, 1)
    document = json.loads(command("export", place.directory, "--witnessed", store)[1])
    assert document["cosigned"] == [kept(tmp_path).decode()]
    for record, covered in zip(document["records"], (True, True, True, False), strict=True):
        (tmp_path / "exported").write_text(record["proof"])
        assert command("verify", tmp_path / "exported", *demands)[0] == (0 if covered else 1)
        assert command("verify", tmp_path / "exported", "--key", place.key.public.base64)[0] == 0


def test_push_tells_the_journal_alone(place: Place, tmp_path: Path) -> None:
    fill(place, 3)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))

        assert command("push", place.directory, "--journal", tmp_path / "journal") == (0, "")
        assert b"SECUREWORKER_LOG_SIZE=3" in journal.recv(4096)


def test_push_says_where_there_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "000001.checkpoint").write_bytes(b"nonsense")

    code, said = command("push", tmp_path, "--journal", tmp_path / "journal")

    assert (code, "a checkpoint of the audit log is none" in said) == (1, True)


async def test_push_says_what_is_wrong_and_ends_with_1(place: Place, witness: WitnessServer, tmp_path: Path) -> None:
    fill(place, 3)
    await answered(witness, status=503)
    code, said = await pushed(place, witness, tmp_path / "a", "--journal", tmp_path / "none")
    assert code == 1
    assert "answers with 503" in said
    assert "takes nothing" in said

    witness.instead, witness.log = None, a_key()
    assert (await pushed(place, witness, tmp_path / "b", "--follow"))[0] == 1


@pytest.mark.parametrize(
    "options",
    [(), ("--url", "http://w"), ("--witness", "nonsense", "--url", "u", "--store", "s"), ("--every", "0", "--journal")],
)
def test_push_needs_somebody_to_tell(place: Place, options: tuple[str, ...]) -> None:
    fill(place, 1)

    assert command("push", place.directory, *options)[0] == 2


async def test_push_follows_until_it_is_told_to_end(place: Place, witness: WitnessServer, tmp_path: Path) -> None:
    fill(place, 1)
    argv = [sys.executable, "-m", "secureworker", "audit", "push", str(place.directory), "--follow", "--every", "0.05"]
    options = ["--url", witness.url, "--witness", witness.witness_key.vkey, "--store", str(tmp_path / "witnessed")]
    process = await asyncio.create_subprocess_exec(
        *argv, *options, stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == f"cosigned: 1 records of {ORIGIN}\n".encode()
            fill(place, 2)
            assert b": 3 records of" in await process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
