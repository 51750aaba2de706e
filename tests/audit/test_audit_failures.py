"""What cannot be written may not happen; and clocks that jump."""

import json
import os
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from secureworker.audit.inspect import read_entries, verify_log
from secureworker.audit.log import Log
from secureworker.audit.moments import SystemMoments
from secureworker.audit.place import give, open_place
from secureworker.audit.shards import origin_of
from secureworker.core.audit import AuditRecord, Event, read_record
from secureworker.core.checkpoint import Checkpoint, sign_checkpoint
from secureworker.core.errors import AuditError, KeyUnusable
from secureworker.core.merkle import leaf_hash, tree_of
from secureworker.testing import IDENTITY
from tests.audit.conftest import Place, a_record, fill, log_key


def events(place: Place, shard: int = 1) -> list[str]:
    return [read_record(line)[0].event.value for line in place.lines(shard)]


# What cannot be written may not happen.


def test_after_somebody_else_wrote_to_its_file_a_log_takes_nothing_more(place: Place) -> None:
    with place.open() as log:
        log.append(a_record(), "worker")
        with place.records().open("ab") as file:
            file.write(b"a line of somebody else\n")

        for _ in range(2):
            with pytest.raises(AuditError, match="somebody else changed its file"):
                log.append(a_record(), "worker")
        with pytest.raises(AuditError, match="somebody else changed its file"):
            log.check()


def test_a_record_that_cannot_be_written_is_the_last_that_was_tried(place: Place) -> None:
    with place.open() as log:
        log.append(a_record(), "worker")
        # Where the next checkpoint goes there is something that is no file.
        (place.directory / "checkpoint.new").mkdir()
        with pytest.raises(AuditError, match="a record could not be written: Is a directory"):
            log.append(a_record(), "worker")
        (place.directory / "checkpoint.new").rmdir()
        with pytest.raises(AuditError, match="takes no more records"):
            log.append(a_record(), "worker")

    fill(place, 1)
    assert events(place) == ["worker-start", "recovery", "worker-start"]


def test_a_shard_that_cannot_be_begun_ends_the_log(place: Place) -> None:
    small = replace(place, shard_records=1)
    with small.open() as log:
        log.append(a_record(), "worker")
        (place.directory / "checkpoint.new").mkdir()
        with pytest.raises(AuditError, match="its next shard could not be begun"):
            log.append(a_record(), "worker")


def test_a_closed_log_takes_nothing(place: Place) -> None:
    log = place.open()
    log.close()

    with pytest.raises(AuditError, match="it is closed"):
        log.append(a_record(), "worker")


def write_until_refused(log: Log) -> None:
    while True:
        log.append(AuditRecord(Event.WORKER_STOP, details=(("reason", "x" * 1500),)), "worker")


@pytest.mark.sandbox
def test_a_disk_that_fills_in_the_middle_of_an_append_ends_the_log_and_loses_nothing(place: Place) -> None:
    place.directory.mkdir(mode=0o750)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=750", "tmpfs", place.directory], check=True)
    try:
        written = 0
        with place.open() as log:
            with pytest.raises(AuditError, match="has less than"):
                log.check()
            with pytest.raises(AuditError, match="No space left on device"):
                write_until_refused(log)
            written = log.size
        subprocess.run(["mount", "-o", "remount,size=1m", place.directory], check=True)
        with place.open() as log:
            log.append(a_record(), "worker")
        assert written > 10
        assert events(place)[:written] == ["worker-stop"] * written
        assert events(place)[written:] == ["recovery", "worker-start"]
    finally:
        subprocess.run(["umount", "--lazy", place.directory], check=True)


# Clocks.


def test_time_that_passes_is_no_jump(place: Place) -> None:
    with place.open() as log:
        log.append(a_record(), "worker")
        place.clocks.pass_time(86_400)
        place.clocks.set_wall_clock(1.9)
        log.append(a_record(), "worker")

    assert events(place) == ["worker-start", "worker-start"]


@pytest.mark.parametrize("seconds", [3600, -30])
def test_a_clock_that_jumps_is_written_down(place: Place, seconds: int) -> None:
    with place.open() as log:
        log.append(a_record(), "worker")
        place.clocks.set_wall_clock(seconds)
        log.append(a_record(), "worker")
        log.append(a_record(), "worker")

    assert events(place) == ["worker-start", "clock-jump", "worker-start", "worker-start"]
    jump = json.loads(place.lines()[1])
    assert jump["details"] == {"milliseconds": seconds * 1000, "since": "2026-01-31T12:00:00.000+00:00"}
    assert jump["writer"] == "signer"


def test_a_clock_that_is_set_back_ends_the_log_until_it_is_opened_anew(place: Place) -> None:
    with place.open() as log:
        log.append(a_record(), "worker")
        place.clocks.set_wall_clock(-3600)
        for _ in range(2):
            with pytest.raises(AuditError, match="the host's clock was set back by 3600 s"):
                log.append(a_record(), "worker")
    fill(place, 1)

    assert events(place) == ["worker-start", "clock-jump", "worker-start"]
    assert json.loads(place.lines()[1])["outcome"] == "failed"


