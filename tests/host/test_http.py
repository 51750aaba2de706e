"""Sessions wait for, and take, only so much."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pytest_aiohttp import AiohttpServer

from secureworker import __version__
from secureworker.host.http import AnswerTooLarge, HttpLimits, open_session


@pytest.fixture
async def server(aiohttp_server: AiohttpServer) -> AsyncIterator[TestServer]:
    released = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        match request.path:
            case "/large":
                response = web.Response(text='"' + "x" * 1000 + '"', content_type="application/json")
                response.enable_compression()
                return response
            case "/never":
                await released.wait()
        return web.json_response(dict(request.headers))

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    yield await aiohttp_server(application, shutdown_timeout=0.1)
    released.set()


async def test_requests_say_who_asks(server: TestServer) -> None:
    async with open_session() as session, session.get(server.make_url("/")) as answer:
        assert (await answer.json())["User-Agent"] == f"secureworker/{__version__}"


async def test_an_answer_can_be_read_twice_and_released(server: TestServer) -> None:
    async with open_session() as session, session.get(server.make_url("/large")) as answer:
        assert await answer.text() == await answer.text()
        await answer.release()
        assert len(await answer.json()) == 1000


async def test_an_answer_that_is_too_large_unpacked_is_not_taken(server: TestServer) -> None:
    async with open_session(HttpLimits(answer_bytes=500)) as session:
        for _ in range(2):
            with pytest.raises(AnswerTooLarge, match="more than 500 bytes"):
                async with session.get(server.make_url("/large")) as answer:
                    await answer.json()


async def test_a_server_that_does_not_answer_is_left(server: TestServer) -> None:
    async with open_session(HttpLimits(stall_seconds=0.05)) as session:
        with pytest.raises(aiohttp.ServerTimeoutError):
            await session.get(server.make_url("/never"))
