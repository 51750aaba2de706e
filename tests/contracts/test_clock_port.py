"""The port `Clock`: the real one, the fake on a real loop, and the fake in virtual time keep the same promises."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, timedelta

import pytest

from secureworker.host.clock import SystemClock
from secureworker.ports import Clock
from secureworker.testing import FakeClock, run_virtual

Scenario = Callable[[Clock], Coroutine[None, None, None]]


def on_the_system_clock(scenario: Scenario) -> None:
    asyncio.run(scenario(SystemClock()))


def on_a_fake_clock(scenario: Scenario) -> None:
    async def main() -> None:
        await scenario(FakeClock())

    asyncio.run(main())


def in_virtual_time(scenario: Scenario) -> None:
    async def main() -> None:
        await scenario(FakeClock())

    run_virtual(main())


each = pytest.mark.parametrize("run", [on_the_system_clock, on_a_fake_clock, in_virtual_time])


@each
def test_now_is_aware_and_utc(run: Callable[[Scenario], None]) -> None:
    async def scenario(clock: Clock) -> None:
        assert clock.now().tzinfo is UTC

    run(scenario)


@each
def test_sleeping_takes_its_time_on_both_clocks(run: Callable[[Scenario], None]) -> None:
    async def scenario(clock: Clock) -> None:
        wall, steady = clock.now(), clock.monotonic()
        await clock.sleep(0.05)
        assert clock.monotonic() - steady >= 0.049
        assert clock.now() - wall >= timedelta(seconds=0.045)

    run(scenario)


@each
@pytest.mark.parametrize("seconds", [0, -5])
def test_sleeping_for_no_time_lets_others_run(run: Callable[[Scenario], None], seconds: float) -> None:
    async def scenario(clock: Clock) -> None:
        ran = []

        async def other() -> None:
            ran.append(True)

        async with asyncio.TaskGroup() as group:
            group.create_task(other())
            before = clock.monotonic()
            await clock.sleep(seconds)
            assert ran
            assert clock.monotonic() - before < 5

    run(scenario)


@each
def test_a_sleep_can_be_cancelled(run: Callable[[Scenario], None]) -> None:
    async def scenario(clock: Clock) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await clock.sleep(3600)

    run(scenario)


def test_in_virtual_time_the_clock_moves_only_when_everybody_sleeps() -> None:
    async def main() -> list[tuple[str, float]]:
        clock = FakeClock()
        seen: list[tuple[str, float]] = []

        async def sleeper(name: str, seconds: float) -> None:
            await clock.sleep(seconds)
            for _ in range(100):
                await asyncio.sleep(0)
            seen.append((name, clock.monotonic()))

        async with asyncio.TaskGroup() as group:
            for name, seconds in (("c", 30.0), ("a", 10.0), ("b", 20.0)):
                group.create_task(sleeper(name, seconds))
        return seen

    assert run_virtual(main()) == [("a", 10.0), ("b", 20.0), ("c", 30.0)]


def test_virtual_time_waits_for_threads() -> None:
    async def main() -> str:
        return await asyncio.to_thread(lambda: "from a thread")

    assert run_virtual(main()) == "from a thread"
