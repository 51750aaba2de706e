"""What others signed is read strictly, or not at all. Signatures are for tests/signing."""

import base64
import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from secureworker.core.evidence import BadEvidence, read_bundle, read_chain_of_trust, read_provenance, strict_json
from secureworker.core.ids import ArtifactName, Sha256
from secureworker.core.outcome import ExitCode
from secureworker.core.provenance import Built, Subject, bundle, provenance
from secureworker.core.statement import Provenance
from secureworker.core.trust import Implementation
from secureworker.host.trustfile import provenance_schema
from secureworker.testing import IDENTITY, ROOT_URL, SHA256, TASK_ID, a_claim, an_execution

SIGNATURE = bytes(range(64))
SUBJECTS = tuple(Subject(ArtifactName(name), SHA256) for name in ("public/a", "public/b"))
BUILT = Built(ROOT_URL, SUBJECTS, Provenance("1", SHA256, "build", SHA256, an_execution(ExitCode(0))), (), SHA256)
PAYLOAD = provenance(a_claim(), BUILT)
GENERIC = {IDENTITY.pool: Implementation.GENERIC_WORKER}

Change = Callable[[dict[str, Any]], object]


def changed(content: bytes, change: Change) -> bytes:
    document = json.loads(content)
    change(document)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"\xef\xbb\xbf{}", b'{"a": 1, "a": 1}', b'{"a": {"b": 1, "b": 2}}', b"[NaN]", b"[" * 100_000],
)
def test_what_readers_do_not_agree_on_is_not_read(content: bytes) -> None:
    with pytest.raises(BadEvidence):
        strict_json(content)


GOOD_BUNDLE = bundle(PAYLOAD, SIGNATURE, key_id="SHA256:k", hint="aGludA==")


def test_a_bundle_is_read() -> None:
    envelope = read_bundle(GOOD_BUNDLE)

    assert (envelope.payload, envelope.signature) == (PAYLOAD, SIGNATURE)
    assert (envelope.key_id, envelope.hint) == ("SHA256:k", "aGludA==")


def signature_of(document: dict[str, Any]) -> dict[str, Any]:
    signature: dict[str, Any] = document["dsseEnvelope"]["signatures"][0]
    return signature


BAD_BUNDLES: dict[str, Change] = {
    "another media type": lambda d: d.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1"),
    "no material": lambda d: d.pop("verificationMaterial"),
    "material of another kind": lambda d: d.update(verificationMaterial=[]),
    "a certificate": lambda d: d.update(verificationMaterial={"certificate": {"rawBytes": "AAAA"}}),
    "a certificate beside the key": lambda d: d["verificationMaterial"].update(certificate={"rawBytes": "AAAA"}),
    "an entry of a log": lambda d: d["verificationMaterial"].update(tlogEntries=[{"logIndex": "1"}]),
    "a hint that is no text": lambda d: d["verificationMaterial"]["publicKey"].update(hint=1),
    "a key beside its hint": lambda d: d["verificationMaterial"]["publicKey"].update(rawBytes="AAAA"),
    "no envelope": lambda d: d.pop("dsseEnvelope"),
    "an envelope of another kind": lambda d: d.update(dsseEnvelope="text"),
    "more in the envelope": lambda d: d["dsseEnvelope"].update(more=1),
    "another payload type": lambda d: d["dsseEnvelope"].update(payloadType="application/json"),
    "no signature": lambda d: d["dsseEnvelope"].update(signatures=[]),
    "two signatures": lambda d: d["dsseEnvelope"]["signatures"].append({"sig": "AAAA", "keyid": ""}),
    "signatures of another kind": lambda d: d["dsseEnvelope"].update(signatures=["text"]),
    "no key id": lambda d: signature_of(d).pop("keyid"),
    "a key id that is no text": lambda d: signature_of(d).update(keyid=None),
    "a short signature": lambda d: signature_of(d).update(sig=base64.b64encode(SIGNATURE[:63]).decode()),
    "a signature that is no text": lambda d: signature_of(d).update(sig=None),
    "a signature in hexadecimal": lambda d: signature_of(d).update(sig=SIGNATURE.hex() + "=="),
    "a signature in the alphabet of URLs": lambda d: signature_of(d).update(sig="_" * 86 + "=="),
    # Its last character has bits that no byte holds: another spelling of the same signature.
    "a signature in another spelling": lambda d: signature_of(d).update(sig=signature_of(d)["sig"][:-3] + "x=="),
    "a signature with a line break": lambda d: signature_of(d).update(sig=signature_of(d)["sig"] + "\n"),
    "no payload": lambda d: d["dsseEnvelope"].update(payload=""),
}


