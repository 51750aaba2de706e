"""Each guard waits for one thing. Edge cases 2 and 3: reclaims, and cancellations."""

import asyncio
from datetime import datetime, timedelta

import pytest

from secureworker.core.claim import parse_time
from secureworker.core.errors import AccessDenied, ServiceError, Stop, StopReason
from secureworker.testing import FakeClock, FakeRun, a_claim, run_virtual
from secureworker.worker.guards import (
    STATUS_SECONDS,
    end_with_claim,
    keep_claim,
    watch_cancellation,
    watch_shutdown,
    watch_time,
)
from secureworker.worker.lease import Lease
from secureworker.worker.shutdown import Shutdown
from secureworker.worker.supervise import supervise


def the_end_of(
    claim_seconds: float, *failures: Exception, cut: bool = False
) -> tuple[StopReason | None, float, FakeRun]:
    """Keep a claim for two hours of virtual time; give why and when that ended."""

    async def scenario() -> tuple[StopReason | None, float, FakeRun]:
        clock = FakeClock()
        run = FakeRun(a_claim(clock, claim_seconds=claim_seconds), clock, claim_seconds)
        for failure in failures:
            run.failures.add("reclaim", failure)
        if cut:
            run.failures.add("reclaim", ServiceError("the network is cut"), times=10_000)
        lease = Lease(clock, run.taken_until)
        try:
            await supervise(clock.sleep(7200), keep_claim(run, lease, clock), end_with_claim(lease, clock))
        except Stop as stop:
            return stop.reason, clock.monotonic(), run
        return None, clock.monotonic(), run

    return run_virtual(scenario())


@pytest.mark.parametrize("claim_seconds", [3, 30, 1200, 86_400])
def test_a_claim_of_any_length_is_renewed_for_as_long_as_the_work_takes(claim_seconds: float) -> None:
    reason, ended, run = the_end_of(claim_seconds)
    assert (reason, ended) == (None, 7200)
    assert run.resolved is None


def test_a_claim_that_seems_over_is_not_renewed_in_a_tight_loop() -> None:
    async def scenario() -> int:
        clock = FakeClock()
        run = FakeRun(a_claim(clock), clock, claim_seconds=3600)
        lease = Lease(clock, clock.now() - timedelta(hours=2))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(100):
                await keep_claim(_Behind(run), lease, clock)
        return run.reclaims

    assert run_virtual(scenario()) <= 200


class _Behind(FakeRun):
    """A run whose Queue's clock is two hours behind ours."""

    def __init__(self, run: FakeRun) -> None:
        self._run = run
        self.claim = run.claim

    async def reclaim(self) -> datetime:
        return await self._run.reclaim() - timedelta(hours=2)


@pytest.mark.parametrize("failure", [ServiceError("503"), AccessDenied("401")])
def test_a_claim_survives_a_queue_that_fails_several_times(failure: Exception) -> None:
    reason, _, run = the_end_of(1200, *[failure] * 8)
    assert reason is None
    assert run.reclaims > 10


@pytest.mark.parametrize("lost", [StopReason.CLAIM_LOST, StopReason.CANCELED])
def test_a_conflict_ends_the_run_at_once(lost: StopReason) -> None:
    reason, ended, _ = the_end_of(1200, Stop(lost, "409"))
    assert reason is lost
    assert ended < 600


@pytest.mark.parametrize("claim_seconds", [5, 30, 1200])
def test_a_claim_that_cannot_be_renewed_ends_the_work_before_it_ends(claim_seconds: float) -> None:
    reason, ended, run = the_end_of(claim_seconds, cut=True)
    assert reason is StopReason.CLAIM_LOST
    assert 0.5 * claim_seconds < ended < claim_seconds
    assert run.reclaims == 0


@pytest.mark.parametrize("grace", [0, 10, 300])
def test_a_script_that_ends_slowly_is_stopped_so_much_earlier(grace: int) -> None:
    async def scenario() -> float:
        clock = FakeClock()
        lease = Lease(clock, clock.now() + timedelta(seconds=1200))
        with pytest.raises(Stop):
            await end_with_claim(lease, clock, timedelta(seconds=grace))
        return clock.monotonic()

    assert run_virtual(scenario()) == pytest.approx(1200 - 20 - grace)


