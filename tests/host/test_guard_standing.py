"""What a worker stands on beside its machine: its signer, the time, its credentials."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from secureworker.core.claim import Credentials, Secret
from secureworker.core.errors import AuditEnded, AuditError, HostError, KeyUnusable, ServiceError, SignerLost
from secureworker.core.happening import Hindrance
from secureworker.host.guards.standing import LATEST_SECONDS, MOST_SKEW_SECONDS, Clocks, Evidence, Expiry, ServerTime
from secureworker.host.own_credentials import OwnCredentials
from secureworker.testing import FakeAuditLog, FakeClock, run_virtual

# The signer and its log


@pytest.mark.parametrize(
    ("error", "what"),
    [(AuditError("no room"), "audit"), (KeyUnusable("no token"), "signer"), (HostError("refused"), "signer")],
)
async def test_a_log_that_cannot_be_written_hinders_until_it_can(error: HostError, what: str) -> None:
    log = FakeAuditLog()
    guard = Evidence(log)
    log.failures.add("check", error)
    assert await guard.hindrances(1) == (Hindrance(what, str(error)),)
    assert await guard.hindrances(1) == ()


@pytest.mark.parametrize("error", [AuditEnded("no more records"), SignerLost("gone")])
async def test_what_no_waiting_mends_is_no_hindrance(error: HostError) -> None:
    log = FakeAuditLog()
    log.failures.add("check", error)
    with pytest.raises(type(error)):
        await Evidence(log).hindrances(1)


# Time


class Queue:
    """A Queue that says what time it is when it is asked."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.server = ServerTime(clock)
        self.true = clock.now() - timedelta(seconds=clock.monotonic())
        self.asked = 0
        self.away = False
        self.silent = False

    def answer(self) -> None:
        true = self.true + timedelta(seconds=self.clock.monotonic())
        self.server.heard({} if self.silent else {"Date": format_datetime(true, usegmt=True)})

    async def ask(self) -> None:
        self.asked += 1
        if self.away:
            raise ServiceError("away")
        self.answer()


def with_a_queue(scenario: "Callable[[FakeClock, Queue, Clocks], object]") -> None:
    async def main() -> None:
        clock = FakeClock()
        queue = Queue(clock)
        await scenario(clock, queue, Clocks(queue.server, queue.ask))  # type: ignore[misc] # each is a coroutine function

    run_virtual(main())


def test_a_clock_that_jumps_hinders_until_it_is_right_again() -> None:
    async def scenario(clock: FakeClock, queue: Queue, guard: Clocks) -> None:
        queue.answer()
        assert await guard.hindrances(1) == ()
        assert queue.asked == 0
        for seconds, which in ((1800, "1800 s ahead of"), (-90_000, "90000 s behind")):
            clock.jumped = timedelta(seconds=seconds)
            (found,) = await guard.hindrances(1)
            assert found == Hindrance("clock", f"this host's clock is {which} the Queue's; set it right (NTP)")
            clock.jumped = timedelta(0)
            assert await guard.hindrances(1) == ()

    with_a_queue(scenario)


@pytest.mark.parametrize(("seconds", "hindered"), [(MOST_SKEW_SECONDS - 2, False), (MOST_SKEW_SECONDS + 2, True)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_clock_that_is_a_little_wrong_hinders_nothing(seconds: float, sign: int, *, hindered: bool) -> None:
    async def scenario(clock: FakeClock, _: Queue, guard: Clocks) -> None:
        clock.jumped = timedelta(seconds=sign * seconds)
        assert bool(await guard.hindrances(1)) is hindered

    with_a_queue(scenario)


def test_a_machine_that_slept_asks_and_goes_on() -> None:
    """Its monotonic clock stands still meanwhile, the other does not: what it remembers is wrong, not the time."""

    async def scenario(clock: FakeClock, queue: Queue, guard: Clocks) -> None:
        queue.answer()
        clock.jumped = timedelta(hours=8)
        queue.true += timedelta(hours=8)
        assert await guard.hindrances(1) == ()
        assert queue.asked == 1

    with_a_queue(scenario)


def test_while_the_queue_is_away_a_clock_that_was_found_wrong_stays_wrong() -> None:
    async def scenario(clock: FakeClock, queue: Queue, guard: Clocks) -> None:
        queue.answer()
        clock.jumped = timedelta(minutes=5)
        queue.away = True
        assert len(await guard.hindrances(1)) == 1

    with_a_queue(scenario)


def test_time_that_was_heard_long_ago_is_asked_for_again() -> None:
    async def scenario(clock: FakeClock, queue: Queue, guard: Clocks) -> None:
        assert await guard.hindrances(1) == ()
        assert queue.asked == 1, "it was never heard"
        assert await guard.hindrances(1) == ()
        await clock.sleep(LATEST_SECONDS + 1)
        assert await guard.hindrances(1) == ()
        assert queue.asked == 2

    with_a_queue(scenario)


def test_a_queue_that_never_says_the_time_hinders_nothing() -> None:
    async def scenario(clock: FakeClock, queue: Queue, guard: Clocks) -> None:
        queue.silent = True
        clock.jumped = timedelta(days=1)
        assert await guard.hindrances(1) == ()

    with_a_queue(scenario)


@pytest.mark.parametrize(
    "headers",
    [{}, {"Date": ""}, {"Date": "yesterday"}, {"Date": "Fri, 31 Feb 2026 25:00:00 GMT"}, {"Date": "9" * 4000}],
)
def test_a_date_that_is_none_says_nothing(headers: dict[str, str]) -> None:
    async def main() -> None:
        server = ServerTime(FakeClock())
        server.heard(headers)
        assert server.age is None
        assert server.ahead == 0

    run_virtual(main())


def test_a_date_of_another_zone_is_understood() -> None:
    async def main() -> None:
        clock = FakeClock()
        for zone in ("+0100", "GMT", "-0000"):
            server = ServerTime(clock)
            hour = "13" if zone == "+0100" else "12"
            server.heard({"Date": f"Sat, 31 Jan 2026 {hour}:00:00 {zone}"})
            assert abs(server.ahead) < 1

    run_virtual(main())


# Credentials


def credentials(clock: FakeClock, minutes: float | None) -> Credentials:
    if minutes is None:
        return Credentials("w", Secret("t"))
    ends = clock.now() + timedelta(minutes=minutes)
    certificate = json.dumps({"expiry": (ends - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)})
    return Credentials("w", Secret("t"), Secret(certificate))


def test_credentials_that_are_about_to_end_hinder_until_there_are_others() -> None:
    async def main() -> None:
        clock = FakeClock()
        own = OwnCredentials(credentials(clock, 60))
        guard = Expiry(own, clock)
        assert await guard.hindrances(1) == ()
        await clock.sleep(54 * 60)
        assert await guard.hindrances(1) == ()
        await clock.sleep(2 * 60)
        (found,) = await guard.hindrances(1)
        assert (found.what, "end at 2026-01-31T13:00:00+00:00; give it new ones" in found.why) == ("credentials", True)
        own.take(credentials(clock, None))
        assert await guard.hindrances(1) == ()

    run_virtual(main())
