"""A host that breaks under a run: what it costs, and how the worker goes on by itself."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import NamedTuple, NoReturn

import pytest

from secureworker.core.errors import AuditEnded, AuditError, HostError, SandboxError, SignerLost
from secureworker.core.happening import Faulted, Hindrance, StateEntered
from secureworker.core.outcome import Resolution
from secureworker.testing import FakeRun, run_virtual
from secureworker.worker.loop import HINDERED_SECONDS, Ended
from secureworker.worker.mending import ANEW_SECONDS, BROKEN_SECONDS, SELF_TEST_SECONDS
from secureworker.worker.shutdown import Shutdown
from secureworker.worker.together import LOOK_SECONDS, HostGuards
from tests.worker.world import World

TASK_IDS = [f"ddVaxIRdRAaAAr5ryHnO{first}{last}" for first in "RSTUVWXYZabcdefghijklmnop" for last in "AQgw"]
DISK = HostError("the disk is full")


class Served(NamedTuple):
    ended: Ended
    world: World
    runs: list[FakeRun]
    seconds: float


def serve(
    seconds: float, arrange: Callable[[World], None], runs: int = 100, capacity: int = 1, tasks: int | None = None
) -> Served:
    """Have many tasks wait for a worker whose host is arranged, and let it work for `seconds` at most."""

    async def scenario() -> Served:
        world = World()
        waiting = [world.a_run(task_id) for task_id in TASK_IDS[:runs]]
        for run in waiting:
            world.queue.add(run)
        arrange(world)
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(world.loop(capacity, tasks).serve(world.events))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await asyncio.shield(serving)
            world.events.ask("drain")
            ended = await serving
        return Served(ended, world, waiting, world.clock.monotonic())

    return run_virtual(scenario())


def reports(runs: list[FakeRun]) -> list[Resolution]:
    return [run.reports[0] for run in runs if run.reports]


def hindrances(world: World) -> list[Hindrance]:
    return [one for each in world.watcher.seen if isinstance(each, StateEntered) for one in each.hindrances]


@pytest.mark.parametrize("error", [DISK, SandboxError("the runtime is gone")])
def test_a_run_that_fails_because_of_the_host_is_the_last_for_a_while(error: HostError) -> None:
    ended, world, runs, _ = serve(BROKEN_SECONDS[0] - 1, lambda world: world.sandbox.failures.add("run", error))

    assert reports(runs) == [Resolution.INTERNAL_ERROR]
    assert ended.fault is None, "it was asked to end, and did"
    assert {each.what for each in hindrances(world)} == {"host"}
    assert str(error) in hindrances(world)[0].why
    assert Faulted("host", str(error)) in world.watcher.seen


def test_the_worker_goes_on_by_itself_once_the_self_test_has_held(caplog: pytest.LogCaptureFixture) -> None:
    def arrange(world: World) -> None:
        world.sandbox.failures.add("run", DISK)

    caplog.set_level("INFO")
    ended, _, runs, _ = serve(100_000, arrange, tasks=3)

    assert reports(runs) == [Resolution.INTERNAL_ERROR, Resolution.COMPLETED, Resolution.COMPLETED]
    assert ended.fault is None
    said = [record.message for record in caplog.records]
    assert len([each for each in said if each.startswith("claiming no tasks for now")]) == 1
    assert "self-test: all 1 probes failed to get out again; claiming" in said


def test_a_host_that_stays_broken_takes_a_task_an_hour() -> None:
    async def scenario() -> list[float]:
        world = World()
        world.sandbox.failures.add("run", DISK, times=1000)
        claimed: list[float] = []

        class Endless:
            async def claim(self, _: int) -> tuple[FakeRun, ...]:
                claimed.append(world.clock.monotonic())
                return (world.a_run(),)

        world.queue = Endless()  # type: ignore[assignment] # always has a task that is claimed just now
        async with asyncio.TaskGroup() as group:
            group.create_task(world.loop().serve(world.events))
            await world.clock.sleep(24 * 3600)
            world.events.ask("drain")
        return claimed

    claimed = run_virtual(scenario())
    pauses = [round(after - before, -1) for before, after in itertools.pairwise(claimed)]
    assert pauses == [60, 600, *[3600] * 23]


def test_a_run_that_goes_well_shortens_the_next_pause_again() -> None:
    def arrange(world: World) -> None:
        # Fails, goes well, fails, goes well.
        fates = iter([DISK, None, DISK, None])

        def strike(method: str) -> None:
            error = next(fates, None) if method == "run" else None
            if error is not None:
                raise error

        world.sandbox.failures.strike = strike  # type: ignore[method-assign] # decides by itself

    ended, _, runs, seconds = serve(2 * BROKEN_SECONDS[0] + 60, arrange, runs=4, tasks=4)
    assert [each.value for each in reports(runs)] == ["internal-error", "completed"] * 2
    assert ended.claimed == 4
    assert seconds < BROKEN_SECONDS[1]


def test_while_the_self_test_fails_nothing_is_claimed_and_it_is_tried_ever_more_rarely() -> None:
    tried: list[float] = []

    def arrange(world: World) -> None:
        world.sandbox.failures.add("run", DISK)
        strike = world.sandbox.failures.strike

        def counting(method: str) -> None:
            if method == "self_test":
                tried.append(world.clock.monotonic())
                if len(tried) <= 6:
                    raise SandboxError("the runtime is gone") if len(tried) < 6 else RuntimeError("a bug")
            strike(method)

        world.sandbox.failures.strike = counting  # type: ignore[method-assign] # counts too

    ended, world, runs, _ = serve(10_000, arrange, tasks=2)

    assert ended.claimed == 2
    assert reports(runs) == [Resolution.INTERNAL_ERROR, Resolution.COMPLETED]
    pauses = [round(after - before, -1) for before, after in itertools.pairwise(tried)]
    assert pauses == [*SELF_TEST_SECONDS, 300, 300]
    assert any("the self-test fails: the runtime is gone" in each.why for each in hindrances(world))
    assert any("the self-test fails: a bug" in each.why for each in hindrances(world))


def test_guards_are_asked_before_the_self_test_and_win() -> None:
    def arrange(world: World) -> None:
        world.sandbox.failures.add("run", DISK)
        # Nothing at first; from the first run on the guard has found it.
        world.sandbox.on_begin = lambda: None
        world.queue.failures.add("claim", HostError("noticed while claiming"))

    ended, world, runs, _ = serve(10_000, arrange, tasks=1)
    assert ended.fault is DISK, "nothing was asked for beyond this task, and it failed because of the host"
    assert reports(runs) == [Resolution.INTERNAL_ERROR]
    assert hindrances(world)[0] == Hindrance("host", "noticed while claiming")


@pytest.mark.parametrize("lost", [SignerLost("the signer is gone"), AuditEnded("takes no more records")])
def test_what_only_a_new_start_mends_ends_the_worker(lost: HostError) -> None:
    ended, _, runs, _ = serve(10_000, lambda world: world.signer.failures.add("sign", lost))

    assert ended.fault is lost
    assert reports(runs) == [Resolution.INTERNAL_ERROR]


def test_a_self_test_that_finds_the_signer_lost_ends_the_worker() -> None:
    lost = SignerLost("the signer is gone")

    def arrange(world: World) -> None:
        world.sandbox.failures.add("run", DISK)
        world.sandbox.failures.add("self_test", lost)

    ended, _, runs, _ = serve(10_000, arrange)
    assert ended.fault is lost
    assert len(reports(runs)) == 1


def test_a_broken_host_lets_the_other_runs_finish_and_several_at_once_count_once() -> None:
    def arrange(world: World) -> None:
        world.sandbox.failures.add("run", SandboxError("no place for more"), times=2)

    ended, _, runs, seconds = serve(2 * BROKEN_SECONDS[0], arrange, runs=4, capacity=3, tasks=4)

    assert ended.fault is None
    assert sorted(each.value for each in reports(runs)) == ["completed", "completed", *["internal-error"] * 2]
    assert seconds < BROKEN_SECONDS[1]


def test_a_worker_told_to_end_while_it_looks_at_its_host_claims_nothing() -> None:
    class Slow:
        def __init__(self, world: World) -> None:
            self._world = world

        async def hindrances(self, _: int) -> tuple[Hindrance, ...]:
            self._world.events.ask("drain")
            await self._world.clock.sleep(1)
            return ()

    async def scenario() -> None:
        world = World()
        world.queue.add(world.a_run())
        world.guard = Slow(world)  # type: ignore[assignment] # another guard
        await world.loop().serve(world.events)
        assert world.queue.asked == []

    run_virtual(scenario())


def test_a_guard_that_hangs_is_a_hindrance() -> None:
    class Hanging:
        async def hindrances(self, _: int) -> NoReturn:
            await asyncio.Event().wait()
            raise AssertionError

    async def scenario() -> None:
        (found,) = await HostGuards((Hanging(),)).hindrances(1)
        assert found == Hindrance("host", f"Hanging does not come back: it has waited {LOOK_SECONDS:g} s")

    run_virtual(scenario())


@pytest.mark.parametrize("lost", [SignerLost("the signer is gone"), AuditEnded("takes no more records")])
def test_a_guard_that_finds_what_only_a_new_start_mends_ends_the_worker(lost: HostError) -> None:
    class Losing:
        async def hindrances(self, _: int) -> NoReturn:
            raise lost

    def arrange(world: World) -> None:
        world.guard = HostGuards((Losing(),))  # type: ignore[assignment] # a real one

    ended, world, _, _ = serve(100, arrange)
    assert ended.fault is lost
    assert world.queue.asked == []


def test_a_log_that_heals_is_no_end() -> None:
    ended, world, runs, seconds = serve(
        1000, lambda world: world.queue.failures.add("claim", AuditError("no space"), times=2), tasks=1
    )

    assert ended.fault is None
    assert reports(runs) == [Resolution.COMPLETED]
    assert hindrances(world) == [Hindrance("audit", "no space")] * 2
    assert seconds >= 2 * HINDERED_SECONDS


ANOTHER_RUNTIME = Hindrance("runtime", "runc is another program", ends_by_beginning_anew=True)


@pytest.mark.parametrize("reloads", [True, False])
def test_what_a_new_beginning_mends_has_the_worker_begin_anew_once_nothing_runs(*, reloads: bool) -> None:
    async def reload() -> bool:
        raise AssertionError("nobody asked for another policy")

    async def scenario() -> None:
        world = World()
        world.shutdown = Shutdown(world.clock, 30, reload if reloads else None)
        world.sandbox.seconds = 500
        world.queue.add(world.a_run())
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(world.loop(capacity=2).serve(world.events))
            await world.sandbox.begun.wait()
            world.guard.found = (ANOTHER_RUNTIME,)
            await world.clock.sleep(400)
            assert not world.shutdown.begun, "a run is under way"
            await world.clock.sleep(200)
            assert world.shutdown.begun is reloads
            assert world.shutdown.starts_anew is reloads
            world.events.ask("drain")
            ended = await serving
        assert ended.fault is None

    run_virtual(scenario())


@pytest.mark.parametrize("found", [(ANOTHER_RUNTIME, Hindrance("disk", "full")), ()])
def test_what_a_new_beginning_does_not_mend_is_waited_for(found: tuple[Hindrance, ...]) -> None:
    async def reload() -> bool:
        return True

    async def scenario() -> None:
        world = World()
        world.shutdown = Shutdown(world.clock, 30, reload)
        async with asyncio.TaskGroup() as group:
            group.create_task(world.loop().serve(world.events))
            for _ in range(20):
                # Never for long enough in one piece.
                world.guard.found = (ANOTHER_RUNTIME,)
                await world.clock.sleep(ANEW_SECONDS - 2 * HINDERED_SECONDS)
                world.guard.found = found
                await world.clock.sleep(2 * HINDERED_SECONDS)
            assert not world.shutdown.begun
            world.events.ask("drain")

    run_virtual(scenario())
