"""A task that its owner cancels, in every moment of its run."""

import asyncio
import functools
import signal

import pytest

from tests.end_to_end.daemon import eventually
from tests.life.stepping import STEPS
from tests.life.world import Standing, World, a_world

pytestmark = pytest.mark.sandbox

SEEN_SECONDS = 30.0
_STEPS = [step for step in STEPS if step not in ("inputs-fetched", "to-claim", "running", "reported")]


def _either(world: World, done: Standing, claims: int) -> bool:
    return done.come.is_set() or world.faults.count("claimWork") > claims


async def test_a_task_that_is_cancelled_at_any_step_is_left_alone_and_the_next_one_is_run() -> None:
    async with a_world() as world:
        worker = await world.begin()
        for step in _STEPS:
            standing, done = world.steps.hold(step), world.steps.hold("reported")
            task = await world.task()
            await world.at(standing, worker)
            await world.client.cancelTask(task)
            standing.release()
            # A run that is known to be lost is not reported: then it is the next claim that says that it has ended.
            claims = world.faults.count("claimWork")
            await eventually(functools.partial(_either, world, done, claims), step)
            world.steps.let_all_go()
            assert await world.resolved(task) == "canceled"
        assert await world.resolved(await world.task()) == "completed"
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0, worker.log
        assert "Traceback" not in worker.log, worker.log
        assert world.leftovers() == []


async def test_a_task_that_is_cancelled_while_its_script_runs_is_stopped_within_half_a_minute() -> None:
    async with a_world() as world:
        worker = await world.begin("--once")
        task = await world.task(seconds=600)
        await world.alive(task)
        await world.client.cancelTask(task)
        async with asyncio.timeout(SEEN_SECONDS):
            assert await worker.exit_code() == 0, worker.log
        assert "canceled" in (await world.story()).contents[task, 0]["public/logs/live_backing.log"].decode()
        assert not world.faults.count("reportCompleted", "reportFailed", "reportException")
        assert world.leftovers() == []


async def test_a_task_that_is_cancelled_while_an_upload_stalls_is_given_up_within_half_a_minute() -> None:
    async with a_world() as world:
        held = world.faults.hold("upload", part="result-1")
        worker = await world.begin("--once")
        task = await world.task()
        await world.at(held, worker)
        await world.client.cancelTask(task)
        async with asyncio.timeout(SEEN_SECONDS):
            assert await worker.exit_code() == 0, worker.log
        assert not world.faults.count("reportCompleted", "reportFailed", "reportException")
        assert (await world.runs(task))[0]["reasonResolved"] == "canceled"


async def test_a_task_that_is_cancelled_between_its_last_upload_and_its_report_is_left_as_it_is() -> None:
    async with a_world() as world:
        held = world.faults.hold("reportCompleted")
        worker = await world.begin("--once")
        task = await world.task()
        await world.at(held, worker)
        await world.client.cancelTask(task)
        held.release()
        assert await worker.exit_code() == 0, worker.log
        assert await world.resolved(task) == "canceled"
        assert "resolved by somebody else" in worker.log
        assert world.faults.count("reportCompleted", "reportFailed", "reportException") == 1
