"""What a key signed before it was stolen, and everything that its thief can make: real signers, real logs, real files.

The thief has the key, the log and every statement. He can sign checkpoints, write another log of any size, take the
published proofs apart and put them together anew. What he cannot move is the root that the auditor kept.
"""

import base64
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from secureworker.audit.proofs import prove
from secureworker.audit.shards import LogKey
from secureworker.cli.main import cli
from secureworker.core.audit import read_record, write_record
from secureworker.core.checkpoint import Checkpoint, NoteKey, open_checkpoint, parse_proof, sign_checkpoint, write_proof
from secureworker.core.ids import WorkerIdentity
from secureworker.core.merkle import inclusion_proof, leaf_hash, tree_of
from secureworker.core.trust import Implementation, KeyState, Trust, TrustKey, TrustPool
from secureworker.ports import SignedFile
from secureworker.signing.keys import SigningKey
from secureworker.signing.statements import build, sign
from secureworker.signing.verify import Expected, LogDemands, Verdict, verify_bundle, verify_directory
from secureworker.testing import IDENTITY, ROOT_URL, an_artifact
from tests.signing.conftest import write
from tests.signing.served import a_statement, client_of, opened

PROOF = "public/audit.tlog-proof"
BUNDLE = "public/provenance.sigstore.json"
ORIGIN = f"secureworker/{IDENTITY}/000001"
BEFORE = ("fN1SbArXTPSVFNUvaOlinQ", "fN1SbArXTPSVFNUvaOlinA")
AFTER = ("fN1SbArXTPSVFNUvaOling",)


@dataclass
class Theft:
    """A log with two honest runs, the checkpoint that an auditor kept then, and a run that the thief had signed."""

    directory: Path
    key: SigningKey
    kept: bytes

    @property
    def audit(self) -> Path:
        return self.directory / "audit"

    @property
    def good(self) -> Checkpoint:
        return open_checkpoint(self.kept, self.log_key)

    @property
    def log_key(self) -> NoteKey:
        return LogKey(self.key.public.raw, self.key.public.verifies).named(ORIGIN)

    def trust(self, *good: Checkpoint) -> Trust:
        key = TrustKey(self.key.public.raw, KeyState.REVOKED, last_good=good or (self.good,))
        return Trust((TrustPool(IDENTITY.pool, Implementation.SECUREWORKER, (key,)),), ROOT_URL)

    def run(self, task_id: str) -> Path:
        return self.directory / task_id

    def index_of(self, task_id: str) -> int:
        return parse_proof((self.run(task_id) / PROOF).read_bytes()).index

    def verify(self, task_id: str, proof: bytes | None = None, trust: Trust | None = None) -> Verdict:
        about = self.trust() if trust is None else trust
        return verify_directory(str(self.run(task_id)), about, Expected(), demands=LogDemands(proof))

    def forge(self, lines: list[bytes], index: int, origin: str = ORIGIN) -> bytes:
        """Write a log of one's own with these records, signed with the stolen key; prove one of them."""
        leaves = [leaf_hash(line) for line in lines]
        forged = Checkpoint(origin, len(leaves), tree_of(leaves).root)
        note = sign_checkpoint(forged, replace(self.log_key, name=origin), self.key.sign)
        published = parse_proof((self.run(BEFORE[0]) / PROOF).read_bytes())
        return write_proof(
            replace(published, index=index, hashes=inclusion_proof(leaves, index), note=note, extra=lines[index])
        )


def publish(directory: Path, task_id: str, files: tuple[SignedFile, ...]) -> None:
    write(directory / task_id, files)
    (directory / task_id / "public").mkdir(exist_ok=True, parents=True)
    (directory / task_id / "public" / "a.txt").write_bytes(b"content")


@pytest.fixture
async def theft(tmp_path: Path, key: SigningKey) -> Theft:
    with opened(tmp_path / "audit", key) as parts, client_of(*parts, key) as client:
        for task_id in BEFORE:
            publish(
                tmp_path,
                task_id,
                await client.sign(a_statement(an_artifact("public/a.txt", b"content"), task_id=task_id)),
            )
        kept = (tmp_path / "audit" / "000001.checkpoint").read_bytes()
        for task_id in AFTER:
            publish(
                tmp_path,
                task_id,
                await client.sign(a_statement(an_artifact("public/a.txt", b"content"), task_id=task_id)),
            )
    return Theft(tmp_path, key, kept)


def refused(verdict: Verdict) -> tuple[str, str]:
    assert not verdict.verified
    last = verdict.steps[-1]
    assert not last.passed
    return last.name, last.details[0]


def test_what_was_signed_before_counts_by_its_published_proof_where_that_is_the_kept_log(theft: Theft) -> None:
    verdict = theft.verify(BEFORE[1])

    assert verdict.verified
    (key,) = [step for step in verdict.steps if step.name == "key"]
    assert key.details[0].endswith(
        f"though it is revoked: record {theft.index_of(BEFORE[1])} of the {theft.good.size} of {ORIGIN} from before"
    )


