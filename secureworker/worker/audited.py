"""The ports once more, each writing down in the audit log what goes through it. Nothing is decided here.

A run's own steps need not know of the log: whoever claims, runs, seals, stores or reports through these has it written
down. Before something begins its record must be there, or it does not begin; what has ended is written down as well
as possible, for it has ended either way, and the next claim finds a log that cannot be written.
"""

import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import assert_never

from secureworker.core.audit import AuditRecord, Detail, Ending, Event, text
from secureworker.core.claim import Claim, Credentials
from secureworker.core.decide import Admitted
from secureworker.core.errors import HostError
from secureworker.core.ids import ArtifactName, RunId, Sha256, TaskId
from secureworker.core.outcome import Execution, ExitCode, KilledBySignal, Refused, Resolution
from secureworker.core.plan import Plan
from secureworker.core.policy import Policy
from secureworker.core.secrets import SecretBytes
from secureworker.core.uploads import ArtifactRequest, UploadTarget
from secureworker.ports import (
    Artifact,
    ArtifactStore,
    AuditLog,
    ClaimedRun,
    Clock,
    Doors,
    Network,
    OpenDoors,
    Queue,
    Sandbox,
    Secrets,
    SignedFile,
    TaskLog,
    Workspace,
)
from secureworker.worker.lease import Lease

logger = logging.getLogger(__name__)


def decision_record(claim: Claim, decision: Admitted | Refused) -> AuditRecord:
    """Say what was decided, and by which rules."""
    match decision:
        case Admitted():
            pins = [("script", pin.sha256) for pin in decision.plan.pinned if pin.path == decision.plan.argv[0]]
            details: tuple[tuple[str, Detail], ...] = (("script", decision.plan.script),)
            return AuditRecord(Event.DECISION, run=run_of(claim), digests=tuple(pins), details=details)
        case Refused():
            rules = ", ".join(dict.fromkeys(reason.rule or "-" for reason in decision.reasons))
            reasons = "; ".join(map(str, decision.reasons))
            details = (("rules", text(rules)), ("reasons", text(reasons)))
            return AuditRecord(Event.DECISION, Ending.REFUSED, run_of(claim), details=details)
        case _:
            assert_never(decision)


def policy_record(policy: Policy) -> AuditRecord:
    """Say which policy is in force from now on. The signer signs under none that was not written down."""
    details: tuple[tuple[str, Detail], ...] = (
        ("pool", str(policy.worker_pool)),
        ("rootUrl", text(policy.root_url)),
        ("scripts", len(policy.scripts)),
    )
    trust = () if policy.trust_file is None else (("trust", policy.trust_file.sha256),)
    return AuditRecord(Event.POLICY_LOAD, digests=(("policy", policy.sha256), *trust), details=details)


def resolution_record(claim: Claim, resolution: Resolution, reason: str = "") -> AuditRecord:
    """Say how a run was resolved, or that it was not ours to resolve."""
    details: tuple[tuple[str, Detail], ...] = (("resolution", resolution.value),)
    if reason:
        details = (*details, ("reason", text(reason)))
    return AuditRecord(Event.RESOLVE, run=run_of(claim), details=details)


def run_of(claim: Claim) -> tuple[TaskId, RunId]:
    """Name a run as records do."""
    return claim.task_id, claim.run_id


async def conclude(audit: AuditLog, record: AuditRecord) -> None:
    """Write down what has ended, as well as possible."""
    try:
        await audit.append(record)
    except HostError as error:
        logger.error("not in the audit log: %s: %s", record.event.value, error)  # noqa: TRY400 - its message says all


@asynccontextmanager
async def _failures(audit: AuditLog, event: Event, run: tuple[TaskId, RunId] | None) -> AsyncIterator[None]:
    """Write down that the body failed, or was cut short, and why; the error goes on."""
    try:
        yield
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        await conclude(audit, AuditRecord(event, Ending.FAILED, run, details=(("reason", text(reason)),)))
        raise


