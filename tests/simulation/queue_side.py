"""The Queue and its storage of a simulation: the fakes, behind a network that does what the seed wants."""

import asyncio
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from secureworker.core.claim import Claim, Json, parse_claim
from secureworker.core.errors import Defect, Stop, StopReason
from secureworker.core.ids import ArtifactName
from secureworker.core.outcome import Resolution
from secureworker.core.uploads import ArtifactRequest, StorageS3, UploadTarget
from secureworker.ports import Artifact, SignedFile
from secureworker.testing import IDENTITY, FakeClock, FakeQueue, FakeRun, FakeStore, a_claim_answer
from secureworker.worker.shutdown import Shutdown
from tests.simulation.fate import Fate, bad_request, not_found
from tests.simulation.record import Record, Report, RunRecord, Upload

DEADLINE = timedelta(hours=1)
RETRIED = (StopReason.CLAIM_LOST, Resolution.WORKER_SHUTDOWN, Resolution.INTERMITTENT_TASK)
"""Ends after which the Queue makes another run of a task, while it has retries left."""
RETRIES = 2


@dataclass
class Clocks:
    """The Queue's clock is right; the worker's may be wrong."""

    queue: FakeClock
    worker: FakeClock

    @property
    def worker_is_ahead(self) -> float:
        """Give seconds."""
        return (self.worker.now() - self.queue.now()).total_seconds()


class SimulatedRun(FakeRun):
    """A run, each of whose requests goes over the network; writes down what reached the Queue."""

    again: Callable[[], None] | None = None
    """Makes another run of the task."""

    def __init__(self, claim: Claim, clocks: Clocks, claim_seconds: float, fate: Fate, record: RunRecord) -> None:
        super().__init__(claim, clocks.queue, claim_seconds)
        self.record = record
        self.fate = fate
        self._clocks = clocks
        self._heard = claim.taken_until
        self._ends = clocks.queue.now() + DEADLINE

    @property
    def taken_until(self) -> datetime:
        """When the claim ends, as far as the worker has heard."""
        return self._heard

    def hear(self, taken_until: datetime) -> None:
        """Let the worker know."""
        self._heard = taken_until
        now = self.fate.now()
        left = (taken_until - self._clocks.queue.now()).total_seconds()
        # A worker whose clock is behind knows how long claims last, and takes none for longer.
        own = min(left - self._clocks.worker_is_ahead, self._claim_seconds)
        self.record.leases.append((now, now + own, now + left))

    async def reclaim(self) -> datetime:
        """Renew."""
        with self._losing():
            async with self.fate.request(f"{self.claim}: reclaim", answers=(not_found, bad_request)):
                taken_until = await super().reclaim()
        self.hear(taken_until)
        return taken_until

    async def confirm(self) -> None:
        """Look."""
        with self._losing():
            async with self.fate.request(f"{self.claim}: confirm", answers=(not_found, bad_request)):
                await super().confirm()

    async def report(self, resolution: Resolution) -> None:
        """Resolve."""
        report = Report(resolution, self.fate.now())
        self.record.reports.append(report)
        try:
            async with self.fate.request(f"{self.claim}: report {resolution.value}", answers=(bad_request,)):
                before = self.resolved
                await super().report(resolution)
                report.arrived = True
                report.accepted = before is None and self.resolved is resolution
            report.answered = True
        except Defect:
            report.refused = True
            raise
        finally:
            report.ended = self.fate.now()

    async def create_artifact(self, request: ArtifactRequest) -> UploadTarget:
        """Create."""
        with self._losing():
            async with self.fate.request(f"{self.claim}: create {request.name}"):
                return await super().create_artifact(request)
        raise AssertionError  # a request that swallows its body's answer

    def conclude(self) -> None:
        """Let time settle how the run ended."""
        self._expire()
        self.record.resolved = self.resolved.value if self.resolved else ""

    async def _arrive(self, method: str) -> None:
        """Arrive at once: the way is `fate.request`'s."""

    def watch_end(self) -> None:
        """Resolve the run when its claim has ended, though nobody asks."""
        self._expire()
        if self.resolved is None:
            left = (self._taken_until - self._clock.now()).total_seconds()
            asyncio.get_running_loop().call_later(max(left, 0.0) + 1.0, self.watch_end)

    def _resolve(self, how: Resolution | StopReason) -> None:
        super()._resolve(how)
        if how in RETRIED and self.again is not None:
            self.again()

    def _expire(self) -> None:
        super()._expire()
        if self.resolved is None and self._clock.now() >= self._ends:
            self._resolve(StopReason.CANCELED)

    def _losing(self) -> "_Losing":
        return _Losing(self)


