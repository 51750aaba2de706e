"""The claim of a run, renewed by a Queue that answers in every way, or not at all."""

import signal
from math import inf

import pytest

from tests.end_to_end.daemon import Worker, eventually
from tests.life.faults import Fault, Late, Reset, Says, Stall, Torn, status
from tests.life.world import World, a_world

pytestmark = pytest.mark.sandbox

CLAIM_SECONDS = 5.0
LONGER_SECONDS = 7.0
"""Than a claim."""
_HTML = Says(200, b"<html><body>It works!</body></html>", "text/html")


async def _goes_on(world: World, worker: Worker) -> None:
    """The next task is run as any other, and the worker ends as it should."""
    world.faults.as_usual()
    assert await world.resolved(await world.task()) == "completed"
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log
    assert "Traceback" not in worker.log, worker.log
    assert world.leftovers() == []


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(status(503), id="503", marks=pytest.mark.long),
        pytest.param(status(500, arrives=True), id="500 and yet it arrived"),
        pytest.param(status(429, Retry_After="1"), id="429", marks=pytest.mark.long),
        pytest.param(status(401), id="401"),
        pytest.param(Reset(), id="reset", marks=pytest.mark.long),
        pytest.param(Reset("after"), id="answer lost", marks=pytest.mark.long),
        pytest.param(Reset("middle"), id="half an answer", marks=pytest.mark.long),
        pytest.param(Torn(), id="torn JSON"),
        pytest.param(_HTML, id="HTML", marks=pytest.mark.long),
        pytest.param(Says(200, b'{"takenUntil": 5, "credentials": []}'), id="wrong types", marks=pytest.mark.long),
        pytest.param(Says(200, b'{"error": "no"}'), id="200 with an error", marks=pytest.mark.long),
        pytest.param(Late(0.8), id="late", marks=pytest.mark.long),
    ],
)
async def test_a_run_is_kept_through_renewals_that_go_wrong_once(fault: Fault) -> None:
    async with a_world(CLAIM_SECONDS) as world:
        world.faults.on("reclaimTask", fault, times=1)
        worker = await world.begin()
        task = await world.task(seconds=LONGER_SECONDS)
        assert await world.resolved(task) == "completed"
        assert world.faults.count("reclaimTask") >= 2
        await _goes_on(world, worker)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(status(503), id="503"),
        pytest.param(status(401), id="401", marks=pytest.mark.long),
        pytest.param(_HTML, id="HTML", marks=pytest.mark.long),
        pytest.param(Stall(60), id="stall"),
        pytest.param(Reset(), id="reset", marks=pytest.mark.long),
    ],
)
async def test_a_script_is_dead_before_a_claim_ends_that_cannot_be_renewed(fault: Fault) -> None:
    async with a_world(CLAIM_SECONDS) as world:
        world.faults.on("reclaimTask", fault, times=inf)
        worker = await world.begin()
        task = await world.task(seconds=60, retries=0)
        world.given_up.add((task, 0))
        assert await world.resolved(task) == "claim-expired"
        assert "claim-lost" in worker.log
        assert not world.faults.count("reportCompleted", "reportFailed", "reportException")
        await _goes_on(world, worker)


async def test_a_script_is_dead_before_the_claim_ends_where_the_network_is_cut_and_the_worker_lives_on() -> None:
    async with a_world(CLAIM_SECONDS) as world:
        worker = await world.begin()
        task = await world.task(seconds=60, retries=0)
        world.given_up.add((task, 0))
        await world.alive(task)
        world.faults.cut()
        assert await world.resolved(task) == "claim-expired"
        await _goes_on(world, worker)


@pytest.mark.parametrize("code", [409, 404])
async def test_a_renewal_that_is_refused_for_good_ends_the_run_and_nothing_is_reported(code: int) -> None:
    async with a_world(CLAIM_SECONDS) as world:
        world.faults.on("reclaimTask", status(code), times=inf)
        # 409 is asked about: the Queue says what became of the run.
        world.faults.on("status", status(404), nth=2, times=inf)
        worker = await world.begin()
        task = await world.task(seconds=60, retries=0)
        world.given_up.add((task, 0))
        await world.alive(task)
        await eventually(lambda: "claim-lost" in worker.log, "the worker's own idea of it")
        assert world.watcher.look() == set()
        assert await world.resolved(task) == "claim-expired"
        assert not world.faults.count("reportCompleted", "reportFailed", "reportException")
        await _goes_on(world, worker)


async def test_credentials_that_are_renewed_in_the_middle_of_an_upload_are_used_for_what_follows() -> None:
    async with a_world(CLAIM_SECONDS) as world:
        held = world.faults.hold("upload", part="result-1")
        worker = await world.begin()
        task = await world.task()
        await world.at(held, worker)
        await eventually(lambda: world.faults.count("reclaimTask") >= 2, "two renewals")
        held.release()
        assert await world.resolved(task) == "completed"
        last = [entry.by for entry in world.journal if entry.what in ("artifact", "resolved")][-1]
        first = next(entry.by for entry in world.journal if entry.what == "artifact")
        assert last != first
        await _goes_on(world, worker)
