"""Several runs at once: what is asked for, who waits for whom, and that a wait ends like everything else."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from secureworker.app import load_policy
from secureworker.core.errors import ServiceError, SettingsError, StopReason
from secureworker.core.happening import Hindrance, Phase, PhaseEntered, State, StateEntered
from secureworker.core.ids import ScriptName
from secureworker.core.outcome import Resolution
from secureworker.core.policy import PayloadEquals
from secureworker.testing import FakeRun, a_policy, a_script, run_virtual
from secureworker.testing.time import EPOCH
from tests.policyfile.policies import TEXT, write
from tests.worker.test_loop import TASK_IDS, asks, serve
from tests.worker.world import World

SECONDS = 100.0
"""What a script takes here."""


def exclusive_world() -> World:
    """Make a worker with an ordinary script, and one that runs alone."""
    ordinary = a_script(name=ScriptName("ordinary"), when=PayloadEquals("do", "ordinary"))
    alone = a_script(name=ScriptName("alone"), when=PayloadEquals("do", "alone"), exclusive=True)
    world = World(a_policy(ordinary, alone), drain_seconds=30)
    world.sandbox.seconds = SECONDS
    return world


def creates(
    runs: list[FakeRun], *wanted: tuple[float, str], scheduler: str = "test-scheduler"
) -> Callable[[World], Awaitable[None]]:
    """Create tasks: when, and for which script."""

    async def happening(world: World) -> None:
        for number, (when, script) in enumerate(wanted):
            # Those of one moment are pending together: one answer gives them all.
            if when > world.clock.monotonic():
                await world.clock.sleep(when - world.clock.monotonic())
            runs.append(world.a_run(TASK_IDS[number], payload={"do": script}, schedulerId=scheduler))
            world.queue.add(runs[-1])

    return happening


def spans(world: World) -> list[tuple[float, float]]:
    """Give when the scripts began and ended, in seconds, in the order of the tasks' ids."""
    seconds = {
        task: ((began - EPOCH).total_seconds(), (dead - EPOCH).total_seconds())
        for task, began, dead in world.sandbox.alive
    }
    return [seconds[task] for task in TASK_IDS if task in seconds]


def overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def test_a_run_that_must_be_alone_waits_for_those_that_were_claimed_before_it() -> None:
    runs: list[FakeRun] = []
    _, world, _ = serve(creates(runs, (0, "ordinary"), (10, "alone")), tasks=2, capacity=4, world=exclusive_world)
    assert [run.reports for run in runs] == [[Resolution.COMPLETED]] * 2
    first, alone = spans(world)
    assert alone[0] >= first[1]
    assert "waiting: the script alone runs alone on this worker; other runs: 1 at work now" in world.log(runs[1])
    phases = [
        seen.phase for seen in world.watcher.seen if isinstance(seen, PhaseEntered) and seen.task_id == TASK_IDS[1]
    ]
    assert phases.index(Phase.WAITING) < phases.index(Phase.PREPARING)


def test_those_claimed_with_one_that_must_be_alone_wait_for_it_or_it_for_them() -> None:
    runs: list[FakeRun] = []
    wanted = ((0, "ordinary"), (0, "alone"), (0, "ordinary"), (0, "alone"))
    _, world, _ = serve(creates(runs, *wanted), tasks=4, capacity=4, world=exclusive_world)
    assert world.queue.asked[0] == 4
    assert [run.reports for run in runs] == [[Resolution.COMPLETED]] * 4
    lived = spans(world)
    for alone in (lived[1], lived[3]):
        assert not any(overlap(alone, other) for other in lived if other is not alone)
    assert "waiting" in world.log(runs[2])


def test_nothing_is_claimed_beside_a_run_that_must_be_alone() -> None:
    runs: list[FakeRun] = []
    wanted = ((0, "alone"), (10, "ordinary"), (10, "ordinary"))
    _, world, _ = serve(creates(runs, *wanted), tasks=3, capacity=4, world=exclusive_world)
    alone, *others = spans(world)
    assert all(other[0] >= alone[1] for other in others)
    assert overlap(*others)
    states = [seen for seen in world.watcher.seen if isinstance(seen, StateEntered)]
    assert StateEntered(State.FULL, "a run must be alone on this worker") in states
    # Two requests: for four places, of which the Queue filled one; the next only once it had ended.
    assert len(world.queue.asked) <= 3


