"""What the simulation found, by the seed that found it.

Seeds tell other stories once the worker changes: these do not.
"""

from datetime import timedelta

from secureworker.core.audit import AuditRecord, Event
from secureworker.core.errors import Defect, HostError, ServiceError
from secureworker.core.outcome import Resolution
from secureworker.core.plan import Limits
from secureworker.testing import FakeAuditLog, a_policy, a_script, run_virtual
from secureworker.worker.audited import AuditedQueue
from secureworker.worker.guards import STATUS_SECONDS
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


def test_seed_189_no_report_is_tried_again_after_the_claim_has_ended() -> None:
    async def scenario() -> tuple[float, int]:
        world = World()
        run = world.a_run(claim_seconds=60)
        run.failures.add("reclaim", ServiceError("503"), times=100)
        run.failures.add("report", ServiceError("503"), times=100)
        await run_claim(run, world.tools, world.shutdown)
        # What is left of the failures says how often it was tried.
        return world.clock.monotonic(), 100 - len(run.failures._pending["report"])

    ended, reports = run_virtual(scenario())
    # 0.3, 2, 5, 10 and 20 s apart, the next one would be at 67 s.
    assert reports == 6
    assert ended < 60 + 10


def test_a_report_is_tried_on_where_a_renewal_is_answered_with_an_error_of_ours() -> None:
    async def scenario() -> list[Resolution]:
        world = World()
        run = world.a_run(claim_seconds=60)
        run.failures.add("report", ServiceError("503"), times=5)
        run.failures.add("reclaim", Defect("400"))
        await run_claim(run, world.tools, world.shutdown)
        return run.reports

    assert run_virtual(scenario()) == [Resolution.COMPLETED]


def test_seed_2240_nothing_of_a_script_at_its_time_limit_is_stored_for_a_run_that_is_lost() -> None:
    async def scenario() -> list[str]:
        limits = Limits(timedelta(seconds=STATUS_SECONDS + 5), 2**28, 64, 1.0, 2**30, 10_000, 2**20, 256)
        world = World(policy=a_policy(a_script(limits=limits)))
        world.sandbox.seconds = 1000
        # The script is still being stopped for the cancellation when its time is over.
        world.sandbox.stopping_seconds = 10
        run = world.a_run()
        world.sandbox.on_begin = run.cancel
        await run_claim(run, world.tools, world.shutdown)
        return world.store.names(run.claim)

    assert run_virtual(scenario()) == ["public/logs/live_backing.log"]


def test_seed_1020910_a_lease_is_counted_from_the_moment_the_claim_was_heard_of_and_not_from_its_record() -> None:
    async def scenario() -> tuple[float, list[Resolution]]:
        world = World()
        world.sandbox.seconds = 10_000
        run = world.a_run(claim_seconds=60)
        run.failures.add("reclaim", ServiceError("503"), times=100)

        class SlowLog(FakeAuditLog):
            async def append(self, record: AuditRecord) -> None:
                # While the claim is written down, somebody sets the clock back by a day.
                if record.event is Event.CLAIM:
                    world.clock.jumped -= timedelta(days=1)
                await super().append(record)

        world.queue.add(run)
        (claimed,) = await AuditedQueue(world.queue, SlowLog(), world.clock).claim(1)
        await run_claim(claimed, world.tools, world.shutdown)
        return world.clock.monotonic(), run.reports

    ended, reports = run_virtual(scenario())
    assert ended < 60
    assert reports == []