def test_an_older_run_counts_once_its_record_is_proved_in_the_kept_log(theft: Theft) -> None:
    name, why = refused(theft.verify(BEFORE[0]))
    assert (name, "have it proved there" in why) == ("key", True)

    proof = write_proof(prove(str(theft.audit), 1, theft.index_of(BEFORE[0]), theft.kept))

    assert theft.verify(BEFORE[0], proof).verified


def test_the_first_record_after_the_kept_log_does_not_count(theft: Theft) -> None:
    assert theft.index_of(AFTER[0]) == theft.good.size

    name, why = refused(theft.verify(AFTER[0]))

    assert name == "key"
    assert f"this is record {theft.good.size} of {ORIGIN}, of which only the first {theft.good.size} count" in why


def test_a_revoked_key_without_a_kept_log_signs_nothing_that_counts(theft: Theft) -> None:
    key = TrustKey(theft.key.public.raw, KeyState.REVOKED)
    trust = Trust((TrustPool(IDENTITY.pool, Implementation.SECUREWORKER, (key,)),), ROOT_URL)

    name, why = refused(theft.verify(BEFORE[1], trust=trust))

    assert (name, "has no checkpoint of a log from before" in why) == ("key", True)


def test_without_any_proof_nothing_of_a_revoked_key_counts(theft: Theft) -> None:
    (theft.run(BEFORE[1]) / PROOF).unlink()

    name, why = refused(theft.verify(BEFORE[1]))

    assert (name, "no proof shows" in why) == ("key", True)


@pytest.mark.parametrize("size", ["same", "smaller", "larger"])
def test_a_thiefs_own_log_does_not_count_whatever_its_size(theft: Theft, size: str) -> None:
    # The record of the forbidden run goes to the front of a new log, which the stolen key signs.
    stolen = parse_proof((theft.run(AFTER[0]) / PROOF).read_bytes())
    record, stamp = read_record(stolen.extra)
    moved = write_record(record, replace(stamp, index=0))
    count = {"same": theft.good.size, "smaller": 1, "larger": theft.good.size + 5}[size]
    proof = theft.forge([moved, *(f"line {n}".encode() for n in range(count - 1))], 0)

    name, why = refused(theft.verify(AFTER[0], proof))

    assert name == "key"
    assert ("its root is not the trust file's" in why) is (size == "same")


def test_the_kept_checkpoint_does_not_vouch_for_a_record_that_is_not_in_it(theft: Theft) -> None:
    # His record, under the auditor's own checkpoint: any index, any hashes.
    stolen = parse_proof((theft.run(AFTER[0]) / PROOF).read_bytes())
    real = prove(str(theft.audit), 1, 0, theft.kept)
    for index in (0, 1, stolen.index):
        name, why = refused(theft.verify(AFTER[0], write_proof(replace(real, index=index, extra=stolen.extra))))

        assert name == "log"
        assert "proof" in why or "no record" in why or "another place" in why


def test_a_proof_of_another_run_does_not_do(theft: Theft) -> None:
    honest = (theft.run(BEFORE[1]) / PROOF).read_bytes()

    assert refused(theft.verify(AFTER[0], honest)) == ("log", f"{PROOF}: the record is one of another run")


def test_the_record_of_an_honest_run_does_not_cover_other_statements_about_it(theft: Theft, tmp_path: Path) -> None:
    """He has the key: he signs other outputs for an honest run, and shows that run's honest proof."""
    statement = a_statement(an_artifact("public/a.txt", b"malice"), task_id=BEFORE[1])
    files = sign(build(statement), theft.key)
    honest = (theft.run(BEFORE[1]) / PROOF).read_bytes()
    write(tmp_path / "forged", files)
    (tmp_path / "forged" / "public" / "a.txt").write_bytes(b"malice")
    (tmp_path / "forged" / PROOF).write_bytes(honest)

    verdict = verify_directory(str(tmp_path / "forged"), theft.trust(), Expected())

    assert refused(verdict) == ("log", f"{PROOF}: the record is one of other statements")


def test_half_of_an_honest_runs_statements_is_not_covered_either(theft: Theft) -> None:
    (theft.run(BEFORE[1]) / BUNDLE).unlink()

    assert refused(theft.verify(BEFORE[1]))[0] == "provenance"


def test_the_kept_log_of_another_worker_of_the_same_key_does_not_count(theft: Theft) -> None:
    other = WorkerIdentity(IDENTITY.pool, IDENTITY.worker_group, "other-worker")
    elsewhere = replace(theft.good, origin=f"secureworker/{other}/000001")

    name, why = refused(theft.verify(BEFORE[1], trust=theft.trust(elsewhere)))

    assert (name, f"no checkpoint of {ORIGIN} from before" in why) == ("key", True)


