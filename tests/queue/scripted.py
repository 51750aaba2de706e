"""A server that answers what it is told to, one answer after the other, to real requests over HTTP."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from secureworker.core.claim import Credentials, Secret
from secureworker.host.http import open_session
from secureworker.queue.answers import read_json
from secureworker.queue.calls import Calls
from secureworker.queue.claiming import LIMITS
from secureworker.testing import FakeClock

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Patience(FakeClock):
    """A clock whose sleeps take no time, and are noted."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@dataclass
class Scripted:
    """What is answered to requests, in order; the last answer stands for all that follow."""

    answers: list[Answering | Any] = field(default_factory=list)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    """(method, path, JSON body or None)."""
    clients: list[str] = field(default_factory=list)
    """Client ids of the requests, from their Hawk headers."""
    certificates: list[Any] = field(default_factory=list)
    calls: Calls = field(init=False)
    clock: Patience = field(default_factory=Patience)
    root_url: str = ""

    def then(self, *answers: Any) -> "Scripted":
        self.answers.extend(answers)
        return self

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.asked.append((request.method, request.raw_path, json.loads(body) if body else None))
        header = request.headers.get("Authorization", "")
        if 'id="' in header:
            self.clients.append(header.split('id="', 1)[1].split('"', 1)[0])
        if 'ext="' in header:
            self.certificates.append(json.loads(base64.b64decode(header.split('ext="', 1)[1].split('"', 1)[0])))
        given = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(given):
            return await given(request)
        return web.json_response(given)


def error(status: int, message: str = "no", code: str = "Error") -> Answering:
    async def answering(_: web.Request) -> web.Response:
        text = f"{message}\n\n---\n\n* method:     x\n* errorCode:  {code}\n* statusCode: {status}"
        return web.json_response({"code": code, "message": text, "requestInfo": {}}, status=status)

    return answering


def text(content: str, content_type: str = "text/html", status: int = 200) -> Answering:
    async def answering(_: web.Request) -> web.Response:
        return web.Response(text=content, content_type=content_type, status=status)

    return answering


def reset() -> Answering:
    async def answering(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return answering


def stall() -> Answering:
    async def answering(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    return answering


def no_content() -> Answering:
    async def answering(_: web.Request) -> web.Response:
        return web.Response(status=204)

    return answering


CREDENTIALS = Credentials("a-client", Secret("t" * 44))


@asynccontextmanager
async def scripted() -> AsyncIterator[Scripted]:
    server = Scripted()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        server.root_url = f"http://{host}:{port}"
        async with open_session(LIMITS, read_json) as session:
            server.calls = Calls(server.root_url, session, server.clock, jitter=lambda: 0.5)
            yield server
    finally:
        await runner.cleanup()
