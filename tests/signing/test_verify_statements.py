"""Both statements of a run against each other, by a trust file; and provenance by itself."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from secureworker.core.ids import RunId, WorkerIdentity, WorkerPool
from secureworker.core.provenance import PAYLOAD_TYPE, bundle, message
from secureworker.core.trust import Implementation, KeyState, Trust, TrustKey, TrustPool, fingerprint, hint
from secureworker.signing.keys import SigningKey, create_signing_key
from secureworker.signing.publickeys import PublicKey
from secureworker.signing.signer import InProcessSigner
from secureworker.signing.verify import Expected, Verdict, verify_bundle, verify_directory
from secureworker.testing import EPOCH, IDENTITY, ROOT_URL, TASK_ID, a_claim, an_artifact
from tests.signing.conftest import a_statement, write

ANYTHING = Expected()
BODY = "public/chain-of-trust.json"
SIGNATURE = "public/chain-of-trust.json.sig"
PROVENANCE = "public/provenance.sigstore.json"
DAY = EPOCH.date()

Change = Callable[[dict[str, Any]], object]


def failed(verdict: Verdict) -> tuple[str, str]:
    """Give the step that did not pass, and why; all before it passed."""
    assert not verdict.verified
    *passed, last = verdict.steps
    assert all(step.passed for step in passed)
    assert not last.passed
    return last.name, "; ".join(last.details)


def trust_in(
    key: SigningKey,
    pool: WorkerPool = IDENTITY.pool,
    implementation: Implementation = Implementation.SECUREWORKER,
    root_url: str = "",
    **fields: Any,
) -> Trust:
    return Trust((TrustPool(pool, implementation, (TrustKey(key.public.raw, **fields),)),), root_url)


@pytest.fixture
def other_key(tmp_path: Path) -> SigningKey:
    (tmp_path / "others").mkdir(mode=0o700)
    return create_signing_key(str(tmp_path / "others" / "signing"))


def resign(directory: Path, key: SigningKey, change: Change = lambda _: None) -> None:
    """Change the provenance, and sign what came out, as who holds the key could."""
    envelope = json.loads((directory / PROVENANCE).read_bytes())["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    change(statement)
    payload = json.dumps(statement).encode()
    names = {"key_id": key.public.fingerprint, "hint": key.public.hint}
    (directory / PROVENANCE).write_bytes(bundle(payload, key.sign(message(payload)), **names))


def rewrite(directory: Path, change: Change) -> None:
    """Change the bundle without a key."""
    document = json.loads((directory / PROVENANCE).read_bytes())
    change(document)
    (directory / PROVENANCE).write_bytes(json.dumps(document).encode())


def envelope_of(document: dict[str, Any]) -> dict[str, Any]:
    envelope: dict[str, Any] = document["dsseEnvelope"]
    return envelope


def flip(text: str, place: int) -> str:
    content = bytearray(base64.b64decode(text))
    content[place] ^= 1
    return base64.b64encode(content).decode()


def test_both_statements_are_verified_by_a_trust_file(published: Path, key: SigningKey) -> None:
    verdict = verify_directory(str(published), trust_in(key, root_url=ROOT_URL), ANYTHING, EPOCH)

    assert verdict.verified
    details = {step.name: step.details[0] for step in verdict.steps}
    assert details["form"] == "a chain of trust, version 1, as secureworker writes it"
    assert details["provenance"] == f"signed by {key.public.fingerprint}"
    assert details["statement"] == "SLSA provenance v1 of 2 artifacts"
    assert details["key"] == f"{key.public.fingerprint} counts for {IDENTITY.pool}"
    assert (verdict.task_id, verdict.run_id, verdict.key) == (TASK_ID, 0, key.public.fingerprint)


def test_the_pure_names_of_a_key_are_those_that_the_library_gives(key: SigningKey) -> None:
    assert fingerprint(key.public.raw) == key.public.fingerprint
    assert hint(key.public.raw) == key.public.hint


def test_provenance_that_is_due_and_missing_is_noticed(published: Path, key: SigningKey) -> None:
    (published / PROVENANCE).unlink()

    name, why = failed(verify_directory(str(published), key.public, ANYTHING))

    assert name == "provenance"
    assert "is missing, and its worker signs one" in why


async def test_a_run_without_outputs_has_no_provenance_and_needs_none(
    signer: InProcessSigner, key: SigningKey, tmp_path: Path
) -> None:
    files = await signer.sign(a_statement())
    write(tmp_path / "empty", files)

    assert [file.name for file in files] == [BODY, SIGNATURE]
    assert verify_directory(str(tmp_path / "empty"), trust_in(key), ANYTHING).verified


@pytest.mark.parametrize("part", ["payload", "sig"])
def test_one_byte_of_provenance_changed_is_noticed(published: Path, key: SigningKey, part: str) -> None:
    def change(document: dict[str, Any]) -> None:
        place = envelope_of(document) if part == "payload" else envelope_of(document)["signatures"][0]
        place[part] = flip(place[part], 20)

    rewrite(published, change)

    name, why = failed(verify_directory(str(published), key.public, ANYTHING))
    assert (name, "over payload and type" in why) == ("provenance", True)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: envelope_of(d).update(payloadType="text/plain"),
        lambda d: d.update(mediaType="application/json"),
        lambda d: envelope_of(d)["signatures"].append(envelope_of(d)["signatures"][0]),
        lambda d: envelope_of(d)["signatures"][0].update(keyid="SHA256:other"),
        lambda d: d["verificationMaterial"]["publicKey"].update(hint="b3RoZXI="),
    ],
)
def test_a_bundle_with_another_type_signature_or_name_of_its_key_is_noticed(
    published: Path, key: SigningKey, change: Change
) -> None:
    rewrite(published, change)

    assert failed(verify_directory(str(published), key.public, ANYTHING))[0] == "provenance"


def test_a_signature_over_the_bare_payload_is_none(published: Path, key: SigningKey) -> None:
    payload = base64.b64decode(json.loads((published / PROVENANCE).read_bytes())["dsseEnvelope"]["payload"])
    names = {"key_id": key.public.fingerprint, "hint": key.public.hint}
    (published / PROVENANCE).write_bytes(bundle(payload, key.sign(payload), **names))

    assert failed(verify_directory(str(published), key.public, ANYTHING))[0] == "provenance"


def test_a_signature_for_another_type_does_not_carry_over(published: Path, key: SigningKey) -> None:
    payload = base64.b64decode(json.loads((published / PROVENANCE).read_bytes())["dsseEnvelope"]["payload"])
    names = {"key_id": key.public.fingerprint, "hint": key.public.hint}
    signature = key.sign(message(payload, f"{PAYLOAD_TYPE}; other"))
    (published / PROVENANCE).write_bytes(bundle(payload, signature, **names))

    assert failed(verify_directory(str(published), key.public, ANYTHING))[0] == "provenance"


def test_provenance_by_another_key_of_the_pool_is_not_that_of_this_run(
    published: Path, key: SigningKey, other_key: SigningKey
) -> None:
    resign(published, other_key)
    keys = (TrustKey(key.public.raw), TrustKey(other_key.public.raw))
    trust = Trust((TrustPool(IDENTITY.pool, Implementation.SECUREWORKER, keys),))

    assert failed(verify_directory(str(published), trust, ANYTHING))[0] == "provenance"


def test_signed_provenance_of_another_form_is_noticed(published: Path, key: SigningKey) -> None:
    resign(published, key, lambda statement: statement.update(predicateType="https://example.com/other"))

    assert failed(verify_directory(str(published), key.public, ANYTHING))[0] == "statement"


def test_provenance_of_other_artifacts_is_noticed(published: Path, key: SigningKey) -> None:
    resign(published, key, lambda statement: statement["subject"].pop())

    name, why = failed(verify_directory(str(published), key.public, ANYTHING))

    assert (name, why) == ("agreement", "the statements differ in the artifacts")


async def test_provenance_of_another_run_is_noticed(
    published: Path, signer: InProcessSigner, key: SigningKey, tmp_path: Path
) -> None:
    claim = replace(a_claim(), run_id=RunId(1))
    artifacts = (an_artifact("public/a.txt", b"content of a"), an_artifact("public/build/b.bin", bytes(3_000_000)))
    other = await signer.sign(replace(a_statement(*artifacts), claim=claim))
    write(published, tuple(file for file in other if file.name == PROVENANCE))

    name, why = failed(verify_directory(str(published), key.public, ANYTHING))

    assert name == "agreement"
    assert "the statements differ in the run" in why
    assert "beside another chain of trust" in why


def test_a_run_of_another_deployment_is_noticed(published: Path, key: SigningKey) -> None:
    trust = trust_in(key, root_url="https://other.example.com")

    for verdict in (
        verify_directory(str(published), trust, ANYTHING),
        verify_directory(str(published), key.public, Expected(root_url="https://other.example.com")),
    ):
        assert failed(verdict) == ("agreement", f"the run is of {ROOT_URL}, not https://other.example.com")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"state": KeyState.REVOKED}, "is revoked"),
        ({"state": KeyState.RETIRED, "valid_until": DAY - timedelta(days=1)}, "was valid until"),
        ({"state": KeyState.NEXT, "valid_from": DAY + timedelta(days=1)}, "is valid from"),
    ],
)
def test_a_key_that_does_not_count_any_more_or_yet_is_noticed(
    published: Path, key: SigningKey, fields: dict[str, Any], why: str
) -> None:
    name, found = failed(verify_directory(str(published), trust_in(key, **fields), ANYTHING))

    assert (name, why in found) == ("key", True)


@pytest.mark.parametrize(
    "fields", [{"state": KeyState.RETIRED, "valid_until": DAY}, {"state": KeyState.NEXT, "valid_from": DAY}]
)
def test_retired_and_next_keys_count_in_their_days(published: Path, key: SigningKey, fields: dict[str, Any]) -> None:
    assert verify_directory(str(published), trust_in(key, **fields), ANYTHING).verified


def test_another_pools_key_is_noticed(published: Path, key: SigningKey, other_key: SigningKey) -> None:
    other = TrustPool(WorkerPool("a", "b"), Implementation.SECUREWORKER, (TrustKey(key.public.raw),))
    ours = TrustPool(IDENTITY.pool, Implementation.SECUREWORKER, (TrustKey(other_key.public.raw),))

    name, why = failed(verify_directory(str(published), Trust((other, ours)), ANYTHING))

    assert (name, f"is no key of the worker pool {IDENTITY.pool}" in why) == ("key", True)


def test_a_pool_that_is_not_in_the_trust_file_is_noticed(published: Path, key: SigningKey) -> None:
    trust = trust_in(key, WorkerPool("a", "b"))

    assert failed(verify_directory(str(published), trust, ANYTHING))[1] == (
        f"the trust file has no worker pool {IDENTITY.pool}"
    )


def test_a_statement_from_the_future_is_noticed(published: Path, key: SigningKey) -> None:
    verdict = verify_directory(str(published), key.public, ANYTHING, EPOCH - timedelta(hours=1))

    name, why = failed(verdict)
    assert (name, "which is to come" in why) == ("key", True)


@pytest.mark.parametrize(
    ("expected", "why"),
    [
        (Expected(run_state="failed"), "the Queue says that the run is failed, and not completed"),
        (Expected(definition={"payload": {}}), "the task's definition is not the one that the Queue has"),
        (
            Expected(worker=WorkerIdentity(IDENTITY.pool, "test-group", "other")),
            f"it is about the worker {IDENTITY}, not {IDENTITY.pool}/test-group/other",
        ),
    ],
)
def test_what_the_queue_says_otherwise_is_noticed(
    published: Path, key: SigningKey, expected: Expected, why: str
) -> None:
    assert failed(verify_directory(str(published), key.public, expected)) == ("subject", why)


def test_what_the_queue_says_alike_is_verified(published: Path, key: SigningKey) -> None:
    expected = Expected(
        worker=IDENTITY, definition=a_claim().task.verbatim, run_state="completed", root_url=f"{ROOT_URL}/"
    )

    assert verify_directory(str(published), key.public, expected).verified


def another_workers(directory: Path, key: SigningKey, **more: object) -> None:
    """Make of a directory what generic-worker would have published: no provenance, another environment."""
    body = json.loads((directory / BODY).read_bytes())
    (directory / PROVENANCE).unlink()
    body.update(environment={"privateIpAddress": "10.0.0.1"}, **more)
    written = json.dumps(body, indent=2).encode()
    (directory / BODY).write_bytes(written)
    (directory / SIGNATURE).write_bytes(key.sign(written))


def test_what_generic_worker_published_is_verified_without_provenance(published: Path, key: SigningKey) -> None:
    another_workers(published, key, additional={"by": "the task"})
    trust = trust_in(key, implementation=Implementation.GENERIC_WORKER)

    verdict = verify_directory(str(published), trust, ANYTHING, EPOCH)

    assert verdict.verified
    assert verdict.steps[4].details == ("none is there, and none is due",)


def test_in_a_pool_of_this_worker_no_other_form_will_do(published: Path, key: SigningKey) -> None:
    another_workers(published, key)

    assert failed(verify_directory(str(published), trust_in(key), ANYTHING))[0] == "form"


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({"valid_from": DAY, "valid_until": DAY}, True),
        ({"valid_until": DAY - timedelta(days=1)}, False),
        ({"valid_from": date(2030, 1, 1)}, False),
    ],
)
def test_without_provenance_the_tasks_own_times_are_those_that_count(
    published: Path, key: SigningKey, fields: dict[str, Any], *, counts: bool
) -> None:
    another_workers(published, key)
    trust = trust_in(key, implementation=Implementation.SCRIPTWORKER, **fields)

    assert verify_directory(str(published), trust, ANYTHING).verified is counts


# Provenance by itself.


def lone(published: Path, *files: Path, trusted: Trust | PublicKey, expected: Expected = ANYTHING) -> Verdict:
    return verify_bundle(str(published / PROVENANCE), tuple(map(str, files)), trusted, expected, EPOCH)


def test_a_bundle_by_itself_is_verified_with_the_files_that_are_given(
    published: Path, key: SigningKey, tmp_path: Path
) -> None:
    renamed = tmp_path / "renamed"
    renamed.write_bytes(b"content of a")

    verdict = lone(published, published / "public" / "a.txt", renamed, trusted=trust_in(key, root_url=ROOT_URL))

    assert verdict.verified
    assert [step.name for step in verdict.steps] == ["provenance", "statement", "subject", "log", "key", "hashes"]
    assert verdict.steps[-1].details == ("2 files are as they were signed, of 2 subjects",)
    assert (verdict.task_id, verdict.run_id) == (TASK_ID, 0)


def test_a_file_that_is_no_subject_is_noticed(published: Path, key: SigningKey, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"other")

    name, why = failed(lone(published, tmp_path / "a.txt", tmp_path / "missing", trusted=key.public))

    assert name == "hashes"
    assert "which was not signed under this name" in why
    assert "missing: cannot be read: No such file" in why


def test_one_subject_in_anothers_place_is_noticed(published: Path, key: SigningKey, tmp_path: Path) -> None:
    (tmp_path / "b.bin").write_bytes(b"content of a")

    assert failed(lone(published, tmp_path / "b.bin", trusted=key.public))[0] == "hashes"


def test_a_lone_bundle_by_a_stranger_is_not_believed(published: Path, other_key: SigningKey) -> None:
    verdict = lone(published, trusted=other_key.public)

    assert failed(verdict)[0] == "provenance"
    assert (verdict.task_id, verdict.run_id, verdict.key) == (None, None, None)


def test_a_lone_bundle_about_something_else_is_noticed(published: Path, key: SigningKey) -> None:
    asked = Expected(run_id=RunId(1), root_url="https://other.example.com")

    name, why = failed(lone(published, trusted=key.public, expected=asked))

    assert name == "subject"
    assert why == f"it is about the run 0, not 1; the run is of {ROOT_URL}, not https://other.example.com"


def test_a_lone_bundle_of_incredible_size_is_not_read(tmp_path: Path, key: SigningKey) -> None:
    with (tmp_path / "bundle").open("wb") as file:
        file.truncate(129 * 1024 * 1024)

    with pytest.raises(ValueError, match="and so is no bundle"):
        verify_bundle(str(tmp_path / "bundle"), (), key.public, ANYTHING)
