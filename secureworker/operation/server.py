"""Serves what is shown of a worker to those who may read it, inside the worker's loop and at no cost to its runs.

Everything is bounded: how many are connected, how long each may take to ask and to listen, how much is answered, and
how often an answer is made. One thread of its own makes all answers. What goes wrong here ends nothing else.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, TypeAlias, final

from secureworker.operation.server_http import HEAD_BYTES, Answer, Refusal, Request, parse, refused, write

logger = logging.getLogger(__name__)

Get: TypeAlias = Callable[[Request], Answer]
"""Makes an answer to GET. Called in a thread; takes milliseconds; may raise `Refusal`."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a caller may cost."""

    connections: int = 16
    """At a time, over all listeners; who comes beyond them is told so, and closed."""
    head_seconds: float = 5.0
    """To send a request."""
    answer_seconds: float = 10.0
    """To take an answer."""
    make_seconds: float = 10.0
    """To make one, waiting for others included."""
    pause_seconds: float = 0.05
    """From one answer's making to the next's: who asks all the time gets 20 a second, and the worker keeps its core."""
    answer_bytes: int = 8 * 1024 * 1024


BOUNDS: Final = Bounds()


@final
class Site:
    """Paths, and what is answered to who asks for them.

    A path that ends with `/` stands for all below it, but for `/` itself.
    """

    def __init__(self, routes: Mapping[str, Get], bounds: Bounds = Bounds()) -> None:
        self.routes = dict(routes)
        self.bounds = bounds
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="status")
        self._turn = asyncio.Lock()

    def close(self) -> None:
        """Make no more answers."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def answer(self, head: bytes) -> bytes:
        """Give all that is sent back for a request's head."""
        try:
            request = parse(head)
            get = self._find(request.path)
            made = await self._make(get, request)
        except Refusal as refusal:
            return write(refusal.answer)
        return write(made, with_body=request.method == "GET")

    def _find(self, path: str) -> Get:
        get = self.routes.get(path)
        above = f"{path[: path.find('/', 1)]}/" if path.find("/", 1) > 0 else ""
        get = get or self.routes.get(above)
        if get is None:
            raise Refusal(404, "there is no such page")
        return get

    async def _make(self, get: Get, request: Request) -> Answer:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.bounds.make_seconds), self._turn:
                began = loop.time()
                made = await loop.run_in_executor(self._thread, get, request)
                await asyncio.sleep(began + self.bounds.pause_seconds - loop.time())
        except TimeoutError:
            return refused(503, "too many ask at once; ask again later")
        except Refusal:
            raise
        except Exception:
            logger.exception("the status page %s could not be made", request.path[:80])
            return refused(500, "this could not be made; the worker's log says why")
        if len(made.body) > self.bounds.answer_bytes:
            return refused(500, "this is larger than it may be")
        return made


@asynccontextmanager
async def serving(listeners: Iterable[socket.socket], site: Site) -> AsyncIterator[None]:
    """Serve while the block runs. At its end, by any way, every connection is closed; the listeners are the caller's.

    Nothing that happens to the server ends the block.
    """
    failed: Exception | None = None
    crowd = _Crowd(site)
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(crowd.accept(listener)) for listener in listeners]
            try:
                yield
            except Exception as problem:  # noqa: BLE001 - raised below: the group would wrap what is not its own
                failed = problem
            finally:
                for task in running:
                    task.cancel()
    finally:
        site.close()
    if failed is not None:
        raise failed


_FULL: Final = write(refused(503, "too many are connected; ask again later"))
_PAUSE_SECONDS: Final = 0.1
"""When the process has no descriptor left."""


@final
class _Crowd:
    """Those who are connected."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._talking: set[asyncio.Task[None]] = set()

    async def accept(self, listener: socket.socket) -> None:
        """Take connections until cancelled. An error that is ours ends this, is logged, and goes no further."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._accept(listener, group)
        except* Exception:
            logger.exception("the status page is served no more, by an error of the worker's own; the worker goes on")

    async def _accept(self, listener: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        failing = False
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                logger.log(
                    logging.DEBUG if failing else logging.WARNING,
                    "connections to the status page cannot be accepted for now: %s",
                    error,
                )
                failing = True
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            failing = False
            # Accepting does not wait where somebody is waiting: a flood must not keep the loop from all other work.
            await asyncio.sleep(0)
            if len(self._talking) >= self._site.bounds.connections:
                _turn_away(connection)
                continue
            task = group.create_task(self._converse(connection))
            self._talking.add(task)
            task.add_done_callback(self._talking.discard)

    async def _converse(self, connection: socket.socket) -> None:
        """Take one request and answer it. Nothing that happens here ends anything else."""
        with connection:
            connection.setblocking(False)  # noqa: FBT003 - the socket's own signature
            try:
                await self._talk(connection)
            except (OSError, TimeoutError) as error:
                logger.debug("a connection to the status page ended: %s", type(error).__name__)
            except Exception:
                logger.exception("a connection to the status page ended by an error of the worker's own")

    async def _talk(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        bounds = self._site.bounds
        try:
            async with asyncio.timeout(bounds.head_seconds):
                head = await _read_head(connection)
        except TimeoutError:
            answer = write(refused(408, "this took too long to ask"))
        except Refusal as refusal:
            answer = write(refusal.answer)
        else:
            if head is None:
                return
            answer = await self._site.answer(head)
        async with asyncio.timeout(bounds.answer_seconds):
            await loop.sock_sendall(connection, answer)
        _part(connection)


async def _read_head(connection: socket.socket) -> bytes | None:
    """Read up to the blank line; None where the other side ends before it."""
    loop = asyncio.get_running_loop()
    taken = b""
    while len(taken) <= HEAD_BYTES:
        head, end, _ = taken.partition(b"\r\n\r\n")
        if end:
            return head
        piece = await loop.sock_recv(connection, HEAD_BYTES)
        if not piece:
            return None
        taken += piece
    raise Refusal(431, f"a request has at most {HEAD_BYTES} bytes")


def _turn_away(connection: socket.socket) -> None:
    with connection:
        connection.setblocking(False)  # noqa: FBT003 - the socket's own signature
        with suppress(OSError):
            connection.send(_FULL)
        _part(connection)


def _part(connection: socket.socket) -> None:
    """End a connection whose answer is sent: what came and was not read would make of the end a reset."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        connection.recv(HEAD_BYTES)
