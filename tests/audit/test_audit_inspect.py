"""Verifying, showing and proving a log, as an auditor does who has the public key and nothing else."""

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from secureworker.audit.inspect import STEP_COUNT, Step, read_entries, verify_log
from secureworker.audit.proofs import Prover, prove, verify_proof
from secureworker.audit.shards import origin_of
from secureworker.cli.audit import command
from secureworker.core.audit import AuditRecord, Event
from secureworker.core.checkpoint import check_proof, write_proof
from secureworker.core.errors import AuditError
from secureworker.core.ids import RunId, TaskId
from secureworker.testing import IDENTITY, TASK_ID
from tests.audit.conftest import Place, a_key, a_record, fill, log_key
from tests.audit.test_audit_failures import re_sign


def verify(place: Place, *earlier: bytes, keys: tuple[Any, ...] = ()) -> tuple[Step, ...]:
    return verify_log(str(place.directory), tuple(map(log_key, keys or (place.key,))), earlier)


def failed(steps: tuple[Step, ...]) -> tuple[str, str]:
    assert [step.passed for step in steps[:-1]] == [True] * (len(steps) - 1)
    assert not steps[-1].passed
    return steps[-1].name, "; ".join(steps[-1].details)


def audit(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture
def small(place: Place) -> Place:
    """Give a log of three shards, one record of which is about a task."""
    small = replace(place, shard_records=4)
    fill(small, 6)
    with small.open() as log:
        log.append(
            AuditRecord(Event.CLAIM, run=(TaskId(TASK_ID), RunId(0)), details=(("name", "a\u202etask"),)), "worker"
        )
    fill(small, 3)
    return small


def test_a_log_is_verified_step_by_step(small: Place) -> None:
    steps = verify(small)

    assert [step.name for step in steps if step.passed] == [
        "files",
        "checkpoints",
        "kept checkpoints",
        "records",
        "form",
        "links",
        "growth",
    ]
    assert steps[3].details == ("12 records",)


@pytest.mark.parametrize(
    ("name", "change", "step"),
    [
        ("000002.jsonl", lambda content: content[:50] + b"x" + content[51:], "records"),
        ("000002.jsonl", lambda content: content + b"more", "records"),
        ("000003.jsonl", lambda content: content + b"a\nb\n", "records"),
        ("000003.jsonl", lambda content: content[:-1], "records"),
        ("000002.checkpoint", lambda content: content.replace(b"\n4\n", b"\n3\n"), "checkpoints"),
        ("000001.checkpoint", lambda content: content.replace(b"secureworker/", b"other/", 1), "checkpoints"),
        ("000001.checkpoint", lambda content: b"x/y\n" + content, "checkpoints"),
    ],
)
def test_what_was_changed_is_found_in_its_step(small: Place, name: str, change: Any, step: str) -> None:
    path = small.directory / name
    path.write_bytes(change(path.read_bytes()))

    assert failed(verify(small))[0] == step


@pytest.mark.parametrize("name", ["000002.jsonl", "000002.checkpoint", "000001.checkpoint"])
def test_a_file_that_is_missing_is_found(small: Place, name: str) -> None:
    (small.directory / name).unlink()

    assert "cannot be read" in failed(verify(small))[1]


def test_a_shard_that_is_missing_is_found(small: Place) -> None:
    small.records(2).unlink()
    small.checkpoint(2).unlink()

    assert failed(verify(small)) == ("files", "the audit log lacks its shards 2; restore them")


def test_a_directory_without_a_log_is_said_to_be_one(tmp_path: Path, place: Place) -> None:
    place.directory.mkdir()

    assert failed(verify(place))[1] == "there is no log in this directory"
    with pytest.raises(AuditError, match="cannot be read"):
        verify_log(str(tmp_path / "missing"), (log_key(place.key),))


def test_another_key_verifies_nothing(small: Place) -> None:
    assert failed(verify(small, keys=(a_key(),)))[0] == "checkpoints"


def test_records_that_the_signer_would_not_write_are_found_although_they_are_signed_for(small: Place) -> None:
    lines = small.lines(3)
    other = lines[1].replace(b"test-worker", b"evil-worker")
    re_sign(small, 3, [lines[0], other, lines[2].replace(b'"index":2', b'"index":7'), b"no record"])

    name, details = failed(verify(small))

    assert name == "form"
    assert "it is one of test-provisioner/test-pool/test-group/evil-worker" in details
    assert "it says that it is record 7" in details
    assert "it is no audit record" in details


def test_shards_that_do_not_follow_each_other_are_found(small: Place) -> None:
    re_sign(small, 1, small.lines(1)[:3])

    name, details = failed(verify(small))
    assert name == "links"
    assert "test-worker/000001 does not go on where that one ends" in details


def test_an_empty_shard_before_others_is_found(small: Place) -> None:
    re_sign(small, 2, [])

    assert "is empty, and is not the newest" in failed(verify(small))[1]


def test_a_log_that_ends_with_a_record_under_way_is_verified_up_to_it(place: Place) -> None:
    fill(place, 2)
    place.records().write_bytes(place.records().read_bytes() + b'{"half')

    steps = verify(place)

    assert len(steps) == STEP_COUNT
    assert steps[3].details == ("2 records; 6 bytes of one more, not signed for yet",)


def test_a_log_is_verified_while_it_is_written(place: Place) -> None:
    fill(place, 1)
    enough = threading.Event()

    def write() -> None:
        with place.open() as log:
            while not enough.is_set():
                log.append(a_record(), "worker")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        results = [verify(place) for _ in range(20)]
    finally:
        enough.set()
        writer.join()

    assert [step.details for steps in results for step in steps if not step.passed] == []


def test_a_key_that_was_replaced_is_given_beside_the_new_one(place: Place) -> None:
    fill(place, 2)
    renewed = replace(place, key=a_key(), retired=(place.key,))
    fill(renewed, 2)

    assert len(verify(renewed, keys=(renewed.key, place.key))) == STEP_COUNT
    assert failed(verify(renewed))[0] == "checkpoints"


def test_a_checkpoint_that_was_kept_shows_that_the_log_has_only_grown(place: Place) -> None:
    fill(place, 3)
    kept = place.checkpoint().read_bytes()
    fill(place, 3)

    assert verify(place, kept)[-1].details == (
        "all of them are the beginning of this log; they hold 3 of the 6 records of its newest shard",
    )


def test_a_log_that_was_written_anew_does_not_hold_against_a_kept_checkpoint(place: Place) -> None:
    fill(place, 3)
    kept = place.checkpoint().read_bytes()
    for path in place.directory.iterdir():
        path.unlink()
    fill(place, 2)
    assert "had 3 records; now it has fewer" in failed(verify(place, kept))[1]

    place.clocks.pass_time(1)
    fill(place, 5)
    assert "had 3 records; the root there is another" in failed(verify(place, kept))[1]


def test_a_kept_checkpoint_of_somebody_else_is_refused(place: Place, tmp_path: Path) -> None:
    fill(place, 1)
    other = Place(tmp_path / "other")
    fill(other, 1)

    assert failed(verify(place, other.checkpoint().read_bytes()))[0] == "kept checkpoints"
    assert "is none of these shards" in failed(verify(place, b"something else\n\n"))[1]


def test_every_record_can_be_proved_without_the_log(small: Place) -> None:
    for shard in (1, 2, 3):
        for index in range(4):
            content = write_proof(prove(str(small.directory), shard, index))

            entry = verify_proof(content, (log_key(a_key()), log_key(small.key)))

            assert (entry.shard, entry.stamp.index, entry.line) == (shard, index, small.lines(shard)[index])


def test_a_proof_of_something_else_proves_nothing(small: Place) -> None:
    content = write_proof(prove(str(small.directory), 1, 1))
    for wrong, why in (
        (b"x", "no proof of an audit record"),
        (content.replace(b"index 1", b"index 2"), "inclusion proof"),
        (
            write_proof(replace(prove(str(small.directory), 1, 1), extra=small.lines(1)[2])),
            "not the one that was logged",
        ),
    ):
        with pytest.raises(AuditError, match=why):
            verify_proof(wrong, (log_key(small.key),))
    with pytest.raises(AuditError, match="not signed by"):
        verify_proof(content, (log_key(a_key()),))


def test_a_record_that_was_moved_is_not_proved_where_it_is(small: Place) -> None:
    re_sign(small, 3, [small.lines(3)[1], small.lines(3)[0]])

    with pytest.raises(AuditError, match="of another place than the proof says"):
        verify_proof(write_proof(prove(str(small.directory), 3, 0)), (log_key(small.key),))


def test_what_is_not_there_is_not_proved(small: Place) -> None:
    with pytest.raises(AuditError, match="has no record 4: it has 4"):
        prove(str(small.directory), 1, 4)
    with pytest.raises(AuditError, match="cannot be read"):
        prove(str(small.directory), 9, 0)
    small.checkpoint(1).write_bytes(b"no checkpoint")
    with pytest.raises(AuditError, match="is none"):
        prove(str(small.directory), 1, 0)


def test_records_are_read_up_to_one_that_is_under_way(small: Place) -> None:
    small.records(3).write_bytes(small.records(3).read_bytes() + b"{")
    assert len(list(read_entries(str(small.directory)))) == 12

    small.records(3).write_bytes(small.records(3).read_bytes() + b"}\n")
    with pytest.raises(AuditError, match="record 4 of shard 3: it is no audit record"):
        list(read_entries(str(small.directory)))


# The commands.


def test_verify_says_what_holds_and_ends_with_0(small: Place, tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(small.checkpoint(3).read_bytes())
    result = audit("verify", small.directory, "--key", small.key.public.base64, "--checkpoint", tmp_path / "kept")

    assert result.exit_code == 0
    assert [line[:5] for line in result.output.splitlines()[:-1]] == [f"{number} ok " for number in range(1, 8)]
    assert result.output.splitlines()[-1] == "verified"


def test_verify_says_what_does_not_hold_and_ends_with_1(small: Place) -> None:
    small.records(3).write_bytes(b"")

    result = audit("verify", small.directory, "--key", small.key.public.base64, "--json")

    assert result.exit_code == 1
    told = json.loads(result.output)
    assert not told["verified"]
    assert not told["steps"][-1]["passed"]
    assert "not verified" in audit("verify", small.directory, "--key", small.key.public.base64).output


def test_verify_needs_a_key(small: Place) -> None:
    assert audit("verify", small.directory, "--key", "no key").exit_code == 2


def test_a_proof_is_made_and_verified(small: Place, tmp_path: Path) -> None:
    proof = tmp_path / "record.tlog-proof"
    assert audit("prove", small.directory, 2, "--shard", 2, "--output", proof).exit_code == 0

    for asked in ((), ("--json",)):
        good = audit("verify", proof, "--key", small.key.public.base64, *asked)
        bad = audit("verify", proof, "--key", a_key().public.base64, *asked)
        assert (good.exit_code, bad.exit_code) == (0, 1)
        assert "verified" in good.output
        assert "not signed by" in bad.output
    # The checkpoint in a proof is one that was kept, too.
    assert audit("verify", small.directory, "--key", small.key.public.base64, "--checkpoint", proof).exit_code == 0
    assert audit("prove", small.directory, 99).exit_code == 1


def test_a_proof_shows_the_digests_of_what_was_signed(place: Place, tmp_path: Path) -> None:
    with place.open() as log:
        log.append(AuditRecord(Event.POLICY_LOAD, digests=(("policy", "5f" * 32),)), "worker")  # type: ignore[arg-type]
    audit("prove", place.directory, 0, "--output", tmp_path / "proof")

    assert f"policy sha256 {'5f' * 32}" in audit("verify", tmp_path / "proof", "--key", place.key.public.base64).output


def test_show_prints_a_line_a_record_and_nothing_in_it_acts_on_the_terminal(small: Place) -> None:
    lines = audit("show", small.directory).output.splitlines()

    assert len(lines) == 12
    assert lines[0] == '2026-01-31T12:00:00.000Z 1:0 worker worker-start ok pid=0 version="1"'
    (about,) = [line for line in lines if TASK_ID in line]
    assert about.endswith(f'worker claim ok {TASK_ID}/0 name="a\\u202etask"')
    assert "\u202e" not in about


def test_show_can_be_asked_for_less(small: Place) -> None:
    (of_task,) = audit("show", small.directory, "--task", TASK_ID, "--json").output.splitlines()
    of_event = audit("show", small.directory, "--event", "rotation").output.splitlines()

    assert json.loads(of_task)["event"] == "claim"
    assert len(of_event) == 2
    assert "there is no event 'rotations'" in audit("show", small.directory, "--event", "rotations").output


def test_show_says_where_it_cannot_go_on(small: Place) -> None:
    small.records(2).write_bytes(b"x\n")

    result = audit("show", small.directory)

    assert result.exit_code == 1
    assert "record 0 of shard 2" in result.output


def test_tail_prints_the_newest(small: Place) -> None:
    whole = audit("show", small.directory).output.splitlines()

    assert audit("tail", small.directory, "-n", 3).output.splitlines() == whole[-3:]
    assert len(audit("tail", small.directory, "--task", TASK_ID, "--json").output.splitlines()) == 1


def test_export_is_a_document_that_can_be_verified_without_the_log(small: Place, tmp_path: Path) -> None:
    document = json.loads(audit("export", small.directory, "--key", small.key.public.base64).output)

    assert (len(document["records"]), len(document["checkpoints"]), len(document["keys"])) == (12, 3, 3)
    for record in document["records"]:
        assert verify_proof(record["proof"].encode(), (log_key(small.key),)).shard == record["shard"]
    of_task = json.loads(audit("export", small.directory, "--task", TASK_ID).output)
    assert [record["record"]["event"] for record in of_task["records"]] == ["claim"]
    small.checkpoint(1).write_bytes(b"")
    assert audit("export", small.directory).exit_code == 1


def test_tail_goes_on_with_records_that_come(small: Place) -> None:
    argv = [sys.executable, "-m", "secureworker", "audit", "tail", str(small.directory), "-n", "1", "--follow"]
    with subprocess.Popen([*argv, "--event", "claim"], stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        try:
            assert TASK_ID in following.stdout.readline()
            with small.open() as log:
                log.append(a_record(), "worker")
                log.append(AuditRecord(Event.CLAIM, details=(("name", "the next"),)), "worker")
            assert "the next" in following.stdout.readline()
        finally:
            following.terminate()


def test_show_says_so_where_there_is_nothing_to_show(place: Place) -> None:
    fill(place, 2)

    for asked in (("--task", "fN1SbArXTPSVFNUvaOlinA"), ("--event", "seal"), ("--event", "seal", "--json")):
        result = audit("show", place.directory, *asked)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"the log in {place.directory} has no such record" in result.stderr
    assert audit("show", place.directory, "--task", "nonsense").exit_code == 2


def test_a_record_is_proved_for_what_it_is(small: Place) -> None:
    prover = Prover(str(small.directory), 1)
    first, second = small.lines()[:2]

    with pytest.raises(AuditError, match="record 1 is another one now"):
        prover.prove(1, first)
    check_proof(prover.prove(1, second), second, log_key(small.key).named(origin_of(IDENTITY, 1)))