def test_every_bit_of_the_kept_root_counts(theft: Theft) -> None:
    for place in range(0, 32, 5):
        root = bytearray(theft.good.root)
        root[place] ^= 1

        assert refused(theft.verify(BEFORE[1], trust=theft.trust(replace(theft.good, root=bytes(root)))))[0] == "key"


def test_a_bundle_by_itself_needs_a_proof_that_is_given(theft: Theft) -> None:
    def lone(task_id: str, proof: bytes | None) -> Verdict:
        run = theft.run(task_id)
        return verify_bundle(
            str(run / BUNDLE), (str(run / "public/a.txt"),), theft.trust(), Expected(), demands=LogDemands(proof)
        )

    assert refused(lone(BEFORE[1], None))[0] == "key"
    assert lone(BEFORE[1], (theft.run(BEFORE[1]) / PROOF).read_bytes()).verified
    assert refused(lone(AFTER[0], (theft.run(BEFORE[1]) / PROOF).read_bytes()))[0] == "log"
    assert refused(lone(AFTER[0], (theft.run(AFTER[0]) / PROOF).read_bytes()))[0] == "key"


def test_what_was_given_in_place_of_the_published_proof_says_nothing_about_that(theft: Theft) -> None:
    proof = write_proof(prove(str(theft.audit), 1, theft.index_of(BEFORE[1]), theft.kept))
    (theft.run(BEFORE[1]) / PROOF).write_bytes(b"nonsense")

    verdict = theft.verify(BEFORE[1], proof)

    assert verdict.verified
    assert f"not covered by the signature: '{PROOF}'" in verdict.steps[-1].details[0]


# By the commands, as an auditor does it


@pytest.fixture
def trust_file(theft: Theft) -> Path:
    lines = theft.kept.decode().splitlines()[:3]
    path = theft.directory / "trust.yml"
    path.write_text(
        f"version: 1\nroot-url: {ROOT_URL}\nworker-pools:\n  {IDENTITY.pool}:\n    implementation: secureworker\n"
        f'    keys:\n      - id: "{theft.key.public.fingerprint}"\n'
        f'        public: "{base64.b64encode(theft.key.public.raw).decode()}"\n        state: revoked\n'
        "        last-good-checkpoints:\n          - |\n" + "".join(f"            {line}\n" for line in lines)
    )
    return path


def command(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def test_a_release_from_before_is_verified_with_the_log_and_the_kept_checkpoint(
    theft: Theft, trust_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_bytes(theft.kept)
    assert command("verify", theft.run(BEFORE[0]), "--trust", trust_file)[0] == 1

    made = command(
        "audit",
        "prove",
        theft.audit,
        "--task",
        BEFORE[0],
        "--checkpoint",
        tmp_path / "kept",
        "--output",
        tmp_path / "proof",
    )

    assert made == (0, "")
    code, said = command("verify", theft.run(BEFORE[0]), "--trust", trust_file, "--log-proof", tmp_path / "proof")
    assert code == 0, said
    assert "though it is revoked" in said


def test_what_came_after_cannot_be_proved_as_of_the_kept_checkpoint(theft: Theft, tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(theft.kept)

    code, said = command("audit", "prove", theft.audit, "--task", AFTER[0], "--checkpoint", tmp_path / "kept")

    assert code == 1
    assert f"it has {theft.good.size} that are signed for, as of the checkpoint that was kept" in said


def test_a_log_that_was_written_anew_proves_nothing_as_of_the_kept_checkpoint(theft: Theft, tmp_path: Path) -> None:
    shutil.copytree(theft.audit, tmp_path / "anew")
    lines = (tmp_path / "anew" / "000001.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "anew" / "000001.jsonl").write_bytes(b"".join(reversed(lines)))
    (tmp_path / "kept").write_bytes(theft.kept)

    code, said = command("audit", "prove", tmp_path / "anew", "0", "--checkpoint", tmp_path / "kept")

    assert (code, "do not lead to the root" in said) == (1, True)


def test_a_kept_checkpoint_of_another_shard_is_not_taken(theft: Theft, tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(theft.kept.replace(b"/000001\n", b"/000002\n", 1))

    code, said = command("audit", "prove", theft.audit, "0", "--checkpoint", tmp_path / "kept")

    assert (code, "is of another shard" in said) == (1, True)


@pytest.mark.parametrize("arguments", [[], ["0", "--task", BEFORE[0]]])
def test_which_record_is_to_be_proved_is_said_once(theft: Theft, arguments: list[str]) -> None:
    assert command("audit", "prove", theft.audit, *arguments)[0] == 2


def test_a_task_that_was_never_signed_for_has_no_proof(theft: Theft) -> None:
    code, said = command("audit", "prove", theft.audit, "--task", "fN1SbArXTPSVFNUvaOlinw")

    assert (code, "has no signature for the task fN1SbArXTPSVFNUvaOlinw" in said) == (1, True)
