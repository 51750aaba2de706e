"""The audit log: what was written stays written, and what was changed is found."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from secureworker.core.audit import read_record
from secureworker.core.checkpoint import check_proof, open_checkpoint
from secureworker.core.errors import AuditError
from secureworker.testing import EPOCH, IDENTITY
from tests.audit.conftest import Place, a_key, a_record, fill, log_key


def events(place: Place, shard: int = 1) -> list[str]:
    return [read_record(line)[0].event.value for line in place.lines(shard)]


def test_each_record_is_a_line_under_a_signed_checkpoint_when_append_returns(place: Place) -> None:
    with place.open() as log:
        for number in range(5):
            proof = log.append(a_record(number), "worker")

            key = log_key(place.key).named(log.origin)
            checkpoint = open_checkpoint(place.checkpoint().read_bytes(), key)
            assert checkpoint.size == log.size == number + 1
            assert check_proof(proof, place.lines()[number], key) == checkpoint
            record, stamp = read_record(place.lines()[number])
            assert record == a_record(number)
            assert (stamp.index, stamp.time, stamp.writer, stamp.worker) == (number, EPOCH, "worker", IDENTITY)
            assert sorted(path.name for path in place.directory.iterdir()) == [
                "000001.checkpoint",
                "000001.jsonl",
                "lock",
            ]


def test_a_log_goes_on_where_it_ended_and_is_replayed(place: Place) -> None:
    fill(place, 3)
    seen: list[bytes] = []

    with place.open(seen.append) as log:
        log.append(a_record(3), "worker")

    assert seen == place.lines()[:3]
    assert [read_record(line)[1].index for line in place.lines()] == [0, 1, 2, 3]


def test_nothing_in_the_directory_is_for_others(place: Place) -> None:
    fill(place, 1)

    assert [oct(path.stat().st_mode & 0o027) for path in (place.directory, *place.directory.iterdir())] == ["0o0"] * 4


@pytest.mark.parametrize("position", [0, 100, -2])
def test_a_flipped_bit_is_found(place: Place, position: int) -> None:
    fill(place, 4)
    content = bytearray(place.records().read_bytes())
    content[position] ^= 1
    place.records().write_bytes(content)

    with pytest.raises(AuditError, match=r"the audit log was changed: the 4 records .* do not lead to the root"):
        place.open()


def test_every_flipped_bit_is_found(place: Place) -> None:
    fill(place, 2)
    good = place.records().read_bytes()
    for position in range(len(good)):
        content = bytearray(good)
        content[position] ^= 1 << position % 8
        place.records().write_bytes(content)
        with pytest.raises(AuditError, match="the audit log was changed"):
            place.open()


@pytest.mark.parametrize("missing", [0, 2, 3])
def test_a_missing_line_is_found(place: Place, missing: int) -> None:
    fill(place, 4)
    lines = place.records().read_bytes().splitlines(keepends=True)
    del lines[missing]
    place.records().write_bytes(b"".join(lines))

    with pytest.raises(AuditError, match="has 3 whole records, and its checkpoint speaks of 4: it ends before them"):
        place.open()


def test_lines_that_changed_places_are_found(place: Place) -> None:
    fill(place, 4)
    lines = place.records().read_bytes().splitlines(keepends=True)
    place.records().write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))

    with pytest.raises(AuditError, match="do not lead to the root"):
        place.open()


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_a_truncated_log_is_found(place: Place, keep: int) -> None:
    fill(place, 2)
    place.records().write_bytes(place.records().read_bytes()[:keep])

    with pytest.raises(AuditError, match="it ends before them"):
        place.open()


def test_a_line_without_an_end_is_found(place: Place) -> None:
    fill(place, 2)
    place.records().write_bytes(b"x" * 300_000)

    with pytest.raises(AuditError, match="a line is longer than any record"):
        place.open()


def test_a_checkpoint_that_was_set_back_is_found(place: Place) -> None:
    fill(place, 2)
    old = place.checkpoint().read_bytes()
    fill(place, 2)
    place.checkpoint().write_bytes(old)

    with pytest.raises(AuditError, match="more than one record follows the 2"):
        place.open()


def test_a_checkpoint_of_another_key_is_found(place: Place) -> None:
    fill(place, 2)

    with pytest.raises(AuditError, match="was replaced, or the key is another one"):
        replace(place, key=a_key()).open()


def test_a_checkpoint_that_nobody_signed_is_found(place: Place) -> None:
    fill(place, 2)
    place.checkpoint().write_bytes(place.checkpoint().read_bytes().replace(b"\n2\n", b"\n1\n"))

    with pytest.raises(AuditError, match="is not one over its text"):
        place.open()


def test_the_log_of_another_worker_is_refused(place: Place, tmp_path: Path) -> None:
    fill(place, 2)
    place.checkpoint().write_bytes(place.checkpoint().read_bytes().replace(b"test-worker", b"evil-worker"))

    with pytest.raises(AuditError, match="not signed by secureworker/test-provisioner/test-pool/test-group/test-wor"):
        place.open()


@pytest.mark.parametrize("what", ["checkpoint", "records"])
def test_a_missing_file_is_found(place: Place, what: str) -> None:
    fill(place, 2)
    (place.checkpoint() if what == "checkpoint" else place.records()).unlink()

    with pytest.raises(AuditError, match="restore it"):
        place.open()


def test_a_link_in_place_of_a_file_is_not_followed(place: Place, tmp_path: Path) -> None:
    fill(place, 2)
    elsewhere = tmp_path / "elsewhere"
    place.records().rename(elsewhere)
    place.records().symlink_to(elsewhere)

    with pytest.raises(AuditError, match="cannot be read"):
        place.open()


def test_a_second_name_for_a_file_is_refused(place: Place, tmp_path: Path) -> None:
    fill(place, 2)
    os.link(place.records(), tmp_path / "other")

    with pytest.raises(AuditError, match="no regular file with one link"):
        place.open()


def test_what_a_refused_log_holds_is_not_touched(place: Place) -> None:
    fill(place, 3)
    place.records().write_bytes(place.records().read_bytes() + b"a\nb\n")
    before = place.files()

    with pytest.raises(AuditError):
        place.open()

    assert place.files() == before


def test_a_directory_that_others_can_write_is_refused(place: Place) -> None:
    fill(place, 1)
    place.directory.chmod(0o777)

    with pytest.raises(AuditError, match="can be written by others"):
        place.open()


def test_a_directory_that_cannot_be_made_is_said(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(AuditError, match="cannot be used: Not a directory"):
        replace(place, directory=tmp_path / "file" / "audit").open()


def test_a_log_has_one_writer(place: Place) -> None:
    with place.open(), pytest.raises(AuditError, match="another signer writes to"):
        place.open()
