"""When a run's log is shown, where its artifact leads, and that no run depends on it."""

import asyncio

import pytest

from secureworker.core.errors import HostError, ServiceError, Stop, StopReason
from secureworker.core.ids import ArtifactName
from secureworker.core.outcome import ExitCode, Exited, Outcome, Refused, Resolution, Stopped
from secureworker.core.uploads import StorageLink, StorageReference
from secureworker.testing import FakeRun, a_policy, a_script, run_virtual
from secureworker.worker.live import LIVE_LOG, PATIENCE_SECONDS
from secureworker.worker.run import run_claim
from tests.worker.world import World

BACKING = ArtifactName("public/logs/live_backing.log")


def a_world(*, live: bool = True) -> World:
    return World(policy=a_policy(a_script(live_log=live)))


async def carry_out(world: World, run: FakeRun) -> Outcome:
    return await run_claim(run, world.tools, world.shutdown)


def test_a_log_is_shown_from_the_decision_on_and_then_a_link_to_its_backing() -> None:
    async def check() -> None:
        world = a_world()
        run = world.a_run()
        assert isinstance(await carry_out(world, run), Exited)
        assert run.resolved is Resolution.COMPLETED
        assert run.artifacts[LIVE_LOG] == StorageLink(LIVE_LOG, BACKING, run.claim.task.expires)
        assert world.live.addresses.keys() == {str(run.claim)}
        assert world.live.shown_now == set()

    run_virtual(check())


def test_while_the_script_runs_the_artifact_leads_to_where_it_is_shown() -> None:
    async def check() -> None:
        world = a_world()
        run = world.a_run()
        world.sandbox.seconds = 600
        async with asyncio.TaskGroup() as group:
            group.create_task(carry_out(world, run))
            await world.clock.sleep(60)
            shown = run.artifacts[LIVE_LOG]
            assert isinstance(shown, StorageReference)
            assert shown.url == world.live.addresses[str(run.claim)]
            assert shown.expires == run.claim.task.expires
            assert shown.url not in world.log(run)

    run_virtual(check())


def test_nothing_is_shown_unless_the_rule_says_so() -> None:
    async def check() -> None:
        world = a_world(live=False)
        run = world.a_run()
        await carry_out(world, run)
        assert LIVE_LOG not in run.artifacts
        assert world.live.addresses == {}

    run_virtual(check())


def test_the_log_of_a_refused_task_is_not_shown() -> None:
    async def check() -> None:
        world = a_world()
        run = world.a_run(schedulerId="somebody-else")
        assert isinstance(await carry_out(world, run), Refused)
        assert world.live.addresses == {}
        assert LIVE_LOG not in run.artifacts

    run_virtual(check())


def test_a_log_that_cannot_be_shown_changes_nothing_but_says_so() -> None:
    async def check() -> None:
        world = a_world()
        run = world.a_run()
        world.live.failures.add("show", HostError("the process does not start"))
        assert isinstance(await carry_out(world, run), Exited)
        assert run.resolved is Resolution.COMPLETED
        assert LIVE_LOG not in run.artifacts
        assert "this log cannot be read while it is written" in world.log(run)
        assert "the process does not start" not in world.log(run)

    run_virtual(check())


def test_a_queue_that_does_not_take_the_artifact_holds_up_nothing() -> None:
    async def check() -> None:
        world = a_world()
        run = world.a_run()
        run.latencies["create_artifact"] = 100 * PATIENCE_SECONDS
        started = world.clock.monotonic()
        assert isinstance(await carry_out(world, run), Exited)
        assert run.resolved is Resolution.COMPLETED
        assert world.clock.monotonic() - started < 3 * PATIENCE_SECONDS
        assert LIVE_LOG not in run.artifacts

    run_virtual(check())


def test_a_link_that_is_not_taken_changes_no_outcome() -> None:
    async def check() -> None:
        world = a_world()
        run = world.a_run()
        world.sandbox.on_begin = lambda: run.failures.add("create_artifact", ServiceError("not now"))
        await carry_out(world, run)
        assert run.resolved is Resolution.COMPLETED
        assert isinstance(run.artifacts[LIVE_LOG], StorageReference)

    run_virtual(check())


@pytest.mark.parametrize("reason", [StopReason.CLAIM_LOST, StopReason.CANCELED])
def test_a_run_that_turns_out_not_to_be_ours_ends_there(reason: StopReason) -> None:
    async def check() -> None:
        world = a_world()
        run = world.a_run()
        run.failures.add("create_artifact", Stop(reason, "somebody else's"))
        outcome = await carry_out(world, run)
        assert isinstance(outcome, Stopped)
        assert run.reports == []
        assert world.sandbox.alive == []
        assert world.live.shown_now == set()

    run_virtual(check())


def test_a_log_that_is_lost_is_not_shown_for_ever() -> None:
    async def check() -> None:
        world = a_world()
        run = world.a_run()
        world.logs.failures.add("finish", HostError("the disk is full"))
        await carry_out(world, run)
        assert world.live.addresses.keys() == {str(run.claim)}
        assert world.live.shown_now == set()

    run_virtual(check())


def test_the_end_of_a_script_that_failed_is_shown_too() -> None:
    async def check() -> None:
        world = a_world()
        run = world.a_run()
        world.sandbox.status = ExitCode(1)
        await carry_out(world, run)
        assert run.resolved is Resolution.FAILED
        assert isinstance(run.artifacts[LIVE_LOG], StorageLink)

    run_virtual(check())