@pytest.mark.parametrize("what", BAD_BUNDLES)
def test_a_bundle_of_another_form_is_not_read(what: str) -> None:
    with pytest.raises(BadEvidence):
        read_bundle(changed(GOOD_BUNDLE, BAD_BUNDLES[what]))


@pytest.mark.parametrize("content", [b"[]", b"1", b"{}", b"null"])
def test_what_is_no_bundle_is_not_read(content: bytes) -> None:
    with pytest.raises(BadEvidence):
        read_bundle(content)


def test_a_provenance_statement_is_read() -> None:
    facts = read_provenance(PAYLOAD, provenance_schema())

    assert (facts.root_url, facts.task_id, facts.run_id, facts.worker) == (ROOT_URL, TASK_ID, 0, IDENTITY)
    assert facts.subjects == {"public/a": SHA256, "public/b": SHA256}
    assert facts.chain_of_trust == SHA256
    assert facts.definition.verbatim == a_claim().task.verbatim


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Give the path of every object within a document, and of the document itself."""
    if isinstance(value, dict):
        yield path
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))


# What the author or the Queue may fill with anything.
CLOSED = [path for path in places(json.loads(PAYLOAD)) if path[-1:] and path[-1] not in {"payload", "extra", "tags"}]


@pytest.mark.parametrize("path", [(), *CLOSED], ids=lambda path: ".".join(map(str, path)) or "the whole")
def test_every_part_of_a_statement_is_closed(path: tuple[str | int, ...]) -> None:
    document = json.loads(PAYLOAD)
    part = document
    for step in path:
        part = part[step]
    part["surprise"] = 1

    with pytest.raises(BadEvidence):
        read_provenance(json.dumps(document).encode(), provenance_schema())


def build_of(document: dict[str, Any]) -> dict[str, Any]:
    build: dict[str, Any] = document["predicate"]["buildDefinition"]
    return build


def run_of(document: dict[str, Any]) -> dict[str, Any]:
    details: dict[str, Any] = document["predicate"]["runDetails"]
    return details


BAD_STATEMENTS: dict[str, Change] = {
    "another statement type": lambda d: d.update(_type="https://in-toto.io/Statement/v0.1"),
    "another predicate type": lambda d: d.update(predicateType="https://slsa.dev/provenance/v0.2"),
    "another build type": lambda d: build_of(d).update(buildType="https://secureworker.dev/buildtypes/other/v1"),
    "no predicate": lambda d: d.pop("predicate"),
    "a predicate of another kind": lambda d: d.update(predicate=[]),
    "no subject": lambda d: d.update(subject=[]),
    "a subject twice": lambda d: d["subject"].append(copy.deepcopy(d["subject"][0])),
    "a subject with another digest": lambda d: d["subject"][1].update(digest={"sha512": "0" * 128}),
    "a subject with a second digest": lambda d: d["subject"][1]["digest"].update(sha512="0" * 128),
    "a subject without a name": lambda d: d["subject"][1].pop("name"),
    "a subject that leads out": lambda d: d["subject"][1].update(name="../a"),
    "a later subject of another kind": lambda d: d["subject"].append("text"),
    "a digest of another form": lambda d: d["subject"][1].update(digest={"sha256": "A" * 64}),
    "another task": lambda d: build_of(d)["externalParameters"]["task"]["payload"].update(more=1),
    "a task of another pool": lambda d: build_of(d)["internalParameters"].update(workerPool="other/pool"),
    "a task with an unknown key": lambda d: build_of(d)["externalParameters"]["task"].update(surprise=1),
    "a task without a payload": lambda d: build_of(d)["externalParameters"]["task"].pop("payload"),
    "no task": lambda d: build_of(d).update(externalParameters={}),
    "a task id of another form": lambda d: build_of(d)["internalParameters"].update(taskId="task"),
    "another run": lambda d: build_of(d)["internalParameters"].update(runId=1),
    "a run that is no number": lambda d: build_of(d)["internalParameters"].update(runId="0"),
    "another root URL": lambda d: build_of(d)["internalParameters"].update(rootUrl="https://evil.example.com"),
    "another builder": lambda d: run_of(d)["builder"].update(id="https://tc.example.com/provisioners/a/worker-types/b"),
    "another invocation": lambda d: run_of(d)["metadata"].update(invocationId="https://tc.example.com/tasks/a/runs/0"),
    "a time in another form": lambda d: run_of(d)["metadata"].update(finishedOn="yesterday"),
    "a day that is none": lambda d: run_of(d)["metadata"].update(finishedOn="2026-02-30T00:00:00.000Z"),
    "another chain of trust": lambda d: run_of(d)["byproducts"][1].update(uri="https://evil.example.com/cot"),
    "no chain of trust": lambda d: run_of(d)["byproducts"].pop(),
    "no dependencies": lambda d: build_of(d).update(resolvedDependencies=[]),
    "both ways to end": lambda d: build_of(d)["internalParameters"]["exitStatus"].update(signal=9, outOfMemory=False),
}


@pytest.mark.parametrize("what", BAD_STATEMENTS)
def test_a_statement_of_another_form_is_not_read(what: str) -> None:
    with pytest.raises(BadEvidence) as caught:
        read_provenance(changed(PAYLOAD, BAD_STATEMENTS[what]), provenance_schema())

    assert str(caught.value).isprintable()


def test_a_definition_that_cannot_be_canonical_is_not_read() -> None:
    with pytest.raises(BadEvidence, match="no canonical form"):
        read_provenance(
            changed(PAYLOAD, lambda d: build_of(d)["externalParameters"]["task"]["payload"].update(a="\ud800")),
            provenance_schema(),
        )


def test_many_outputs_and_a_deep_payload_are_read() -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    claim = a_claim(payload={"deep": deep})
    subjects = tuple(Subject(ArtifactName(f"public/{number}"), SHA256) for number in range(40_000))

    payload = provenance(claim, Built(ROOT_URL, subjects, BUILT.about, (), SHA256))

    assert len(read_provenance(payload, provenance_schema()).subjects) == 40_000


# As generic-worker 80 writes it: Go's order of fields, `<`, `>` and `&` escaped, facts about the host, and what the
# task's own chain-of-trust-additional-data.json said.
GENERIC_WORKER = {
    "chainOfTrustVersion": 1,
    "artifacts": {"public/logs/certified.log": {"sha256": SHA256}, "public/a & b": {"sha256": SHA256}},
    "task": dict(a_claim().task.verbatim),
    "taskId": TASK_ID,
    "runId": 0,
    "workerGroup": "us-west-1",
    "workerId": "i-0123456789abcdef0",
    "workerType": IDENTITY.pool.worker_type,
    "environment": {
        "publicIpAddress": "192.0.2.1",
        "privateIpAddress": "10.0.0.1",
        "instanceId": "i-0123456789abcdef0",
        "instanceType": "m5.large",
        "region": "us-west-1",
    },
    "measurements": {"by": "the task"},
}


def test_generic_workers_chain_of_trust_is_read_and_what_a_task_added_counts_for_nothing() -> None:
    content = json.dumps(GENERIC_WORKER, indent=2).replace("&", "\\u0026").encode()

    chain = read_chain_of_trust(content, GENERIC)

    assert chain.implementation is Implementation.GENERIC_WORKER
    assert chain.artifacts == {"public/logs/certified.log": SHA256, "public/a & b": Sha256(SHA256)}


@pytest.mark.parametrize("implementation", [Implementation.SCRIPTWORKER, Implementation.DOCKER_WORKER])
def test_what_a_task_added_is_an_error_in_pools_of_other_workers(implementation: Implementation) -> None:
    with pytest.raises(BadEvidence, match="'measurements' among them"):
        read_chain_of_trust(json.dumps(GENERIC_WORKER).encode(), {IDENTITY.pool: implementation})


@pytest.mark.parametrize("environment", [{}, {"imageHash": "sha256:00"}])
def test_chains_of_trust_of_scriptworker_and_docker_worker_are_read(environment: dict[str, str]) -> None:
    body = {key: value for key, value in GENERIC_WORKER.items() if key != "measurements"} | {"environment": environment}

    chain = read_chain_of_trust(json.dumps(body, indent=2, sort_keys=True).encode(), {})

    assert (chain.implementation, chain.worker.worker_id) == (None, "i-0123456789abcdef0")


def test_in_a_pool_of_this_worker_a_chain_of_trust_must_be_its_own() -> None:
    body = {key: value for key, value in GENERIC_WORKER.items() if key != "measurements"}

    with pytest.raises(BadEvidence, match="does not name secureworker"):
        read_chain_of_trust(json.dumps(body).encode(), {IDENTITY.pool: Implementation.SECUREWORKER})


def test_an_environment_that_is_no_object_is_not_read() -> None:
    with pytest.raises(BadEvidence, match="environment is no object"):
        read_chain_of_trust(json.dumps({**GENERIC_WORKER, "environment": "text"}).encode(), GENERIC)
