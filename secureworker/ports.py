"""Everything the worker does to the world, as Protocols: `worker/` knows nothing else.

Each has one real implementation, one honest fake in `secureworker.testing`, and contract tests that both pass
(`tests/contracts/`). Errors are those of `core.errors`: no adapter's own exception crosses a port.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from secureworker.core.audit import AuditRecord
from secureworker.core.chain import Upstream
from secureworker.core.claim import Claim, Credentials
from secureworker.core.doors import Door, Traffic
from secureworker.core.ids import ArtifactName, RunId, Sha256, TaskId
from secureworker.core.inputs import Input, Received
from secureworker.core.origin import TraceRule
from secureworker.core.outcome import Execution, Resolution
from secureworker.core.plan import OutputRules, Plan
from secureworker.core.secrets import SecretBytes
from secureworker.core.trace import Ancestry
from secureworker.core.uploads import ArtifactRequest, UploadTarget


class Clock(Protocol):
    """Time. The fake's runs only when everybody sleeps."""

    def now(self) -> datetime:
        """Give the wall clock's time, UTC, aware."""

    def monotonic(self) -> float:
        """Give seconds that never go back and are not those of the wall clock."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`, or at once where that is 0 or less."""


class TaskLog(Protocol):
    """The public log of one run. The only writer of it: sanitises, masks, caps. Safe to call from threads."""

    def note(self, text: str) -> None:
        """Write a line of the worker's own: `[taskcluster <time>] <text>`."""

    def error(self, text: str) -> None:
        """Write a line of the worker's own that says why the run ends badly: `[taskcluster:error] <text>`."""

    def output(self, chunk: bytes) -> None:
        """Write output of the script, in any pieces; never fails because of what is in it."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """The places of one run on the host; all gone when the run ends. Host paths."""

    task: str
    """Shown to the script as `plan.TASK_DIR`; has `work/`, `artifacts/public/logs/`, `home/`, the contract's files."""
    scripts: str
    """Private hashed copies of what is pinned; read-only for the script."""
    spool: str
    """Private: sealed copies of the outputs. The script never reaches it."""
    bundle: str
    """The OCI bundle."""
    uid: int
    """Host uid, and gid, the script's processes run as; never 0 where the host permits."""
    secrets: str = ""
    """Where the plan's secrets lie in memory while they are lent; empty where it has none."""


class Workspaces(Protocol):
    """Makes and removes the places of runs."""

    def open(self, plan: Plan) -> AbstractAsyncContextManager[Workspace]:
        """Make an empty workspace with the contract's files and the pinned copies.

        Raises:
            HostError: a pinned file is missing or differs from its digest, or a directory cannot be made.
        """


@dataclass(frozen=True, slots=True)
class Network:
    """The network namespace of a run: a loopback interface, and the listeners of the plan's doors bound to it.

    Descriptors are the maker's: who uses one beyond the context duplicates it.
    """

    namespace: int
    """Descriptor that keeps the namespace."""
    listeners: tuple[tuple[Door, int], ...]
    """Descriptor of a listening, non-blocking TCP socket for each open door."""


class Networks(Protocol):
    """Makes the network namespaces of runs, before there is a container that could take their ports."""

    def open(self, plan: Plan) -> AbstractAsyncContextManager[Network]:
        """Make a namespace with the listeners of `plan.doors`, and nothing else; leaving lets go of all of it.

        Raises:
            SandboxError: it cannot be made.
        """


class OpenDoors(Protocol):
    """The doors of one run, being served."""

    def traffic(self) -> tuple[Traffic, ...]:
        """Give what went through so far, by destination."""


class Doors(Protocol):
    """Serves the doors of runs from outside of their namespaces."""

    def open(
        self, run: "ClaimedRun", plan: Plan, network: Network, log: TaskLog
    ) -> AbstractAsyncContextManager[OpenDoors]:
        """Serve what `plan.doors` says at the network's listeners.

        When this is left, by any way, the listeners and every connection that came by them are closed: nothing answers
        any more, and no request that was not begun is made. Refusals are noted in the log.
        """


