"""Turns: many together or one alone, in the order in which they came, whoever is cancelled when."""

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from secureworker.testing import run_virtual
from secureworker.worker.turns import Turns


@dataclass
class Stage:
    """Writes down who was at work when."""

    turns: Turns = field(default_factory=Turns)
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)

    async def perform(self, name: str, seconds: float, *, comes: float = 0, alone: bool = False) -> None:
        clock = asyncio.get_running_loop()
        await asyncio.sleep(comes)
        async with self.turns.take(alone=alone):
            began = clock.time()
            try:
                await asyncio.sleep(seconds)
            finally:
                self.spans[name] = (began, clock.time())

    def assert_left_empty(self) -> None:
        assert (self.turns.at_work, self.turns.waiting) == (0, 0)


def test_ordinary_ones_are_at_work_together() -> None:
    async def scenario() -> Stage:
        stage = Stage()
        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(stage.perform(name, 10))
        return stage

    assert run_virtual(scenario()).spans == dict.fromkeys("abc", (0, 10))


def test_one_that_must_be_alone_waits_for_those_before_it_and_keeps_those_after_it_waiting() -> None:
    async def scenario() -> Stage:
        stage = Stage()
        async with asyncio.TaskGroup() as group:
            group.create_task(stage.perform("before", 10))
            group.create_task(stage.perform("alone", 10, comes=1, alone=True))
            group.create_task(stage.perform("after", 10, comes=2))
        stage.assert_left_empty()
        return stage

    assert run_virtual(scenario()).spans == {"before": (0, 10), "alone": (10, 20), "after": (20, 30)}


def test_two_that_must_be_alone_go_one_after_the_other() -> None:
    async def scenario() -> Stage:
        stage = Stage()
        async with asyncio.TaskGroup() as group:
            group.create_task(stage.perform("first", 10, alone=True))
            group.create_task(stage.perform("second", 10, alone=True))
            group.create_task(stage.perform("c", 5, comes=1))
            group.create_task(stage.perform("d", 5, comes=1))
        return stage

    assert run_virtual(scenario()).spans == {"first": (0, 10), "second": (10, 20), "c": (20, 25), "d": (20, 25)}


def test_whether_one_would_wait_is_known_before_it_comes() -> None:
    async def scenario() -> list[bool]:
        turns = Turns()
        found = [turns.would_wait(alone=True)]
        async with turns.take(alone=False):
            found += [turns.would_wait(alone=False), turns.would_wait(alone=True)]
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(turns.take(alone=True).__aenter__())
                await asyncio.sleep(0)
                found.append(turns.would_wait(alone=False))
                waiting.cancel()
        async with turns.take(alone=True):
            found.append(turns.would_wait(alone=False))
        return found

    assert run_virtual(scenario()) == [False, False, True, True, True]


def test_one_that_gives_up_waiting_keeps_nobody_else_waiting() -> None:
    async def scenario() -> Stage:
        stage = Stage()
        async with asyncio.TaskGroup() as group:
            group.create_task(stage.perform("before", 10))
            alone = group.create_task(stage.perform("alone", 10, comes=1, alone=True))
            group.create_task(stage.perform("after", 10, comes=2))
            await asyncio.sleep(5)
            alone.cancel()
        stage.assert_left_empty()
        return stage

    assert run_virtual(scenario()).spans == {"before": (0, 10), "after": (5, 15)}


def test_one_that_is_cancelled_in_the_moment_its_turn_comes_passes_it_on() -> None:
    async def scenario() -> Stage:
        stage = Stage()
        async with asyncio.TaskGroup() as group:
            leaves = asyncio.Event()

            async def before() -> None:
                async with stage.turns.take(alone=True):
                    await leaves.wait()

            group.create_task(before())
            await asyncio.sleep(1)
            called = group.create_task(stage.perform("called", 10, alone=True))
            group.create_task(stage.perform("behind", 10))
            await asyncio.sleep(1)
            leaves.set()
            # Once for `before` to leave, and call; the one called has not gone on yet.
            await asyncio.sleep(0)
            assert stage.turns.at_work == 1
            called.cancel()
        stage.assert_left_empty()
        return stage

    assert run_virtual(scenario()).spans == {"behind": (2, 12)}


def test_an_error_at_work_passes_the_turn_on() -> None:
    async def scenario() -> None:
        turns = Turns()
        with pytest.raises(KeyError):
            async with turns.take(alone=True):
                raise KeyError
        async with asyncio.timeout(1), turns.take(alone=False):
            pass

    run_virtual(scenario())


@pytest.mark.parametrize("seed", range(200))
def test_whoever_comes_and_is_cancelled_when_nobody_is_beside_one_that_is_alone(seed: int) -> None:
    draw = random.Random(seed)

    async def scenario() -> tuple[Stage, set[str]]:
        stage, exclusive = Stage(), set()
        async with asyncio.TaskGroup() as group:
            performances = []
            for number in range(12):
                alone = draw.random() < 0.4
                if alone:
                    exclusive.add(str(number))
                seconds, comes = draw.choice((0, 1, 7)), draw.choice((0, 1, 5, 6))
                performances.append(group.create_task(stage.perform(str(number), seconds, comes=comes, alone=alone)))
            for performance in draw.sample(performances, 4):
                asyncio.get_running_loop().call_later(draw.choice((0, 1, 6, 8, 20)), performance.cancel)
        stage.assert_left_empty()
        return stage, exclusive

    stage, exclusive = run_virtual(scenario())
    for name in exclusive & stage.spans.keys():
        began, ended = stage.spans[name]
        others = {other: span for other, span in stage.spans.items() if other != name}
        beside = [other for other, (start, end) in others.items() if start < ended and end > began]
        assert not beside, f"{beside} beside {name}: {stage.spans}"
