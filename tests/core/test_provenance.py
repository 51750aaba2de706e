"""The provenance statement's bytes, and what is put around them."""

import base64
import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from secureworker.core.claim import Claim, Json
from secureworker.core.errors import BadPayload
from secureworker.core.ids import ArtifactName, RunId, Sha256, TaskId
from secureworker.core.outcome import ExitCode, KilledBySignal
from secureworker.core.provenance import (
    Built,
    Dependency,
    Subject,
    artifact_uri,
    bundle,
    definition_sha256,
    message,
    provenance,
)
from secureworker.core.statement import Provenance
from secureworker.host.trustfile import provenance_schema
from secureworker.testing import EPOCH, ROOT_URL, SHA256, TASK_ID, a_claim, an_execution

OTHER = Sha256("0a" * 32)
ABOUT = Provenance("1.2.3", SHA256, "build", OTHER, an_execution(ExitCode(0), EPOCH, EPOCH + timedelta(seconds=1.5)))
SUBJECTS = (Subject(ArtifactName("public/a"), SHA256), Subject(ArtifactName("public/b/c"), OTHER))
BUILT = Built(ROOT_URL, SUBJECTS, ABOUT, (), OTHER)


def written(built: Built = BUILT, claim: Claim | None = None) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(provenance(claim or a_claim(), built))
    assert provenance_schema().problems(document) == ()
    return document


def test_the_statement_is_an_in_toto_statement_with_slsa_provenance() -> None:
    document = written()

    assert set(document) == {"_type", "subject", "predicateType", "predicate"}
    assert document["_type"] == "https://in-toto.io/Statement/v1"
    assert document["predicateType"] == "https://slsa.dev/provenance/v1"
    assert document["subject"] == [
        {"name": "public/a", "digest": {"sha256": SHA256}},
        {"name": "public/b/c", "digest": {"sha256": OTHER}},
    ]


def test_the_authors_part_is_the_whole_definition_and_nothing_else() -> None:
    claim = a_claim(payload={"format": "gpg"})

    build = written(claim=claim)["predicate"]["buildDefinition"]

    assert build["buildType"] == "https://secureworker.dev/buildtypes/release-script/v1"
    assert build["externalParameters"] == {"task": claim.task.verbatim}


def test_the_platforms_part_says_where_by_which_policy_and_in_what() -> None:
    build = written()["predicate"]["buildDefinition"]

    assert build["internalParameters"] == {
        "rootUrl": "https://tc.example.com",
        "taskId": TASK_ID,
        "runId": 0,
        "workerPool": "test-provisioner/test-pool",
        "workerGroup": "test-group",
        "workerId": "test-worker",
        "policy": {"sha256": SHA256},
        "script": {"name": "build", "sha256": OTHER},
        "sandbox": {"runtime": "fake 1.0", "templateSha256": SHA256, "bundleSha256": SHA256},
        "exitStatus": {"exitCode": 0},
        "network": [],
    }


def test_a_script_that_a_signal_ended_is_said_to_be() -> None:
    killed = replace(ABOUT, execution=an_execution(KilledBySignal(9, out_of_memory=True)))

    build = written(replace(BUILT, about=killed))["predicate"]["buildDefinition"]

    assert build["internalParameters"]["exitStatus"] == {"signal": 9, "outOfMemory": True}


def test_a_script_without_limits_is_said_to_have_had_none() -> None:
    unlimited = replace(ABOUT, execution=replace(ABOUT.execution, unlimited=True))

    build = written(replace(BUILT, about=unlimited))["predicate"]["buildDefinition"]

    assert build["internalParameters"]["sandbox"]["limits"] == "none"