def test_a_refused_task_for_a_script_that_runs_alone_keeps_nobody_waiting() -> None:
    runs: list[FakeRun] = []
    wanted = ((0, "ordinary"), (5, "alone"), (10, "ordinary"))
    refused = creates(runs, *wanted, scheduler="another-scheduler")
    _, _, when = serve(refused, tasks=3, capacity=2, world=exclusive_world)
    assert [run.reports for run in runs] == [[Resolution.MALFORMED_PAYLOAD]] * 3
    assert when < SECONDS


def test_a_run_keeps_its_claim_while_it_waits() -> None:
    runs: list[FakeRun] = []

    def slow() -> World:
        world = exclusive_world()
        world.sandbox.seconds = 3000
        return world

    _, _, _ = serve(creates(runs, (0, "ordinary"), (1, "alone")), tasks=2, capacity=2, world=slow)
    assert [run.reports for run in runs] == [[Resolution.COMPLETED]] * 2
    assert runs[1].reclaims >= 5


def test_a_run_that_is_cancelled_while_it_waits_keeps_nobody_waiting() -> None:
    runs: list[FakeRun] = []

    async def cancels(world: World) -> None:
        await world.clock.sleep(20)
        runs[1].cancel()

    wanted = ((0, "ordinary"), (1, "alone"), (40, "ordinary"))
    _, world, _ = serve(creates(runs, *wanted), cancels, tasks=3, capacity=3, world=exclusive_world)
    assert [run.reports for run in runs] == [[Resolution.COMPLETED], [], [Resolution.COMPLETED]]
    assert runs[1].resolved is StopReason.CANCELED
    first, third = spans(world)
    assert overlap(first, third)


def test_a_run_whose_claim_is_lost_while_it_waits_is_not_reported_and_keeps_nobody_waiting() -> None:
    runs: list[FakeRun] = []

    async def cuts(world: World) -> None:
        await world.clock.sleep(5)
        for method in ("reclaim", "confirm"):
            runs[1].failures.add(method, ServiceError("the network is cut"), times=10_000)

    def slow() -> World:
        world = exclusive_world()
        world.sandbox.seconds = 2000
        return world

    wanted = ((0, "ordinary"), (1, "alone"), (1300, "ordinary"))
    _, world, _ = serve(creates(runs, *wanted), cuts, tasks=3, capacity=3, world=slow)
    assert [run.reports for run in runs] == [[Resolution.COMPLETED], [], [Resolution.COMPLETED]]
    first, third = spans(world)
    assert overlap(first, third)


@pytest.mark.parametrize("what", ["stop", "now"])
def test_a_worker_that_is_told_to_end_gives_back_what_waits(what: str) -> None:
    runs: list[FakeRun] = []
    wanted = ((0, "ordinary"), (1, "alone"))
    _, world, when = serve(creates(runs, *wanted), asks(what, 10), capacity=4, world=exclusive_world)
    assert [run.reports for run in runs] == [[Resolution.WORKER_SHUTDOWN]] * 2
    assert len(spans(world)) == 1
    assert when < 50


def test_a_worker_that_drains_lets_what_waits_have_its_turn() -> None:
    runs: list[FakeRun] = []
    wanted = ((0, "ordinary"), (1, "alone"))
    _, world, _ = serve(creates(runs, *wanted), asks("drain", 10), capacity=4, world=exclusive_world)
    assert [run.reports for run in runs] == [[Resolution.COMPLETED]] * 2
    assert not overlap(*spans(world))


def test_a_scripts_own_time_does_not_pass_while_it_waits() -> None:
    runs: list[FakeRun] = []

    def nearly_as_long_as_allowed() -> World:
        world = exclusive_world()
        world.sandbox.seconds = 3599
        return world

    serve(creates(runs, (0, "ordinary"), (1, "alone")), tasks=2, capacity=2, world=nearly_as_long_as_allowed)
    assert [run.reports for run in runs] == [[Resolution.COMPLETED]] * 2


# --- what is asked for --------------------------------------------------------------------------------------------


