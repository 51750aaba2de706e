"""A storage service that behaves like S3, and a run whose artifacts go there."""

import asyncio
import gzip
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime
from itertools import count
from typing import Self

from aiohttp import web
from aiohttp.test_utils import TestServer

from secureworker.core.claim import Claim, Credentials
from secureworker.core.ids import ArtifactName
from secureworker.core.outcome import Resolution
from secureworker.core.uploads import ArtifactRequest, NoTarget, PutTarget, StorageError, UploadTarget
from secureworker.testing import FakeClock, a_claim

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

EXPIRED = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
TOO_SLOW = "<Error><Code>RequestTimeout</Code></Error>"


class HurriedClock(FakeClock):
    """Sleeps are noted, and over at once."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


class S3:
    """Takes PUTs. The next answers can be prescribed; URLs are good for one PUT."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.requests: list[str] = []
        self.next: deque[Answer] = deque()
        self.busy = 0
        self.most_busy = 0
        self.released = asyncio.Event()
        self._urls = count()
        self._server: TestServer | None = None

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=2**40)
        application.router.add_route("*", "/{name:.*}", self._answer)
        self._server = TestServer(application)
        await self._server.start_server(shutdown_timeout=0.1, auto_decompress=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.released.set()
        assert self._server is not None
        await self._server.close()

    def url(self, name: str) -> str:
        assert self._server is not None
        return str(self._server.make_url(f"/{name}")) + f"?X-Amz-Signature=secret-{next(self._urls)}"

    def refuse(self, status: int, text: str = "", times: int = 1) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            await request.read()
            return web.Response(status=status, text=text)

        self.next.extend([answer] * times)

    async def store(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        assert request.content_length is not None
        assert "Transfer-Encoding" not in request.headers
        self.stored[name] = await request.read()
        self.headers[name] = dict(request.headers)
        return web.Response()

    def decoded(self, name: str) -> bytes:
        if self.headers[name].get("Content-Encoding") == "gzip":
            return gzip.decompress(self.stored[name])
        return self.stored[name]

    async def reset(self, request: web.Request) -> web.StreamResponse:
        await request.content.readany()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def stall(self, request: web.Request) -> web.StreamResponse:
        await request.content.readany()
        await self.released.wait()
        return web.Response(status=500)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path_qs)
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        try:
            return await (self.next.popleft() if self.next else self.store)(request)
        finally:
            self.busy -= 1


class UploadRun:
    """A claimed run whose Queue gives out URLs of `S3`, or tickets for the Object service."""

    def __init__(self, storage: S3) -> None:
        self.claim: Claim = a_claim()
        self.created: list[ArtifactRequest] = []
        self.finished: list[tuple[str, str]] = []
        self.target: UploadTarget | None = None
        """Given to every request instead of a URL of the storage's, where it is set."""
        self.failure: Exception | None = None
        self._storage = storage

    @property
    def taken_until(self) -> datetime:
        return self.claim.taken_until

    @property
    def credentials(self) -> Credentials:
        return self.claim.credentials

    async def reclaim(self) -> datetime:
        raise NotImplementedError

    async def confirm(self) -> None:
        raise NotImplementedError

    async def report(self, resolution: Resolution) -> None:
        raise NotImplementedError

    async def create_artifact(self, request: ArtifactRequest) -> UploadTarget:
        self.created.append(request)
        if self.failure is not None:
            raise self.failure
        match request:
            case StorageError():
                return NoTarget()
            case _:
                return self.target or PutTarget(self._storage.url(request.name))

    async def finish_artifact(self, name: ArtifactName, upload_id: str) -> None:
        self.finished.append((name, upload_id))
