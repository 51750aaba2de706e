"""Work and its guards side by side, and one cause that comes out.

A guard is a coroutine that never returns normally: it waits for what may end the work early, and raises `Stop`.
This module knows nothing about runs, claims or queues.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

from secureworker.core.errors import Defect, Stop, StopReason

T = TypeVar("T")

_PRECEDENCE = (
    # The two after which nothing may be reported come first: were a run stopped for its time limit in the moment its
    # claim is lost, a report would be about somebody else's run.
    StopReason.CANCELED,
    StopReason.CLAIM_LOST,
    StopReason.SHUTDOWN,
    StopReason.TIME_LIMIT,
    StopReason.DISK_LIMIT,
)


async def supervise(work: Coroutine[Any, Any, T], *guards: Coroutine[Any, Any, NoReturn]) -> T:
    """Run `work` until it ends or a guard raises; both are over when this returns or raises.

    A guard that raises cancels the work, and this waits until the work has cleaned up. What comes out is one cause:
    the result of finished work, else the first `Stop` in order of precedence (it wins over the errors that ending
    the work caused), else the work's own error.

    Raises:
        Stop: a guard ended the work.
        Defect: the work was cancelled, and by nobody here.
    """
    finished: list[T] = []
    try:
        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(guard) for guard in guards]
            finished.append(await work)
            for guard in watching:
                guard.cancel()
    except BaseExceptionGroup as failures:
        if finished:
            return finished[0]
        raise _cause(failures) from failures
    except asyncio.CancelledError:
        # A CancelledError that nobody asked this task for is a bug below. Let through, it would end the task that
        # owns the run as "cancelled", and the run would be forgotten without a report.
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            raise Defect("a step of the run was cancelled, and by nobody") from None
        raise
    return finished[0]


def being_ended() -> bool:
    """Say whether a supervisor further out has told this work to end.

    To be asked where a `Stop` of a nested `supervise` is not simply let through: a TaskGroup that has an error of its
    own to raise swallows the cancellation that came from outside.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _cause(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Choose the one error that explains a group of them."""
    flat = _flatten(failures)
    stops = sorted(
        (error for error in flat if isinstance(error, Stop)),
        key=lambda stop: _PRECEDENCE.index(stop.reason),
    )
    return stops[0] if stops else flat[0]


def _flatten(failures: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for error in failures.exceptions
        for leaf in (_flatten(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]
