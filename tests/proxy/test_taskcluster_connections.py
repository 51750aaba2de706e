"""Connections to Taskcluster: kept, repeated and given up where that is right, by real servers that misbehave."""

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest

from secureworker.core.address_blocks import Address
from secureworker.core.addresses import HostPort
from secureworker.core.doors import Doors
from secureworker.proxy import upstream
from secureworker.proxy.doors import open_doors
from secureworker.proxy.names import resolving
from secureworker.proxy.replies import BadReply
from secureworker.proxy.upstream import Broken, Upstream
from tests.proxy.harness import SECONDS, Authority, a_service, doors_open, raw_server, resolver, routes, say, status

DOORS = Doors(routes=routes("GET /api/queue/v1/task/*", "PUT /api/queue/v1/task/*", "POST /api/queue/v1/task/*"))
GET = b"GET /api/queue/v1/task/x HTTP/1.1\r\nHost: taskcluster\r\nConnection: close\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Server:
    """Answers each connection as a test says, and counts them."""

    root_url: str = ""
    connections: int = 0
    heads: list[bytes] = field(default_factory=list)


def place_of(root_url: str, **changes: float) -> Upstream:
    """Give the connections of a run to a place that is named by its address."""
    with resolving(resolver({})) as names:
        return Upstream(root_url, names, **changes)  # type: ignore[arg-type]  # mypy takes them for tls too


Serve = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def a_server(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            await serve(server.connections, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    server.root_url = f"{'https' if tls else 'http'}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with listening:
        yield server


async def test_a_request_on_a_kept_connection_that_was_closed_meanwhile_is_made_again() -> None:
    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        if number == 1:
            # Closed when the next request is there, as by a service whose time for idle connections is up just then.
            await reader.readuntil(b"\r\n\r\n")

    async with a_server(serve) as server, doors_open(DOORS, server.root_url) as opened:
        assert status(await say(opened.taskcluster, GET)) == 200
        assert status(await say(opened.taskcluster, GET)) == 200
        assert server.connections == 2
        assert opened.log.notes == []


@pytest.mark.parametrize("said", [GET.replace(b"GET", b"POST"), GET.replace(b"GET", b"PUT")])
async def test_a_request_that_changes_something_is_not_made_again(said: bytes) -> None:
    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")

    async with a_server(serve) as server, doors_open(DOORS, server.root_url) as opened:
        assert status(await say(opened.taskcluster, GET)) == 200
        assert status(await say(opened.taskcluster, said)) == 502
        assert server.connections == 1


async def test_a_request_on_a_new_connection_is_made_once() -> None:
    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with a_server(serve) as server, doors_open(DOORS, server.root_url) as opened:
        assert status(await say(opened.taskcluster, GET)) == 502
        assert server.connections == 1


async def test_what_comes_unasked_belongs_to_no_later_request() -> None:
    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + OK.replace(b"ok", b"ha") * (number == 1))
        await reader.read()

    async with a_server(serve) as server, doors_open(DOORS, server.root_url) as opened:
        assert (await say(opened.taskcluster, GET)).endswith(b"ok")
        assert (await say(opened.taskcluster, GET)).endswith(b"ok")
        assert server.connections == 2


async def test_interim_answers_are_passed_over_and_not_without_end() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    for times, expected in ((3, 200), (1000, 502)):
        async with (
            raw_server(interim * times + OK) as raw,
            doors_open(DOORS, f"http://127.0.0.1:{raw.port}") as opened,
        ):
            answer = await say(opened.taskcluster, GET)
            assert status(answer) == expected
            assert b"Link" not in answer


async def test_a_head_without_an_end_is_given_up() -> None:
    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X: " + b"y" * 1000 + b"\r\n")
            await writer.drain()

    async with a_server(serve) as server, doors_open(DOORS, server.root_url) as opened:
        assert status(await say(opened.taskcluster, GET)) == 502


async def test_chunks_that_are_ill_formed_cut_the_answer_short() -> None:
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n"
    async with raw_server(chunks) as raw, doors_open(DOORS, f"http://127.0.0.1:{raw.port}") as opened:
        answer = await say(opened.taskcluster, GET)
    assert b"0\r\n\r\n" not in answer


async def test_an_answer_that_ends_with_its_connection_is_passed_on_whole() -> None:
    async with (
        raw_server(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000) as raw,
        doors_open(DOORS, f"http://127.0.0.1:{raw.port}") as opened,
    ):
        answer = await say(opened.taskcluster, GET)
    assert answer.count(b"x") == 100_000
    assert answer.endswith(b"\r\n0\r\n\r\n")


async def test_taskcluster_is_believed_by_its_certificate_for_its_name(authority: Authority) -> None:
    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)

    for names, believed, expected in (
        (("127.0.0.1",), authority.client(), 200),
        (("elsewhere.test",), authority.client(), 502),
        (("127.0.0.1",), None, 502),
    ):
        async with (
            a_server(serve, authority.server(*names)) as server,
            open_doors(tls=believed) as proxy,
            doors_open(DOORS, server.root_url, proxy=proxy) as opened,
        ):
            for _ in range(2):
                assert status(await say(opened.taskcluster, GET)) == expected
            assert (server.connections == 1) is (expected == 200)