def test_a_place_that_becomes_free_during_a_long_poll_is_used_as_soon_as_there_are_tasks() -> None:
    """One request at a time is enough: the Queue holds back only the answer that there is nothing."""
    runs: list[FakeRun] = []

    def two_places() -> World:
        world = exclusive_world()
        world.sandbox.seconds = 5
        return world

    # The first takes one of two places; a poll for the other one is on its way when its place becomes free again.
    wanted = ((0, "ordinary"), (12, "ordinary"), (12, "ordinary"))
    _, world, _ = serve(creates(runs, *wanted), tasks=3, capacity=2, world=two_places)
    assert world.queue.asked[:2] == [2, 1]
    _, second, third = spans(world)
    assert third[0] - second[0] < 0.5


def test_fewer_tasks_are_asked_for_where_there_is_room_for_fewer() -> None:
    runs: list[FakeRun] = []

    class RoomForTwo:
        async def hindrances(self, count: int) -> tuple[Hindrance, ...]:
            return (Hindrance("memory", "too little"),) if count > 2 else ()

    def small() -> World:
        world = World()
        world.guard = RoomForTwo()  # type: ignore[assignment] # a guard of another kind
        return world

    wanted = ((0.0, "x"),) * 4
    _, world, _ = serve(creates(runs, *wanted), tasks=4, capacity=4, world=small)
    assert world.queue.asked[0] == 2
    assert [run.reports for run in runs] == [[Resolution.COMPLETED]] * 4


def test_no_more_is_asked_for_than_the_queue_gives_at_once() -> None:
    _, world, _ = serve(asks("drain", 1), capacity=100)
    assert world.queue.asked == [32]


def test_a_run_that_the_queue_gives_twice_runs_once() -> None:
    class RepeatingQueue:
        def __init__(self, run: FakeRun) -> None:
            self.run = run
            self.asked = 0

        async def claim(self, _: int) -> tuple[FakeRun, ...]:
            self.asked += 1
            return (self.run, self.run) if self.asked == 1 else (self.run,)

    def repeating() -> World:
        world = World()
        world.sandbox.seconds = 10
        world.queue = RepeatingQueue(world.a_run())  # type: ignore[assignment] # a Queue nobody should have
        return world

    async def ends(world: World) -> None:
        await world.clock.sleep(5)
        world.events.ask("drain")

    _, world, _ = serve(ends, capacity=3, world=repeating)
    assert world.queue.run.reports == [Resolution.COMPLETED]  # type: ignore[attr-defined] # the repeating one's
    assert len(world.sandbox.alive) == 1
    assert world.workspaces.opened == 1


# --- what the policy says -----------------------------------------------------------------------------------------


def test_more_at_once_than_the_policy_allows_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT.replace("tasks:\n", "max-capacity: 2\ntasks:\n", 1))
    assert load_policy(path, None, capacity=2).max_capacity == 2
    with pytest.raises(SettingsError, match=r"the capacity is set to 3, and .* allows 2 at once"):
        load_policy(path, None, capacity=3)


def test_a_policy_that_says_nothing_allows_one_at_a_time(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="allows 1 at once"):
        load_policy(write(tmp_path), None, capacity=2)


def test_the_loop_ends_where_everything_waits_for_everything() -> None:
    """Every kind of wait at once, and an operator who asks to stop in the midst of it."""

    async def scenario() -> list[list[Resolution]]:
        world = exclusive_world()
        runs: list[FakeRun] = []
        wanted = ((0, "alone"), (0, "ordinary"), (0, "alone"), (0, "ordinary"), (0, "alone"), (0, "ordinary"))
        async with asyncio.TaskGroup() as group:
            group.create_task(_awaited(creates(runs, *wanted)(world)))
            group.create_task(_awaited(asks("stop", 150)(world)))
            await world.loop(6).serve(world.events)
        assert (world.workspaces.open_now, world.networks.open_now) == (0, 0)
        return [run.reports for run in runs]

    found = run_virtual(scenario())
    assert found.count([Resolution.COMPLETED]) == 1
    assert found.count([Resolution.WORKER_SHUTDOWN]) == 5


async def _awaited(happening: Awaitable[None]) -> None:
    await happening
