"""SLSA provenance v1 of a run: an in-toto Statement v1 in a DSSE envelope in a sigstore bundle v0.3, as bytes.

What its parts mean is docs/buildtypes/release-script-v1.md; their form is schemas/provenance.schema.json. Nothing here
signs: `message` is what an Ed25519 key must sign, and `bundle` puts the signature beside it.

Sources: https://slsa.dev/spec/v1.1/provenance, in-toto attestation framework v1.1, DSSE v1.0.2 (secure-systems-lab),
sigstore protobuf-specs v0.4 (`sigstore_bundle.proto`).
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import rfc8785

from secureworker.core.claim import Claim, Json
from secureworker.core.errors import BadPayload
from secureworker.core.ids import ArtifactName, RunId, Sha256, TaskId, WorkerPool
from secureworker.core.statement import CHAIN_OF_TRUST, Provenance, exit_status, without_limits

PROVENANCE: Final = ArtifactName("public/provenance.sigstore.json")

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
BUNDLE_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
BUILD_TYPE: Final = "https://secureworker.dev/buildtypes/release-script/v1"
"""A name, compared as a whole and fetched by nobody. A change that its readers must know of gets a new one."""
TASK_LOG: Final = "public/logs/live_backing.log"

_LARGEST_INTEGER: Final = 2**53 - 1
"""Beyond it JSON's readers do not agree on integers (RFC 7493 section 2.2)."""


@dataclass(frozen=True, slots=True)
class Dependency:
    """Something that the worker fetched or checked before the script ran."""

    name: str
    uri: str
    """Empty: it is found by its digest alone."""
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class Subject:
    """An output, by its name and digest."""

    name: ArtifactName
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class Built:
    """All that a provenance statement says of a run beside the run itself."""

    root_url: str
    subjects: tuple[Subject, ...]
    about: Provenance
    inputs: tuple[Dependency, ...]
    chain_of_trust_sha256: Sha256


def run_uri(root_url: str, task_id: TaskId, run_id: RunId) -> str:
    """Name a run: SLSA's `invocationId`."""
    return f"{root_url.rstrip('/')}/tasks/{task_id}/runs/{int(run_id)}"


def builder_uri(root_url: str, pool: WorkerPool) -> str:
    """Name a worker pool: SLSA's `builder.id`. Whoever trusts it, trusts the pool's keys, policy and hosts."""
    return f"{root_url.rstrip('/')}/provisioners/{pool.provisioner_id}/worker-types/{pool.worker_type}"


def artifact_uri(root_url: str, task_id: TaskId, run_id: RunId, name: str) -> str:
    """Give the Queue's address of an artifact."""
    return f"{_task_uri(root_url, task_id)}/runs/{int(run_id)}/artifacts/{name}"


def _task_uri(root_url: str, task_id: TaskId) -> str:
    return f"{root_url.rstrip('/')}/api/queue/v1/task/{task_id}"


def definition_sha256(definition: Json) -> Sha256:
    """Give the digest of a task definition in its canonical form (RFC 8785).

    JSON's numbers are doubles there, so that an integer which Python can hold and a double cannot counts as the double
    that every other reader, the Queue among them, takes it for.

    Raises:
        BadPayload: it has no such form: a number beyond all doubles, half a surrogate pair, or nested too deep.
    """
    try:
        return Sha256(hashlib.sha256(_canonical(definition)).hexdigest())
    except (rfc8785.CanonicalizationError, UnicodeError, OverflowError):
        raise BadPayload(
            ("the task's definition has no canonical form (RFC 8785); correct numbers and characters in it",)
        ) from None
    except RecursionError:
        raise BadPayload(("the task's definition is nested too deep to be signed; flatten its payload",)) from None


def _canonical(value: Json) -> bytes:
    try:
        return rfc8785.dumps(value)
    except rfc8785.IntegerDomainError:
        return rfc8785.dumps(_as_doubles(value))


