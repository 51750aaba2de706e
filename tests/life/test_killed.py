"""`kill -9` of the worker at every step, and the next start: it sweeps before it claims, and goes on."""

import signal

import pytest

from secureworker.localqueue.schemas import PRIORITIES
from tests.end_to_end.daemon import eventually
from tests.life.stepping import STEPS
from tests.life.world import Standing, World, a_world

pytestmark = pytest.mark.sandbox

CLAIM_SECONDS = 5.0
_STEPS = [step for step in STEPS if step != "inputs-fetched"]
_CHAINS = [_STEPS[start::4] for start in range(4)]


async def _start(world: World) -> tuple[Standing, list[str]]:
    """Start a worker, look at the host before it claims, and have it run a task as any other.

    Returns:
        the worker's standing after that task's report, and what it wrote into the audit log until it claimed.
    """
    claiming, reported = world.steps.hold("to-claim"), world.steps.hold("reported")
    worker = await world.begin(claims=False)
    await world.at(claiming, worker)
    assert world.leftovers() == []
    events = world.audit_events()
    task = await world.task(priority="highest")
    claiming.release()
    await world.at(reported, worker)
    assert await world.resolved(task) == "completed"
    return reported, events[len(events) - events[::-1].index("signer-start") :]


@pytest.mark.parametrize("chain", _CHAINS, ids=lambda chain: f"{chain[0]} and {len(chain) - 1} more")
async def test_a_worker_that_is_killed_at_any_step_is_followed_by_one_that_sweeps_and_goes_on(chain: list[str]) -> None:
    async with a_world(CLAIM_SECONDS) as world:
        killed = []
        for number, step in enumerate(chain):
            reported, events = await _start(world)
            assert ("sweep" in events) == (number > 0), events
            standing = world.steps.hold(step)
            # Before what comes back of those that were killed.
            task = await world.task(seconds=2 if step == "running" else 0, priority=PRIORITIES[-1 - number])
            reported.release()
            worker = world.workers[-1]
            await world.at(standing, worker)
            await world.kill(worker)
            standing.release()
            world.given_up.add((task, 0))
            killed.append(task)
        # What a dead worker held comes back, and is run like any other.
        reported, events = await _start(world)
        reported.release()
        assert "sweep" in events
        worker = world.workers[-1]
        for step, task in zip(chain, killed, strict=True):
            assert await world.resolved(task) == ("completed" if step in ("to-claim", "reported") else "claim-expired")
            if step not in ("to-claim", "reported"):
                assert await world.resolved(task, 1) == "completed"
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0, worker.log
        assert world.leftovers() == []


async def test_a_script_does_not_outlive_its_worker() -> None:
    async with a_world(CLAIM_SECONDS) as world:
        worker = await world.begin()
        task = await world.task(seconds=600)
        await world.alive(task)
        await world.kill(worker)
        world.given_up.add((task, 0))
        await eventually(lambda: not world.watcher.look(), "the script's end")
        assert await world.resolved(task) == "claim-expired"


async def test_all_runs_of_a_worker_that_is_killed_die_with_it_and_are_run_again() -> None:
    async with a_world(CLAIM_SECONDS) as world:
        worker = await world.begin("--capacity", "4")
        tasks = [await world.task(seconds=4) for _ in range(4)]
        for task in tasks:
            await world.alive(task)
        await world.kill(worker)
        world.given_up |= {(task, 0) for task in tasks}
        await eventually(lambda: not world.watcher.look(), "the scripts' end")
        again = await world.begin("--capacity", "4", "--max-tasks", "4")
        assert [await world.resolved(task, 1) for task in tasks] == ["completed"] * 4
        assert await again.exit_code() == 0, again.log
        assert "4 containers" in again.log
        assert world.leftovers() == []


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ((), 2, "is a worker with this state directory running already?"),
        (("--status", "none"), 1, "another worker uses the same state directory, and is running"),
    ],
    ids=["that is shown", "that is not shown"],
)
async def test_a_second_worker_on_the_same_state_directory_refuses_to_start(
    more: tuple[str, ...], code: int, words: str
) -> None:
    async with a_world() as world:
        first = await world.begin()
        second = await world.begin(*more, claims=False)
        assert await second.exit_code() == code, second.log
        assert words in second.log
        assert "never awaited" not in second.log
        task = await world.task()
        assert await world.resolved(task) == "completed"
        assert not first.ended


async def test_a_second_worker_of_the_same_identity_with_a_directory_of_its_own_refuses_to_start() -> None:
    async with a_world() as world:
        first = await world.begin()
        second = await world.begin("--state-dir", str(world.directory / "other"), claims=False)
        assert await second.exit_code() == 1, second.log
        assert "another worker on this host is test-provisioner/end-to-end/test-group/test-worker at" in second.log
        assert await world.resolved(await world.task()) == "completed"
        await world.kill(first)
        third = await world.begin("--once")
        assert await world.resolved(await world.task()) == "completed"
        assert await third.exit_code() == 0, third.log