def test_a_boot_with_an_earlier_clock_is_written_down(place: Place) -> None:
    fill(place, 1)
    place.clocks.moment = replace(place.clocks.moment, monotonic_ms=5, boot="00000000-0000-0000-0000-000000000000")
    place.clocks.set_wall_clock(-3600)

    fill(place, 1)

    assert events(place) == ["worker-start", "clock-jump", "worker-start"]


def test_the_systems_clocks_agree_with_themselves() -> None:
    moments = SystemMoments()
    first, second = moments.now(), moments.now()

    assert abs(second.jump_since(first).total_seconds()) < 1
    assert first.boot == second.boot


def re_sign(place: Place, shard: int, lines: list[bytes]) -> None:
    """Put lines into a shard as another version of the program might, which has the same key."""
    place.records(shard).write_bytes(b"".join(line + b"\n" for line in lines))
    origin = origin_of(IDENTITY, shard)
    tree = tree_of([leaf_hash(line) for line in lines])
    note = sign_checkpoint(Checkpoint(origin, tree.size, tree.root), log_key(place.key).named(origin), place.key.sign)
    place.checkpoint(shard).write_bytes(note)


def test_a_record_of_another_version_is_not_gone_on_from(place: Place) -> None:
    fill(place, 1)
    re_sign(place, 1, [place.lines()[0].replace(b'"version":1,', b'"version":2,')])

    with pytest.raises(AuditError, match="of another version of this program"):
        place.open()


def test_a_shard_that_does_not_begin_with_a_record_is_refused(place: Place) -> None:
    small = replace(place, shard_records=3)
    fill(small, 4)
    re_sign(place, 2, [b"strange", *place.lines(2)[1:]])

    with pytest.raises(AuditError, match="does not begin with a record"):
        small.open()


def test_a_log_that_can_be_written_says_nothing(place: Place) -> None:
    with place.open() as log:
        log.check()


def test_a_log_that_cannot_be_begun_says_why(place: Place) -> None:
    (place.directory / "checkpoint.new").mkdir(parents=True)
    place.directory.chmod(0o750)

    with pytest.raises(AuditError, match="cannot be opened: Is a directory"):
        place.open()


# Whose it is.


@pytest.mark.sandbox
def test_a_log_is_given_to_another_user_with_all_that_is_in_it(place: Place) -> None:
    fill(place, 1)
    opened = open_place(str(place.directory))
    try:
        give(opened, 54321, 54322)
    finally:
        os.close(opened)

    found = {(path.stat().st_uid, path.stat().st_gid) for path in (place.directory, *place.directory.iterdir())}
    assert found == {(54321, 54322)}
    with pytest.raises(AuditError, match="can be written by others"):
        place.open()


@pytest.mark.sandbox
def test_what_is_no_file_of_a_log_is_not_given_away(place: Place) -> None:
    place.directory.mkdir()
    (place.directory / "link").symlink_to("/etc/passwd")
    opened = open_place(str(place.directory))
    try:
        with pytest.raises(AuditError, match="cannot be given to uid 54321"):
            give(opened, 54321, 54321)
    finally:
        os.close(opened)

    assert Path("/etc/passwd").stat().st_uid == 0


# Keys in a device, or in a Vault.


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("away", range(1, 19))
def test_a_key_that_is_away_for_a_while_leaves_a_log_that_verifies_and_goes_on(
    place: Place, away: int, length: int
) -> None:
    """At each signature in turn: of records, of a shard's first checkpoint, of the link to it, of a clock's jump."""
    place.shard_records = 3
    fill(place, 2)
    written = []
    with place.open() as log:
        place.signatures, place.away = 0, frozenset(range(away, away + length))
        for number in range(100, 109):
            if number % 3 == 0:
                place.clocks.set_wall_clock(5)
            with suppress(KeyUnusable):
                log.append(a_record(number), "worker")
                written.append(number)

    steps = verify_log(str(place.directory), (log_key(place.key),))
    assert [step.details for step in steps if not step.passed] == []
    kept = [dict(entry.record.details).get("pid") for entry in read_entries(str(place.directory))]
    assert [number for number in kept if isinstance(number, int) and number >= 100] == written
    assert len(written) >= 9 - length
    place.open().close()


@pytest.mark.parametrize("size", [2, 3])
def test_a_key_that_is_away_when_a_log_is_opened_keeps_it_as_it_was(place: Place, size: int) -> None:
    place.shard_records = size
    fill(place, 2)
    place.records().write_bytes(place.records().read_bytes() + b'{"half of a rec')
    before = place.checkpoint().read_bytes()
    place.away = frozenset({place.signatures + 1})

    with pytest.raises(KeyUnusable):
        place.open()

    assert place.checkpoint().read_bytes() == before
    place.open().close()
    assert all(step.passed for step in verify_log(str(place.directory), (log_key(place.key),)))
