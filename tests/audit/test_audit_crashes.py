"""What a stop at any point leaves of the audit log, and how its shards follow each other."""

from dataclasses import replace
from pathlib import Path

import pytest

from secureworker.audit.shards import origin_of
from secureworker.core.audit import read_record
from secureworker.core.checkpoint import Checkpoint, sign_checkpoint
from secureworker.core.errors import AuditError
from secureworker.core.merkle import EMPTY_ROOT
from secureworker.testing import IDENTITY
from tests.audit.conftest import Place, a_key, a_record, fill, log_key


def events(place: Place, shard: int = 1) -> list[str]:
    return [read_record(line)[0].event.value for line in place.lines(shard)]


# Crashes. Every state that a stop at any point of an append can leave.


@pytest.mark.parametrize("new_checkpoint", [None, b"", b"half of a checkp", "whole"])
def test_a_record_without_a_checkpoint_is_removed_and_that_is_written_down(
    place: Place, new_checkpoint: str | bytes | None
) -> None:
    fill(place, 2)
    checkpoint = place.checkpoint().read_bytes()
    whole = place.records().read_bytes()
    fill(place, 1)
    line = place.records().read_bytes()[len(whole) :]
    if new_checkpoint is not None:
        content = place.checkpoint().read_bytes() if new_checkpoint == "whole" else new_checkpoint
        assert isinstance(content, bytes)
        (place.directory / "checkpoint.new").write_bytes(content)
    for kept in range(1, len(line) + 1, 7 if new_checkpoint is None else 100):
        place.checkpoint().write_bytes(checkpoint)
        place.records().write_bytes(whole + line[:kept])

        with place.open() as log:
            assert log.size == 3
            log.append(a_record(), "worker")

        assert events(place) == ["worker-start", "worker-start", "recovery", "worker-start"]
        assert dict(read_record(place.lines()[2])[0].details) == {"bytes": kept, "lines": line[:kept].count(b"\n")}
        place.open().close()


def test_a_stop_before_the_first_record_leaves_a_log(place: Place) -> None:
    place.open().close()
    (place.directory / "checkpoint.new").write_bytes(b"torn")
    place.records().unlink()

    fill(place, 1)

    assert events(place) == ["worker-start"]


def test_a_stop_before_the_first_checkpoint_leaves_a_log(place: Place) -> None:
    place.open().close()
    (place.directory / "checkpoint.new").write_bytes(b"torn")
    place.records().unlink()
    place.checkpoint().unlink()

    fill(place, 1)

    assert events(place) == ["worker-start"]


# Shards.


def test_a_full_shard_is_followed_by_one_that_says_what_it_ended_with(place: Place) -> None:
    fill(replace(place, shard_records=3), 7)

    assert [len(place.lines(shard)) for shard in (1, 2, 3)] == [3, 3, 3]
    assert events(place, 2) == ["rotation", "worker-start", "worker-start"]
    details = dict(read_record(place.lines(2)[0])[0].details)
    assert details == {"origin": origin_of(IDENTITY, 1), "size": 3}
    seen: list[bytes] = []
    replace(place, shard_records=3).open(seen.append).close()
    assert seen == [line for shard in (1, 2, 3) for line in place.lines(shard)]


@pytest.mark.parametrize("left", [None, b"", b'{"half of a rec'])
def test_a_stop_between_two_shards_is_mended(place: Place, left: bytes | None) -> None:
    small = replace(place, shard_records=3)
    fill(small, 3)
    before = place.files()
    fill(small, 1)
    for path in place.directory.iterdir():
        path.unlink()
    for name, content in before.items():
        (place.directory / name).write_bytes(content)
    place.checkpoint(2).write_bytes(_empty_checkpoint(place))
    if left is not None:
        place.records(2).write_bytes(left)

    with small.open() as log:
        log.append(a_record(), "worker")

    wanted = ["rotation", *(["recovery"] if left else []), "worker-start"]
    assert events(place, 2) == wanted
    small.open().close()


def _empty_checkpoint(place: Place) -> bytes:
    origin = origin_of(IDENTITY, 2)
    key = log_key(place.key).named(origin)
    return sign_checkpoint(Checkpoint(origin, 0, EMPTY_ROOT), key, place.key.sign)


def test_a_missing_shard_is_found(place: Place) -> None:
    small = replace(place, shard_records=3)
    fill(small, 7)
    place.records(2).unlink()
    place.checkpoint(2).unlink()

    with pytest.raises(AuditError, match="lacks its shards 2"):
        small.open()


def test_a_shard_of_another_log_of_the_same_worker_is_found(place: Place, tmp_path: Path) -> None:
    small = replace(place, shard_records=3)
    other = replace(place, shard_records=3, directory=tmp_path / "other")
    fill(small, 7)
    other.clocks.pass_time(1)
    fill(other, 7)
    for path in (place.records(1), place.checkpoint(1)):
        path.write_bytes((other.directory / path.name).read_bytes())

    with pytest.raises(AuditError, match="does not go on where that one ends"):
        small.open()


@pytest.mark.parametrize("content", [b"more", b""])
def test_an_older_shard_ends_with_its_checkpoint(place: Place, content: bytes) -> None:
    small = replace(place, shard_records=3)
    fill(small, 7)
    if content:
        place.records(1).write_bytes(place.records(1).read_bytes() + content)
    else:
        place.records(2).write_bytes(b"")
        place.checkpoint(2).write_bytes(_empty_checkpoint(place))

    with pytest.raises(AuditError, match="does not end with its checkpoint, and is not the newest"):
        small.open()


def test_a_new_key_begins_a_new_shard_and_the_old_one_stays_verifiable(place: Place) -> None:
    fill(place, 2)
    renewed = replace(place, key=a_key(), retired=(place.key,))

    fill(renewed, 1)
    fill(renewed, 1)

    assert events(place, 1) == ["worker-start"] * 2
    assert events(place, 2) == ["rotation", "worker-start", "worker-start"]
    with pytest.raises(AuditError, match="not signed by"):
        replace(renewed, retired=()).open()
