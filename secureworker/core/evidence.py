"""Reading what others have signed: from bytes to values, strictly, or not at all.

The form only. Whether a signature is good, whose it is and whether the files are there is for `signing.verify`.
Nothing here may be given to anybody as true before the signature over its bytes was found good.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from secureworker.core.claim import Json, TaskDefinition, parse_definition, parse_time
from secureworker.core.errors import BadPayload
from secureworker.core.ids import ArtifactName, RunId, Sha256, TaskId, WorkerIdentity, WorkerPool
from secureworker.core.provenance import (
    BUNDLE_TYPE,
    PAYLOAD_TYPE,
    artifact_uri,
    builder_uri,
    definition_sha256,
    run_uri,
)
from secureworker.core.schemas import CompiledSchema, spell
from secureworker.core.statement import CHAIN_OF_TRUST
from secureworker.core.trust import Implementation

SIGNATURE_BYTES: Final = 64
_FIELDS: Final = frozenset(
    {
        "artifacts",
        "chainOfTrustVersion",
        "environment",
        "runId",
        "task",
        "taskId",
        "workerGroup",
        "workerId",
        "workerType",
    }
)
Artifacts = Mapping[ArtifactName, Sha256]


class BadEvidence(ValueError):
    """Not in its form."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Readers differ in which of the two they take: whoever signs both can say one thing to each.
        raise BadEvidence("a key is there twice")
    return found


def _no_constant(text: str) -> object:
    raise BadEvidence(f"{text} is no JSON")


def strict_json(content: bytes) -> Any:
    """Read JSON as everybody reads it: UTF-8, no key twice, no NaN.

    Raises:
        BadEvidence: it is none.
    """
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except BadEvidence:
        raise
    except ValueError as error:
        raise BadEvidence(f"it is no JSON: {error}") from error
    except RecursionError:
        raise BadEvidence("it is nested too deep") from None


def decode(text: object, what: str) -> bytes:
    """Read base64 in its one canonical form: of several spellings of a signature, one counts.

    Raises:
        BadEvidence: it is none, or spelt another way.
    """
    if isinstance(text, str):
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            content = b""
        if content and base64.b64encode(content).decode() == text:
            return content
    raise BadEvidence(f"{what} is not base64")


@dataclass(frozen=True, slots=True)
class ChainOfTrust:
    """A Chain of Trust v1."""

    task_id: TaskId
    run_id: RunId
    worker: WorkerIdentity
    worker_type: str
    """As the body has it; a good one agrees with the pool of the task."""
    definition: TaskDefinition
    artifacts: Artifacts
    implementation: Implementation | None
    """Who wrote it, as far as it can be seen."""


def read_chain_of_trust(content: bytes, implementations: Mapping[WorkerPool, Implementation]) -> ChainOfTrust:
    """Read a chain of trust of this worker, or of another that writes them.

    Workers differ: scriptworker leaves `environment` empty, generic-worker and docker-worker describe the host there,
    and generic-worker lets tasks add fields of their own at the top. Those count for nothing; of other workers, an
    additional field is an error.

    Args:
        content: the file.
        implementations: which worker runs in which pool, where that is known.

    Raises:
        BadEvidence: it is not in its form.
    """
    body = strict_json(content)
    if not isinstance(body, dict) or not set(body) >= _FIELDS:
        raise BadEvidence("it does not have the fields of a chain of trust")
    # `type`: True == 1, and 1.0 == 1.
    if type(body["chainOfTrustVersion"]) is not int or body["chainOfTrustVersion"] != 1:
        raise BadEvidence("its version is not 1")
    if type(body["runId"]) is not int:
        raise BadEvidence("its run id is no number")
    if not isinstance(body["environment"], dict):
        raise BadEvidence("its environment is no object")
    try:
        definition = parse_definition(body["task"])
        found = ChainOfTrust(
            task_id=TaskId(body["taskId"]),
            run_id=RunId(body["runId"]),
            worker=WorkerIdentity(definition.pool, body["workerGroup"], body["workerId"]),
            worker_type=body["workerType"],
            definition=definition,
            artifacts=_artifacts(body["artifacts"]),
            implementation=_implementation(definition.pool, body["environment"], implementations),
        )
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BadEvidence(f"it is no chain of trust: {error}") from error
    additional = sorted(set(body) - _FIELDS)
    if additional and found.implementation not in {None, Implementation.GENERIC_WORKER}:
        raise BadEvidence(f"it has fields that are none of a chain of trust, {additional[0][:80]!a} among them")
    return found


