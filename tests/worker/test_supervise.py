"""One cause comes out of work and its guards."""

import asyncio
from typing import NoReturn

import pytest

from secureworker.core.errors import Defect, HostError, ServiceError, Stop, StopReason
from secureworker.testing import run_virtual
from secureworker.worker.supervise import supervise


async def never() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError


async def stop_after(seconds: float, reason: StopReason = StopReason.SHUTDOWN) -> NoReturn:
    await asyncio.sleep(seconds)
    raise Stop(reason, f"after {seconds}")


async def work(seconds: float = 1, result: str = "done") -> str:
    await asyncio.sleep(seconds)
    return result


def test_finished_work_gives_its_result_and_ends_its_guards() -> None:
    assert run_virtual(supervise(work(), never(), stop_after(2))) == "done"


def test_work_without_guards_gives_its_result() -> None:
    assert run_virtual(supervise(work())) == "done"


def test_a_guard_that_raises_ends_the_work() -> None:
    with pytest.raises(Stop, match=r"after 0\.5"):
        run_virtual(supervise(work(), stop_after(0.5)))


def test_a_stop_wins_over_the_error_that_ending_the_work_causes() -> None:
    async def breaks_when_cancelled() -> str:
        try:
            return await work()
        except asyncio.CancelledError:
            raise HostError("the container is gone") from None

    with pytest.raises(Stop) as caught:
        run_virtual(supervise(breaks_when_cancelled(), stop_after(0.5)))
    assert caught.value.reason is StopReason.SHUTDOWN


def test_the_works_own_error_comes_out_alone() -> None:
    async def breaks() -> str:
        raise ServiceError("no")

    with pytest.raises(ServiceError, match="no"):
        run_virtual(supervise(breaks(), never()))


@pytest.mark.parametrize("lost", [StopReason.CLAIM_LOST, StopReason.CANCELED])
def test_of_two_stops_at_once_the_one_after_which_nothing_is_reported_wins(lost: StopReason) -> None:
    with pytest.raises(Stop) as caught:
        run_virtual(supervise(work(), stop_after(0.5, StopReason.TIME_LIMIT), stop_after(0.5, lost)))
    assert caught.value.reason is lost


def test_of_two_nested_groups_the_stop_inside_comes_out() -> None:
    async def nested() -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(stop_after(0.1, StopReason.DISK_LIMIT))
            await asyncio.sleep(1)
        return "never"

    with pytest.raises(Stop) as caught:
        run_virtual(supervise(nested(), never()))
    assert caught.value.reason is StopReason.DISK_LIMIT


def test_finished_work_wins_over_a_guard_that_raises_while_it_ends() -> None:
    async def raises_when_cancelled() -> NoReturn:
        try:
            await never()
        except asyncio.CancelledError:
            raise Stop(StopReason.CLAIM_LOST, "too late") from None

    assert run_virtual(supervise(work(), raises_when_cancelled())) == "done"


def test_the_work_has_cleaned_up_before_the_stop_comes_out() -> None:
    cleaned = []

    async def cleans_up_slowly() -> str:
        try:
            return await work(10)
        finally:
            await asyncio.sleep(3)
            cleaned.append(asyncio.get_running_loop().time())

    with pytest.raises(Stop):
        run_virtual(supervise(cleans_up_slowly(), stop_after(1)))
    assert cleaned == [pytest.approx(4)]


def test_a_cancellation_from_outside_goes_through_and_ends_work_and_guards() -> None:
    ended = []

    async def noting() -> NoReturn:
        try:
            await never()
        finally:
            ended.append("guard")

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(supervise(never(), noting()))
            await asyncio.sleep(1)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

    run_virtual(scenario())
    assert ended == ["guard"]


def test_a_cancellation_that_nobody_asked_for_is_a_defect_and_not_a_forgotten_run() -> None:
    async def cancelled_by_a_bug() -> str:
        raise asyncio.CancelledError

    with pytest.raises(Defect, match="nobody"):
        run_virtual(supervise(cancelled_by_a_bug(), never()))
