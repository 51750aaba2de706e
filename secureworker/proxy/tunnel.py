"""Two connections made one: bytes both ways at the pace of the slower, until an end, a limit, or silence."""

import asyncio
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

from secureworker.proxy.account import Meter

_PIPE_BYTES = 1 << 20
"""For each direction: all that a tunnel takes of memory, the kernel's. More is not to be had without privileges."""


@dataclass(frozen=True, slots=True)
class TunnelLimits:
    """How long a tunnel may last. How much goes through it is counted, and not limited."""

    idle_seconds: float = 300.0
    """Without a byte in either direction."""
    total_seconds: float = 4 * 3600.0


@asynccontextmanager
async def patient(limits: TunnelLimits) -> AsyncIterator[Callable[[], None]]:
    """End a block with a TimeoutError once the limits say so. What is given is called whenever something moved."""
    loop = asyncio.get_running_loop()
    end = loop.time() + limits.total_seconds
    async with asyncio.timeout(min(limits.idle_seconds, limits.total_seconds)) as timeout:

        def rest() -> None:
            if not timeout.expired():
                timeout.reschedule(min(end, loop.time() + limits.idle_seconds))

        yield rest


async def tunnel(inside: socket.socket, outside: socket.socket, meter: Meter, limits: TunnelLimits) -> str:
    """Pass bytes on until both sides have ended, or one has broken. Neither socket is closed here.

    Returns:
        why it was cut off; empty where it came to its own end.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + limits.total_seconds

    try:
        async with patient(limits) as rest, asyncio.TaskGroup() as group:

            def sent(count: int) -> None:
                meter.sent += count
                rest()

            def received(count: int) -> None:
                meter.received += count
                rest()

            group.create_task(_pump(inside, outside, sent))
            group.create_task(_pump(outside, inside, received))
    except TimeoutError:
        return f"open for {limits.total_seconds:g} s" if loop.time() >= end else f"idle for {limits.idle_seconds:g} s"
    except ExceptionGroup as failures:
        others = failures.split(OSError)[1]
        if others is not None:
            raise others from None
    return ""


async def _pump(source: socket.socket, target: socket.socket, count: Callable[[int], None]) -> None:
    """Pass on what comes, then its end: the other direction may go on.

    By splice(2), through a pipe: the bytes stay in the kernel. Reading and writing them takes 1.4 times as long.
    """
    loop = asyncio.get_running_loop()
    arrival = _Readiness(source, loop.add_reader, loop.remove_reader)
    departure = _Readiness(target, loop.add_writer, loop.remove_writer)
    with _pipe() as (reading, writing):
        while size := await _move(source.fileno(), writing, _PIPE_BYTES, arrival):
            left = size
            while left:
                left -= await _move(reading, target.fileno(), left, departure)
            count(size)
            # Where both sides are always ready nothing here waits, and others have to get their turns.
            await asyncio.sleep(0)
    target.shutdown(socket.SHUT_WR)


class _Readiness:
    """Waiting for one direction of one socket."""

    def __init__(self, watched: socket.socket, add: Callable[..., object], remove: Callable[[int], object]) -> None:
        self._descriptor = watched.fileno()
        self._add = add
        self._remove = remove

    async def wait(self) -> None:
        ready = asyncio.Event()
        self._add(self._descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            self._remove(self._descriptor)


async def _move(source: int, target: int, most: int, readiness: _Readiness) -> int:
    """Move bytes between a socket and a pipe, at least one; 0 is the source's end."""
    while True:
        try:
            return os.splice(source, target, most, flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            await readiness.wait()


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        # Without it, or the right to it, the pipe takes 64 KiB at a time.
        with suppress(OSError):
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)