def _as_doubles(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _as_doubles(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_doubles(inner) for inner in value]
    # `bool` is an `int`, and small.
    return float(value) if isinstance(value, int) and abs(value) > _LARGEST_INTEGER else value


def provenance(claim: Claim, built: Built) -> bytes:
    """Write the statement: UTF-8 JSON, the same bytes for the same values.

    Raises:
        ValueError: there are no subjects; a statement about nothing is none (in-toto Statement v1).
        BadPayload: the task's definition has no canonical form.
    """
    if not built.subjects:
        raise ValueError("a provenance statement needs a subject")
    document = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": each.name, "digest": {"sha256": each.sha256}} for each in built.subjects],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"task": dict(claim.task.verbatim)},
                "internalParameters": _internal_parameters(claim, built),
                "resolvedDependencies": list(_dependencies(claim, built)),
            },
            "runDetails": {
                "builder": {
                    "id": builder_uri(built.root_url, claim.worker.pool),
                    "version": {"secureworker": built.about.version},
                },
                "metadata": {
                    "invocationId": run_uri(built.root_url, claim.task_id, claim.run_id),
                    "startedOn": _moment(built.about.execution.started),
                    "finishedOn": _moment(built.about.execution.finished),
                },
                "byproducts": list(_byproducts(claim, built)),
            },
        },
    }
    # What could not be written, nesting and NaN among it, had no canonical form either.
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode("ascii")


def _internal_parameters(claim: Claim, built: Built) -> dict[str, Json]:
    execution = built.about.execution
    return {
        "rootUrl": built.root_url,
        "taskId": claim.task_id,
        "runId": int(claim.run_id),
        "workerPool": str(claim.worker.pool),
        "workerGroup": claim.worker.worker_group,
        "workerId": claim.worker.worker_id,
        "policy": {"sha256": built.about.policy_sha256},
        "script": {"name": built.about.script, "sha256": built.about.script_sha256},
        "sandbox": {
            "runtime": execution.runtime,
            "templateSha256": execution.template_sha256,
            "bundleSha256": execution.bundle_sha256,
            **without_limits(execution),
        },
        "exitStatus": exit_status(execution.status),
        "network": [
            {
                "destination": each.destination,
                "connections": each.connections,
                "sentBytes": each.sent_bytes,
                "receivedBytes": each.received_bytes,
            }
            for each in execution.traffic
        ],
    }


def _dependencies(claim: Claim, built: Built) -> Iterator[dict[str, Json]]:
    yield {
        "name": "task",
        "uri": _task_uri(built.root_url, claim.task_id),
        "digest": {"sha256": definition_sha256(dict(claim.task.verbatim))},
        "mediaType": "application/json",
        # What is fetched from there has this digest only once it is written in this form.
        "annotations": {"canonicalization": "RFC 8785"},
    }
    yield {"name": f"script/{built.about.script}", "digest": {"sha256": built.about.script_sha256}}
    for each in built.inputs:
        address: dict[str, Json] = {"uri": each.uri} if each.uri else {}
        yield {"name": each.name, **address, "digest": {"sha256": each.sha256}}


def _byproducts(claim: Claim, built: Built) -> Iterator[dict[str, Json]]:
    """Give the log, which is still being written and so has no digest yet, and the chain of trust."""
    for name, digest in ((TASK_LOG, None), (CHAIN_OF_TRUST, built.chain_of_trust_sha256)):
        described: dict[str, Json] = {
            "name": name,
            "uri": artifact_uri(built.root_url, claim.task_id, claim.run_id, name),
        }
        yield described if digest is None else {**described, "digest": {"sha256": digest}}


def _moment(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def message(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Give what is signed: DSSE's pre-authentication encoding, which binds the payload to its type."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def bundle(payload: bytes, signature: bytes, *, key_id: str, hint: str) -> bytes:
    """Write the bundle with exactly one signature.

    Args:
        payload: the statement.
        signature: of `message(payload)`.
        key_id: the key's OpenSSH fingerprint. Of all forms the one that every verifier takes; docs/adr has the others.
        hint: base64 of the sha256 of the key as DER (SubjectPublicKeyInfo), by which sigstore's verifiers find it.
    """
    document = {
        "mediaType": BUNDLE_TYPE,
        # The empty list says nothing to most readers; sigstore-python's models want it written.
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": key_id}],
        },
    }
    return json.dumps(document, separators=(",", ":")).encode()