@dataclass
class AuditedRun:
    """A claimed run whose claim and whose report are written down."""

    run: ClaimedRun
    audit: AuditLog
    lease: Lease
    """Counted from the moment the claim was heard of: writing it down takes time, in which a clock may be set."""
    unwritten: HostError | None = None
    """Why its claim could not be written down: then nothing of it may begin."""
    claim: Claim = field(init=False)

    def __post_init__(self) -> None:
        self.claim = self.run.claim

    @property
    def taken_until(self) -> datetime:
        """See `ports.ClaimedRun`."""
        return self.run.taken_until

    @property
    def credentials(self) -> Credentials:
        """See `ports.ClaimedRun`."""
        return self.run.credentials

    async def reclaim(self) -> datetime:
        """See `ports.ClaimedRun`."""
        return await self.run.reclaim()

    async def confirm(self) -> None:
        """See `ports.ClaimedRun`.

        Raises:
            HostError: that it was claimed could not be written down.
        """
        if self.unwritten is not None:
            raise self.unwritten
        await self.run.confirm()

    async def report(self, resolution: Resolution) -> None:
        """See `ports.ClaimedRun`."""
        await self.run.report(resolution)
        await conclude(self.audit, resolution_record(self.claim, resolution))

    async def create_artifact(self, request: ArtifactRequest) -> UploadTarget:
        """See `ports.ClaimedRun`."""
        return await self.run.create_artifact(request)

    async def finish_artifact(self, name: ArtifactName, upload_id: str) -> None:
        """See `ports.ClaimedRun`."""
        await self.run.finish_artifact(name, upload_id)


@dataclass(frozen=True, slots=True)
class AuditedQueue:
    """A Queue that is asked only while the audit log can be written."""

    queue: Queue
    audit: AuditLog
    clock: Clock

    async def claim(self, count: int) -> tuple[ClaimedRun, ...]:
        """See `ports.Queue`.

        Raises:
            HostError: the audit log cannot be written: nothing was claimed.
        """
        await self.audit.check()
        runs = await self.queue.claim(count)
        leases = [Lease(self.clock, run.taken_until, run.claim.length) for run in runs]
        return tuple([await self._claimed(run, lease) for run, lease in zip(runs, leases, strict=True)])

    async def _claimed(self, run: ClaimedRun, lease: Lease) -> ClaimedRun:
        task = run.claim.task
        details: tuple[tuple[str, Detail], ...] = (
            ("name", text(task.name)),
            ("taskGroupId", text(task.task_group_id)),
            ("takenUntil", run.taken_until.isoformat()),
        )
        try:
            await self.audit.append(AuditRecord(Event.CLAIM, run=run_of(run.claim), details=details))
        except HostError as error:
            # It is claimed all the same, and has to be resolved.
            return AuditedRun(run, self.audit, lease, error)
        return AuditedRun(run, self.audit, lease)


@dataclass(frozen=True, slots=True)
class AuditedSandbox:
    """A sandbox whose every run has a beginning and an end in the log."""

    sandbox: Sandbox
    audit: AuditLog

    async def run(self, plan: Plan, workspace: Workspace, log: TaskLog, network: Network | None = None) -> Execution:
        """See `ports.Sandbox`.

        Raises:
            HostError: its beginning could not be written down; the script did not run.
        """
        run = (plan.task_id, plan.run_id)
        began: tuple[tuple[str, Detail], ...] = (("script", plan.script), ("uid", workspace.uid))
        await self.audit.append(AuditRecord(Event.SANDBOX_START, run=run, details=began))
        async with _failures(self.audit, Event.SANDBOX_END, run):
            execution = await self.sandbox.run(plan, workspace, log, network)
        await conclude(self.audit, _ended(run, execution))
        return execution

    async def self_test(self) -> tuple[str, ...]:
        """See `ports.Sandbox`."""
        async with _failures(self.audit, Event.SELF_TEST, None):
            passed = await self.sandbox.self_test()
        await self.audit.append(AuditRecord(Event.SELF_TEST, details=(("probes", len(passed)),)))
        return passed


def _ended(run: tuple[TaskId, RunId], execution: Execution) -> AuditRecord:
    status = execution.status
    match status:
        case ExitCode():
            how: tuple[tuple[str, Detail], ...] = (("exitCode", status.code),)
        case KilledBySignal():
            how = (("signal", status.signal), ("outOfMemory", status.out_of_memory))
        case _:
            assert_never(status)
    seconds = round((execution.finished - execution.started).total_seconds())
    return AuditRecord(
        Event.SANDBOX_END,
        run=run,
        digests=(("sandboxTemplate", execution.template_sha256), ("sandboxBundle", execution.bundle_sha256)),
        details=(*how, ("runtime", text(execution.runtime)), ("seconds", seconds)),
    )