def _implementation(
    pool: WorkerPool, environment: Mapping[str, Json], known: Mapping[WorkerPool, Implementation]
) -> Implementation | None:
    """Say who wrote a body. What the caller knows wins; this worker names itself."""
    names_itself = "secureworker" in environment
    said = known.get(pool)
    if said is Implementation.SECUREWORKER and not names_itself:
        raise BadEvidence("its environment does not name secureworker, which its pool runs")
    return said or (Implementation.SECUREWORKER if names_itself else None)


def _artifacts(listed: object) -> Artifacts:
    if not isinstance(listed, dict):
        raise BadEvidence("its artifacts are no object")
    found = {}
    for name, digests in listed.items():
        if not isinstance(digests, dict) or set(digests) != {"sha256"} or not isinstance(digests["sha256"], str):
            raise BadEvidence(f"the artifact {name[:80]!a} has not exactly a sha256")
        found[ArtifactName(name)] = Sha256(digests["sha256"])
    return found


@dataclass(frozen=True, slots=True)
class Envelope:
    """A DSSE envelope with one signature, out of a sigstore bundle."""

    payload: bytes
    signature: bytes
    key_id: str
    hint: str


def read_bundle(content: bytes) -> Envelope:
    """Read a sigstore bundle v0.3 that holds an in-toto statement, signed by one key that is named by a hint.

    Raises:
        BadEvidence: it is anything else; also where it has two signatures, of which a reader might take either.
    """
    bundle = strict_json(content)
    if not isinstance(bundle, dict) or not {"mediaType", "verificationMaterial", "dsseEnvelope"} <= set(bundle):
        raise BadEvidence("it is no sigstore bundle with a DSSE envelope")
    if bundle["mediaType"] != BUNDLE_TYPE:
        raise BadEvidence(f"its media type is not {BUNDLE_TYPE}")
    material, envelope = bundle["verificationMaterial"], bundle["dsseEnvelope"]
    if not isinstance(material, dict) or not set(material) <= {"publicKey", "tlogEntries"}:
        raise BadEvidence("its verification material is not a public key alone")
    if material.get("tlogEntries", []) != []:
        raise BadEvidence("it has entries of transparency logs, which nothing here can vouch for")
    key = material.get("publicKey")
    if not isinstance(key, dict) or set(key) != {"hint"} or not isinstance(key["hint"], str):
        raise BadEvidence("it does not name its key by a hint")
    if not isinstance(envelope, dict) or set(envelope) != {"payload", "payloadType", "signatures"}:
        raise BadEvidence("its envelope does not have exactly payload, payloadType and signatures")
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise BadEvidence(f"its payload's type is not {PAYLOAD_TYPE}")
    signature, key_id = _only_signature(envelope["signatures"])
    return Envelope(decode(envelope["payload"], "its payload"), signature, key_id, key["hint"])


def _only_signature(signatures: object) -> tuple[bytes, str]:
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
        raise BadEvidence("it does not have exactly one signature")
    key_id = signatures[0].get("keyid")
    if set(signatures[0]) != {"sig", "keyid"} or not isinstance(key_id, str):
        raise BadEvidence("its signature does not have exactly sig and keyid")
    signature = decode(signatures[0]["sig"], "its signature")
    if len(signature) != SIGNATURE_BYTES:
        raise BadEvidence(f"its signature has {len(signature)} bytes, Ed25519's have {SIGNATURE_BYTES}")
    return signature, key_id


