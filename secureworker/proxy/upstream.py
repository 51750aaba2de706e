"""Connections to Taskcluster, for one run: kept while the run lasts, used for one request after the other.

An HTTP client of our own, for the one thing that the door needs: a general one took half of the time of a request.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import lru_cache
from typing import Final, final
from urllib.parse import urlsplit

from secureworker.core.address_blocks import Address
from secureworker.core.addresses import HostPort, parse_address
from secureworker.proxy.chunks import BadChunk, Chunks
from secureworker.proxy.names import Names
from secureworker.proxy.replies import BadReply, Reply, parse_reply
from secureworker.proxy.wire import READ_BYTES

CONNECT_SECONDS: Final = 30.0
STALL_SECONDS: Final = 120.0
"""Without a byte from the other side, or without one that it takes."""
KEPT_SECONDS: Final = 4.0
"""How long an unused connection is good for another request. Node's servers close them after 5 s, and what is sent at
that very moment is lost: of requests that change something nobody could say whether they did."""
MOST_HEAD: Final = 64 * 1024
_MOST_INTERIM: Final = 16
_MOST_ADDRESSES: Final = 8
_NEXT_SECONDS: Final = 5.0
"""Until another address is tried."""
_HEAD_END: Final = b"\r\n\r\n"


class Broken(Exception):
    """The other side closed the connection, or broke it."""


@lru_cache(maxsize=1)
def _default_tls() -> ssl.SSLContext:
    # Some 20 ms, for all certificates of the host.
    return ssl.create_default_context()


@final
class Connection(asyncio.Protocol):
    """One connection. Of two coroutines, one may send while the other receives."""

    def __init__(self, stall_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._stall_seconds = stall_seconds
        self._moved = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        self._received = bytearray()
        self._ended = False
        self._held = False
        self._reading: asyncio.Future[None] | None = None
        self._writing: asyncio.Future[None] | None = None
        self._full = False
        self.fresh = True
        """Whether it was used for no request yet."""
        self.silent = True
        """Whether nothing came since the last request began."""
        self.rested = 0.0
        """Since when it is unused."""

    # What the loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=READ_BYTES)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._received += data
        self._moved = self._loop.time()
        self.silent = False
        if len(self._received) > READ_BYTES and not self._held:
            self._held = True
            self._transport.pause_reading()
        _wake(self._reading)

    def eof_received(self) -> None:
        """See `asyncio.Protocol`."""
        self._ended = True
        _wake(self._reading)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """See `asyncio.Protocol`."""
        self._ended = True
        _wake(self._reading)
        _wake(self._writing)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._full = True

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._full = False
        _wake(self._writing)

    # What the door does.

    @property
    def usable(self) -> bool:
        """Whether another request may be made: it is open, and nothing came that nobody asked for."""
        return not self._ended and not self._received and not self._transport.is_closing()

    def begin(self, content: bytes) -> None:
        """Send a request's head."""
        self.silent = True
        self._moved = self._loop.time()
        self._transport.write(content)

    async def send(self, content: bytes) -> None:
        """Send a part of a body, at the pace at which it is taken.

        Raises:
            Broken: it is not taken any more.
            TimeoutError: nothing of it is taken.
        """
        if self._ended or self._transport.is_closing():
            raise Broken
        self._moved = self._loop.time()
        self._transport.write(content)
        if self._full:
            self._writing = self._loop.create_future()
            self._watch()
            await self._writing

    async def reply(self) -> Reply:
        """Receive an answer's head; those before the answer proper are passed over.

        Raises:
            Broken: there is none, or not all of it.
            BadReply: it is none.
            TimeoutError: it does not come.
        """
        for _ in range(_MOST_INTERIM):
            while (end := self._received.find(_HEAD_END, 0, MOST_HEAD)) < 0:
                if len(self._received) >= MOST_HEAD:
                    raise BadReply("a head without an end")
                await self._more()
            reply = parse_reply(bytes(self._received[:end]))
            self._drop(end + len(_HEAD_END))
            if not reply.interim:
                return reply
        raise BadReply("no answer proper")

    async def body(self, reply: Reply) -> AsyncIterator[bytes]:
        """Receive an answer's body, as it comes.

        Raises:
            Broken: it is cut short.
            BadReply: its chunks are ill-formed.
            TimeoutError: nothing of it comes.
        """
        if reply.chunked:
            async for content in self._chunked():
                yield content
            return
        left = reply.length
        while left is None or left:
            if not self._received:
                if self._ended and left is None:
                    return
                await self._more(may_end=left is None)
                continue
            content = bytes(self._received if left is None else self._received[:left])
            self._drop(len(content))
            left = None if left is None else left - len(content)
            yield content

    async def _chunked(self) -> AsyncIterator[bytes]:
        taken = Chunks()
        while not taken.ended:
            try:
                content, used = taken.take(self._received)
            except BadChunk as bad:
                raise BadReply(str(bad)) from None
            self._drop(used)
            if content:
                yield content
                # Others get their turns, however much has come already.
                await asyncio.sleep(0)
            elif not used:
                await self._more()

    def close(self) -> None:
        """Break it off."""
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()

    def _drop(self, count: int) -> None:
        del self._received[:count]
        if self._held and len(self._received) <= READ_BYTES:
            self._held = False
            self._transport.resume_reading()

    async def _more(self, *, may_end: bool = False) -> None:
        if self._ended:
            raise Broken
        before = len(self._received)
        self._reading = self._loop.create_future()
        self._moved = self._loop.time()
        self._watch()
        await self._reading
        if len(self._received) == before and not may_end:
            raise Broken

    def _watch(self) -> None:
        """See that what is waited for ends. One timer for the whole connection: to set one each time costs more."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._stall_seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        waiting = [each for each in (self._reading, self._writing) if each is not None and not each.done()]
        left = self._moved + self._stall_seconds - self._loop.time()
        if waiting and left > 0:
            self._timer = self._loop.call_later(left, self._look)
        elif waiting:
            for each in waiting:
                each.set_exception(TimeoutError())


def _wake(awaited: "asyncio.Future[None] | None") -> None:
    if awaited is not None and not awaited.done():
        awaited.set_result(None)


@final
class Upstream:
    """The connections of one run to the one place that its requests go to."""

    def __init__(
        self, root_url: str, names: Names, tls: ssl.SSLContext | None = None, stall_seconds: float = STALL_SECONDS
    ) -> None:
        """Name the place.

        Args:
            root_url: `http` or `https`, without a path.
            names: how its host is looked up.
            tls: who is believed to be that host; None: as this host does.
            stall_seconds: how long nothing may move.
        """
        url = urlsplit(root_url)
        self.host = url.hostname or ""
        self.port = url.port or (80 if url.scheme == "http" else 443)
        self.authority = url.netloc
        """For the header `Host`."""
        self._names = names
        self._tls = None if url.scheme == "http" else tls or _default_tls()
        self._stall_seconds = stall_seconds
        self._kept: list[Connection] = []

    async def connection(self) -> Connection:
        """Give one that is kept, or a new one.

        Raises:
            OSError: there is nobody, or somebody else.
            TimeoutError: nobody answers.
        """
        loop = asyncio.get_running_loop()
        while self._kept:
            kept = self._kept.pop()
            if kept.usable and loop.time() - kept.rested < KEPT_SECONDS:
                return kept
            kept.close()
        async with asyncio.timeout(CONNECT_SECONDS):
            return await self._connect(await self._addresses())

    async def _addresses(self) -> tuple[Address, ...]:
        literal = parse_address(self.host)
        # By the run's own threads: those of the loop are for all that the worker does.
        found = (literal,) if literal is not None else await self._names.resolve(HostPort(self.host, self.port))
        if not found:
            raise OSError("the name has no address")
        return tuple(dict.fromkeys(found))[:_MOST_ADDRESSES]

    async def _connect(self, addresses: tuple[Address, ...]) -> Connection:
        """Try the addresses in turn; not for long where there are more."""
        *others, last = addresses
        for address in others:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_NEXT_SECONDS):
                    return await self._connect_to(address)
        return await self._connect_to(last)

    async def _connect_to(self, address: Address) -> Connection:
        _, made = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self._stall_seconds),
            str(address),
            self.port,
            ssl=self._tls,
            server_hostname=self.host if self._tls else None,
        )
        return made

    def keep(self, connection: Connection) -> None:
        """Take a connection back whose last answer has come to its end."""
        if not connection.usable:
            connection.close()
            return
        connection.fresh = False
        connection.rested = asyncio.get_running_loop().time()
        self._kept.append(connection)

    def close(self) -> None:
        """Close what is kept."""
        while self._kept:
            self._kept.pop().close()
