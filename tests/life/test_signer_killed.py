"""The signer is killed at every step of a run: nothing is published as signed that is not, nothing more is claimed."""

import os
import re
import signal

import pytest

from tests.end_to_end.daemon import Worker
from tests.life.invariants import STATEMENT
from tests.life.stepping import STEPS
from tests.life.world import a_world

pytestmark = pytest.mark.sandbox

_STEPS = [step for step in STEPS if step not in ("inputs-fetched", "reported")]
_FEW = ("to-claim", "claimed", "running", "sealed", "signed", "to-report")
_SIGNED = _STEPS.index("signed")


def signer_of(worker: Worker) -> int:
    found = re.search(r"the signer is process (\d+)", worker.log)
    assert found is not None, worker.log
    return int(found[1])


@pytest.mark.parametrize("step", [pytest.param(one, marks=() if one in _FEW else pytest.mark.long) for one in _STEPS])
async def test_a_signer_that_is_killed_at_any_step_ends_the_worker_and_no_run_completes_without_its_statement(
    step: str,
) -> None:
    async with a_world() as world:
        standing = world.steps.hold(step)
        task = await world.task(retries=0)
        worker = await world.begin(claims=step != "to-claim")
        await world.at(standing, worker)
        os.kill(signer_of(worker), signal.SIGKILL)
        standing.release()
        assert await worker.exit_code() == 1, worker.log
        assert "the signer is gone" in worker.log
        assert world.leftovers() == []
        runs = await world.runs(task)
        if step == "to-claim":
            assert [run["state"] for run in runs] == ["pending"]
        else:
            contents = (await world.story()).contents.get((task, 0), {})
            completed = runs[0]["reasonResolved"] == "completed"
            assert completed == (_STEPS.index(step) >= _SIGNED), worker.log
            assert (STATEMENT in contents) == completed
        # A new start, with a signer of its own, goes on.
        again = await world.begin("--once")
        await world.resolved(task if step == "to-claim" else await world.task())
        assert await again.exit_code() == 0, again.log
