"""The daemon, as a process, in the hands of an operator and of a Queue that does not always do as it should."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from secureworker.sandbox.engine import instance_name
from tests.end_to_end.daemon import Here, Worker, a_queue, eventually

pytestmark = pytest.mark.sandbox

STUBBORN_GRACE_SECONDS = 10.0
"""The policy's default between TERM and KILL."""
CLAIM_SECONDS = 60.0
"""Shorter than Taskcluster's: an expired one is still within what a request's timestamp may be off."""


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    tmp_path.chmod(0o755)
    async with a_queue(tmp_path, CLAIM_SECONDS) as running:
        yield running
        assert running.wire.most_reports() <= 1


async def test_tasks_run_one_after_the_other_and_an_idle_worker_ends_with_0(here: Here) -> None:
    worker = await here.start()
    tasks = [await here.create({"seconds": 0, "code": code}) for code in (0, 1, 7, 0)]
    ends = [await here.resolved(task) for task in tasks]
    assert ends == ["completed", "failed", "intermittent-task", "completed"]
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log
    assert "ended: the operator asked to stop" in worker.log
    log = await here.log_of(tasks[0])
    assert "the script ends" in log
    assert "exit code: 0" in log


async def test_sigterm_during_a_run_gives_it_back_after_the_drain_time(here: Here) -> None:
    worker = await here.start("--drain-seconds", "0.5")
    task = await here.create({"seconds": 600, "code": 0})
    await here.begun(worker, task)
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log
    first, second = await here.runs(task)
    assert first["reasonResolved"] == "worker-shutdown"
    assert second["state"] == "pending"
    assert here.scripts() == []
    assert "worker-shutdown" in await here.log_of(task)


async def test_a_second_sigterm_does_not_wait_for_the_drain_time(here: Here) -> None:
    worker = await here.start("--drain-seconds", "600")
    task = await here.create({"seconds": 600, "code": 0})
    await here.begun(worker, task)
    worker.signal(signal.SIGTERM)
    await eventually(lambda: "claiming no more" in worker.log, "the first signal's effect")
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log
    assert (await here.runs(task))[0]["reasonResolved"] == "worker-shutdown"


async def test_a_second_sigterm_kills_a_script_that_will_not_end(here: Here) -> None:
    worker = await here.start("--drain-seconds", "600")
    task = await here.create({"seconds": 600, "code": 99})
    await here.begun(worker, task)
    worker.signal(signal.SIGTERM)
    await eventually(lambda: "claiming no more" in worker.log, "the first signal's effect")
    began = asyncio.get_running_loop().time()
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log
    assert asyncio.get_running_loop().time() - began < STUBBORN_GRACE_SECONDS
    assert (await here.runs(task))[0]["reasonResolved"] == "worker-shutdown"
    assert here.scripts() == []


async def test_sigusr1_a_hundred_times_lets_the_run_finish(here: Here) -> None:
    worker = await here.start()
    task = await here.create({"seconds": 2, "code": 0})
    await here.begun(worker, task)
    worker.signal(signal.SIGUSR1, times=100)
    assert await worker.exit_code() == 0, worker.log
    assert [run["reasonResolved"] for run in await here.runs(task)] == ["completed"]


async def test_signals_during_the_start_do_not_kill_the_worker(here: Here) -> None:
    worker = await Worker.start(here.arguments(), here.directory / "early.log")
    here.workers.append(worker)
    # As soon as it is Python's to say how signals are taken: long before the policy is read.
    stat = Path(f"/proc/{worker.process.pid}/status")
    await eventually(lambda: "SigBlk:\t0000000000000000" not in stat.read_text(), "signals on hold")
    worker.signal(signal.SIGUSR1, times=10)
    assert await worker.exit_code() == 0, worker.log
    assert here.wire.count("claim-work") == 0


async def test_a_cancelled_task_is_stopped_and_the_worker_goes_on(here: Here) -> None:
    worker = await here.start("--tasks", "2")
    task = await here.create({"seconds": 600, "code": 0})
    await here.begun(worker, task)
    await here.client.cancelTask(task)
    after = await here.create()
    assert await here.resolved(after) == "completed"
    assert await worker.exit_code() == 0, worker.log
    assert [run["reasonResolved"] for run in await here.runs(task)] == ["canceled"]
    assert "canceled" in await here.log_of(task)
    assert here.scripts() == []
    assert here.wire.count(f"/task/{task}/runs/0/completed") == 0


