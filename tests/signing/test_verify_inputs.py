"""The summary of the inputs' verification: made with the provenance, and held against it."""

import base64
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secureworker.core.ids import ArtifactName, RunId, TaskId
from secureworker.core.provenance import bundle, message
from secureworker.core.summary import SUMMARY
from secureworker.ports import Statement, VerifiedInput
from secureworker.signing.keys import SigningKey, create_signing_key
from secureworker.signing.signer import InProcessSigner
from secureworker.signing.verify import Expected, Verdict, verify_directory
from secureworker.testing import ROOT_URL, SHA256, TASK_ID, an_artifact
from tests.signing.conftest import a_statement, write

ANYTHING = Expected()
UPSTREAM = TaskId("TyRoGA_OS3W2QMCEuF1icw")
CHAIN, BUNDLE = "public/chain-of-trust.json", "public/provenance.sigstore.json"

MODELS = """
import json, pathlib, sys
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.vsa.v1.vsa_pb2 import VerificationSummary
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from sigstore_models.bundle.v1 import Bundle

document = json.loads(Bundle.from_json(pathlib.Path(sys.argv[1]).read_bytes()).dsse_envelope.payload)
# A list by the specification; this model has a single text there.
assert document["predicate"].pop("verifiedLevels") == ["SLSA_BUILD_LEVEL_UNEVALUATED"]
Statement.copy_from_pb(ParseDict(document, statement_pb2.Statement())).validate()
print(ParseDict(document["predicate"], VerificationSummary()).verification_result)
"""


def with_inputs() -> Statement:
    inputs = tuple(
        VerifiedInput(UPSTREAM, RunId(1), ArtifactName(name), SHA256)
        for name in ("public/in.apk", "public/other", CHAIN, BUNDLE)
    )
    return replace(a_statement(an_artifact("public/a", b"content")), inputs=inputs)


@pytest.fixture
async def with_summary(signer: InProcessSigner, tmp_path: Path) -> Path:
    directory = tmp_path / "with-inputs"
    write(directory, await signer.sign(with_inputs()))
    (directory / "public" / "a").write_bytes(b"content")
    return directory


def failed(verdict: Verdict) -> str:
    """Say why the step `inputs` did not pass; all before it did."""
    *passed, last = verdict.steps
    assert all(step.passed for step in passed)
    assert (last.name, last.passed) == ("inputs", False)
    return last.details[0]


def test_a_summary_says_what_was_verified_by_whom_and_by_which_policy(with_summary: Path) -> None:
    envelope = json.loads((with_summary / SUMMARY).read_bytes())["dsseEnvelope"]

    statement = json.loads(base64.b64decode(envelope["payload"]))

    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/verification_summary/v1"
    assert [each["name"] for each in statement["subject"]] == [
        f"input/{UPSTREAM}/public/in.apk",
        f"input/{UPSTREAM}/public/other",
    ]
    assert statement["predicate"] == {
        "verifier": {"id": f"{ROOT_URL}/provisioners/test-provisioner/worker-types/test-pool"},
        "timeVerified": "2026-01-31T12:00:00.000Z",
        "resourceUri": f"{ROOT_URL}/tasks/{TASK_ID}/runs/0",
        "policy": {"digest": {"sha256": SHA256}},
        "inputAttestations": [
            {"uri": f"{ROOT_URL}/api/queue/v1/task/{UPSTREAM}/runs/1/artifacts/{name}", "digest": {"sha256": SHA256}}
            for name in (CHAIN, BUNDLE)
        ],
        "verificationResult": "PASSED",
        "verifiedLevels": ["SLSA_BUILD_LEVEL_UNEVALUATED"],
        "slsaVersion": "1.1",
    }


def test_a_run_with_inputs_is_verified_with_its_summary(with_summary: Path, key: SigningKey) -> None:
    verdict = verify_directory(str(with_summary), key.public, ANYTHING)

    assert verdict.verified, verdict.steps[-1]
    assert verdict.steps[7].details == ("the summary of their verification is signed, and follows from the provenance",)
    assert verdict.steps[-1].details == ("no other artifacts",)


def test_a_run_without_inputs_has_no_summary(published: Path, key: SigningKey) -> None:
    assert not (published / SUMMARY).exists()
    assert verify_directory(str(published), key.public, ANYTHING).steps[7].details == ("none are named",)


def test_a_summary_that_is_due_and_missing_is_noticed(with_summary: Path, key: SigningKey) -> None:
    (with_summary / SUMMARY).unlink()

    assert "cannot be read" in failed(verify_directory(str(with_summary), key.public, ANYTHING))


def test_a_summary_of_other_inputs_is_noticed(with_summary: Path, key: SigningKey) -> None:
    payload = base64.b64decode(json.loads((with_summary / SUMMARY).read_bytes())["dsseEnvelope"]["payload"])
    other = payload.replace(b"public/in.apk", b"public/no.apk")
    names = {"key_id": key.public.fingerprint, "hint": key.public.hint}
    (with_summary / SUMMARY).write_bytes(bundle(other, key.sign(message(other)), **names))

    assert "is not the summary" in failed(verify_directory(str(with_summary), key.public, ANYTHING))


def test_a_summary_by_another_key_is_noticed(with_summary: Path, key: SigningKey, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir(mode=0o700)
    other = create_signing_key(str(tmp_path / "others" / "key"))
    payload = base64.b64decode(json.loads((with_summary / SUMMARY).read_bytes())["dsseEnvelope"]["payload"])
    for named in (other.public, key.public):
        names = {"key_id": named.fingerprint, "hint": named.hint}
        (with_summary / SUMMARY).write_bytes(bundle(payload, other.sign(message(payload)), **names))

        assert "is not signed by" in failed(verify_directory(str(with_summary), key.public, ANYTHING))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(mediaType="application/json"),
        lambda d: d["dsseEnvelope"].update(payloadType="application/json"),
        lambda d: d["dsseEnvelope"].update(signatures=[]),
    ],
)
def test_a_summary_in_another_form_is_noticed(
    with_summary: Path, key: SigningKey, change: Callable[[dict[str, Any]], object]
) -> None:
    document = json.loads((with_summary / SUMMARY).read_bytes())
    change(document)
    (with_summary / SUMMARY).write_bytes(json.dumps(document).encode())

    assert SUMMARY in failed(verify_directory(str(with_summary), key.public, ANYTHING))


@pytest.mark.slow
def test_a_summary_fits_the_models_of_in_toto_and_sigstore(with_summary: Path, models_python: Path) -> None:
    argv = [str(models_python), "-c", MODELS, str(with_summary / SUMMARY)]

    ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    assert (ended.stdout, ended.stderr) == ("PASSED\n", "")
