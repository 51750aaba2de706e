"""The claim loop: what it claims, when it stops claiming, and that nothing claimed is ever forgotten."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from secureworker.core.errors import AccessDenied, ServiceError, SettingsError, StopReason
from secureworker.core.outcome import Resolution
from secureworker.testing import FakeRun, a_policy, a_script, run_virtual
from secureworker.worker.loop import POLL_SECONDS, REFUSALS, Ended
from secureworker.worker.shutdown import Shutdown
from tests.worker.world import World

TASK_IDS = [f"ddVaxIRdRAaAAr5ryHnO{letters}" for letters in ("RA", "RQ", "Rg", "Rw", "SA", "SQ")]


def serve(
    *happenings: Callable[[World], Awaitable[None]],
    tasks: int | None = None,
    capacity: int = 1,
    world: Callable[[], World] = World,
) -> tuple[Ended, World, float]:
    """Run the loop until it ends, while things happen; give also when it ended."""

    async def scenario() -> tuple[Ended, World, float]:
        here = world()
        async with asyncio.TaskGroup() as group:
            for happening in happenings:
                group.create_task(_awaited(happening(here)))
            ended = await here.loop(capacity, tasks).serve(here.events)
        return ended, here, here.clock.monotonic()

    return run_virtual(scenario())


async def _awaited(happening: Awaitable[None]) -> None:
    await happening


def asks(what: str, seconds: float, times: int = 1) -> Callable[[World], Awaitable[None]]:
    async def happening(world: World) -> None:
        await world.clock.sleep(seconds)
        for _ in range(times):
            world.events.ask(what)

    return happening


def creates(runs: list[FakeRun], *seconds: float) -> Callable[[World], Awaitable[None]]:
    """Create tasks at times; `runs` collects them."""

    async def happening(world: World) -> None:
        for number, when in enumerate(seconds):
            await world.clock.sleep(when - world.clock.monotonic())
            runs.append(world.a_run(TASK_IDS[number]))
            world.queue.add(runs[-1])

    return happening


def test_tasks_are_claimed_and_run_one_after_the_other() -> None:
    runs: list[FakeRun] = []
    ended, world, _ = serve(creates(runs, 0, 0, 0, 50), tasks=4)
    assert ended == Ended("all 4 tasks that were asked for are done", 4)
    assert [run.reports for run in runs] == [[Resolution.COMPLETED]] * 4
    lives = sorted((started, dead) for _, started, dead in world.sandbox.alive)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(lives))
    assert set(world.queue.asked) == {1}


def test_the_last_of_the_tasks_that_were_asked_for_runs_to_its_end() -> None:
    runs: list[FakeRun] = []
    ended, _, _ = serve(creates(runs, 0), tasks=1)
    assert ended.claimed == 1
    assert runs[0].resolved is Resolution.COMPLETED


def test_with_capacity_several_run_at_once_and_only_free_places_are_claimed_for() -> None:
    runs: list[FakeRun] = []
    _, world, _ = serve(creates(runs, 0, 0, 0, 0, 0, 0), tasks=6, capacity=4)
    assert [run.reports for run in runs] == [[Resolution.COMPLETED]] * 6
    moments = [started for _, started, _ in world.sandbox.alive]
    most = max(sum(started <= moment < dead for _, started, dead in world.sandbox.alive) for moment in moments)
    assert most == 4
    assert world.queue.asked[0] == 4


def test_more_than_was_asked_for_is_given_back() -> None:
    class GenerousQueue:
        def __init__(self, runs: tuple[FakeRun, ...]) -> None:
            self.runs = runs

        async def claim(self, _: int) -> tuple[FakeRun, ...]:
            return self.runs

    def generous() -> World:
        world = World()
        world.queue = GenerousQueue((world.a_run(TASK_IDS[0]), world.a_run(TASK_IDS[1])))  # type: ignore[assignment] # a Queue nobody should have
        return world

    _, world, _ = serve(tasks=2, world=generous)
    runs = world.queue.runs  # type: ignore[attr-defined] # the generous one's
    assert [run.reports for run in runs] == [[Resolution.COMPLETED], [Resolution.WORKER_SHUTDOWN]]


# --- told to end --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["drain", "stop", "now"])
def test_an_idle_worker_ends_when_the_answer_of_its_last_claim_is_there(what: str) -> None:
    ended, world, when = serve(asks(what, 30))
    assert ended.fault is None
    assert "operator" in ended.reason
    assert 30 <= when <= 50
    assert len(world.queue.asked) in (2, 3)


@pytest.mark.parametrize("what", ["drain", "stop", "now"])
def test_a_claim_answered_after_the_end_was_asked_for_is_given_back_within_seconds(what: str) -> None:
    runs: list[FakeRun] = []
    _, world, when = serve(asks(what, 5), creates(runs, 6))
    assert runs[0].reports == [Resolution.WORKER_SHUTDOWN]
    assert world.sandbox.alive == []
    assert when < 10


def a_long_script() -> World:
    world = World(drain_seconds=30)
    world.sandbox.seconds = 100
    return world


def test_sigusr1_lets_a_running_task_finish_and_claims_no_more() -> None:
    runs: list[FakeRun] = []
    ended, world, when = serve(creates(runs, 0, 10), asks("drain", 5, times=100), world=a_long_script)
    assert runs[0].reports == [Resolution.COMPLETED]
    assert runs[1].reports == []
    assert when == pytest.approx(101, abs=2)
    assert ended.fault is None
    assert world.queue.asked == [1]


def test_sigterm_gives_a_running_task_the_drain_time() -> None:
    runs: list[FakeRun] = []
    _, _, when = serve(creates(runs, 0), asks("stop", 5), world=a_long_script)
    assert runs[0].reports == [Resolution.WORKER_SHUTDOWN]
    assert when == pytest.approx(35, abs=3)


def test_sigterm_lets_a_task_finish_that_needs_less_than_the_drain_time() -> None:
    runs: list[FakeRun] = []
    _, _, when = serve(creates(runs, 0), asks("stop", 80), world=a_long_script)
    assert runs[0].reports == [Resolution.COMPLETED]
    assert when == pytest.approx(101, abs=2)


def test_a_second_sigterm_ends_a_running_task_at_once() -> None:
    runs: list[FakeRun] = []
    _, _, when = serve(creates(runs, 0), asks("stop", 5), asks("now", 7), world=a_long_script)
    assert runs[0].reports == [Resolution.WORKER_SHUTDOWN]
    assert when == pytest.approx(7, abs=3)


def a_script_that_ends_slowly() -> World:
    world = World(a_policy(a_script(grace=timedelta(seconds=300))), drain_seconds=30)
    world.sandbox.seconds = 1000
    world.sandbox.stopping_seconds = 300
    return world


def test_a_script_that_ends_slowly_is_given_its_grace() -> None:
    runs: list[FakeRun] = []
    _, _, when = serve(creates(runs, 0), asks("stop", 5), world=a_script_that_ends_slowly)
    assert runs[0].reports == [Resolution.WORKER_SHUTDOWN]
    assert when == pytest.approx(335, abs=3)


@pytest.mark.parametrize("now", [7, 100])
def test_a_second_sigterm_cuts_the_grace_short(now: int) -> None:
    runs: list[FakeRun] = []
    _, _, when = serve(creates(runs, 0), asks("stop", 5), asks("now", now), world=a_script_that_ends_slowly)
    assert runs[0].reports == [Resolution.WORKER_SHUTDOWN]
    assert when == pytest.approx(now, abs=3)


def test_a_cancelled_script_that_is_cut_short_is_still_not_ours() -> None:
    runs: list[FakeRun] = []

    async def cancels(world: World) -> None:
        await world.sandbox.begun.wait()
        runs[0].cancel()

    _, _, when = serve(creates(runs, 0), cancels, asks("stop", 50), asks("now", 60), world=a_script_that_ends_slowly)
    assert runs[0].reports == []
    assert runs[0].resolved is StopReason.CANCELED
    assert when == pytest.approx(60, abs=3)


def test_sigusr1_and_then_sigterm_stops_a_running_task_after_the_drain_time() -> None:
    runs: list[FakeRun] = []
    _, _, when = serve(creates(runs, 0), asks("drain", 5, times=50), asks("stop", 10), world=a_long_script)
    assert runs[0].reports == [Resolution.WORKER_SHUTDOWN]
    assert when == pytest.approx(40, abs=3)


@pytest.mark.parametrize("what", ["drain", "stop", "now"])
@pytest.mark.parametrize("tenths", range(0, 24, 1))
def test_a_request_to_end_at_any_moment_leaves_every_claimed_run_resolved_once(what: str, tenths: int) -> None:
    runs: list[FakeRun] = []
    _, world, when = serve(creates(runs, 0.3), asks(what, tenths / 10), world=lambda: World(drain_seconds=0.5))
    assert when < 30
    assert len(runs[0].reports) == 1
    assert runs[0].resolved in (Resolution.COMPLETED, Resolution.WORKER_SHUTDOWN)
    assert world.workspaces.open_now == 0


def test_a_request_to_end_does_not_wait_for_a_pause_after_an_error() -> None:
    def unreachable() -> World:
        world = World()
        world.queue.failures.add("claim", ServiceError("503"), times=1000)
        return world

    _, _, when = serve(asks("stop", 100), world=unreachable)
    assert when == pytest.approx(100, abs=0.1)


# --- faults -------------------------------------------------------------------------------------------------------


def test_a_queue_that_cannot_be_reached_is_asked_again_less_and_less_often() -> None:
    runs: list[FakeRun] = []

    def unreachable() -> World:
        world = World()
        world.queue.failures.add("claim", ServiceError("503"), times=9)
        return world

    _, world, when = serve(creates(runs, 0), tasks=1, world=unreachable)
    assert len(world.queue.asked) == 10
    assert when == pytest.approx(1 + 2 + 5 + 10 + 20 + 40 + 60 + 60 + 60, abs=5)
    assert runs[0].reports == [Resolution.COMPLETED]


def test_credentials_refused_the_first_time_end_the_worker_at_once_with_the_reason() -> None:
    def refused() -> World:
        world = World()
        world.queue.failures.add("claim", AccessDenied("401: the token is wrong"), times=1000)
        return world

    ended, world, _ = serve(world=refused)
    assert isinstance(ended.fault, AccessDenied)
    assert "credentials" in ended.reason
    assert len(world.queue.asked) == 1


def test_credentials_refused_again_and_again_end_a_worker_that_was_let_in_before() -> None:
    runs: list[FakeRun] = []

    async def revokes(world: World) -> None:
        await world.sandbox.begun.wait()
        world.queue.failures.add("claim", AccessDenied("403"), times=1000)

    ended, world, _ = serve(creates(runs, 0), revokes)
    assert isinstance(ended.fault, AccessDenied)
    assert len(world.queue.asked) == 1 + REFUSALS


def test_credentials_refused_a_few_times_end_nothing() -> None:
    runs: list[FakeRun] = []

    async def troubles(world: World) -> None:
        await world.sandbox.begun.wait()
        world.queue.failures.add("claim", AccessDenied("401"), times=REFUSALS - 1)

    ended, _, _ = serve(creates(runs, 0, 10), troubles, tasks=2)
    assert ended.fault is None
    assert [run.reports for run in runs] == [[Resolution.COMPLETED]] * 2


@pytest.mark.parametrize("what", ["drain", "stop", "now"])
def test_what_was_asked_for_during_the_start_is_heard_before_the_first_claim(what: str) -> None:
    def told_already() -> World:
        world = World()
        world.events.ask(what)
        return world

    _, world, when = serve(world=told_already)
    assert world.queue.asked == []
    assert when == 0


def test_a_claim_that_can_never_work_ends_the_worker() -> None:
    def impossible() -> World:
        world = World()
        world.queue.failures.add("claim", SettingsError("the worker id has a dot"))
        return world

    ended, _, _ = serve(world=impossible)
    assert isinstance(ended.fault, SettingsError)


def test_an_error_nobody_thought_of_while_claiming_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    runs: list[FakeRun] = []

    def buggy() -> World:
        world = World()
        world.queue.failures.add("claim", KeyError("a bug"))
        return world

    ended, _, _ = serve(creates(runs, 0), tasks=1, world=buggy)
    assert ended.fault is None
    assert runs[0].reports == [Resolution.COMPLETED]
    assert "KeyError" in caplog.text


@pytest.mark.parametrize(
    "error", [KeyError("a bug"), ServiceError("away"), RecursionError("deep"), MemoryError("a gigabyte")]
)
def test_nothing_that_happens_in_a_run_ends_the_loop(error: Exception) -> None:
    runs: list[FakeRun] = []

    def unlucky() -> World:
        world = World()
        world.sandbox.failures.add("run", error)
        return world

    ended, _, _ = serve(creates(runs, 0, 0), tasks=2, world=unlucky)
    assert ended.fault is None
    assert [run.reports for run in runs] == [[Resolution.INTERNAL_ERROR], [Resolution.COMPLETED]]


def test_a_task_cancelled_or_lost_does_not_end_the_loop() -> None:
    runs: list[FakeRun] = []

    async def cancels(world: World) -> None:
        await world.sandbox.begun.wait()
        runs[0].cancel()

    ended, _, _ = serve(creates(runs, 0, 0), cancels, tasks=2, world=a_long_script)
    assert ended.claimed == 2
    assert runs[0].resolved is StopReason.CANCELED
    assert runs[0].reports == []
    assert runs[1].reports == [Resolution.COMPLETED]


def test_a_queue_that_does_not_hold_its_empty_answers_back_is_not_asked_in_a_tight_loop() -> None:
    class HastyQueue:
        asked = 0

        async def claim(self, _: int) -> tuple[FakeRun, ...]:
            self.asked += 1
            return ()

    hasty = HastyQueue()

    def world_with_it() -> World:
        world = World()
        world.queue = hasty  # type: ignore[assignment] # a Queue in a hurry
        return world

    serve(asks("stop", 100), world=world_with_it)
    assert hasty.asked <= 100 / POLL_SECONDS + 1


def test_another_policy_lets_running_tasks_finish_and_the_worker_begins_anew() -> None:
    runs: list[FakeRun] = []
    asked: list[str] = []

    def a_world() -> World:
        world = World()

        async def reload() -> bool:
            asked.append("again")
            return len(asked) == 2

        world.shutdown = Shutdown(world.clock, 10, reload)
        return world

    ended, world, _ = serve(creates(runs, 1), asks("reload", 5), asks("reload", 6), asks("reload", 7), world=a_world)
    assert ended.reason == "the policy has changed"
    assert asked == ["again", "again"]
    assert [run.reports for run in runs] == [[Resolution.COMPLETED]]
    assert world.shutdown.starts_anew


def test_a_worker_that_is_told_to_end_does_not_begin_anew() -> None:
    def a_world() -> World:
        world = World()

        async def reload() -> bool:
            return True

        world.shutdown = Shutdown(world.clock, 10, reload)
        return world

    _, world, _ = serve(asks("reload", 2), asks("drain", 2), world=a_world)
    assert not world.shutdown.starts_anew


def test_a_worker_that_cannot_read_its_policy_again_goes_on() -> None:
    ended, world, _ = serve(asks("reload", 1), asks("drain", 3))
    assert ended.reason == "the operator asked to drain"
    assert not world.shutdown.starts_anew
