"""One plain request to a host, written anew, and its answer as it comes."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Final

from secureworker.core.addresses import HostPort
from secureworker.proxy import answers
from secureworker.proxy.account import Meter
from secureworker.proxy.requests import IDLE_SECONDS, Body, Head
from secureworker.proxy.tunnel import TunnelLimits, patient
from secureworker.proxy.wire import READ_BYTES, Gone, Wire

logger = logging.getLogger(__name__)

_HTTP_PORT: Final = 80


def written(head: Head, place: HostPort, path: str) -> bytes:
    """Write the request that the host gets."""
    host = str(place).removesuffix(f":{_HTTP_PORT}") if place.port == _HTTP_PORT else str(place)
    headers = [("Host", host), *answers.to_host(head), ("Connection", "close")]
    if head.length is None:
        headers.append(("Transfer-Encoding", "chunked"))
    elif head.get("content-length"):
        headers.append(("Content-Length", str(head.length)))
    return f"{head.method} {path} HTTP/1.1\r\n".encode("ascii") + answers.lines(headers) + b"\r\n"


async def exchange(wire: Wire, onward: Wire, head: Head, content: bytes, meter: Meter, limits: TunnelLimits) -> None:
    """Send the request, and meanwhile pass on all that comes until the other side closes.

    An answer may come before the request was sent whole (413, 401), and then its sender takes no more of it.

    Args:
        wire: to the script.
        onward: to the host.
        head: of the script's request.
        content: the head as the host gets it.
        meter: counts what goes and comes.
        limits: of silence, and of all of it.

    Raises:
        Bad: the request turned out ill-formed, and there is no answer yet.
        Gone: a side left, or an answer is cut short.
    """
    answered = False
    if head.awaits_continue:
        await wire.send(answers.CONTINUE, IDLE_SECONDS)
    try:
        async with patient(limits) as rest, asyncio.TaskGroup() as group:
            pieces = _framed(content, Body(wire, head), chunked=head.length is None)
            sending = group.create_task(_send(onward, pieces, meter, rest))
            with suppress(Gone):
                while True:
                    chunk = await onward.some(READ_BYTES, limits.total_seconds)
                    answered = True
                    meter.received += len(chunk)
                    rest()
                    await wire.send(chunk, IDLE_SECONDS)
            sending.cancel()
    except TimeoutError:
        logger.debug("an answer took too long")
    except ExceptionGroup as failures:
        # Where an answer has begun, only an end of the connection can say that something is wrong.
        raise (Gone() if answered else failures.exceptions[0]) from None
    else:
        await wire.part()


async def _framed(content: bytes, body: Body, *, chunked: bool) -> AsyncIterator[bytes]:
    """Give a request in the pieces in which it is sent."""
    yield content
    async for chunk in body.chunks():
        yield b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk
    if chunked:
        yield b"0\r\n\r\n"


async def _send(onward: Wire, pieces: AsyncIterator[bytes], meter: Meter, rest: Callable[[], None]) -> None:
    async for piece in pieces:
        try:
            await onward.send(piece, IDLE_SECONDS)
        except Gone:
            return  # who takes no more may still answer
        meter.sent += len(piece)
        rest()
