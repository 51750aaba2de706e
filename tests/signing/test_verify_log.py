"""The audit log's proof beside the statements: one good case, and every bad one."""

import base64
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from secureworker.cli.main import cli
from secureworker.core.audit import AuditRecord, Ending, Event, Stamp, write_record
from secureworker.core.checkpoint import Checkpoint, InclusionProof, NoteKey, parse_proof, sign_checkpoint, write_proof
from secureworker.core.ids import RunId, Sha256, TaskId, WorkerIdentity
from secureworker.core.merkle import inclusion_proof, leaf_hash, tree_of
from secureworker.signing.keys import SigningKey, create_signing_key
from secureworker.signing.signer import InProcessSigner
from secureworker.signing.verify import Expected, LogDemands, Verdict, verify_directory
from secureworker.testing import IDENTITY, SHA256, TASK_ID
from tests.audit.witness_server import WitnessServer
from tests.signing.conftest import a_statement, write

ANYTHING = Expected()
PROOF = "public/audit.tlog-proof"
ORIGIN = f"secureworker/{IDENTITY}/000001"
OTHER_WORKER = WorkerIdentity(IDENTITY.pool, IDENTITY.worker_group, "other-worker")


def the_record(published: Path) -> AuditRecord:
    """Give the record of the signatures of what is published."""
    chain = (published / "public" / "chain-of-trust.json").read_bytes()
    digests = [("chainOfTrust", chain)]
    bundle = published / "public" / "provenance.sigstore.json"
    if bundle.exists():
        envelope = json.loads(bundle.read_bytes())["dsseEnvelope"]
        digests.append(("provenance", base64.b64decode(envelope["payload"])))
    return AuditRecord(
        Event.SIGNATURE,
        run=(TaskId(TASK_ID), RunId(0)),
        digests=tuple((name, Sha256(hashlib.sha256(content).hexdigest())) for name, content in digests),
    )


def a_proof(
    key: SigningKey,
    record: AuditRecord,
    *,
    origin: str = ORIGIN,
    worker: WorkerIdentity = IDENTITY,
    index: int = 3,
    stamped: int = 3,
) -> bytes:
    """Write a log of five records, of which the fourth is `record`, and prove one of them."""
    boot, now = "00000000-0000-4000-8000-000000000000", datetime(2026, 1, 31, tzinfo=UTC)
    others = [AuditRecord(Event.SIGNER_START)] * 5
    lines = [
        write_record(
            record if place == 3 else other, Stamp(stamped if place == 3 else place, now, 0, boot, "signer", worker)
        )
        for place, other in enumerate(others)
    ]
    leaves = [leaf_hash(line) for line in lines]
    note = sign_checkpoint(
        Checkpoint(origin, len(leaves), tree_of(leaves).root),
        NoteKey(origin, key.public.raw, key.public.verifies),
        key.sign,
    )
    return write_proof(InclusionProof(index, inclusion_proof(leaves, index), note, lines[index]))


def failed(verdict: Verdict) -> str:
    """Say why the step `log` did not pass; all before it did."""
    *passed, last = verdict.steps
    assert all(step.passed for step in passed)
    assert (last.name, last.passed) == ("log", False)
    return last.details[0]


def test_a_proof_of_these_statements_is_verified_and_named(published: Path, key: SigningKey) -> None:
    (published / PROOF).write_bytes(a_proof(key, the_record(published)))

    verdict = verify_directory(str(published), key.public, ANYTHING)

    assert verdict.verified
    assert verdict.steps[8].details == (f"the signature is record 3 of {ORIGIN}",)
    assert PROOF not in verdict.steps[-1].details[0]


async def test_a_run_without_provenance_has_its_proof_too(
    signer: InProcessSigner, key: SigningKey, tmp_path: Path
) -> None:
    write(tmp_path / "empty", await signer.sign(a_statement()))
    (tmp_path / "empty" / PROOF).write_bytes(a_proof(key, the_record(tmp_path / "empty")))

    assert verify_directory(str(tmp_path / "empty"), key.public, ANYTHING).verified


def test_without_a_proof_none_is_claimed(published: Path, key: SigningKey) -> None:
    assert verify_directory(str(published), key.public, ANYTHING).steps[8].details == ("no proof is there",)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff", b"c2sp.org/tlog-proof@v1\nindex 0\n\n"])
def test_what_is_no_proof_is_noticed(published: Path, key: SigningKey, content: bytes) -> None:
    (published / PROOF).write_bytes(content)

    assert PROOF in failed(verify_directory(str(published), key.public, ANYTHING))


