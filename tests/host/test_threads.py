"""Blocking work does not outlive who waits for it."""

import asyncio
import threading

import pytest

from secureworker.host.threads import Abandoned, in_thread


async def test_the_result_comes_back() -> None:
    assert await in_thread(lambda abandoned: not abandoned.is_set()) is True


async def test_an_error_comes_back() -> None:
    def fail(abandoned: threading.Event) -> None:
        raise ValueError(abandoned)

    with pytest.raises(ValueError, match="Event"):
        await in_thread(fail)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("ending", [Abandoned, None])
async def test_cancellation_waits_until_the_thread_has_ended(ending: type[Exception] | None, times: int) -> None:
    started, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work(abandoned: threading.Event) -> None:
        started.set()
        abandoned.wait(10)
        may_end.wait(10)
        ended.set()
        if ending is not None:
            raise ending

    task = asyncio.ensure_future(in_thread(work))
    await asyncio.to_thread(started.wait, 10)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    may_end.set()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
