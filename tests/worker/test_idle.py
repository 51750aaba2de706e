"""A worker without tasks ends where it was told to, and not a moment earlier."""

import asyncio

from secureworker.testing import run_virtual
from secureworker.worker.loop import ClaimLoop, Ended
from tests.worker.world import World


def _serve(world: World, idle_seconds: float | None, capacity: int = 1) -> ClaimLoop:
    return ClaimLoop(world.queue, world.tools, world.shutdown, capacity=capacity, idle_seconds=idle_seconds)


def test_a_worker_that_was_told_so_ends_after_polls_in_vain() -> None:
    async def scenario() -> tuple[Ended, float, int]:
        world = World()
        ended = await _serve(world, 300).serve(world.events)
        return ended, world.clock.monotonic(), len(world.queue.asked)

    ended, when, polls = run_virtual(scenario())
    assert (ended.reason, ended.claimed, ended.fault) == ("there was no task for 300 s", 0, None)
    assert 300 <= when <= 320
    assert polls == 15


def test_time_that_a_task_takes_is_not_idle_and_begins_anew_when_it_has_ended() -> None:
    async def scenario() -> tuple[Ended, float]:
        world = World()
        world.sandbox.seconds = 900
        world.queue.add(world.a_run())
        ended = await _serve(world, 100).serve(world.events)
        return ended, world.clock.monotonic()

    ended, when = run_virtual(scenario())
    assert ended.claimed == 1
    assert 1000 <= when <= 1030


def test_a_worker_with_a_free_place_is_not_idle_while_another_place_is_taken() -> None:
    async def scenario() -> tuple[Ended, float]:
        world = World()
        world.sandbox.seconds = 900
        world.queue.add(world.a_run())
        ended = await _serve(world, 100, capacity=4).serve(world.events)
        return ended, world.clock.monotonic()

    assert run_virtual(scenario())[1] >= 1000


def test_a_worker_that_was_not_told_so_goes_on() -> None:
    async def scenario() -> str:
        world = World()
        asyncio.get_running_loop().call_later(100_000, world.events.ask, "stop")
        return (await _serve(world, None).serve(world.events)).reason

    assert run_virtual(scenario()) == "the operator asked to stop"
