"""A Queue in memory that answers as Taskcluster does."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import assert_never

from secureworker.core.claim import Claim, Credentials
from secureworker.core.errors import Defect, Stop, StopReason
from secureworker.core.ids import ArtifactName
from secureworker.core.outcome import Resolution
from secureworker.core.uploads import (
    ArtifactRequest,
    NoTarget,
    ObjectTarget,
    PutTarget,
    StorageError,
    StorageLink,
    StorageObject,
    StorageReference,
    StorageS3,
    UploadTarget,
)
from secureworker.testing.time import Failures, FakeClock


class FakeRun:
    """One run at a Queue that exists only here. Answers as Taskcluster does: 409 once the run is resolved."""

    def __init__(self, claim: Claim, clock: FakeClock, claim_seconds: float = 1200, latency: float = 0.02) -> None:
        self.claim = claim
        self.failures = Failures()
        self.reports: list[Resolution] = []
        """Every report that reached the Queue, also those that it did not take."""
        self.resolved: Resolution | StopReason | None = None
        """How the run ended at the Queue."""
        self.resolved_at: datetime | None = None
        self.reclaims = 0
        self.artifacts: dict[str, ArtifactRequest] = {}
        self.finished: list[str] = []
        self._clock = clock
        self._claim_seconds = claim_seconds
        self._latency = latency
        self.latencies: dict[str, float] = {}
        """Seconds that a method takes, where it is not as quick as the others."""
        self._taken_until = claim.taken_until

    @property
    def taken_until(self) -> datetime:
        """When the claim ends."""
        return self._taken_until

    @property
    def credentials(self) -> Credentials:
        """Those of the claim, renewed by each reclaim: the client's id says how often."""
        first = self.claim.credentials
        return replace(first, client_id=f"{first.client_id}#{self.reclaims}") if self.reclaims else first

    def cancel(self) -> None:
        """Cancel the task, as its owner may at any time."""
        self._expire()
        if self.resolved is None:
            self._resolve(StopReason.CANCELED)

    async def reclaim(self) -> datetime:
        """Renew, as `reclaimTask`."""
        await self._arrive("reclaim")
        self._check_running()
        self.reclaims += 1
        self._taken_until = self._clock.now() + timedelta(seconds=self._claim_seconds)
        return self._taken_until

    async def confirm(self) -> None:
        """Look, as `status`."""
        await self._arrive("confirm")
        self._check_running()

    async def report(self, resolution: Resolution) -> None:
        """Resolve; a run that is resolved already stays as it is."""
        if resolution is Resolution.NOT_OURS:
            return
        await self._arrive("report")
        self._expire()
        self.reports.append(resolution)
        if self.resolved is None:
            self._resolve(resolution)

    async def create_artifact(self, request: ArtifactRequest) -> UploadTarget:
        """Take note of the artifact; what would be uploaded goes nowhere.

        Allowed, as at Taskcluster, while the run is running and after it became an exception, but not after it was
        completed or failed.
        """
        await self._arrive("create_artifact")
        if self.resolved in (Resolution.COMPLETED, Resolution.FAILED):
            self._check_running()
        before = self.artifacts.get(request.name, request)
        if before == request or (
            isinstance(before, StorageReference) and isinstance(request, StorageReference | StorageLink)
        ):
            self.artifacts[request.name] = request
        else:
            raise Defect(f"createArtifact: 409: {request.name} exists already, with other properties")
        match request:
            case StorageS3():
                return PutTarget(f"https://uploads.invalid/{request.name}")
            case StorageObject():
                return ObjectTarget(request.name, str(self.claim.task_id), "none", self.claim.credentials)
            case StorageError() | StorageReference() | StorageLink():
                return NoTarget()
            case _:
                assert_never(request)

    async def finish_artifact(self, name: ArtifactName, upload_id: str) -> None:  # noqa: ARG002 - the port's
        """Take note."""
        await self._arrive("finish_artifact")
        self.finished.append(name)

    async def _arrive(self, method: str) -> None:
        await self._clock.sleep(self.latencies.get(method, self._latency))
        self.failures.strike(method)

    def _expire(self) -> None:
        if self.resolved is None and self._clock.now() >= self._taken_until:
            self._resolve(StopReason.CLAIM_LOST)

    def _resolve(self, how: Resolution | StopReason) -> None:
        self.resolved, self.resolved_at = how, self._clock.now()

    def _check_running(self) -> None:
        self._expire()
        if self.resolved is not None:
            reason = StopReason.CANCELED if self.resolved is StopReason.CANCELED else StopReason.CLAIM_LOST
            raise Stop(reason, f"the run is resolved ({self.resolved.value}), not by this worker")


class FakeQueue:
    """A Queue that holds only this worker's pool. An empty claim answers after 20 s, as Taskcluster's."""

    def __init__(self, clock: FakeClock, long_poll: float = 20) -> None:
        self.failures = Failures()
        self.asked: list[int] = []
        """The counts of all claims that were asked for."""
        self._clock = clock
        self._long_poll = long_poll
        self._pending: asyncio.Queue[FakeRun] = asyncio.Queue()

    def add(self, *runs: FakeRun) -> None:
        """Make tasks pending."""
        for run in runs:
            self._pending.put_nowait(run)

    async def claim(self, count: int) -> tuple[FakeRun, ...]:
        """Wait for a task, and take up to `count` of those that are there."""
        self.asked.append(count)
        self.failures.strike("claim")
        try:
            async with asyncio.timeout(self._long_poll):
                first = await self._pending.get()
        except TimeoutError:
            return ()
        more = min(count - 1, self._pending.qsize())
        return (first, *(self._pending.get_nowait() for _ in range(more)))