class _Losing:
    """Writes down that the worker was told that the run is not its own."""

    def __init__(self, run: SimulatedRun) -> None:
        self._run = run

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Stop) and self._run.record.told_lost is None:
            self._run.fate.tell(f"{self._run.claim}: the worker knows that it is lost: {error}")
            self._run.record.told_lost = self._run.fate.now()


@dataclass
class SimulatedQueue(FakeQueue):
    """A Queue whose answers may be late, lost, or more than was asked for."""

    clocks: Clocks
    fate: Fate
    record: Record
    shutdown: Shutdown
    claim_seconds: float
    runs: dict[str, SimulatedRun] = field(default_factory=dict)
    tasks: dict[str, dict[str, Json]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        FakeQueue.__init__(self, self.clocks.queue)

    def create(self, task_id: str, **task: Json) -> None:
        """Make a task pending."""
        self.tasks[task_id] = task
        self._make_pending(task_id, 0)

    def _make_pending(self, task_id: str, run_id: int) -> None:
        claim = self._claim_of(task_id, run_id)
        self.add(FakeRun(claim, self.clocks.queue, self.claim_seconds))
        self.fate.tell(f"{claim}: created")

    def _claim_of(self, task_id: str, run_id: int) -> Claim:
        answer = a_claim_answer(self.clocks.queue, task_id, self.claim_seconds, **self.tasks[task_id])
        status: Any = answer["status"]
        status["runs"] *= run_id + 1
        return parse_claim({**answer, "runId": run_id}, IDENTITY)

    async def claim(self, count: int) -> tuple[FakeRun, ...]:
        """Give tasks."""
        if self.shutdown.begun:
            self.record.claimed_after_end = True
        generous = self.fate.random.random() < 0.03
        given: list[SimulatedRun] = []
        async with self.fate.request(f"claim {count}", answers=(bad_request,)):
            given = [self._give(each) for each in await super().claim(count + generous)]
        for place, run in enumerate(given):
            self.fate.step(f"{run.claim}: claimed")
            run.record.heard = self.fate.now()
            run.record.unwanted = self.shutdown.begun or place >= count
            run.hear(run.taken_until)
        return tuple(given)

    def _give(self, pending: FakeRun) -> SimulatedRun:
        # Claimed now, and not when it was created: its claim ends later.
        task_id, run_id = str(pending.claim.task_id), int(pending.claim.run_id)
        claim = self._claim_of(task_id, run_id)
        record = RunRecord(str(claim))
        run = SimulatedRun(claim, self.clocks, self.claim_seconds, self.fate, record)
        self.record.runs.append(record)
        self.runs[str(claim)] = run
        if run_id < RETRIES:
            run.again = functools.partial(self._make_pending, task_id, run_id + 1)
        run.watch_end()
        return run


@dataclass
class SimulatedStore(FakeStore):
    """Uploads one artifact after the other, each by two requests."""

    fate: Fate = field(kw_only=True)
    queue: SimulatedQueue = field(kw_only=True)

    async def put(self, run: Any, artifacts: tuple[Artifact, ...]) -> None:
        """Upload all."""
        for artifact in artifacts:
            await self._upload(run, artifact.name, str(artifact.sha256))

    async def put_signed(self, run: Any, files: tuple[SignedFile, ...]) -> None:
        """Upload all."""
        for file in files:
            await self._upload(run, file.name, hashlib.sha256(file.content).hexdigest())

    async def _upload(self, run: Any, name: ArtifactName, sha256: str) -> None:
        upload = Upload(name, sha256, self.fate.now())
        self.queue.runs[str(run.claim)].record.uploads.append(upload)
        await run.create_artifact(StorageS3(name, "text/plain", run.claim.task.expires))
        async with self.fate.request(f"{run.claim}: upload {name}"):
            upload.stored = self.fate.now()
        await asyncio.sleep(0)
