"""Workers that are broken on purpose: the checker finds each out by what others see of it."""

import pytest

from tests.life.world import a_world

pytestmark = pytest.mark.sandbox


@pytest.mark.parametrize(
    ("sabotage", "breaks"),
    [
        ("reports-twice", "reports differ"),
        ("alters", "differs from what was signed"),
        ("never-renews", "its script was alive at"),
    ],
)
async def test_a_worker_that_breaks_a_promise_is_found_out(sabotage: str, breaks: str) -> None:
    async with a_world(4.0, breaks) as world:
        worker = await world.begin("--once", sabotage=sabotage)
        task = await world.task(seconds=7 if sabotage == "never-renews" else 0, retries=0)
        world.given_up.add((task, 0))
        # With what it does after its first report.
        await worker.exit_code()
        assert await world.resolved(task) == ("claim-expired" if sabotage == "never-renews" else "completed")
