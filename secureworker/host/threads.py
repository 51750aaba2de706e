"""Running blocking work in a thread so that cancellation does not leave it behind, still writing."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

_THREADS = 8
_THREADS_PER_RUN = 12
"""8 downloads are written, or 4 uploads read and compressed, at a time; the rest is for workspace and log."""


def threads_for(runs: int) -> ThreadPoolExecutor:
    """Give the threads for the blocking work of so many runs: what one of them blocks, another never waits for.

    Python's own default is four more than there are processors: on two, one run's slow disk would hold up the blocks
    of another's upload. Each is made when it is first needed. How processor time is shared is the kernel's business.
    """
    return ThreadPoolExecutor(_THREADS + _THREADS_PER_RUN * runs, thread_name_prefix="blocking")


class Abandoned(Exception):
    """Raised by blocking work when it finds that nobody waits for its result any more."""


async def in_thread(work: Callable[[threading.Event], Result]) -> Result:
    """Run `work` in a thread; when this is left, by any way, the thread has ended.

    `work` is given an event that is set on cancellation, and looks at it at least once per buffer it moves.
    On cancellation this waits for that: some milliseconds.
    """
    abandoned = threading.Event()
    running = asyncio.get_running_loop().run_in_executor(None, work, abandoned)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        abandoned.set()
        while not running.done():
            # wait() neither cancels the thread's future nor raises its error; a second cancellation must not leave it.
            try:
                await asyncio.wait((running,))
            except asyncio.CancelledError:
                continue
        if not running.cancelled():
            running.exception()
        raise
