"""Artifacts on their way to a storage that fails in every way: each is stored as it was signed, or the run says so."""

import signal

import pytest

from tests.end_to_end.daemon import Worker, eventually
from tests.life.faults import Fault, Reset, Says, Stall, TornRequest, status
from tests.life.world import World, a_world

pytestmark = pytest.mark.sandbox

_EXPIRED = Says(403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", "text/xml")
_TROUBLES: dict[str, Fault] = {
    "403, as of an expired URL": _EXPIRED,
    "408": Says(408),
    "429": Says(429, headers=(("Retry-After", "1"),)),
    "500": Says(500),
    "503": Says(503, b"<Error><Code>SlowDown</Code></Error>", "text/xml"),
    "500 and yet it is stored": Says(500, arrives=True),
    "400 that means too slow": Says(400, b"<Error><Code>RequestTimeout</Code></Error>", "text/xml"),
    "reset before": Reset(),
    "reset in mid-body": TornRequest(1000),
    "answer lost": Reset("after"),
    "half an answer": Reset("middle"),
    "stalls, then a reset": Stall(1.5),
}


async def _ends(world: World, worker: Worker) -> None:
    world.faults.as_usual()
    assert await world.resolved(await world.task()) == "completed"
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log
    assert "Traceback" not in worker.log, worker.log
    assert world.leftovers() == []


@pytest.mark.parametrize("storage", ["s3", pytest.param("object", marks=pytest.mark.long)])
async def test_every_artifact_is_stored_as_it_was_signed_whatever_the_first_attempt_met(storage: str) -> None:
    async with a_world() as world:
        worker = await world.begin("--storage-type", storage)
        for what, fault in _TROUBLES.items():
            world.faults.as_usual()
            # An output, then a statement, then the log; what is small goes inline to the Object service.
            for part in ("result-1", "chain-of-trust.json", "live_backing"):
                world.faults.on("upload", fault, part=part)
            files = 2 if storage == "s3" else 9
            assert await world.resolved(await world.task(files=files)) == "completed", f"{what}: {worker.log}"
        await _ends(world, worker)


async def test_an_artifact_whose_creation_fails_in_passing_is_created_after_all() -> None:
    async with a_world() as world:
        worker = await world.begin()
        for fault in (
            status(503),
            status(500, arrives=True),
            status(429),
            Reset("after"),
            Says(200, b"<html>", "text/html"),
        ):
            world.faults.as_usual()
            world.faults.on("createArtifact", fault, part="result-1")
            assert await world.resolved(await world.task()) == "completed", worker.log
        await _ends(world, worker)


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ("upload", Says(400)),
        ("upload", Says(404)),
        ("createArtifact", status(409)),
        ("createArtifact", status(400)),
    ],
    ids=["upload 400", "upload 404", "createArtifact 409", "createArtifact 400"],
)
async def test_an_artifact_that_is_refused_for_good_fails_its_run_and_the_worker_goes_on(
    call: str, fault: Fault
) -> None:
    async with a_world() as world:
        world.faults.on(call, fault, part="result-1", times=100)
        worker = await world.begin()
        task = await world.task(retries=0)
        # Its script has run: what it did outside must not be done again without a human.
        assert await world.resolved(task) == "internal-error", worker.log
        assert "public/chain-of-trust.json" not in (await world.story()).contents.get((task, 0), {})
        await _ends(world, worker)


async def test_a_log_that_cannot_be_stored_changes_no_end() -> None:
    async with a_world() as world:
        world.faults.on("upload", Says(404), part="live_backing", times=100)
        worker = await world.begin("--once")
        task = await world.task(code=1)
        assert await world.resolved(task) == "failed"
        assert await worker.exit_code() == 0, worker.log
        assert "the task log is not uploaded" in worker.log


@pytest.mark.long
async def test_a_storage_that_is_gone_for_two_minutes_does_not_fail_the_run() -> None:
    async with a_world() as world:
        world.faults.on("upload", Says(503), part="result-1", times=8)
        worker = await world.begin("--once")
        task = await world.task()
        await eventually(lambda: world.faults.count("upload") >= 1, "the first upload")
        await worker.process.wait()
        assert await world.resolved(task) == "completed", worker.log


@pytest.mark.long
async def test_an_upload_that_stalls_for_more_than_a_minute_is_tried_again() -> None:
    async with a_world() as world:
        held = world.faults.hold("upload", part="result-1")
        worker = await world.begin("--once")
        task = await world.task()
        await world.at(held, worker)
        await worker.process.wait()
        assert await world.resolved(task) == "completed", worker.log
        assert "nothing moved for 60 s" in worker.log