async def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    names = {"tc.test": "127.0.0.2 127.0.0.1", "none.test": ""}
    async with raw_server(OK) as raw:
        for host, expected in (("tc.test", 200), ("none.test", 502), ("unknown.test", 502)):
            async with doors_open(DOORS, f"http://{host}:{raw.port}", names=names) as opened:
                assert status(await say(opened.taskcluster, GET)) == expected


async def test_taskcluster_is_looked_up_once_for_many_requests_and_by_no_thread_of_the_worker() -> None:
    let, asked = threading.Event(), []

    def slow(place: HostPort) -> tuple[Address, ...]:
        asked.append(threading.current_thread().name)
        let.wait(SECONDS)
        return (ip_address("127.0.0.1"),)

    async with a_service() as service:
        port = service.root_url.rpartition(":")[2]
        async with doors_open(DOORS, f"http://tc.test:{port}", names=slow) as opened, asyncio.TaskGroup() as group:
            answers = [group.create_task(say(opened.taskcluster, GET)) for _ in range(30)]
            # The worker's own threads have nothing to do with it.
            await asyncio.gather(*(asyncio.to_thread(int) for _ in range(100)))
            let.set()
    assert {status(await answer) for answer in answers} == {200}
    assert len(asked) < 30
    assert all(name.startswith("names") for name in asked)


@pytest.mark.parametrize(("method", "length"), [("GET", None), ("POST", "0"), ("PUT", "0")])
async def test_a_request_without_a_body_says_so_where_one_is_usual(method: str, length: str | None) -> None:
    async with a_service() as service, doors_open(DOORS, service.root_url) as opened:
        assert status(await say(opened.taskcluster, GET.replace(b"GET", method.encode()))) == 200
    assert service.asked[0][2].get("content-length") == length


async def test_the_host_is_named_as_in_the_root_url() -> None:
    async with a_service() as service, doors_open(DOORS, service.root_url) as opened:
        await say(opened.taskcluster, GET)
    assert service.asked[0][2]["host"] == service.root_url.removeprefix("http://")


async def test_a_service_that_stalls_is_given_up_and_one_that_takes_a_long_upload_is_not() -> None:
    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            pass

    async with a_server(serve) as server:
        place = place_of(server.root_url, stall_seconds=0.3)
        connection = await place.connection()
        connection.begin(b"PUT / HTTP/1.1\r\n\r\n")
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def upload() -> None:
            for _ in range(10):
                await asyncio.sleep(0.1)
                await connection.send(b"x")

        async with asyncio.TaskGroup() as group:
            group.create_task(upload())
            with pytest.raises(TimeoutError):
                await connection.reply()
        assert loop.time() - began > 1.0
        connection.close()


async def test_a_service_that_takes_nothing_of_a_body_is_given_up() -> None:
    stop = asyncio.Event()

    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stop.wait()

    async with a_server(serve) as server:
        place = place_of(server.root_url, stall_seconds=0.3)
        connection = await place.connection()

        async def upload() -> None:
            while True:
                await connection.send(bytes(1 << 20))

        with pytest.raises(TimeoutError):
            await upload()
        connection.close()
        stop.set()


async def test_a_connection_that_broke_takes_nothing_and_gives_nothing() -> None:
    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with a_server(serve) as server:
        place = place_of(server.root_url)
        connection = await place.connection()
        with pytest.raises(Broken):
            await connection.reply()
        with pytest.raises(Broken):
            await connection.send(b"x")
        place.keep(connection)
        assert (await place.connection()) is not connection


async def test_a_connection_that_rested_too_long_is_not_used_again() -> None:
    async with raw_server(b"", close=False) as raw:
        place = place_of(f"http://127.0.0.1:{raw.port}")
        connection = await place.connection()
        place.keep(connection)
        assert await place.connection() is connection
        place.keep(connection)
        connection.rested -= upstream.KEPT_SECONDS
        other = await place.connection()
        assert other is not connection
        assert not connection.usable
        place.keep(other)
        place.close()
        async with asyncio.timeout(SECONDS):
            await raw.ended.wait()


async def test_an_answer_that_nobody_takes_is_not_read_into_memory() -> None:
    sent = 0

    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(1000):
            writer.write(bytes(100_000))
            await writer.drain()
            sent += 100_000

    async with a_server(serve) as server:
        place = place_of(server.root_url)
        connection = await place.connection()
        reply = await connection.reply()
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 20_000_000
        received = 0
        async for content in connection.body(reply):
            received += len(content)
        assert received == 100_000_000
        connection.close()


async def test_no_answer_proper_is_none() -> None:
    async with raw_server(b"x" * 70_000, close=False) as raw:
        place = place_of(f"http://127.0.0.1:{raw.port}")
        connection = await place.connection()
        connection.begin(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(BadReply):
            await connection.reply()
        connection.close()