def test_a_grace_longer_than_the_claim_leaves_half_of_it_to_work_in() -> None:
    async def scenario() -> float:
        clock = FakeClock()
        with pytest.raises(Stop):
            await end_with_claim(Lease(clock, clock.now() + timedelta(seconds=100)), clock, timedelta(hours=1))
        return clock.monotonic()

    assert run_virtual(scenario()) == pytest.approx(50)


@pytest.mark.parametrize("jump", [timedelta(hours=-5), timedelta(hours=5), timedelta(days=400)])
def test_a_jump_of_the_wall_clock_neither_ends_nor_keeps_a_claim(jump: timedelta) -> None:
    async def scenario() -> tuple[float, float]:
        clock = FakeClock()
        lease = Lease(clock, clock.now() + timedelta(seconds=1200))
        before = lease.remaining()
        clock.jumped = jump
        return before, lease.remaining()

    before, after = run_virtual(scenario())
    assert before == after == pytest.approx(1200)


@pytest.mark.parametrize("behind", [timedelta(0), timedelta(seconds=3), timedelta(hours=5), timedelta(days=400)])
def test_a_clock_that_is_behind_makes_no_claim_longer_than_the_queue_makes_them(behind: timedelta) -> None:
    async def scenario() -> tuple[float, float]:
        clock = FakeClock()
        run = FakeRun(a_claim(clock), clock)
        clock.jumped = -behind
        lease = Lease(clock, run.taken_until, run.claim.length)
        first = lease.remaining()
        await clock.sleep(600)
        lease.renew(run.taken_until + timedelta(seconds=600))
        return first, lease.remaining()

    assert run_virtual(scenario()) == pytest.approx((1200, 1200), abs=0.1)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T12:20:00.294+00:00",
        "2026-01-31T12:20:00.29+00:00",
        "2026-01-31T12:20:00+00:00",
        "2026-01-31T12:20:00.294Z",
        "2026-01-31T14:20:00.294+02:00",
        "2026-01-31T12:20:00.294123456Z",
    ],
)
def test_taken_until_is_understood_in_every_form(text: str) -> None:
    async def scenario() -> float:
        return Lease(FakeClock(), parse_time(text)).remaining()

    assert run_virtual(scenario()) == pytest.approx(1200, abs=0.3)


def test_a_cancellation_is_seen_within_30_seconds() -> None:
    async def scenario() -> tuple[float, StopReason]:
        clock = FakeClock()
        run = FakeRun(a_claim(clock), clock)

        async def cancel() -> None:
            await clock.sleep(100)
            run.cancel()

        async with asyncio.TaskGroup() as group:
            group.create_task(cancel())
            with pytest.raises(Stop) as caught:
                await watch_cancellation(run, clock)
        return clock.monotonic() - 100, caught.value.reason

    seen, reason = run_virtual(scenario())
    assert reason is StopReason.CANCELED
    assert seen < 30


def test_a_status_that_cannot_be_asked_for_ends_nothing() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        run = FakeRun(a_claim(clock), clock)
        run.failures.add("confirm", ServiceError("503"), times=20)
        await supervise(clock.sleep(21 * (STATUS_SECONDS + 0.02)), watch_cancellation(run, clock))

    run_virtual(scenario())


def test_the_time_limit_ends_the_work_and_says_which_it_was() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        with pytest.raises(Stop, match="limit of 90 s") as caught:
            await watch_time(clock, timedelta(seconds=90))
        assert caught.value.reason is StopReason.TIME_LIMIT
        assert clock.monotonic() == 90

    run_virtual(scenario())


def test_a_shutdown_ends_the_work_when_the_drain_time_is_over() -> None:
    async def scenario() -> float:
        clock = FakeClock()
        shutdown = Shutdown(clock, drain_seconds=40)
        shutdown.stop("asked")
        async with asyncio.TaskGroup() as group:
            group.create_task(shutdown.let_drain_time_pass())
            with pytest.raises(Stop) as caught:
                await supervise(clock.sleep(100), watch_shutdown(shutdown))
        assert caught.value.reason is StopReason.SHUTDOWN
        return clock.monotonic()

    assert run_virtual(scenario()) == 40


def test_the_clock_of_virtual_time_is_aware_and_moves_only_by_sleeping() -> None:
    async def scenario() -> tuple[datetime, datetime]:
        clock = FakeClock()
        before = clock.now()
        await clock.sleep(3600)
        return before, clock.now()

    before, after = run_virtual(scenario())
    assert after - before == timedelta(hours=1)
