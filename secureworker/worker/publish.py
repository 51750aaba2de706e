"""From a script's outputs to artifacts: sealed, then signed, then stored. In this order, always."""

import logging
from dataclasses import dataclass

from secureworker.core.audit import AuditRecord, Ending, Event, text
from secureworker.core.errors import BadArtifact, SecureworkerError, Stop
from secureworker.core.happening import Phase, Stored
from secureworker.core.ids import ArtifactName, Sha256
from secureworker.core.outcome import Execution
from secureworker.core.plan import Plan
from secureworker.ports import ClaimedRun, Statement, Workspace
from secureworker.worker.audited import artifacts_record, conclude, run_of
from secureworker.worker.obtain import Obtained
from secureworker.worker.progress import Progress
from secureworker.worker.tools import Tools

logger = logging.getLogger(__name__)

REFUSED_OUTPUTS = "public/refused-outputs"
"""The error artifact for outputs whose own names cannot be used."""
MAX_ERROR_ARTIFACTS = 10
_RESERVED = (
    "public/chain-of-trust.json",
    "public/provenance",
    "public/audit.tlog-proof",
    "public/verification.json",
    "public/logs",
)


@dataclass(frozen=True, slots=True)
class Ran:
    """A script that has ended, and what it was given of other tasks."""

    execution: Execution
    obtained: Obtained


async def publish(
    run: ClaimedRun, tools: Tools, plan: Plan, workspace: Workspace, ran: Ran, progress: Progress
) -> None:
    """Seal, sign and store the outputs of a script that has ended.

    The statements are stored after what they speak of: where they can be found, everything can.

    Raises:
        BadArtifact: an output may not be published; an error artifact says so, and nothing is signed or stored.
    """
    claim = run.claim
    progress.enter(Phase.SEALING)
    try:
        artifacts = await tools.outputs.seal(plan.outputs, workspace, claim.task.expires)
    except BadArtifact as bad:
        details = (("reason", text(str(bad))),)
        await conclude(tools.audit, AuditRecord(Event.SEAL, Ending.FAILED, run_of(claim), details=details))
        await _put_errors(run, tools, bad)
        raise
    await tools.audit.append(artifacts_record(Event.SEAL, run_of(claim), artifacts))

    progress.enter(Phase.SIGNING)
    signed = await tools.signer.sign(
        Statement(
            claim=claim,
            execution=ran.execution,
            artifacts=artifacts,
            policy_sha256=tools.policy.sha256,
            script=plan.script,
            script_sha256=script_sha256(plan),
            root_url=plan.root_url,
            inputs=ran.obtained.inputs,
        )
    )

    progress.enter(Phase.UPLOADING)
    await tools.store.put(run, artifacts)
    await tools.store.put_signed(run, (*signed, *ran.obtained.reports))
    size = sum(artifact.size for artifact in artifacts)
    tools.watcher.saw(Stored(claim.task_id, claim.run_id, len(artifacts), size))
    logger.info("%s: %d outputs of %d bytes are signed and stored", claim, len(artifacts), size)


async def salvage(run: ClaimedRun, tools: Tools, plan: Plan, workspace: Workspace) -> None:
    """Store the outputs of a script that was stopped at a limit, unsigned; what cannot be stored is left.

    They help its author to see how far it came. Nothing is signed: the script did not end, it was ended.
    """
    try:
        artifacts = await tools.outputs.seal(plan.outputs, workspace, run.claim.task.expires)
        await tools.store.put(run, artifacts)
    except Stop:
        raise
    except SecureworkerError as error:
        logger.warning("%s: the outputs of the stopped script are not stored: %s", run.claim, error)


async def _put_errors(run: ClaimedRun, tools: Tools, bad: BadArtifact) -> None:
    """Say in the place of each refused output why there is none; as well as possible."""
    names = {_usable(name) for name in bad.names[:MAX_ERROR_ARTIFACTS]} or {ArtifactName(REFUSED_OUTPUTS)}
    for name in sorted(names):
        try:
            await tools.store.put_error(run, name, "invalid-resource-on-worker", str(bad))
        except Stop:
            raise
        except SecureworkerError as error:
            logger.warning("%s: no error artifact: %s", run.claim, error)


def _usable(name: str) -> ArtifactName:
    """Give the output's own name, unless it is none or is one that only the worker may use."""
    try:
        return ArtifactName(REFUSED_OUTPUTS if name.startswith(_RESERVED) else name)
    except ValueError:
        return ArtifactName(REFUSED_OUTPUTS)


def script_sha256(plan: Plan) -> Sha256:
    """Give the pinned digest of the executable that a plan starts."""
    return next(pin.sha256 for pin in plan.pinned if pin.path == plan.argv[0])