def artifacts_record(event: Event, run: tuple[TaskId, RunId], artifacts: tuple[Artifact, ...]) -> AuditRecord:
    """Say which artifacts were sealed, or stored."""
    # As `sha256sum` writes them: an auditor makes the same list with one command.
    listed = "".join(
        f"{artifact.sha256}  {artifact.name}\n" for artifact in sorted(artifacts, key=lambda one: one.name)
    )
    return AuditRecord(
        event,
        run=run,
        digests=(("artifacts", Sha256(hashlib.sha256(listed.encode()).hexdigest())),),
        details=(("artifacts", len(artifacts)), ("bytes", sum(artifact.size for artifact in artifacts))),
    )


@dataclass(frozen=True, slots=True)
class AuditedDoors:
    """Doors of which it is written down, before they open, where they lead and what their requests may do."""

    doors: Doors
    audit: AuditLog

    @asynccontextmanager
    async def open(self, run: ClaimedRun, plan: Plan, network: Network, log: TaskLog) -> AsyncIterator[OpenDoors]:
        """See `ports.Doors`.

        Raises:
            HostError: it could not be written down; none is open.
        """
        if plan.doors.open:
            details: list[tuple[str, Detail]] = []
            if plan.doors.routes:
                details += [("scopes", text(" ".join(plan.doors.scopes))), ("routes", len(plan.doors.routes))]
            if plan.doors.destinations:
                hosts = (f"{one.host}:{one.port}" for one in plan.doors.destinations)
                details.append(("destinations", text(" ".join(hosts))))
            await self.audit.append(AuditRecord(Event.CREDENTIAL_ISSUE, run=run_of(run.claim), details=tuple(details)))
        async with self.doors.open(run, plan, network, log) as opened:
            yield opened


@dataclass(frozen=True, slots=True)
class AuditedSecrets:
    """Secrets of which it is written down, before they are lent, which ones; by name and source, never by value."""

    secrets: Secrets
    audit: AuditLog

    @asynccontextmanager
    async def lend(self, plan: Plan, run: ClaimedRun, workspace: Workspace) -> AsyncIterator[tuple[SecretBytes, ...]]:
        """See `ports.Secrets`.

        Raises:
            HostError: it could not be written down; none is lent.
        """
        if plan.secrets:
            names = text(" ".join(f"{one.name}={one.source}" for one in plan.secrets))
            record = AuditRecord(Event.CREDENTIAL_ISSUE, run=run_of(run.claim), details=(("secrets", names),))
            await self.audit.append(record)
        async with self.secrets.lend(plan, run, workspace) as lent:
            yield lent


@dataclass(frozen=True, slots=True)
class AuditedStore:
    """A store whose every upload is written down."""

    store: ArtifactStore
    audit: AuditLog

    async def put(self, run: ClaimedRun, artifacts: tuple[Artifact, ...]) -> None:
        """See `ports.ArtifactStore`."""
        async with _failures(self.audit, Event.UPLOAD, run_of(run.claim)):
            await self.store.put(run, artifacts)
        await conclude(self.audit, artifacts_record(Event.UPLOAD, run_of(run.claim), artifacts))

    async def put_signed(self, run: ClaimedRun, files: tuple[SignedFile, ...]) -> None:
        """See `ports.ArtifactStore`."""
        async with _failures(self.audit, Event.UPLOAD, run_of(run.claim)):
            await self.store.put_signed(run, files)
        size = sum(len(file.content) for file in files)
        details: tuple[tuple[str, Detail], ...] = (("artifacts", len(files)), ("bytes", size))
        await conclude(self.audit, AuditRecord(Event.UPLOAD, run=run_of(run.claim), details=details))

    async def put_error(self, run: ClaimedRun, name: ArtifactName, reason: str, message: str) -> None:
        """See `ports.ArtifactStore`."""
        await self.store.put_error(run, name, reason, message)
