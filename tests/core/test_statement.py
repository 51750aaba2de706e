"""The chain of trust's bytes."""

import json
from typing import Any

import pytest

from secureworker.core.claim import Json
from secureworker.core.errors import BadPayload
from secureworker.core.ids import ArtifactName, Sha256
from secureworker.core.outcome import ExitCode, ExitStatus, KilledBySignal
from secureworker.core.statement import CHAIN_OF_TRUST, CHAIN_OF_TRUST_SIGNATURE, Provenance, chain_of_trust
from secureworker.testing import SHA256, TASK_ID, a_claim, an_execution

ARTIFACTS = ((ArtifactName("public/b"), Sha256("b" * 64)), (ArtifactName("public/a"), Sha256("a" * 64)))


def provenance(status: ExitStatus | None = None) -> Provenance:
    return Provenance("1.2.3", SHA256, "build", Sha256("c" * 64), an_execution(status or ExitCode(0)))


def body() -> dict[str, Any]:
    written: dict[str, Any] = json.loads(chain_of_trust(a_claim(), ARTIFACTS, provenance()))
    return written


def test_it_says_which_worker_ran_what_and_what_came_out() -> None:
    claim = a_claim()

    assert body() == {
        "artifacts": {"public/a": {"sha256": "a" * 64}, "public/b": {"sha256": "b" * 64}},
        "chainOfTrustVersion": 1,
        "environment": {
            "secureworker": {
                "version": "1.2.3",
                "policySha256": SHA256,
                "script": "build",
                "scriptSha256": "c" * 64,
                "sandbox": {"templateSha256": SHA256, "bundleSha256": SHA256},
                "exitStatus": {"exitCode": 0},
            }
        },
        "runId": 0,
        "task": claim.task.verbatim,
        "taskId": TASK_ID,
        "workerGroup": "test-group",
        "workerId": "test-worker",
        "workerType": "test-pool",
    }


def test_its_form_is_scriptworkers_byte_for_byte() -> None:
    written = chain_of_trust(a_claim(payload={"umlaut": "ü", "z": 1, "a": [1.5, True, None]}), ARTIFACTS, provenance())

    assert written == json.dumps(json.loads(written), indent=2, sort_keys=True).encode()
    assert b"\\u00fc" in written
    assert written.startswith(b'{\n  "artifacts": {\n    "public/a": {')
    assert not written.endswith(b"\n")


def test_the_order_of_artifacts_makes_no_difference() -> None:
    assert chain_of_trust(a_claim(), ARTIFACTS, provenance()) == chain_of_trust(
        a_claim(), tuple(reversed(ARTIFACTS)), provenance()
    )


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (ExitCode(3), {"exitCode": 3}),
        (KilledBySignal(15), {"signal": 15, "outOfMemory": False}),
        (KilledBySignal(9, out_of_memory=True), {"signal": 9, "outOfMemory": True}),
    ],
)
def test_it_says_how_the_script_ended(status: ExitStatus, said: dict[str, Any]) -> None:
    written = json.loads(chain_of_trust(a_claim(), (), provenance(status)))

    assert written["environment"]["secureworker"]["exitStatus"] == said
    assert written["artifacts"] == {}


@pytest.mark.parametrize("name", [CHAIN_OF_TRUST, CHAIN_OF_TRUST_SIGNATURE])
def test_it_does_not_list_itself(name: ArtifactName) -> None:
    with pytest.raises(ValueError, match="cannot list itself"):
        chain_of_trust(a_claim(), ((name, SHA256),), provenance())


def test_no_artifact_is_listed_twice() -> None:
    with pytest.raises(ValueError, match="twice"):
        chain_of_trust(a_claim(), (ARTIFACTS[0], ARTIFACTS[0]), provenance())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_definition_that_is_not_json_is_its_authors_fault(value: float) -> None:
    with pytest.raises(BadPayload, match="cannot be signed"):
        chain_of_trust(a_claim(payload={"a": value}), (), provenance())


def test_a_definition_nested_too_deep_is_its_authors_fault() -> None:
    nested: Json = []
    for _ in range(100_000):
        nested = [nested]

    with pytest.raises(BadPayload, match="nested too deep"):
        chain_of_trust(a_claim(payload={"a": nested}), (), provenance())


def test_a_lone_surrogate_in_a_definition_is_signed_as_an_escape() -> None:
    assert b"\\ud800" in chain_of_trust(a_claim(payload={"a": "\ud800"}), (), provenance())
