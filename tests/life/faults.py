"""A proxy between a worker and the embedded Taskcluster that does to requests what a test says: lose, delay, lie.

What happens is said by the Queue's own method names and counted, so that a scenario is the same every time:
`faults.on("reclaimTask", Status(503), times=3)`. Uploads go through it too: the URLs that answers hold are rewritten.
"""

import asyncio
import re
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import unquote

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

_RUN = r"/api/queue/v1/task/(?P<task>[^/]+)/runs/(?P<run>\d+)"
_NAMES = tuple(
    (method, re.compile(pattern), name)
    for method, pattern, name in (
        ("POST", r"/api/queue/v1/claim-work/.+", "claimWork"),
        ("POST", _RUN + "/reclaim", "reclaimTask"),
        ("POST", _RUN + "/completed", "reportCompleted"),
        ("POST", _RUN + "/failed", "reportFailed"),
        ("POST", _RUN + "/exception", "reportException"),
        ("POST", _RUN + "/artifacts/(?P<name>.+)", "createArtifact"),
        ("PUT", _RUN + "/artifacts/(?P<name>.+)", "finishArtifact"),
        ("GET", r"/api/queue/v1/task/(?P<task>[^/]+)/status", "status"),
        ("GET", r"/api/queue/v1/task/(?P<task>[^/]+)", "task"),
        ("GET", r"/api/queue/v1/ping", "ping"),
        ("GET", r"/api/queue/v1/provisioners/.+/workers/.+", "getWorker"),
        ("GET", r"/api/auth/v1/scopes/current", "currentScopes"),
        ("PUT", r"/(?:public|private)-bucket/(?P<task>[^/]+)/(?P<run>\d+)/(?P<name>.+)", "upload"),
        ("PUT", r"/object-bucket/t/(?P<task>[^/]+)/(?P<run>\d+)/(?P<name>.+)", "upload"),
    )
)
REPORTS = ("reportCompleted", "reportFailed", "reportException")
_HOP = frozenset(
    {"transfer-encoding", "connection", "keep-alive", "content-length", "accept-encoding", "date", "server"}
)
_KEPT_BYTES = 4096
_CHUNK = bytes(256 * 1024)


@dataclass
class Seen:
    """One request of the worker's, as it reached the proxy."""

    when: datetime
    name: str
    task_id: str
    run_id: int
    artifact: str
    body: bytes
    """The first of it."""
    arrived: bool = False
    """At the Queue."""
    status: int | None = None
    """What the worker was answered; None: nothing, or not all of it."""
    nonsense: bool = False
    """What it was answered says nothing."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: CIMultiDict[str]
    body: bytes


@dataclass
class Exchange:
    """A request in a fault's hands."""

    request: web.Request
    seen: Seen
    body: bytes
    faults: "Faults"

    async def forward(self) -> Answer:
        """Let it arrive, and give what the Queue answers."""
        answer = await self.faults.ask_queue(self.request, self.body)
        self.seen.arrived = True
        return answer

    async def reply(self, answer: Answer) -> web.StreamResponse:
        self.seen.status = answer.status
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    def abort(self) -> web.StreamResponse:
        """Reset the connection."""
        if self.request.transport is not None:
            self.request.transport.abort()
        return web.Response(status=599)


class Fault(Protocol):
    """What is done to a request."""

    @abstractmethod
    async def apply(self, exchange: Exchange) -> web.StreamResponse: ...


class Pass:
    """Nothing."""

    async def apply(self, exchange: Exchange) -> web.StreamResponse:
        return await exchange.reply(await exchange.forward())


@dataclass(frozen=True)
class Late:
    """It arrives, and is answered so much later."""

    seconds: float

    async def apply(self, exchange: Exchange) -> web.StreamResponse:
        answer = await exchange.forward()
        await asyncio.sleep(self.seconds)
        return await exchange.reply(answer)


