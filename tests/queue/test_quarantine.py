"""The worker's look at its own record: whether it is quarantined."""

from datetime import timedelta
from typing import Any

import pytest

from secureworker.core.claim import Credentials, Secret
from secureworker.queue.quarantine import LOOK_SECONDS, Quarantine
from secureworker.testing import EPOCH, IDENTITY
from tests.queue.scripted import Patience, Scripted, error

CREDENTIALS = Credentials("a-worker", Secret("t" * 44))


class Moving(Patience):
    """A clock that is moved on."""

    moved = 0.0

    def monotonic(self) -> float:
        return self.moved

    def now(self) -> Any:
        return EPOCH + timedelta(seconds=self.moved)


def a_record(**more: Any) -> dict[str, Any]:
    return {"workerGroup": IDENTITY.worker_group, "workerId": IDENTITY.worker_id, **more}


def a_quarantine(server: Scripted) -> tuple[Quarantine, Moving]:
    clock = Moving()
    return Quarantine(server.calls, IDENTITY, lambda: CREDENTIALS, clock), clock


async def test_a_quarantined_worker_is_told_until_when_and_what_to_do(server: Scripted) -> None:
    server.then(a_record(quarantineUntil="2026-01-31T13:00:00.000Z"))
    guard, _ = a_quarantine(server)
    (hindrance,) = await guard.hindrances(1)
    assert hindrance.what == "quarantine"
    assert "until 2026-01-31T13:00:00Z" in hindrance.why
    assert server.asked[0][1].endswith(f"/workers/{IDENTITY.worker_group}/{IDENTITY.worker_id}")


async def test_it_is_looked_for_every_now_and_then_and_is_over_when_it_is_lifted(server: Scripted) -> None:
    server.then(a_record(quarantineUntil="2026-01-31T23:00:00.000Z"), a_record())
    guard, clock = a_quarantine(server)
    assert await guard.hindrances(1)
    clock.moved = LOOK_SECONDS - 1
    assert await guard.hindrances(1)
    assert len(server.asked) == 1
    clock.moved = LOOK_SECONDS
    assert await guard.hindrances(1) == ()
    assert len(server.asked) == 2


async def test_it_ends_by_itself_when_its_time_is_over(server: Scripted) -> None:
    server.then(a_record(quarantineUntil="2026-01-31T12:00:30.000Z"))
    guard, clock = a_quarantine(server)
    assert await guard.hindrances(1)
    clock.moved = 31
    assert await guard.hindrances(1) == ()


async def test_a_worker_that_never_asked_for_work_has_no_record_and_is_not_quarantined(server: Scripted) -> None:
    server.then(error(404), a_record(quarantineUntil="2026-01-31T23:00:00.000Z"))
    guard, clock = a_quarantine(server)
    assert await guard.hindrances(1) == ()
    clock.moved = LOOK_SECONDS
    assert await guard.hindrances(1)


@pytest.mark.parametrize("status", [401, 403])
async def test_where_the_record_may_not_be_seen_the_worker_claims_and_asks_no_more(
    server: Scripted, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server.then(error(status))
    guard, clock = a_quarantine(server)
    for _ in range(3):
        assert await guard.hindrances(1) == ()
        clock.moved += LOOK_SECONDS
    assert len(server.asked) == 1
    assert "give the worker's client queue:get-worker" in caplog.text


@pytest.mark.parametrize("nonsense", [error(503), [], a_record(quarantineUntil=7), a_record(quarantineUntil="soon")])
async def test_an_answer_that_says_nothing_leaves_things_as_they_were(server: Scripted, nonsense: Any) -> None:
    server.then(a_record(quarantineUntil="2026-01-31T23:00:00.000Z"), nonsense)
    guard, clock = a_quarantine(server)
    assert await guard.hindrances(1)
    clock.moved = LOOK_SECONDS
    assert await guard.hindrances(1)
    assert len(server.asked) == 2