@dataclass(frozen=True, slots=True)
class ProvenanceFacts:
    """What a provenance statement says."""

    root_url: str
    task_id: TaskId
    run_id: RunId
    worker: WorkerIdentity
    definition: TaskDefinition
    subjects: Artifacts
    finished: datetime
    chain_of_trust: Sha256


def read_provenance(payload: bytes, schema: CompiledSchema) -> ProvenanceFacts:
    """Read a statement of the build type that this worker has.

    1. It is as the schema says, in which everything is closed but the task's own definition.
    2. Its ids and digests have their forms.
    3. Every subject has a name and a sha256, and none is there twice.
    4. What it says twice, it says alike: builder, invocation, task digest, addresses.

    Args:
        payload: the statement.
        schema: schemas/provenance.schema.json.

    Raises:
        BadEvidence: it is anything else.
    """
    # 1.
    document = strict_json(payload)
    problems = schema.problems(_skeleton(document), 3)
    if problems:
        raise BadEvidence("; ".join(f"{spell(each.path)}: {each.message}" for each in problems))
    build = document["predicate"]["buildDefinition"]
    details = document["predicate"]["runDetails"]
    internal = build["internalParameters"]
    try:
        # 2, 3.
        definition = parse_definition(build["externalParameters"]["task"])
        pool = WorkerPool.parse(internal["workerPool"])
        facts = ProvenanceFacts(
            root_url=internal["rootUrl"],
            task_id=TaskId(internal["taskId"]),
            run_id=RunId(internal["runId"]),
            worker=WorkerIdentity(pool, internal["workerGroup"], internal["workerId"]),
            definition=definition,
            subjects=_subjects(document["subject"]),
            finished=parse_time(details["metadata"]["finishedOn"]),
            chain_of_trust=Sha256(details["byproducts"][1]["digest"]["sha256"]),
        )
        task_sha256 = definition_sha256(dict(definition.verbatim))
    except BadPayload as error:
        raise BadEvidence("; ".join(error.reasons)) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise BadEvidence(f"it is no provenance of a run: {error}") from error
    # 4.
    root_url, run = facts.root_url, (facts.task_id, facts.run_id)
    for what, found, expected in (
        ("builder id", details["builder"]["id"], builder_uri(root_url, pool)),
        ("invocation id", details["metadata"]["invocationId"], run_uri(root_url, *run)),
        ("digest of the task", build["resolvedDependencies"][0]["digest"]["sha256"], task_sha256),
        ("chain of trust's address", details["byproducts"][1]["uri"], artifact_uri(root_url, *run, CHAIN_OF_TRUST)),
        ("task's pool", str(definition.pool), str(pool)),
    ):
        if found != expected:
            raise BadEvidence(f"its {what} is {found[:200]!a}, and by all else it says {expected!a}")
    return facts


def _skeleton(document: Any) -> Any:
    """Leave out what the schema says nothing of, and all subjects but the first: schemas take 20 µs for each value.

    Outputs may be 10,000, and a payload may be as deep and large as any document that is looked at here at all.
    """
    try:
        predicate = document["predicate"]
        build = predicate["buildDefinition"]
        task = build["externalParameters"]["task"]
        free: dict[str, Json] = {key: {} for key in ("payload", "extra") if isinstance(task.get(key), dict)}
        parameters = {**build["externalParameters"], "task": {**task, **free}}
        build = {**build, "externalParameters": parameters}
        return {**document, "subject": document["subject"][:1], "predicate": {**predicate, "buildDefinition": build}}
    except (KeyError, TypeError, AttributeError):
        # Something is not where it must be: the schema will say so.
        return document


def _subjects(listed: list[Any]) -> Artifacts:
    found: dict[ArtifactName, Sha256] = {}
    for each in listed:
        if set(each) != {"name", "digest"} or set(each["digest"]) != {"sha256"}:
            raise BadEvidence("a subject has not exactly a name and a sha256")
        name = ArtifactName(each["name"])
        if name in found:
            raise BadEvidence(f"the subject {name!a} is there twice")
        found[name] = Sha256(each["digest"]["sha256"])
    return found