def test_every_byte_of_a_proof_counts(published: Path, key: SigningKey) -> None:
    good = a_proof(key, the_record(published))
    for place in range(0, len(good), 23):
        changed = bytearray(good)
        changed[place] ^= 1
        (published / PROOF).write_bytes(changed)

        assert failed(verify_directory(str(published), key.public, ANYTHING))


@pytest.mark.parametrize("command", [("verify",), ("audit", "verify")])
def test_nothing_of_a_proof_reaches_a_terminal_as_it_came(
    published: Path, key: SigningKey, tmp_path: Path, command: tuple[str, ...]
) -> None:
    hostile = "secureworker/\x1b[2J\x1b]0;verified\x07\x9b/000001"
    proof = a_proof(key, the_record(published)).replace(ORIGIN.encode(), hostile.encode())
    (published / PROOF).write_bytes(proof)
    (tmp_path / "key.pub").write_text(key.public.openssh)
    target = published if command == ("verify",) else published / PROOF

    told = CliRunner().invoke(cli, [*command, str(target), "--key", str(tmp_path / "key.pub")])

    assert told.exit_code == 1
    assert "\\x1b]0;verified\\x07" in told.output
    assert told.output.replace("\n", "").isprintable()


def test_a_log_that_another_key_signed_is_noticed(published: Path, key: SigningKey, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir(mode=0o700)
    other = create_signing_key(str(tmp_path / "others" / "key"))
    (published / PROOF).write_bytes(a_proof(other, the_record(published)))

    assert "not signed by" in failed(verify_directory(str(published), key.public, ANYTHING))


@pytest.mark.parametrize(
    "fields",
    [
        {"worker": OTHER_WORKER},
        {"origin": f"secureworker/{OTHER_WORKER}/000001"},
        {"worker": OTHER_WORKER, "origin": f"secureworker/{OTHER_WORKER}/000001"},
        {"origin": "log.example.com"},
        {"stamped": 2},
    ],
)
def test_another_workers_log_or_place_is_noticed(
    published: Path, key: SigningKey, fields: dict[str, str | int | WorkerIdentity]
) -> None:
    (published / PROOF).write_bytes(a_proof(key, the_record(published), **fields))  # type: ignore[arg-type]  # each has its type

    assert "another" in failed(verify_directory(str(published), key.public, ANYTHING))


def test_a_proof_of_something_else_is_noticed(published: Path, key: SigningKey) -> None:
    good = the_record(published)
    for record, why in (
        (replace(good, event=Event.SEAL), "none of a signature"),
        (replace(good, ending=Ending.REFUSED), "none of a signature"),
        (replace(good, run=(TaskId(TASK_ID), RunId(1))), "one of another run"),
        (replace(good, run=None), "one of another run"),
        (replace(good, digests=good.digests[:1]), "one of other statements"),
        (replace(good, digests=(good.digests[0], ("provenance", SHA256))), "one of other statements"),
    ):
        (published / PROOF).write_bytes(a_proof(key, record))

        assert why in failed(verify_directory(str(published), key.public, ANYTHING))


def test_a_proof_of_another_record_of_the_log_is_noticed(published: Path, key: SigningKey) -> None:
    (published / PROOF).write_bytes(a_proof(key, the_record(published), index=1))

    assert "none of a signature" in failed(verify_directory(str(published), key.public, ANYTHING))


@pytest.mark.parametrize("cosigned", [True, False])
def test_a_witness_that_is_demanded_must_have_signed_the_proofs_checkpoint(
    published: Path, key: SigningKey, *, cosigned: bool
) -> None:
    witness = WitnessServer(key)
    proof = parse_proof(a_proof(key, the_record(published)))
    proof = replace(proof, note=witness.cosign(proof.note)) if cosigned else proof
    (published / PROOF).write_bytes(write_proof(proof))

    verdict = verify_directory(
        str(published), key.public, ANYTHING, demands=LogDemands(witnesses=(witness.witness_key,))
    )

    assert verdict.verified is cosigned
    assert (f"cosigned by {witness.name}" if cosigned else "is not cosigned by") in verdict.steps[8].details[0]


def test_a_witness_that_is_demanded_is_missed_where_no_proof_is(published: Path, key: SigningKey) -> None:
    demands = LogDemands(witnesses=(WitnessServer(key).witness_key,))

    assert "is to have cosigned one" in failed(verify_directory(str(published), key.public, ANYTHING, demands=demands))


def test_a_proof_of_incredible_size_is_not_read(published: Path, key: SigningKey) -> None:
    (published / PROOF).write_bytes(bytes(1024 * 1024 + 1))

    assert "has more than" in failed(verify_directory(str(published), key.public, ANYTHING))
