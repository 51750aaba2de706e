"""Downloads from something that behaves like S3, or worse. Edge cases 13."""

import asyncio
import gzip
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from secureworker.artifacts.download import BLOCK_BYTES, Allowance, NotDownloaded, download
from secureworker.core.inputs import Source

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
MIB = 2**20
GZIP = {"Content-Encoding": "gzip"}


class Storage:
    """Answers as it is told to."""

    def __init__(self) -> None:
        self.answer: Answer = self.nothing
        self.asked: list[web.Request] = []
        self.released = asyncio.Event()

    async def nothing(self, _: web.Request) -> web.StreamResponse:
        return web.Response(status=404)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        return await self.answer(request)

    def gives(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(body=body, status=status, headers=headers)

        self.answer = answer


@pytest.fixture
async def storage() -> AsyncIterator[tuple[Storage, Source]]:
    storage = Storage()
    application = web.Application()
    application.router.add_route("*", "/{name:.*}", storage.handle)
    async with TestServer(application) as server:
        yield storage, Source(f"{server.make_url('/a')}?X-Amz-Signature=a-secret")
        storage.released.set()


Stored = tuple[Storage, Source]


async def get(
    session: aiohttp.ClientSession, source: Source, limit: int = 100 * MIB, stall_seconds: float = 5
) -> tuple[bytes, int]:
    """Give what came, and how much may still come."""
    taken, allowance = bytearray(), Allowance(limit)
    await download(session, source, taken.extend, allowance, plain=True, stall_seconds=stall_seconds)
    return bytes(taken), allowance.left


async def refused(session: aiohttp.ClientSession, source: Source, limit: int = 100 * MIB) -> NotDownloaded:
    with pytest.raises(NotDownloaded) as caught:
        await get(session, source, limit, stall_seconds=0.3)
    assert "a-secret" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 1])
async def test_what_is_stored_comes_as_it_is(session: aiohttp.ClientSession, storage: Stored, size: int) -> None:
    content = os.urandom(size)
    storage[0].gives(content)
    assert await get(session, storage[1], size) == (content, 0)


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 5 * BLOCK_BYTES + 7])
@pytest.mark.parametrize("make", [os.urandom, bytes])
async def test_what_is_stored_compressed_comes_decoded(
    session: aiohttp.ClientSession, storage: Stored, size: int, make: Callable[[int], bytes]
) -> None:
    content = make(size)
    storage[0].gives(gzip.compress(content), headers=GZIP)
    assert await get(session, storage[1], size) == (content, 0)


async def test_a_gzip_of_several_members_is_one_artifact(session: aiohttp.ClientSession, storage: Stored) -> None:
    storage[0].gives(gzip.compress(b"one,") + gzip.compress(b"two"), headers=GZIP)
    assert (await get(session, storage[1]))[0] == b"one,two"


async def test_no_credentials_are_shown_to_the_storage(session: aiohttp.ClientSession, storage: Stored) -> None:
    storage[0].gives(b"")
    await get(session, storage[1])
    (asked,) = storage[0].asked
    assert "Authorization" not in asked.headers
    assert "Cookie" not in asked.headers


async def test_what_is_too_large_is_refused_before_it_comes(session: aiohttp.ClientSession, storage: Stored) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(2**40)})
        await response.prepare(request)
        await storage[0].released.wait()
        return response

    storage[0].answer = answer
    error = await refused(session, storage[1], MIB)
    assert (str(error), error.again) == (f"it has {2**40} bytes, and {MIB} are left for inputs", False)


async def test_what_hides_its_size_is_refused_when_it_is_too_large(
    session: aiohttp.ClientSession, storage: Stored
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(3):
            await response.write(bytes(MIB))
        return response

    storage[0].answer = answer
    assert "are left for inputs" in str(await refused(session, storage[1], 2 * MIB))


async def test_a_bomb_is_found_out_at_the_limit(session: aiohttp.ClientSession, storage: Stored) -> None:
    storage[0].gives(gzip.compress(bytes(200 * MIB), 1), headers=GZIP)
    error = await refused(session, storage[1], 10 * MIB)
    assert "are left for inputs" in str(error)
    assert not error.again


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_storage_that_redirects_is_not_followed(
    session: aiohttp.ClientSession, storage: Stored, status: int
) -> None:
    storage[0].gives(b"", status, {"Location": "http://169.254.169.254/latest/meta-data"})
    error = await refused(session, storage[1])
    assert "is not followed" in str(error)
    assert not error.again
    assert len(storage[0].asked) == 1


@pytest.mark.parametrize(
    ("status", "again"),
    [(403, True), (429, True), (500, True), (503, True), (400, False), (404, False), (410, False), (206, False)],
)
async def test_what_the_storage_answers_decides_about_another_attempt(
    session: aiohttp.ClientSession, storage: Stored, status: int, *, again: bool
) -> None:
    storage[0].gives(b"", status)
    assert (await refused(session, storage[1])).again is again


async def test_an_encoding_that_is_not_known_is_refused(session: aiohttp.ClientSession, storage: Stored) -> None:
    storage[0].gives(b"x", headers={"Content-Encoding": "br"})
    assert "encoded as 'br'" in str(await refused(session, storage[1]))


@pytest.mark.parametrize("which", ["none", "cut", "changed"])
async def test_what_is_not_the_gzip_it_says_it_is_may_come_better_again(
    session: aiohttp.ClientSession, storage: Stored, which: str
) -> None:
    packed = gzip.compress(os.urandom(1000))
    body = {"none": b"no gzip", "cut": packed[:-8], "changed": packed[:-5] + b"\xff\xff\xff\xff\xff"}[which]
    storage[0].gives(body, headers=GZIP)
    assert (await refused(session, storage[1])).again


async def test_what_ends_before_its_length_may_come_whole_again(
    session: aiohttp.ClientSession, storage: Stored
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.close()
        return response

    storage[0].answer = answer
    assert (await refused(session, storage[1])).again


async def test_a_storage_that_stalls_is_given_up(session: aiohttp.ClientSession, storage: Stored) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begin")
        await storage[0].released.wait()
        return response

    storage[0].answer = answer
    error = await refused(session, storage[1])
    assert (str(error), error.again) == ("nothing came for 0.3 s", True)


async def test_a_storage_that_is_not_there_may_be_there_later(session: aiohttp.ClientSession) -> None:
    assert (await refused(session, Source("http://127.0.0.1:1/a?X-Amz-Signature=a-secret"))).again


@pytest.mark.parametrize(
    "url", ["http://s3.example.com/a", "file:///etc/passwd", "ftp://a/b", "https://", "http://[::1/"]
)
async def test_where_the_queue_is_asked_by_https_nothing_else_is_fetched(
    session: aiohttp.ClientSession, url: str
) -> None:
    with pytest.raises(NotDownloaded, match="not https"):
        await download(session, Source(url), bytearray().extend, Allowance(1), plain=False, stall_seconds=1)


async def test_a_download_that_is_left_writes_nothing_more(session: aiohttp.ClientSession, storage: Stored) -> None:
    begun, go_on, written = threading.Event(), threading.Event(), []
    storage[0].gives(gzip.compress(bytes(50 * MIB)), headers=GZIP)

    def write(block: bytes) -> None:
        written.append(len(block))
        begun.set()
        go_on.wait(10)

    task = asyncio.ensure_future(download(session, storage[1], write, Allowance(2**40), plain=True, stall_seconds=30))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(written) == 1
