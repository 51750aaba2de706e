"""Taskcluster's Queue, and one run of it."""

from datetime import datetime
from typing import Protocol

from secureworker.core.claim import Claim, Credentials
from secureworker.core.ids import ArtifactName
from secureworker.core.outcome import Resolution
from secureworker.core.uploads import ArtifactRequest, UploadTarget


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
