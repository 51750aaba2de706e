"""A run's report, and a Queue that takes it in every way, or not at all."""

import signal
from math import inf

import pytest

from tests.end_to_end.daemon import Worker, eventually
from tests.life.faults import Fault, Reset, Says, Torn, status
from tests.life.world import World, a_world

pytestmark = pytest.mark.sandbox

CLAIM_SECONDS = 6.0
_REPORTS = (
    (0, "reportCompleted", "completed"),
    (1, "reportFailed", "failed"),
    (3, "reportException", "malformed-payload"),
)


async def _until_logged(worker: Worker, words: str) -> None:
    await eventually(lambda: words in worker.log, words)


async def _ends(world: World, worker: Worker) -> None:
    world.faults.as_usual()
    assert await world.resolved(await world.task()) == "completed"
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log
    assert "Traceback" not in worker.log, worker.log


async def test_a_report_is_said_again_until_it_is_heard_and_is_the_same_every_time() -> None:
    troubles: dict[str, tuple[Fault, int]] = {
        "503": (status(503), 3),
        "503 and yet it arrived": (status(503, arrives=True), 1),
        "500": (status(500), 1),
        "429": (status(429, Retry_After="1"), 1),
        "reset": (Reset(), 2),
        "answer lost": (Reset("after"), 2),
        "half an answer": (Reset("middle"), 1),
        "torn JSON": (Torn(), 1),
        "HTML": (Says(200, b"<html>", "text/html"), 1),
        "200 and no object": (Says(200, b"[]"), 1),
    }
    async with a_world() as world:
        worker = await world.begin()
        for number, (what, (fault, times)) in enumerate(troubles.items()):
            # Each with another report: they are not told apart.
            code, call, end = _REPORTS[number % 3]
            world.faults.as_usual()
            world.faults.on(call, fault, times=times)
            before = world.faults.count(call)
            task = await world.task(code=code)
            await _until_logged(worker, f"{task}/0: resolved {end}")
            assert await world.resolved(task) == end, what
            assert world.faults.count(call) == before + times + 1, what
        await _ends(world, worker)


async def test_a_report_that_is_refused_is_not_said_again_and_the_worker_goes_on() -> None:
    async with a_world(CLAIM_SECONDS) as world:
        world.faults.on("reportCompleted", status(400), times=inf)
        worker = await world.begin()
        task = await world.task(retries=0)
        world.given_up.add((task, 0))
        assert await world.resolved(task) == "claim-expired"
        assert world.faults.count("reportCompleted") == 1
        await _ends(world, worker)


async def test_a_report_waits_for_a_network_that_is_gone_for_a_while() -> None:
    async with a_world() as world:
        worker = await world.begin()
        standing = world.steps.hold("to-report")
        task = await world.task()
        await world.at(standing, worker)
        world.faults.cut()
        standing.release()
        await eventually(lambda: "not resolved yet" in worker.log, "an attempt in vain")
        world.faults.mend()
        assert await world.resolved(task) == "completed"
        await _ends(world, worker)


async def test_nothing_is_reported_after_the_claim_where_the_network_is_gone_for_longer() -> None:
    async with a_world(CLAIM_SECONDS) as world:
        worker = await world.begin()
        standing = world.steps.hold("to-report")
        task = await world.task(retries=0)
        world.given_up.add((task, 0))
        await world.at(standing, worker)
        world.faults.cut()
        standing.release()
        assert await world.resolved(task) == "claim-expired"
        world.faults.mend()
        await eventually(lambda: "its claim will expire" in worker.log, "the worker's own idea of it")
        await _ends(world, worker)
