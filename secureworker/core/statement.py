"""What is signed, as canonical bytes made from values. Nothing here reads a file, knows a key, or looks at a clock.

Nothing in a statement comes from files that the script wrote, except the digests the worker computed of them:
a script that could add fields could vouch for itself.
"""

import json
from dataclasses import dataclass
from typing import assert_never

from secureworker.core.claim import Claim, Json
from secureworker.core.errors import BadPayload
from secureworker.core.ids import ArtifactName, Sha256
from secureworker.core.outcome import Execution, ExitCode, ExitStatus, KilledBySignal

CHAIN_OF_TRUST = ArtifactName("public/chain-of-trust.json")
CHAIN_OF_TRUST_SIGNATURE = ArtifactName("public/chain-of-trust.json.sig")


@dataclass(frozen=True, slots=True)
class Provenance:
    """What this worker adds to a chain of trust about itself, as `environment.secureworker`."""

    version: str
    policy_sha256: Sha256
    script: str
    script_sha256: Sha256
    execution: Execution


def chain_of_trust(claim: Claim, artifacts: tuple[tuple[ArtifactName, Sha256], ...], provenance: Provenance) -> bytes:
    """Write the body of a Chain of Trust v1, byte for byte as scriptworker would.

    That is `json.dumps(indent=2, sort_keys=True)`: ASCII with escapes, no newline at the end (scriptworker
    `cot/generate.py`, schema `cot_v1_schema.json`). Ed25519 signs exactly these bytes.

    Raises:
        ValueError: a name is listed twice, or is the chain of trust itself; the caller is at fault.
        BadPayload: the task's definition has no such form: it is nested too deep, or holds NaN or an infinity.
    """
    names = [name for name, _ in artifacts]
    if len(set(names)) != len(names):
        raise ValueError("an artifact is listed twice in a chain of trust")
    if {CHAIN_OF_TRUST, CHAIN_OF_TRUST_SIGNATURE}.intersection(names):
        raise ValueError("a chain of trust cannot list itself")
    body = {
        "artifacts": {name: {"sha256": digest} for name, digest in artifacts},
        "chainOfTrustVersion": 1,
        "environment": {"secureworker": _environment(provenance)},
        "runId": int(claim.run_id),
        "task": dict(claim.task.verbatim),
        "taskId": claim.task_id,
        "workerGroup": claim.worker.worker_group,
        "workerId": claim.worker.worker_id,
        "workerType": claim.worker.pool.worker_type,
    }
    try:
        return json.dumps(body, indent=2, sort_keys=True, allow_nan=False).encode("ascii")
    except RecursionError:
        raise BadPayload(("the task's definition is nested too deep to be signed; flatten its payload",)) from None
    except ValueError as error:
        raise BadPayload((f"the task's definition cannot be signed: {error}",)) from error


def _environment(provenance: Provenance) -> dict[str, Json]:
    return {
        "version": provenance.version,
        "policySha256": provenance.policy_sha256,
        "script": provenance.script,
        "scriptSha256": provenance.script_sha256,
        "sandbox": {
            "templateSha256": provenance.execution.template_sha256,
            "bundleSha256": provenance.execution.bundle_sha256,
            **without_limits(provenance.execution),
        },
        "exitStatus": exit_status(provenance.execution.status),
    }


def without_limits(execution: Execution) -> dict[str, Json]:
    """Write that a script had no limits but its time, as both statements have it; nothing where it had them."""
    return {"limits": "none"} if execution.unlimited else {}


def exit_status(status: ExitStatus) -> dict[str, Json]:
    """Write how a script ended, as both statements have it."""
    match status:
        case ExitCode():
            return {"exitCode": status.code}
        case KilledBySignal():
            return {"signal": status.signal, "outOfMemory": status.out_of_memory}
        case _:
            assert_never(status)
