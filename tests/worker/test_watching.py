"""What a worker tells whoever watches it, and what keeps it from claiming."""

import asyncio
from typing import NoReturn

import pytest

from secureworker.core.happening import (
    Claimed,
    Decided,
    Executed,
    Happening,
    Hindrance,
    Phase,
    PhaseEntered,
    Renewed,
    Resolved,
    State,
    StateEntered,
    Stored,
)
from secureworker.core.outcome import Resolution
from secureworker.testing import TASK_ID, FakeHostGuard, FakeWatcher, run_virtual
from secureworker.worker.loop import HINDERED_SECONDS
from secureworker.worker.together import HostGuards, Watchers
from tests.worker.world import World

FULL_DISK = Hindrance("disk", "3 MB are free and 100 MB are needed; make room")


async def _one(world: World) -> None:
    run = world.a_run()
    world.queue.add(run)
    await world.loop(tasks=1).serve(world.events)


def test_every_step_of_a_run_is_shown_in_its_order() -> None:
    async def check() -> None:
        world = World()
        await _one(world)
        seen = world.watcher.seen
        phases = [each.phase for each in seen if isinstance(each, PhaseEntered)]
        assert phases == [phase for phase in Phase if phase not in (Phase.CLAIMED, Phase.WAITING)]
        kinds = [type(each) for each in seen if not isinstance(each, PhaseEntered | StateEntered)]
        assert kinds == [Claimed, Decided, Executed, Stored, Resolved]
        ended = next(each for each in seen if isinstance(each, Resolved))
        assert (ended.task_id, ended.resolution, ended.reported) == (TASK_ID, Resolution.COMPLETED, True)

    run_virtual(check())


def test_a_refusal_is_shown_with_its_reasons() -> None:
    async def check() -> None:
        world = World()
        run = world.a_run(schedulerId="somebody-else", projectId="another-project")
        world.queue.add(run)
        await world.loop(tasks=1).serve(world.events)
        decided = next(each for each in world.watcher.seen if isinstance(each, Decided))
        assert decided.script == ""
        assert decided.reasons

    run_virtual(check())


def test_a_renewal_is_shown_with_what_was_left_of_the_claim() -> None:
    async def check() -> None:
        world = World()
        world.sandbox.seconds = 600
        world.queue.add(world.a_run(claim_seconds=1200))
        await world.loop(tasks=1).serve(world.events)
        renewed = [each for each in world.watcher.seen if isinstance(each, Renewed)]
        assert [each.slack_seconds for each in renewed] == [pytest.approx(720, abs=1)]

    run_virtual(check())


def test_a_hindered_worker_claims_nothing_says_why_once_and_goes_on_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None:
        world = World()
        world.queue.add(world.a_run())
        world.guard.found = (FULL_DISK,)
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(world.loop(tasks=1).serve(world.events))
            await world.clock.sleep(10 * HINDERED_SECONDS)
            assert world.queue.asked == []
            world.guard.found = ()
            ended = await serving
        assert ended.claimed == 1

    run_virtual(check())
    assert [each.message for each in caplog.records if FULL_DISK.why in each.message] == [
        f"claiming no tasks for now: {FULL_DISK.why}"
    ]


def test_a_full_worker_that_is_told_to_end_shows_that_it_drains_while_its_run_goes_on() -> None:
    async def check() -> None:
        world = World(drain_seconds=600)
        world.sandbox.seconds = 300
        world.queue.add(world.a_run())
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(world.loop().serve(world.events))
            await world.clock.sleep(60)
            assert _states(world)[-1] == StateEntered(State.FULL)
            world.events.ask("stop")
            await world.clock.sleep(1)
            assert _states(world)[-1] == StateEntered(State.DRAINING, "the operator asked to stop")
            assert not any(isinstance(each, Resolved) for each in world.watcher.seen)
            await serving
        assert [each.state for each in _states(world)][-2:] == [State.DRAINING, State.ENDED]

    run_virtual(check())


def _states(world: World) -> list[StateEntered]:
    return [each for each in world.watcher.seen if isinstance(each, StateEntered)]


class _Broken:
    def saw(self, _: Happening) -> NoReturn:
        raise RuntimeError("a watcher's own fault")

    async def hindrances(self, _: int) -> NoReturn:
        raise RuntimeError("a guard's own fault")


def test_a_watcher_that_fails_keeps_nothing_from_the_others() -> None:
    watcher = FakeWatcher()
    happening = StateEntered(State.CLAIMING)
    Watchers((_Broken(), watcher)).saw(happening)
    assert watcher.seen == [happening]


async def test_a_guard_that_fails_is_a_hindrance() -> None:
    guard = FakeHostGuard()
    guard.found = (FULL_DISK,)
    found = await HostGuards((_Broken(), guard)).hindrances(1)
    assert [each.what for each in found] == ["host", "disk"]
    assert "a guard's own fault" in found[0].why
