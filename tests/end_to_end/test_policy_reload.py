"""SIGHUP: the daemon reads its policy again between tasks, takes over what is valid, and else keeps what it has."""

import hashlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.end_to_end.daemon import Here, Worker, a_queue, eventually

pytestmark = pytest.mark.sandbox


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    tmp_path.chmod(0o755)
    async with a_queue(tmp_path) as running:
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
