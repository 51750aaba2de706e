"""SIGHUP: the daemon reads its policy again between tasks, takes over what is valid, and else keeps what it has."""

import hashlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from secureworker.localqueue.settings import StaticClient
from tests.end_to_end.daemon import OWNER, WORKER, Here, Worker, a_queue, eventually
from tests.end_to_end.test_own_credentials import POOLS, SECOND, registering
from tests.end_to_end.test_worker_runner import CAPABILITIES, Runner, a_runner, write_config

pytestmark = pytest.mark.sandbox


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    tmp_path.chmod(0o755)
    async with a_queue(tmp_path, clients=(WORKER, SECOND, OWNER), worker_pools=POOLS) as running:
        yield running


def write_policy(here: Here, text: str) -> str:
    """Replace the policy's file as a whole, as an administrator would; give its digest."""
    policy = here.directory / "policy.yml"
    fresh = here.directory / "fresh.yml"
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.rename(policy)
    return hashlib.sha256(text.encode()).hexdigest()


async def reload(worker: Worker, expected: str) -> None:
    worker.signal(signal.SIGHUP)
    await eventually(lambda: worker.ended or expected in worker.log, f"{expected!r} in the worker's log")
    assert not worker.ended, worker.log


async def test_another_policy_is_taken_over_between_tasks_and_a_wrong_one_is_not(here: Here) -> None:
    old = (here.directory / "policy.yml").read_text()
    worker = await here.start()
    first = await here.create({"seconds": 2, "code": 0})
    await here.begun(worker, first)
    digest = write_policy(here, f"{old}# reviewed again\n")
    await reload(worker, "the policy has changed")
    assert await here.resolved(first) == "completed"
    await eventually(lambda: f"policy sha256 {digest}" in worker.log, "the new policy's digest")
    second = await here.create()
    assert await here.resolved(second) == "completed", worker.log
    assert digest not in await here.log_of(first)
    assert digest in await here.log_of(second)

    await reload(worker, "the policy is as it was")
    write_policy(here, old.replace("version: 1", "version: 2"))
    await reload(worker, "the old one stays: ")
    assert "version: found 2; expected 1" in worker.log
    write_policy(here, old.replace("worker-pool: ", "worker-pool: x"))
    await reload(worker, "start another worker for that")
    third = await here.create()
    assert await here.resolved(third) == "completed"
    assert digest in await here.log_of(third)
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0


async def test_a_child_of_worker_runner_goes_on_with_its_newest_credentials_and_listens_still(here: Here) -> None:
    def offer(runner: Runner, client: StaticClient) -> None:
        token = client.access_token.reveal()
        runner.say("new-credentials", **{"client-id": client.client_id, "access-token": token, "certificate": ""})

    old = (here.directory / "policy.yml").read_text()
    async with a_runner(here, write_config(here)) as runner:
        runner.say("welcome", capabilities=CAPABILITIES)
        assert await here.resolved(await here.create()) == "completed"
        offer(runner, SECOND)
        await eventually(lambda: runner.logged("using the new credentials of worker-2"), "new credentials")

        digest = write_policy(here, f"{old}# reviewed again\n")
        runner.process.send_signal(signal.SIGHUP)
        await eventually(lambda: runner.logged(f"policy sha256 {digest}"), "the new policy's digest")
        second = await here.create()
        assert await here.resolved(second) == "completed", runner.log
        assert digest in await here.log_of(second)
        assert here.wire.claimed_by[-1] == SECOND.client_id

        offer(runner, WORKER)
        await eventually(lambda: runner.logged("using the new credentials of worker from"), "newer credentials")
        runner.say("graceful-termination", **{"finish-tasks": True})
        assert await runner.exit_code() == 0, runner.log
    assert len(runner.of("hello")) == 1
    assert runner.of("error-report") == []


async def test_a_registered_worker_goes_on_with_what_it_was_given_and_registers_no_second_time(here: Here) -> None:
    """The secret that it has for that is good once, and another process may not have used it meanwhile."""
    old = (here.directory / "policy.yml").read_text()
    arguments = registering(here)
    for number in (1, 2):
        worker = await Worker.start(arguments, here.directory / "worker.log")
        here.workers.append(worker)
        assert await here.resolved(await here.create()) == "completed", worker.log
        digest = write_policy(here, f"{old}# reviewed again, {number}\n")
        await reload(worker, f"policy sha256 {digest}")
        task = await here.create()
        assert await here.resolved(task) == "completed", worker.log
        assert digest in await here.log_of(task)
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0, worker.log
    assert here.wire.count("/worker/register") == 1
    assert here.wire.count("/worker/reregister") == 3