async def test_a_claim_that_was_lost_is_noticed_and_nothing_is_reported(here: Here) -> None:
    worker = await here.start("--tasks", "2")
    task = await here.create({"seconds": 600, "code": 0}, retries=0)
    await here.begun(worker, task)
    here.time.moved += timedelta(seconds=CLAIM_SECONDS + 1)
    here.running.resolvers.expire_claims()
    assert await here.resolved(task) == "claim-expired"
    assert await here.resolved(await here.create()) == "completed"
    assert await worker.exit_code() == 0, worker.log
    assert "claim-lost" in worker.log
    assert here.scripts() == []
    assert not any(f"{task}/runs/0/{end}" in path for path in here.wire.asked for end in ("completed", "exception"))


@pytest.fixture
async def hasty(tmp_path: Path) -> AsyncIterator[Here]:
    tmp_path.chmod(0o755)
    async with a_queue(tmp_path, claim_seconds=4) as running:
        yield running
        assert running.wire.most_reports() <= 1


async def test_a_run_longer_than_its_claim_is_kept(hasty: Here) -> None:
    await hasty.start("--once")
    task = await hasty.create({"seconds": 6, "code": 0})
    assert await hasty.resolved(task) == "completed"
    assert hasty.wire.count("reclaim") >= 2


async def test_a_script_is_dead_before_the_claim_ends_when_the_queue_cannot_be_reached(hasty: Here) -> None:
    worker = await hasty.start("--tasks", "2")
    task = await hasty.create({"seconds": 600, "code": 0})
    await hasty.begun(worker, task)
    hasty.wire.cut = True
    await eventually(lambda: not hasty.scripts(), "the script's end")
    (run,) = await hasty.runs(task)
    assert run["state"] == "running"
    hasty.wire.cut = False
    await eventually(lambda: "claim-lost" in worker.log, "the reason in the log")


async def test_malformed_tasks_are_told_every_reason_and_the_worker_goes_on(here: Here) -> None:
    worker = await here.start("--tasks", "4")
    both = await here.create({"seconds": "soon", "code": 1.5})
    foreign = await here.create(schedulerId="somebody-else")
    deep = await here.create({"seconds": 0, "code": 0, "deep": json.loads("[" * 400 + "]" * 400)})
    good = await here.create()
    for task in (both, foreign, deep):
        assert await here.resolved(task) == "malformed-payload"
    assert await here.resolved(good) == "completed"
    assert await worker.exit_code() == 0, worker.log
    log = await here.log_of(both)
    assert "payload.seconds" in log
    assert "payload.code" in log
    assert "somebody-else" in await here.log_of(foreign)
    assert "deep" in await here.log_of(deep)
    assert "Traceback" not in worker.log


async def test_what_a_killed_worker_left_is_swept_by_the_next_one_which_goes_on(here: Here) -> None:
    worker = await here.start()
    task = await here.create({"seconds": 600, "code": 0})
    await here.begun(worker, task)
    worker.signal(signal.SIGKILL)
    await worker.exit_code()
    after = await here.create()
    second = await here.start("--once")
    assert here.scripts() == []
    assert await here.resolved(after) == "completed"
    assert await second.exit_code() == 0, second.log
    assert list((here.directory / "state" / "workspaces").iterdir()) == []
    assert list((here.directory / "state" / "logs").iterdir()) == []
    (run,) = await here.runs(task)
    assert run["state"] == "running"


async def test_outputs_are_stored_by_the_object_service_where_the_operator_says_so(here: Here) -> None:
    worker = await here.start("--once", "--storage-type", "object")
    task = await here.create()
    assert await here.resolved(task) == "completed"
    assert await worker.exit_code() == 0, worker.log
    listed = (await here.client.listArtifacts(task, 0))["artifacts"]
    assert {artifact["storageType"] for artifact in listed} == {"object"}
    assert {artifact["name"] for artifact in listed} >= {
        "public/build/result.txt",
        "public/chain-of-trust.json",
        "public/chain-of-trust.json.sig",
        "public/logs/live_backing.log",
    }


async def test_nothing_of_a_run_is_left_on_the_host(here: Here) -> None:
    worker = await here.start("--tasks", "3")
    tasks = [await here.create() for _ in range(3)]
    assert [await here.resolved(task) for task in tasks] == ["completed"] * 3
    assert await worker.exit_code() == 0, worker.log
    assert list((here.directory / "state" / "workspaces").iterdir()) == []
    assert list((here.directory / "state" / "logs").iterdir()) == []
    assert str(here.directory) not in Path("/proc/self/mountinfo").read_text()
    name = instance_name(str(here.directory / "state"))
    assert list(Path("/sys/fs/cgroup").rglob(name)) == []