class Secrets(Protocol):
    """Lends secrets to scripts."""

    def lend(
        self, plan: Plan, run: "ClaimedRun", workspace: Workspace
    ) -> AbstractAsyncContextManager[tuple[SecretBytes, ...]]:
        """Lay the plan's secrets out in `workspace.secrets`, for the script's user only; leaving removes them.

        Returns:
            the values, for the log to mask.

        Raises:
            HostError: a secret of this host cannot be had.
            ServiceError: one of Taskcluster's cannot be had now.
        """


class Inputs(Protocol):
    """Fetches what scripts are given of other tasks."""

    async def gather(self, run: "ClaimedRun", tasks: tuple[TaskId, ...]) -> tuple[Upstream, ...]:
        """Fetch the facts about tasks, in their order, with the run's own credentials. Nothing of them is judged.

        Raises:
            BadPayload: the run's task may not read one of them.
            ServiceError: something cannot be asked now.
        """

    async def trace(self, run: "ClaimedRun", tasks: tuple[TaskId, ...], rule: TraceRule) -> Ancestry:
        """Fetch the facts about tasks and all that they come from, up to decision tasks. Nothing of them is judged.

        No more is fetched than the bounds of `core.trace` allow: where that is not all, `core.trace.follow` says so.

        Raises:
            BadPayload: the run's task may not read one of them, or they are too large.
            ServiceError: something cannot be asked now, or it takes too long.
            HostError: a mirror cannot be read.
        """

    async def fetch(
        self, run: "ClaimedRun", inputs: tuple[Input, ...], max_bytes: int, workspace: Workspace
    ) -> Received:
        """Fetch what was judged to be an input, each to `plan.INPUT_DIR/<task id>/<name>`, and never a byte else.

        From the run that the signed statement names, into a place that the script does not reach; there its decoded
        bytes are hashed, and only where that is the signed digest it gets its name. An optional one that cannot be had,
        or has another digest, is left out; `max_bytes` is for all that is fetched, such ones too.

        Raises:
            BadPayload: they are too large; one that is not optional is not there, or has another digest.
            ServiceError: one cannot be had now, after all attempts.
            HostError: the disk is full.
        """


class Sandbox(Protocol):
    """Runs a plan's script, confined."""

    async def run(self, plan: Plan, workspace: Workspace, log: TaskLog, network: Network | None = None) -> Execution:
        """Run the script to its end. When this is left, by any way, every process of the task is dead and reaped.

        In the network given; without one, in an empty one of its own. On cancellation: TERM, `plan.grace`, then KILL.

        Raises:
            SandboxError: the container could not be made or is not what was asked for; the script did not run.
            BadPayload: never.
        """

    async def self_test(self) -> tuple[str, ...]:
        """Attack the sandbox from inside as a script would.

        Returns:
            A line per probe that was passed.

        Raises:
            SandboxError: a probe got through; every failure is named.
        """


@dataclass(frozen=True, slots=True)
class Artifact:
    """An output in the spool, fixed: what is signed is what is stored."""

    name: ArtifactName
    size: int
    sha256: Sha256
    path: str
    """Host path of the sealed copy."""
    content_type: str
    expires: datetime


class Outputs(Protocol):
    """Takes outputs out of the script's reach."""

    async def seal(self, rules: OutputRules, workspace: Workspace, task_expires: datetime) -> tuple[Artifact, ...]:
        """Copy and measure the outputs; names in ascending order.

        Call only after `Sandbox.run` has returned: it relies on nothing being alive that could still write.

        Raises:
            BadArtifact: an output is a link, a device, too large, badly named, or outside the rules.
        """


class ClaimedRun(Protocol):
    """One run at the Queue, with its current credentials."""

    claim: Claim

    @property
    def taken_until(self) -> datetime:
        """When the claim ends, unless it is renewed."""

    @property
    def credentials(self) -> Credentials:
        """The run's newest; ask again for every use."""

    async def reclaim(self) -> datetime:
        """Renew the claim and take over its new credentials; give the new `taken_until`.

        Raises:
            Stop: `CLAIM_LOST` or `CANCELED`: the run is not ours any more.
            ServiceError: not now; it may work later.
        """

    async def confirm(self) -> None:
        """Ask the Queue whether the run is still ours.

        Raises:
            Stop: `CLAIM_LOST` or `CANCELED`.
            ServiceError: it could not be asked.
        """

    async def report(self, resolution: Resolution) -> None:
        """Resolve the run; with `NOT_OURS`, do nothing.

        Raises:
            ServiceError: the Queue did not take it, after all retries; 409 is no error, the run is resolved.
        """

    async def create_artifact(self, request: ArtifactRequest) -> UploadTarget:
        """Create, or create again: the same request is idempotent and gives a fresh URL."""

    async def finish_artifact(self, name: ArtifactName, upload_id: str) -> None:
        """Mark an object artifact present."""