@dataclass(frozen=True)
class Says:
    """Answered in the Queue's place; with `arrives`, after it has done what it was asked for."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    arrives: bool = False

    async def apply(self, exchange: Exchange) -> web.StreamResponse:
        if self.arrives:
            await exchange.forward()
        exchange.seen.nonsense = self.status < 400
        headers = CIMultiDict((("Content-Type", self.content_type), *self.headers))
        return await exchange.reply(Answer(self.status, headers, self.body))


def status(code: int, *, arrives: bool = False, **headers: str) -> Says:
    """Answer as Taskcluster's services do."""
    body = b'{"code": "Scripted", "message": "as the test says\\n---\\n", "requestInfo": {}}'
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Says(code, body, headers=named, arrives=arrives)


@dataclass(frozen=True)
class Reset:
    """The connection is reset before the request arrives, after it, or in the middle of its answer."""

    where: str = "before"

    async def apply(self, exchange: Exchange) -> web.StreamResponse:
        if self.where == "before":
            return exchange.abort()
        answer = await exchange.forward()
        if self.where == "after":
            return exchange.abort()
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.content_length = max(len(answer.body), 2)
        await response.prepare(exchange.request)
        await response.write(answer.body[: len(answer.body) // 2] or b"{")
        exchange.abort()
        return response


@dataclass(frozen=True)
class Torn:
    """It arrives, and its answer ends too soon, in good order: JSON that is cut off."""

    async def apply(self, exchange: Exchange) -> web.StreamResponse:
        answer = await exchange.forward()
        exchange.seen.nonsense = True
        return await exchange.reply(Answer(answer.status, answer.headers, answer.body[: len(answer.body) * 2 // 3]))


@dataclass(frozen=True)
class Stall:
    """Nothing moves for so long, then the connection is reset."""

    seconds: float
    after_headers: bool = False

    async def apply(self, exchange: Exchange) -> web.StreamResponse:
        response: web.StreamResponse | None = None
        if self.after_headers:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            response.content_length = 1000
            await response.prepare(exchange.request)
            await response.write(b'{"tasks": [')
        await asyncio.sleep(self.seconds)
        aborted = exchange.abort()
        return response or aborted


@dataclass(frozen=True)
class Flood:
    """A body that does not end before the reader has had enough."""

    size: int = 10 * 10**9

    async def apply(self, exchange: Exchange) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = self.size
        await response.prepare(exchange.request)
        sent = 0
        try:
            while sent < self.size:
                await response.write(_CHUNK)
                sent += len(_CHUNK)
        except ConnectionError:
            pass
        finally:
            exchange.faults.flooded.append(sent)
        return response


@dataclass
class Held:
    """Stays where it is until it is let go; tells when it has come."""

    after: bool = False
    """It has arrived at the Queue: only the answer is held."""
    then: Fault = field(default_factory=Pass)
    come: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def apply(self, exchange: Exchange) -> web.StreamResponse:
        if not self.after:
            self.come.set()
            await self.gone.wait()
            return await self.then.apply(exchange)
        answer = await exchange.forward()
        self.come.set()
        await self.gone.wait()
        return await exchange.reply(answer)

    def release(self) -> None:
        self.gone.set()


@dataclass
class _Rule:
    name: str
    fault: Fault
    nth: int
    times: float
    part: str
    met: int = 0

    def due(self, name: str, path: str) -> bool:
        if name != self.name or self.part not in path:
            return False
        self.met += 1
        return self.nth <= self.met < self.nth + self.times


class Faults:
    """The proxy. Made by `between`."""

    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self.upstream = upstream
        self.root_url = ""
        self.seen: list[Seen] = []
        self.flooded: list[int] = []
        """Bytes that were taken of each flood before the reader had enough."""
        self._session = session
        self._rules: list[_Rule] = []
        self._cut = False
        self._open: set[asyncio.Transport] = set()

    def on(self, name: str, fault: Fault, *, nth: int = 1, times: float = 1, part: str = "") -> None:
        """Do `fault` to the `nth` request of that name from now on, and to `times` in all.

        Args:
            name: the Queue's method.
            fault: what is done.
            nth: from which one on.
            times: `inf` for all.
            part: only where the path has this in it.
        """
        self._rules.append(_Rule(name, fault, nth, times, part))

    def hold(self, name: str, *, nth: int = 1, after: bool = False, part: str = "", then: Fault | None = None) -> Held:
        """Hold a request, or its answer."""
        held = Held(after, then or Pass())
        self.on(name, held, nth=nth, part=part)
        return held

    def as_usual(self) -> None:
        """Forget what was scripted, let go what is held, and mend the network."""
        for rule in self._rules:
            if isinstance(rule.fault, Held):
                rule.fault.release()
        self._rules.clear()
        self._cut = False

    def cut(self) -> None:
        """Cut the network: connections break, and none is made."""
        self._cut = True
        for transport in self._open:
            transport.abort()

    def mend(self) -> None:
        """Undo `cut`."""
        self._cut = False

    def count(self, *names: str) -> int:
        """Say how many requests of these names there were."""
        return sum(seen.name in names for seen in self.seen)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Take a request."""
        transport = request.transport
        assert transport is not None
        if self._cut:
            transport.abort()
            return web.Response(status=599)
        self._open.add(transport)
        try:
            return await self._treat(request)
        finally:
            self._open.discard(transport)

    async def _treat(self, request: web.Request) -> web.StreamResponse:
        name, parts = _name(request.method, request.raw_path.partition("?")[0])
        # All of them count.
        due = [rule.fault for rule in self._rules if rule.due(name, request.raw_path)]
        fault = due[0] if due else Pass()
        seen = Seen(
            datetime.now(UTC),
            name,
            parts.get("task") or "",
            int(parts.get("run") or 0),
            unquote(parts.get("name") or ""),
            b"",
        )
        self.seen.append(seen)
        if isinstance(fault, TornRequest):
            await fault.read(request)
        body = b"" if isinstance(fault, TornRequest) else await request.read()
        seen.body = body[:_KEPT_BYTES]
        return await fault.apply(Exchange(request, seen, body, self))

    async def ask_queue(self, request: web.Request, body: bytes) -> Answer:
        """Pass a request on as it is, Host header included: it is signed."""
        headers = CIMultiDict((name, value) for name, value in request.headers.items() if name.lower() not in _HOP)
        # Signed, and sent as they are signed: nothing is added.
        if body or request.method == "PUT":
            headers["Content-Length"] = str(len(body))
        async with self._session.request(
            request.method,
            URL(self.upstream + request.raw_path, encoded=True),
            headers=headers,
            data=body or None,
            allow_redirects=False,
            skip_auto_headers=["Content-Type", "User-Agent", "Accept", "Accept-Encoding"],
        ) as answer:
            content = await answer.read()
            kept = CIMultiDict((name, value) for name, value in answer.headers.items() if name.lower() not in _HOP)
            if "json" in answer.headers.get("Content-Type", ""):
                content = content.replace(self.upstream.encode(), self.root_url.encode())
            if "Location" in kept:
                kept["Location"] = kept["Location"].replace(self.upstream, self.root_url)
            return Answer(answer.status, kept, content)


@dataclass(frozen=True)
class TornRequest:
    """The connection is reset while the request's body is on its way."""

    read_bytes: int = 1

    async def read(self, request: web.Request) -> None:
        await request.content.read(self.read_bytes)

    async def apply(self, exchange: Exchange) -> web.StreamResponse:
        return exchange.abort()


def _name(method: str, path: str) -> tuple[str, dict[str, str | None]]:
    for wanted, pattern, name in _NAMES:
        found = pattern.fullmatch(path)
        if found and wanted == method:
            return name, found.groupdict()
    return f"{method} {path}", {}


@asynccontextmanager
async def between(upstream: str) -> AsyncIterator[Faults]:
    """Serve the proxy for the Queue at `upstream`."""
    connector = aiohttp.TCPConnector(limit=0)
    session = aiohttp.ClientSession(connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(None))
    async with session:
        faults = Faults(upstream, session)
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{path:.*}", faults.handle)
        # Cancelled with the worker's connection: a poll that is dropped is dropped at the Queue too.
        runner = web.AppRunner(
            application, handler_cancellation=True, auto_decompress=False, access_log=None, shutdown_timeout=1.0
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            faults.root_url = f"http://{host}:{port}"
            yield faults
        finally:
            faults.cut()
            await runner.cleanup()
