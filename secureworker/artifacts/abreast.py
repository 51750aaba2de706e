"""Doing one thing with many items, several at a time, and coming out with one cause where it fails."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from secureworker.core.errors import Stop

Item = TypeVar("Item")


async def each(items: Iterable[Item], work: Callable[[Item], Awaitable[None]], *, at_a_time: int) -> None:
    """Do `work` with every item; the first failure ends the others, and is raised by itself."""
    waiting = iter(items)

    async def go_on() -> None:
        for item in waiting:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_a_time):
                group.create_task(go_on())
    except BaseExceptionGroup as failures:
        # One cause: that the run is not ours explains all the others.
        causes = sorted(failures.exceptions, key=lambda failure: not isinstance(failure, Stop))
    else:
        return
    raise causes[0]
