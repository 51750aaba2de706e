"""What the simulation found, by the seed that found it. Seeds tell other stories once the worker changes: these do not."""

from secureworker.core.errors import HostError
from secureworker.core.outcome import Resolution
from secureworker.testing import run_virtual
from secureworker.worker.run import run_claim
from tests.worker.world import World


def test_seed_75_a_run_that_goes_back_does_so_also_where_its_log_cannot_be_opened() -> None:
    async def scenario() -> list[Resolution]:
        world = World()
        run = world.a_run()
        world.logs.failures.add("open", HostError("the disk is full"))
        await run_claim(run, world.tools, world.shutdown, unwanted="the operator asked to stop")
        return run.reports

    assert run_virtual(scenario()) == [Resolution.WORKER_SHUTDOWN]