def test_what_was_fetched_or_checked_is_named_with_its_digest() -> None:
    upstream = TaskId("TyRoGA_OS3W2QMCEuF1icw")
    inputs = (
        Dependency("input/a", artifact_uri(ROOT_URL, upstream, RunId(1), "public/a"), OTHER),
        Dependency("input/b", "", SHA256),
    )

    task, script, *others = written(replace(BUILT, inputs=inputs))["predicate"]["buildDefinition"][
        "resolvedDependencies"
    ]

    assert task["uri"] == f"https://tc.example.com/api/queue/v1/task/{TASK_ID}"
    assert task["digest"] == {"sha256": definition_sha256(dict(a_claim().task.verbatim))}
    assert script == {"name": "script/build", "digest": {"sha256": OTHER}}
    address = f"https://tc.example.com/api/queue/v1/task/{upstream}/runs/1/artifacts/public/a"
    assert others == [
        {"name": "input/a", "uri": address, "digest": {"sha256": OTHER}},
        {"name": "input/b", "digest": {"sha256": SHA256}},
    ]


def test_the_run_is_named_with_its_times_its_log_and_its_chain_of_trust() -> None:
    details = written()["predicate"]["runDetails"]

    artifacts = f"https://tc.example.com/api/queue/v1/task/{TASK_ID}/runs/0/artifacts/public"
    assert details == {
        "builder": {
            "id": "https://tc.example.com/provisioners/test-provisioner/worker-types/test-pool",
            "version": {"secureworker": "1.2.3"},
        },
        "metadata": {
            "invocationId": f"https://tc.example.com/tasks/{TASK_ID}/runs/0",
            "startedOn": "2026-01-31T12:00:00.000Z",
            "finishedOn": "2026-01-31T12:00:01.500Z",
        },
        "byproducts": [
            {"name": "public/logs/live_backing.log", "uri": f"{artifacts}/logs/live_backing.log"},
            {
                "name": "public/chain-of-trust.json",
                "uri": f"{artifacts}/chain-of-trust.json",
                "digest": {"sha256": OTHER},
            },
        ],
    }


def test_the_same_values_give_the_same_bytes() -> None:
    assert provenance(a_claim(), BUILT) == provenance(a_claim(), BUILT)


def test_there_is_no_provenance_of_nothing() -> None:
    with pytest.raises(ValueError, match="needs a subject"):
        provenance(a_claim(), replace(BUILT, subjects=()))


def test_a_root_url_may_end_in_a_slash() -> None:
    document = written(replace(BUILT, root_url="https://tc.example.com/"))

    assert document["predicate"]["runDetails"]["metadata"]["invocationId"].startswith("https://tc.example.com/tasks/")


def deep(levels: int) -> Json:
    value: Json = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("payload", [{"a": deep(100_000)}, {"a": float("nan")}, {"a": "\ud800"}, {"a": 10**400}])
def test_a_definition_that_has_no_canonical_form_is_the_authors_fault(payload: Json) -> None:
    claim = a_claim()
    task = replace(claim.task, verbatim={**claim.task.verbatim, "payload": payload})

    with pytest.raises(BadPayload, match=r"the task's definition"):
        provenance(replace(claim, task=task), BUILT)


@pytest.mark.parametrize(
    ("definition", "canonical"),
    [
        ({"b": 1, "a": [True, None, "ä"]}, '{"a":[true,null,"ä"],"b":1}'.encode()),
        # What any reader of JSON by doubles makes of 2**60, in the form of ECMA-262, `Number::toString`.
        ({"a": {"b": [2**60]}, "c": True}, b'{"a":{"b":[1152921504606847000]},"c":true}'),
        ({"a": 1.0}, b'{"a":1}'),
    ],
)
def test_a_definitions_digest_is_that_of_its_canonical_form(definition: Json, canonical: bytes) -> None:
    assert definition_sha256(definition) == hashlib.sha256(canonical).hexdigest()


def test_what_is_signed_binds_the_payload_to_its_type() -> None:
    # The example of DSSE's own protocol.md.
    encoded = message(b"hello world", "http://example.com/HelloWorld")

    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_a_bundle_has_one_signature_and_names_its_key_twice() -> None:
    document = json.loads(bundle(b"payload", b"signature", key_id="SHA256:abc", hint="hint"))

    assert document == {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": "hint"}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(b"payload").decode(),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": base64.b64encode(b"signature").decode(), "keyid": "SHA256:abc"}],
        },
    }
