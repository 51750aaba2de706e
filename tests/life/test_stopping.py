"""An operator who asks the worker to end, in every moment of a run: it is resolved once, and never forgotten."""

import asyncio
import signal
from typing import Any

import pytest

from tests.end_to_end.daemon import eventually
from tests.life.faults import Reset, status
from tests.life.stepping import STEPS
from tests.life.world import World, a_world

pytestmark = pytest.mark.sandbox

_STEPS = [step for step in STEPS if step != "inputs-fetched"]
_DONE = _STEPS.index("log-finished")
"""From here on there is nothing left to stop: all is signed and stored."""
_FEW = ("claimed", "to-spawn", "sealed", "to-report")


def _some(*steps: str) -> list[Any]:
    """Leave most steps to the long list."""
    return [pytest.param(step, marks=() if step in _FEW else pytest.mark.long) for step in steps]


_ENDING = [step for step in _STEPS if step != "running"]
"""Steps from which a task of these tests comes to its end by itself."""


async def _stop_at(world: World, step: str, signals: list[signal.Signals], *more: str) -> str:
    """Run a task, send signals when the worker is at a step, and give the run's end."""
    standing = world.steps.hold(step)
    task = await world.task(seconds=30 if step == "running" else 0)
    worker = await world.begin(*more, claims=step != "to-claim")
    await world.at(standing, worker)
    for number in signals:
        worker.signal(number)
        await eventually(lambda: "claiming no more" in worker.log, "the signal's effect")
    standing.release()
    assert await worker.exit_code() == 0, worker.log
    assert world.leftovers() == []
    assert "Traceback" not in worker.log, worker.log
    return await world.resolved(task)


@pytest.mark.parametrize("step", _STEPS)
async def test_sigterm_at_any_step_ends_the_run_once_and_the_worker_with_0(step: str) -> None:
    async with a_world() as world:
        end = await _stop_at(world, step, [signal.SIGTERM], "--drain-seconds", "0")
    assert end == ("completed" if _STEPS.index(step) >= _DONE else "worker-shutdown")


@pytest.mark.parametrize("step", _some(*_ENDING))
async def test_sigterm_lets_what_runs_come_to_its_end_within_the_drain_time(step: str) -> None:
    async with a_world() as world:
        end = await _stop_at(world, step, [signal.SIGTERM])
    # Claimed after the end was asked for: given back at once.
    assert end == ("worker-shutdown" if step in ("to-claim", "claimed") else "completed")


@pytest.mark.parametrize("step", _some(*_STEPS))
async def test_a_second_sigterm_at_any_step_does_not_wait(step: str) -> None:
    async with a_world() as world:
        end = await _stop_at(world, step, [signal.SIGTERM, signal.SIGTERM], "--drain-seconds", "600")
    assert end in ("completed", "worker-shutdown")


@pytest.mark.parametrize("step", _some(*_ENDING))
async def test_sigusr1_a_hundred_times_at_any_step_lets_the_run_finish(step: str) -> None:
    async with a_world() as world:
        end = await _stop_at(world, step, [signal.SIGUSR1] * 100)
    assert end == ("worker-shutdown" if step in ("to-claim", "claimed") else "completed")


async def test_sigusr1_and_then_sigterm_ends_what_runs_after_the_drain_time() -> None:
    async with a_world() as world:
        worker = await world.begin("--drain-seconds", "0.5")
        task = await world.task(seconds=60)
        await world.alive(task)
        worker.signal(signal.SIGUSR1)
        await eventually(lambda: "asked to drain" in worker.log, "the first signal's effect")
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0, worker.log
        assert await world.resolved(task) == "worker-shutdown"
        assert "the drain time of 0.5 s is over" in worker.log


async def test_sigterm_ends_all_runs_that_are_under_way_each_once() -> None:
    async with a_world() as world:
        worker = await world.begin("--capacity", "4", "--drain-seconds", "0")
        tasks = [await world.task(seconds=600) for _ in range(4)]
        for task in tasks:
            await world.alive(task)
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0, worker.log
        assert [await world.resolved(task) for task in tasks] == ["worker-shutdown"] * 4
        assert world.leftovers() == []


async def test_a_claim_that_is_answered_after_sigterm_is_given_back_within_seconds() -> None:
    async with a_world() as world:
        held = world.faults.hold("claimWork", after=True)
        task = await world.task()
        worker = await world.begin()
        await world.at(held, worker)
        worker.signal(signal.SIGTERM)
        await eventually(lambda: "claiming no more" in worker.log, "the signal's effect")
        asked = asyncio.get_running_loop().time()
        held.release()
        assert await worker.exit_code() == 0, worker.log
        assert asyncio.get_running_loop().time() - asked < 5
        assert await world.resolved(task) == "worker-shutdown"
        assert world.watcher.sightings == {}


async def test_sigterm_between_a_report_and_its_answer_reports_nothing_else() -> None:
    async with a_world() as world:
        held = world.faults.hold("reportCompleted", after=True)
        worker = await world.begin("--drain-seconds", "0")
        task = await world.task()
        await world.at(held, worker)
        worker.signal(signal.SIGTERM)
        await eventually(lambda: "claiming no more" in worker.log, "the signal's effect")
        held.release()
        assert await worker.exit_code() == 0, worker.log
        assert await world.resolved(task) == "completed"


async def test_sigterm_while_a_report_is_tried_again_says_the_same_again() -> None:
    async with a_world() as world:
        world.faults.on("reportCompleted", status(503))
        world.faults.on("reportCompleted", Reset("after"), nth=2)
        held = world.faults.hold("reportCompleted", nth=3)
        worker = await world.begin("--drain-seconds", "0")
        task = await world.task()
        await world.at(held, worker)
        worker.signal(signal.SIGTERM)
        await eventually(lambda: "claiming no more" in worker.log, "the signal's effect")
        held.release()
        assert await worker.exit_code() == 0, worker.log
        assert await world.resolved(task) == "completed"
        assert world.faults.count("reportCompleted") == 3
        assert world.faults.count("reportException") == 0
