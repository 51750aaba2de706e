"""Two connections made one: bytes both ways at the pace of the slower, until an end, a limit, or silence."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

from secureworker.proxy.account import Meter

_BUFFER_BYTES = 1 << 18
"""For each direction: all that a tunnel takes of memory."""


@dataclass(frozen=True, slots=True)
class TunnelLimits:
    """How long a tunnel may last. How much goes through it is counted, and not limited."""

    idle_seconds: float = 300.0
    """Without a byte in either direction."""
    total_seconds: float = 4 * 3600.0


async def tunnel(inside: socket.socket, outside: socket.socket, meter: Meter, limits: TunnelLimits) -> str:
    """Pass bytes on until both sides have ended, or one has broken. Neither socket is closed here.

    Returns:
        why it was cut off; empty where it came to its own end.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + limits.total_seconds

    def sent(count: int) -> None:
        meter.sent += count
        rest()

    def received(count: int) -> None:
        meter.received += count
        rest()

    def rest() -> None:
        if not patience.expired():
            patience.reschedule(min(end, loop.time() + limits.idle_seconds))

    try:
        async with asyncio.timeout(min(limits.idle_seconds, limits.total_seconds)) as patience:
            async with asyncio.TaskGroup() as group:
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
    """Pass on what comes, then its end: the other direction may go on."""
    loop = asyncio.get_running_loop()
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    while size := await loop.sock_recv_into(source, buffer):
        await loop.sock_sendall(target, buffer[:size])
        count(size)
    target.shutdown(socket.SHUT_WR)
