"""What a run leaves: artifacts, statements, records."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from secureworker.core.audit import AuditRecord
from secureworker.core.claim import Claim
from secureworker.core.ids import ArtifactName, RunId, Sha256, TaskId
from secureworker.core.outcome import Execution
from secureworker.core.plan import OutputRules
from secureworker.ports.places import Workspace
from secureworker.ports.queue import ClaimedRun


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
    """An artifact of another task that the worker fetched, and found to be as its own statement says.

    Also such a statement itself, by the name that it has at the Queue: no input has that name.
    """

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