class Queue(Protocol):
    """Taskcluster's Queue, as one worker of one pool."""

    async def claim(self, count: int) -> tuple[ClaimedRun, ...]:
        """Long-poll for up to `count` tasks; at most about 20 s. Never cancel it: its answer may hold a claim.

        Raises:
            AccessDenied: the worker's credentials are refused.
            ServiceError: not now.
        """


class ArtifactStore(Protocol):
    """Uploads."""

    async def put(self, run: ClaimedRun, artifacts: tuple[Artifact, ...]) -> None:
        """Upload all, several at a time.

        Raises:
            ServiceError: one could not be stored, after all retries.
        """

    async def put_signed(self, run: ClaimedRun, files: tuple["SignedFile", ...]) -> None:
        """Upload statements and signatures exactly as they are; they expire with the task.

        Raises:
            ServiceError: one could not be stored, after all retries.
        """

    async def put_error(self, run: ClaimedRun, name: ArtifactName, reason: str, message: str) -> None:
        """Say in an artifact's place why there is none."""


@dataclass(frozen=True, slots=True)
class VerifiedInput:
    """An artifact of another task that the worker fetched, and found to be as its own statement says."""

    task_id: TaskId
    run_id: RunId
    name: ArtifactName
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class Statement:
    """What is to be signed for a run: a typed request, never bytes. The signer builds and checks the bytes."""

    claim: Claim
    execution: Execution
    artifacts: tuple[Artifact, ...]
    policy_sha256: Sha256
    script: str
    script_sha256: Sha256
    root_url: str
    """Of the deployment that the run is of."""
    inputs: tuple[VerifiedInput, ...] = ()
    """What the worker fetched for the script, and verified."""


@dataclass(frozen=True, slots=True)
class SignedFile:
    """A statement or a signature, to be published beside the artifacts."""

    name: ArtifactName
    content: bytes
    content_type: str


class Signer(Protocol):
    """Holds the key. Refuses what is not of this worker, and two different statements for one run."""

    async def sign(self, statement: Statement) -> tuple[SignedFile, ...]:
        """Make and sign the statements of a run.

        Raises:
            KeyUnusable: there is no usable key; nothing was signed.
            HostError: the statement is not of this worker, or differs from one already signed for the run.
            BadPayload: the task's definition cannot be written as a statement (nested too deep).
        """


class AuditLog(Protocol):
    """Where it is written down for good what was decided and done. What cannot be written down may not happen."""

    async def append(self, record: AuditRecord) -> None:
        """Return when the record is on disk, and signed for.

        Raises:
            AuditError: it is not. The worker claims nothing more.
            HostError: the signer, whose log it is, is gone.
        """

    async def check(self) -> None:
        """Find out whether records could be written now; to be asked before every claim.

        Raises:
            AuditError, HostError: as `append`.
        """


class TaskLogs(Protocol):
    """Opens the log of a run, and hands it over for upload when it is closed."""

    def open(self, run: ClaimedRun) -> AbstractAsyncContextManager["OpenTaskLog"]:
        """Open the log; leaving closes it and removes its file."""


class OpenTaskLog(TaskLog, Protocol):
    """A log that can be turned into an artifact."""

    def cap(self, output_bytes: int) -> None:
        """Keep at most this much of the script's output (`Limits.log_bytes`); the rest is dropped with a notice."""

    def mask(self, secrets: tuple[SecretBytes, ...]) -> None:
        """Keep these out of what the script writes from now on, in all the forms that they are printed in."""

    async def finish(self) -> Artifact:
        """Flush and close the log for writing; give it as the artifact `public/logs/live_backing.log`."""


class Events(Protocol):
    """Signals from the operator."""

    def shutdowns(self) -> AsyncIterator[str]:
        """Give `drain`, `stop` or `now`, each time one is asked for."""
