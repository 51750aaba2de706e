"""A worker without tasks: polls one after the other, next to no work, an end where it was told to, and quarantine."""

import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from secureworker.queue.quarantine import LOOK_SECONDS
from secureworker.worker.loop import POLL_SECONDS
from tests.end_to_end.daemon import POOL, eventually
from tests.life.world import a_world

pytestmark = pytest.mark.sandbox

MOST_OF_A_PROCESSOR = 0.05
"""Of an idle worker whose polls last a second, on a machine with other things to do; measured: below 0.01."""
WATCHED_SECONDS = 6.0


def processor_seconds(pid: int) -> float:
    """Give what a process has used, its threads included (proc_pid_stat(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_an_idle_worker_ends_where_it_was_told_to() -> None:
    async with a_world() as world:
        worker = await world.begin("--idle-timeout", "2")
        assert await world.resolved(await world.task()) == "completed"
        assert await worker.exit_code() == 0, worker.log
        assert "ended: there was no task for 2 s" in worker.log


@pytest.mark.parametrize("option", ["--max-tasks", "--tasks"])
async def test_a_worker_ends_after_as_many_tasks_as_it_was_told(option: str) -> None:
    async with a_world() as world:
        worker = await world.begin(option, "2")
        tasks = [await world.task() for _ in range(3)]
        assert await worker.exit_code() == 0, worker.log
        states = [(await world.client.status(task))["status"]["state"] for task in tasks]
        assert states == ["completed", "completed", "pending"]


async def test_polls_follow_each_other_and_an_idle_worker_uses_next_to_no_processor() -> None:
    async with a_world(long_poll=1.0) as world:
        worker = await world.begin()
        await eventually(lambda: world.faults.count("claimWork") >= 3, "polls")
        polls, used = world.faults.count("claimWork"), processor_seconds(worker.process.pid)
        begin = world.faults.seen[-1].when
        await eventually(lambda: (world.faults.seen[-1].when - begin) > timedelta(seconds=WATCHED_SECONDS), "time")
        lasted = (world.faults.seen[-1].when - begin).total_seconds()
        share = (processor_seconds(worker.process.pid) - used) / lasted
        assert lasted / 2 <= world.faults.count("claimWork") - polls <= lasted / POLL_SECONDS + 1
        assert share < MOST_OF_A_PROCESSOR, share
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0


async def test_a_worker_that_is_quarantined_says_so_claims_nothing_and_can_be_ended() -> None:
    async with a_world() as world:
        first = await world.begin("--once")
        assert await world.resolved(await world.task()) == "completed"
        assert await first.exit_code() == 0
        until = {"quarantineUntil": (world.time() + timedelta(hours=1)).isoformat()}
        await world.client.quarantineWorker(*POOL.split("/"), "test-group", "test-worker", until)
        worker = await world.begin(claims=False)
        task = await world.task()
        await eventually(lambda: "this worker is quarantined in the Queue until" in worker.log, "the quarantine")
        assert (await world.runs(task))[0]["state"] == "pending"
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0, worker.log


@pytest.mark.long
async def test_a_worker_goes_on_by_itself_when_its_quarantine_is_lifted() -> None:
    async with a_world() as world:
        worker = await world.begin("--max-tasks", "2")
        assert await world.resolved(await world.task()) == "completed"
        named = (*POOL.split("/"), "test-group", "test-worker")
        until = {"quarantineUntil": (world.time() + timedelta(hours=1)).isoformat()}
        await world.client.quarantineWorker(*named, until)
        await eventually(lambda: "this worker is quarantined" in worker.log, "the quarantine", 2 * LOOK_SECONDS)
        task = await world.task()
        lifted = {"quarantineUntil": (world.time() - timedelta(hours=1)).isoformat()}
        await world.client.quarantineWorker(*named, lifted)
        await eventually(lambda: worker.ended, "the second task's end", 2 * LOOK_SECONDS)
        assert await world.resolved(task) == "completed"
        assert worker.process.returncode == 0, worker.log
