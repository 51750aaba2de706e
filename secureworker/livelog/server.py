"""Serves logs over TLS to whoever has an address: `GET /log/<token>`, from the beginning, until the log ends.

Each reader reads the file at its own pace, by a position of its own, so a slow one holds up nobody. What is served was
masked and sanitised before it was written. Blocking reads are of files that were written a moment ago, and this process
does nothing else.
"""

import asyncio
import contextlib
import logging
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, final

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError

from secureworker.livelog import wire

logger = logging.getLogger(__name__)

MAX_READERS: Final = 64
MAX_CONNECTIONS: Final = 128
"""TLS handshakes of strangers included, from their first packet: this process has 512 descriptors, for logs too."""
REQUEST_SECONDS: Final = 10.0
"""From the end of the handshake to the end of the request's head."""
STALL_SECONDS: Final = 60.0
"""How long a reader may take nothing."""
LINGER_SECONDS: Final = 60.0
"""How long the rest of a log that has ended can be read; its artifact is there by then."""
LOOK_SECONDS: Final = 0.25
"""Between two looks at a log that has nothing new."""
_PAUSE_SECONDS: Final = 0.5
"""When the process has no descriptor left."""
_PIECE_BYTES: Final = 64 * 1024
_PATH: Final = re.compile(r"/log/([A-Za-z0-9_-]{43})")
_HEADERS: Final = {
    "Content-Type": "text/plain; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
    # Taskcluster's own log viewer reads it from another origin; there is nothing here that a cookie would open.
    "Access-Control-Allow-Origin": "*",
    "Server": "secureworker",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of this process strangers can have."""

    readers: int = MAX_READERS
    connections: int = MAX_CONNECTIONS
    request_seconds: float = REQUEST_SECONDS
    stall_seconds: float = STALL_SECONDS
    linger_seconds: float = LINGER_SECONDS


@dataclass(slots=True)
class _Shown:
    """A log that is shown."""

    descriptor: int
    readers: int = 0
    ended: bool = False
    dropped: bool = False


@final
@dataclass(slots=True)
class Logs:
    """What is shown, by the digests of the addresses."""

    linger_seconds: float = LINGER_SECONDS
    _shown: dict[str, _Shown] = field(default_factory=dict)

    def show(self, digest: str, descriptor: int) -> None:
        """Begin to show a log; the descriptor is this object's from now on."""
        self._shown[digest] = _Shown(descriptor)

    def end(self, digest: str) -> None:
        """Nothing more is written: readers come to its end, and after a while it is not here any more."""
        shown = self._shown.get(digest)
        if shown is not None and not shown.ended:
            shown.ended = True
            asyncio.get_running_loop().call_later(self.linger_seconds, self._drop, digest)

    @contextlib.contextmanager
    def reader(self, token: str) -> Iterator[_Shown | None]:
        """Hold the log that a token leads to for a reader."""
        shown = self._shown.get(wire.digest_of(token))
        if shown is None:
            yield None
            return
        shown.readers += 1
        try:
            yield shown
        finally:
            shown.readers -= 1
            if shown.dropped and not shown.readers:
                os.close(shown.descriptor)

    def _drop(self, digest: str) -> None:
        shown = self._shown.pop(digest)
        shown.dropped = True
        if not shown.readers:
            os.close(shown.descriptor)


@final
class LogServer:
    """Answers requests for logs."""

    def __init__(self, logs: Logs, limits: Limits | None = None) -> None:
        self._logs = logs
        self._limits = limits or Limits()
        # No time is spent on the rest of a request that was answered already.
        self._server = web.Server(self._answer, access_log=None, lingering_time=0, logger=_strangers())
        self._readers = 0
        self._greeted = 0
        """Connections whose handshakes are under way."""
        self._asked: set[web.RequestHandler] = set()
        """Connections, at most `request_seconds` old, that have asked for something."""

    @asynccontextmanager
    async def serving(self, listener: socket.socket, context: ssl.SSLContext) -> AsyncIterator[None]:
        """Serve at a listening socket while the block runs; nobody else is let in after it."""
        listener.setblocking(False)  # noqa: FBT003 - the standard library's
        async with asyncio.TaskGroup() as group:
            accepting = group.create_task(self._accept(listener, context))
            try:
                yield
            finally:
                accepting.cancel()

    async def _accept(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        """Let strangers in, as many as may be.

        Not by `create_server`: it takes everybody, and counts nobody before the handshake is over. Who never finished
        one took all descriptors, and what the worker handed over then could not be received.
        """
        loop = asyncio.get_running_loop()
        failing = False
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:
                    level = logging.DEBUG if failing else logging.WARNING
                    logger.log(level, "connections cannot be accepted for now: %s", error)
                    failing = True
                    await asyncio.sleep(_PAUSE_SECONDS)
                    continue
                failing = False
                # Accepting does not wait where somebody is waiting: a flood must not keep the loop from all other work.
                await asyncio.sleep(0)
                if self._greeted + len(self._server.connections) >= self._limits.connections:
                    connection.close()
                    continue
                self._greeted += 1
                group.create_task(self._greet(connection, context))

    async def _greet(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._welcome,
                connection,
                ssl=context,
                ssl_handshake_timeout=self._limits.request_seconds,
                ssl_shutdown_timeout=1.0,
            )
        except (OSError, TimeoutError) as error:
            logger.debug("a handshake failed: %s", type(error).__name__)
        except Exception:
            # A defect, met by bytes that a stranger chose: others go on reading.
            logger.exception("a handshake ended by an error of our own")
        finally:
            self._greeted -= 1

    def _welcome(self) -> web.RequestHandler:
        connection = self._server()
        asyncio.get_running_loop().call_later(self._limits.request_seconds, self._hurry, connection)
        return connection

    def _hurry(self, connection: web.RequestHandler) -> None:
        """Close a connection that has not asked for anything yet. What was asked for once, is answered once."""
        if connection in self._asked:
            self._asked.remove(connection)
        else:
            connection.force_close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self._asked.add(request.protocol)
        response = await self._respond(request)
        response.force_close()
        return response

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method != "GET":
            return _said(405, "only GET is answered here\n", {"Allow": "GET"})
        if request.version < HttpVersion11:
            # No chunks: nobody could tell a log's end from a connection's.
            return _said(505, "a log is read by HTTP/1.1\n")
        path = _PATH.fullmatch(request.raw_path)
        with self._logs.reader(path[1] if path else "") as shown:
            if shown is None:
                return _said(404, "there is no log here; one that has ended is an artifact of its task\n")
            if self._readers >= self._limits.readers:
                return _said(503, "too many read logs here now; try again later\n", {"Retry-After": "30"})
            self._readers += 1
            try:
                return await self._stream(request, shown)
            finally:
                self._readers -= 1

    async def _stream(self, request: web.BaseRequest, shown: _Shown) -> web.StreamResponse:
        response = web.StreamResponse(headers=_HEADERS)
        response.enable_chunked_encoding()
        response.force_close()
        await response.prepare(request)
        position = 0
        while not shown.dropped:
            # Looked at before reading: what is written before the end is read before it, too.
            ended = shown.ended
            piece = os.pread(shown.descriptor, _PIECE_BYTES, position)
            if piece:
                position += len(piece)
                await self._write(request, response, piece)
            elif ended:
                await response.write_eof()
                return response
            elif request.transport is None or request.transport.is_closing():
                raise ConnectionResetError("the reader has left")
            else:
                await asyncio.sleep(LOOK_SECONDS)
        # Without the last chunk: the reader sees that this is not all.
        _abort(request)
        raise ConnectionResetError("the log is not here any more")

    async def _write(self, request: web.BaseRequest, response: web.StreamResponse, piece: bytes) -> None:
        try:
            async with asyncio.timeout(self._limits.stall_seconds):
                await response.write(piece)
        except TimeoutError:
            _abort(request)
            raise ConnectionResetError("the reader takes nothing") from None


def _strangers() -> logging.Logger:
    """Give a log of errors, in which the nonsense of strangers is none: they could fill the disk with it.

    Nor is a reader that leaves. That is how reading a log mostly ends, and nobody is to be called for it.
    """
    log = logger.getChild("strangers")
    log.addFilter(_not_of_strangers)
    return log


def _not_of_strangers(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | ConnectionError))


def _abort(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()


def _said(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=text.encode(), headers={**_HEADERS, **(headers or {})})
