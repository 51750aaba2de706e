"""The ports `Queue` and `ClaimedRun`: the fake and the real adapter keep the same promises.

The real one speaks to the embedded Taskcluster over HTTP. Everything here is said twice, once of each.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
import taskcluster
from taskcluster.aio import Queue as Client

from secureworker.core.claim import Credentials, Secret
from secureworker.core.errors import Defect, Stop, StopReason
from secureworker.core.ids import ArtifactName
from secureworker.core.outcome import Resolution
from secureworker.core.uploads import (
    NoTarget,
    ObjectTarget,
    PutTarget,
    StorageError,
    StorageLink,
    StorageObject,
    StorageReference,
    StorageS3,
)
from secureworker.host.clock import SystemClock
from secureworker.localqueue.server import serve
from secureworker.localqueue.settings import Settings, StaticClient
from secureworker.ports import ClaimedRun, Queue
from secureworker.queue.claiming import connect
from secureworker.testing import IDENTITY, FakeClock, FakeQueue, FakeRun, a_claim

CLAIM_SECONDS = 60.0
POLL_SECONDS = 0.3
POOL = IDENTITY.pool


@dataclass
class Here:
    """A Queue under test, and its other side."""

    queue: Queue
    create: Callable[[], Awaitable[str]]
    cancel: Callable[[str], Awaitable[None]]
    ended: Callable[[str], Awaitable[str]]
    """How the first run of a task ended: `completed`, `failed`, or the reason of its exception."""
    pass_time: Callable[[float], None]

    async def a_run(self) -> ClaimedRun:
        await self.create()
        (run,) = await self.queue.claim(1)
        return run


@pytest.fixture(params=["fake", "real"])
async def here(request: pytest.FixtureRequest) -> AsyncIterator[Here]:
    async for one in _fake() if request.param == "fake" else _real():
        yield one


async def _fake() -> AsyncIterator[Here]:
    clock = FakeClock(start=datetime.now(UTC))
    queue = FakeQueue(clock, POLL_SECONDS)
    runs: dict[str, FakeRun] = {}

    async def create() -> str:
        task_id = taskcluster.slugId()
        claim = a_claim(clock, task_id, CLAIM_SECONDS, payload={"greeting": "hello"})
        runs[task_id] = FakeRun(claim, clock, CLAIM_SECONDS, latency=0)
        queue.add(runs[task_id])
        return str(task_id)

    async def cancel(task_id: str) -> None:
        runs[task_id].cancel()

    async def ended(task_id: str) -> str:
        resolved = runs[task_id].resolved
        assert resolved is not None
        return str(resolved.value)

    def pass_time(seconds: float) -> None:
        clock.jumped += timedelta(seconds=seconds)

    yield Here(queue, create, cancel, ended, pass_time)


class MovableTime:
    def __init__(self) -> None:
        self.moved = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.moved


async def _real() -> AsyncIterator[Here]:
    worker = StaticClient(
        "worker", Secret("w" * 44), (f"queue:claim-work:{POOL}", f"queue:worker-id:{IDENTITY.worker_group}/*")
    )
    author = StaticClient("author", Secret("a" * 44), ("*",))
    time = MovableTime()
    settings = Settings(
        (worker, author), claim_timeout=CLAIM_SECONDS, long_poll=POLL_SECONDS, hint_interval=0, clock=time
    )
    async with serve(settings) as running, aiohttp.ClientSession() as session:
        owner: Any = Client(
            {"rootUrl": running.root_url, "credentials": {"clientId": "author", "accessToken": "a" * 44}},
            session=session,
        )

        async def create() -> str:
            task_id = taskcluster.slugId()
            now = time()
            metadata = {"name": "a task", "description": "", "owner": "a@example.com", "source": "https://example.com"}
            definition = {
                "taskQueueId": str(POOL),
                "created": now.isoformat(),
                "deadline": (now + timedelta(hours=2)).isoformat(),
                "payload": {"greeting": "hello"},
                "metadata": metadata,
            }
            await owner.createTask(task_id, definition)
            return str(task_id)

        async def cancel(task_id: str) -> None:
            await owner.cancelTask(task_id)

        async def ended(task_id: str) -> str:
            run = (await owner.status(task_id))["status"]["runs"][0]
            return str(run["reasonResolved"])

        def pass_time(seconds: float) -> None:
            time.moved += timedelta(seconds=seconds)
            running.resolvers.expire_claims()

        credentials = Credentials("worker", worker.access_token)
        async with connect(running.root_url, IDENTITY, credentials, SystemClock()) as queue:
            yield Here(queue, create, cancel, ended, pass_time)


async def test_with_no_task_there_is_no_claim(here: Here) -> None:
    assert await here.queue.claim(1) == ()


async def test_a_claim_says_whose_it_is_until_when_and_of_what(here: Here) -> None:
    task_id = await here.create()
    (run,) = await here.queue.claim(1)
    assert run.claim.task_id == task_id
    assert run.claim.run_id == 0
    assert run.claim.worker == IDENTITY
    assert run.claim.task.payload == {"greeting": "hello"}
    assert run.taken_until == run.claim.taken_until
    assert timedelta(0) < run.taken_until - datetime.now(UTC) <= timedelta(seconds=CLAIM_SECONDS)


async def test_no_more_than_was_asked_for_is_claimed_and_nothing_twice(here: Here) -> None:
    created = {await here.create() for _ in range(3)}
    claimed = [run.claim.task_id for _ in range(3) for run in await here.queue.claim(2)]
    assert len(claimed) == 3
    assert set(claimed) == created


async def test_a_reclaim_moves_the_end_of_the_claim(here: Here) -> None:
    run = await here.a_run()
    before = run.taken_until
    here.pass_time(5)
    after = await run.reclaim()
    assert after == run.taken_until
    assert after > before


async def test_the_runs_credentials_are_its_claims_until_a_reclaim_and_then_others(here: Here) -> None:
    run = await here.a_run()
    assert run.credentials == run.claim.credentials
    here.pass_time(5)
    await run.reclaim()
    assert run.credentials != run.claim.credentials
    assert run.credentials.access_token.reveal() not in repr(run.credentials)


async def test_everything_works_with_the_credentials_of_a_reclaim(here: Here) -> None:
    run = await here.a_run()
    await run.reclaim()
    await run.confirm()
    await run.reclaim()
    await run.report(Resolution.COMPLETED)
    assert await here.ended(run.claim.task_id) == "completed"


async def test_a_run_that_is_ours_is_confirmed(here: Here) -> None:
    run = await here.a_run()
    await run.confirm()


async def test_a_cancelled_run_is_not_ours(here: Here) -> None:
    run = await here.a_run()
    await here.cancel(run.claim.task_id)
    for ask in (run.confirm, run.reclaim):
        with pytest.raises(Stop) as caught:
            await ask()
        assert caught.value.reason is StopReason.CANCELED


async def test_a_run_whose_claim_ended_is_lost(here: Here) -> None:
    run = await here.a_run()
    here.pass_time(CLAIM_SECONDS + 1)
    for ask in (run.confirm, run.reclaim):
        with pytest.raises(Stop) as caught:
            await ask()
        assert caught.value.reason is StopReason.CLAIM_LOST


async def test_a_resolved_run_is_not_reclaimed(here: Here) -> None:
    run = await here.a_run()
    await run.report(Resolution.COMPLETED)
    with pytest.raises(Stop) as caught:
        await run.reclaim()
    assert caught.value.reason is StopReason.CLAIM_LOST


@pytest.mark.parametrize("resolution", [one for one in Resolution if one is not Resolution.NOT_OURS])
async def test_each_resolution_arrives_as_itself(here: Here, resolution: Resolution) -> None:
    run = await here.a_run()
    await run.report(resolution)
    assert await here.ended(run.claim.task_id) == resolution.value


async def test_a_report_made_twice_is_no_error(here: Here) -> None:
    run = await here.a_run()
    await run.report(Resolution.FAILED)
    await run.report(Resolution.FAILED)
    assert await here.ended(run.claim.task_id) == "failed"


async def test_a_report_after_somebody_elses_is_no_error_and_changes_nothing(here: Here) -> None:
    run = await here.a_run()
    await here.cancel(run.claim.task_id)
    await run.report(Resolution.COMPLETED)
    await run.report(Resolution.INTERNAL_ERROR)
    assert await here.ended(run.claim.task_id) == "canceled"


async def test_nothing_is_reported_for_a_run_that_is_not_ours(here: Here) -> None:
    run = await here.a_run()
    await run.report(Resolution.NOT_OURS)
    await run.confirm()


def later() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


async def test_an_artifact_made_again_with_the_same_properties_gives_a_target_again(here: Here) -> None:
    run = await here.a_run()
    request = StorageS3(ArtifactName("public/a b.txt"), "text/plain", later())
    for _ in range(2):
        target = await run.create_artifact(request)
        assert isinstance(target, PutTarget)
        assert target.url.startswith("http")


async def test_an_artifact_made_again_with_other_properties_is_refused(here: Here) -> None:
    run = await here.a_run()
    expires = later()
    await run.create_artifact(StorageS3(ArtifactName("public/a"), "text/plain", expires))
    with pytest.raises(Defect, match="409"):
        await run.create_artifact(StorageS3(ArtifactName("public/a"), "text/html", expires))


async def test_an_object_artifact_gives_credentials_for_its_upload(here: Here) -> None:
    run = await here.a_run()
    target = await run.create_artifact(StorageObject(ArtifactName("public/a"), "text/plain", later()))
    assert isinstance(target, ObjectTarget)
    assert target.upload_id
    assert target.credentials.access_token.reveal() not in repr(target)


async def test_an_error_artifact_needs_no_upload(here: Here) -> None:
    run = await here.a_run()
    request = StorageError(ArtifactName("public/a"), "invalid-resource-on-worker", "a link", later())
    assert await run.create_artifact(request) == NoTarget()


async def test_a_reference_may_lead_elsewhere_and_then_become_a_link_for_good(here: Here) -> None:
    run = await here.a_run()
    live, expires = ArtifactName("public/logs/live.log"), later()
    for url in ("https://host.invalid/1", "https://host.invalid/2"):
        assert await run.create_artifact(StorageReference(live, url, "text/plain", expires)) == NoTarget()
    backing = ArtifactName("public/logs/live_backing.log")
    assert await run.create_artifact(StorageLink(live, backing, expires)) == NoTarget()
    with pytest.raises(Defect, match="409"):
        await run.create_artifact(StorageReference(live, "https://host.invalid/3", "text/plain", expires))


async def test_a_log_can_still_be_made_for_a_cancelled_run(here: Here) -> None:
    run = await here.a_run()
    await here.cancel(run.claim.task_id)
    request = StorageS3(ArtifactName("public/logs/live_backing.log"), "text/plain", later())
    assert isinstance(await run.create_artifact(request), PutTarget)


async def test_no_artifact_is_made_for_a_completed_run(here: Here) -> None:
    run = await here.a_run()
    await run.report(Resolution.COMPLETED)
    with pytest.raises(Stop):
        await run.create_artifact(StorageS3(ArtifactName("public/a"), "text/plain", later()))
