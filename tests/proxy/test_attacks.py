"""Attacks on the doors, by bytes that no honest client sends; judged by what the service behind them received."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from secureworker.core.doors import Doors
from secureworker.proxy import serving
from tests.proxy.harness import (
    SECONDS,
    Open,
    Raw,
    Service,
    a_service,
    doors_open,
    internal,
    raw_server,
    routes,
    say,
    status,
)
from tests.proxy.test_client_hello import real_hello

ROUTES = routes("GET /api/queue/v1/task/*", "PUT /api/object/v1/upload/*", "POST /api/queue/v1/task/*")
HIDDEN = b"GET /api/secrets/v1/secret/hidden HTTP/1.1\r\nHost: taskcluster\r\n\r\n"
"""What an attacker wants the service to see, and the routes do not allow."""
PUT = b"PUT /api/object/v1/upload/x HTTP/1.1\r\nHost: taskcluster\r\n"
GET = b"GET /api/queue/v1/task/x HTTP/1.1\r\nHost: taskcluster\r\n"


@asynccontextmanager
async def taskcluster() -> AsyncIterator[tuple[Open, Service]]:
    async with a_service() as service, doors_open(Doors(routes=ROUTES), service.root_url) as doors:
        yield doors, service


@asynccontextmanager
async def plain() -> AsyncIterator[tuple[Open, Raw]]:
    async with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as raw:
        doors = Doors(destinations=(internal("files.test", raw.port, plain=True),))
        async with doors_open(doors, names={"files.test": "127.0.0.1"}) as opened:
            yield opened, raw


SMUGGLED = [
    pytest.param(PUT + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="CL.TE"),
    pytest.param(PUT + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE.CL"),
    pytest.param(PUT + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE.TE"),
    pytest.param(PUT + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="unknown TE"),
    pytest.param(PUT + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE before a space"),
    pytest.param(PUT + b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="folded TE"),
    pytest.param(PUT + b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE after a bare LF"),
    pytest.param(PUT + b"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE after a bare CR"),
    pytest.param(PUT + b"Transfer-Encoding: chunked\x00\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE and a NUL"),
    pytest.param(PUT + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN, id="two CL"),
    pytest.param(PUT + b"Content-Length: 0, 5\r\n\r\n" + HIDDEN, id="a list of CL"),
    pytest.param(PUT + b"Content-Length: -1\r\n\r\n" + HIDDEN, id="CL below 0"),
    pytest.param(PUT + b"Content-Length: 0x5\r\n\r\n" + HIDDEN, id="hexadecimal CL"),
    pytest.param(PUT + b"Transfer-Encoding: chunked\r\n\r\n0\n\r\n" + HIDDEN, id="chunk ends in LF"),
    pytest.param(PUT + b"Transfer-Encoding: chunked\r\n\r\n0;x=y\r\n\r\n" + HIDDEN, id="chunk extension"),
    pytest.param(PUT + b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + HIDDEN, id="0x before a size"),
    pytest.param(PUT + b"Transfer-Encoding: chunked\r\n\r\n-0\r\n\r\n" + HIDDEN, id="a size below 0"),
    pytest.param(PUT + b"Transfer-Encoding: chunked\r\n\r\n100000000\r\n\r\n" + HIDDEN, id="a size beyond 32 bits"),
    pytest.param(PUT + b"Transfer-Encoding: chunked\r\n\r\n1\r\naXX0\r\n\r\n" + HIDDEN, id="chunk without an end"),
    pytest.param(PUT + b"Transfer-Encoding: chunked\r\n\r\n0\r\nHost: x\r\n\r\n" + HIDDEN, id="trailers"),
    pytest.param(PUT + b"Content-Length: 0\r\n\r\n\n" + HIDDEN, id="a LF before the next"),
    pytest.param(GET + b"Host: elsewhere\r\n\r\n", id="two hosts"),
    pytest.param(b"GET /api/queue/v1/task/x HTTP/1.1 HTTP/1.1\r\nHost: taskcluster\r\n\r\n", id="two versions"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
    pytest.param(GET + b"X: " + b"y" * 20_000 + b"\r\n\r\n", id="a huge header"),
    pytest.param(GET + b"X: y\r\n" * 100 + b"\r\n", id="many headers"),
    pytest.param(b"GET /api/queue/v1/task/" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", id="a huge target"),
    pytest.param(b"\x00" * 20_000, id="20,000 NUL"),
]  # fmt: skip


@pytest.mark.parametrize("said", SMUGGLED)
async def test_nothing_can_be_smuggled_past_the_routes(said: bytes) -> None:
    async with taskcluster() as (doors, service):
        answer = await say(doors.taskcluster, said, end=True)
        first = [(method, target) for method, target, _, _ in service.asked]
        assert all((method, target) == ("PUT", "/api/object/v1/upload/x") for method, target in first)
        assert len(first) <= 1
        assert b"hidden" not in b"".join(body for *_, body in service.asked)
        assert answer.split(b"HTTP/1.1 ")[-1][:3] in {b"400", b"431", b"501", b"403"}
        assert doors.log.notes


@pytest.mark.parametrize("said", SMUGGLED)
async def test_nothing_can_be_smuggled_to_a_plain_host_either(said: bytes) -> None:
    async with plain() as (doors, raw):
        target = b"http://files.test:%d/x" % raw.port
        said = said.replace(b"/api/object/v1/upload/x", target).replace(
            b"Host: taskcluster", b"Host: files.test:%d" % raw.port
        )
        answer = await say(doors.egress, said, end=True)
        assert b"hidden" not in raw.everything
        assert len(raw.received) <= 1
        assert raw.everything.count(b"HTTP/1.1\r\n") <= 1
        assert status(answer) in {200, 400, 403, 431, 501}


async def test_a_request_hidden_in_a_body_stays_a_body() -> None:
    async with taskcluster() as (doors, service):
        await say(doors.taskcluster, PUT + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN)
        chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
        await say(doors.taskcluster, PUT + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)
        assert [(method, body) for method, _, _, body in service.asked] == [("PUT", HIDDEN)] * 2


async def test_a_request_behind_an_allowed_one_is_judged_for_itself() -> None:
    async with taskcluster() as (doors, service):
        answer = await say(doors.taskcluster, GET + b"\r\n" + HIDDEN + GET + b"\r\n")
        assert [target for _, target, _, _ in service.asked] == ["/api/queue/v1/task/x"]
        assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"403"]


async def test_what_follows_the_last_chunk_is_a_request_of_its_own() -> None:
    async with taskcluster() as (doors, service):
        chunked = PUT + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 3000 + b"0\r\n\r\n"
        answer = await say(doors.taskcluster, chunked + GET + b"\r\n" + HIDDEN)
        assert [(method, body) for method, *_, body in service.asked] == [("PUT", b"a" * 3000), ("GET", b"")]
        assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"403"]


async def test_what_comes_while_an_answer_is_waited_for_is_read_afterwards() -> None:
    let, asked = asyncio.Event(), asyncio.Event()

    async def wait(request: web.Request, body: bytes) -> web.StreamResponse:
        asked.set()
        await let.wait()
        return web.Response(text=request.path[-1])

    async with a_service(wait) as service, doors_open(Doors(routes=ROUTES), service.root_url) as doors:
        reader, writer = await asyncio.open_connection("127.0.0.1", doors.taskcluster)
        writer.write(GET + b"\r\n" + GET[:20])
        await asked.wait()
        for byte in GET[20:] + b"Connection: close\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        let.set()
        async with asyncio.timeout(SECONDS):
            answer = await reader.read()
        writer.close()
    assert answer.count(b"HTTP/1.1 200 OK") == 2


async def test_a_body_that_ends_too_early_is_not_passed_on_as_whole() -> None:
    finished = []

    async def note(request: web.Request, body: bytes) -> web.StreamResponse:
        finished.append(body)
        return web.Response()

    async with a_service(note) as service, doors_open(Doors(routes=ROUTES), service.root_url) as doors:
        for framing in (b"Content-Length: 10\r\n\r\nshort", b"Transfer-Encoding: chunked\r\n\r\na\r\nshort"):
            assert await say(doors.taskcluster, PUT + framing, end=True) == b""
        assert doors.log.notes == []
    assert finished == []


@pytest.mark.slow
async def test_slow_senders_are_let_go_with_a_status_after_ten_seconds() -> None:
    async with taskcluster() as (doors, service):

        async def drip() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", doors.taskcluster)
            with suppress(ConnectionError):
                for byte in GET * 100:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.wait((waiting := asyncio.ensure_future(reader.read(1)),), timeout=0.5)
                    if waiting.done():
                        writer.close()
                        return waiting.result() + await reader.read()
                    waiting.cancel()
                    await asyncio.wait((waiting,))
            return b""

        async with asyncio.timeout(SECONDS):
            answers = await asyncio.gather(*(drip() for _ in range(5)))
        assert [status(answer) for answer in answers] == [408] * 5
        assert service.asked == []
        assert status(await say(doors.taskcluster, GET + b"Connection: close\r\n\r\n")) == 200


def allow_descriptors(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


@pytest.mark.slow
async def test_10000_idle_connections_are_turned_away_and_the_worker_goes_on() -> None:
    allow_descriptors(12_000)
    tick = 0

    async def work() -> None:
        """What else the worker does: it must get its turns."""
        nonlocal tick
        while True:
            await asyncio.sleep(0.01)
            tick += 1

    async with taskcluster() as (doors, service):
        async with asyncio.TaskGroup() as group:
            # Beside what else there is to do.
            working = group.create_task(work())
            idle = [await _connected(doors.taskcluster) for _ in range(10_000)]
            async with asyncio.timeout(SECONDS):
                answer = await say(doors.taskcluster, GET + b"\r\n")
            working.cancel()
        refused = sum(_was_refused(connection) for connection in idle)
        for connection in idle:
            connection.close()
        assert status(answer) == 503
        assert refused == 10_000 - serving.MOST_CONNECTIONS
        assert tick > 10
        assert len(doors.log.notes) == 1
        async with asyncio.timeout(SECONDS):
            while (answer := await say(doors.taskcluster, GET + b"Connection: close\r\n\r\n")) and status(
                answer
            ) != 200:
                pass
        assert len(service.asked) == 1


async def _connected(port: int) -> socket.socket:
    connection = socket.socket()
    connection.settimeout(0)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    return connection


def _was_refused(connection: socket.socket) -> bool:
    try:
        return connection.recv(100).startswith(b"HTTP/1.1 503 ")
    except BlockingIOError:
        return False


async def test_a_flood_of_refusals_does_not_fill_the_task_log() -> None:
    async with taskcluster() as (doors, service):
        for number in range(100):
            await say(doors.taskcluster, b"GET /api/other/v1/x/%d HTTP/1.1\r\nHost: taskcluster\r\n\r\n" % number)
        assert len(doors.log.notes) == 51
        assert doors.log.notes[-1] == "taskcluster proxy: more was refused, which is not listed here"
        assert service.asked == []


@pytest.mark.parametrize("door", ["taskcluster", "egress"])
async def test_a_flood_of_chunks_of_one_byte_leaves_others_their_turns(door: str) -> None:
    """Chunks that are buffered need no waiting: 43,000 of them in a row kept the worker from its reclaims."""
    flood, most_in_a_turn = 300_000, 0
    finished: list[str] = []

    async def upload() -> None:
        target = b"http://files.test:%d/x" % port if door == "egress" else b"/api/object/v1/upload/x"
        host = b"files.test:%d" % port if door == "egress" else b"taskcluster"
        said = b"PUT %b HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % (target, host)
        async with asyncio.timeout(SECONDS):
            await say(getattr(opened, door), said, b"1\r\na\r\n" * flood, b"0\r\n\r\n", end=True)
        finished.append("the flood")

    async def others() -> None:
        """Look at each turn how far the flood got since the last one."""
        nonlocal most_in_a_turn
        passed = 0
        while not finished:
            await asyncio.sleep(0)
            now = sum(each.sent_bytes for each in opened.traffic())
            most_in_a_turn, passed = max(most_in_a_turn, now - passed), now
            if now:
                under_way.set()

    async def another() -> None:
        await under_way.wait()
        assert status(await say(opened.taskcluster, GET + b"Connection: close\r\n\r\n")) == 200
        finished.append("another request")

    under_way = asyncio.Event()
    async with a_service() as service:
        port = int(service.root_url.rpartition(":")[2])
        both = Doors(routes=ROUTES, destinations=(internal("files.test", port, plain=True),))
        async with (
            doors_open(both, service.root_url, names={"files.test": "127.0.0.1"}) as opened,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(another())
            group.create_task(others())
            await upload()
        assert {len(body) for *_, body in service.asked} == {0, flood}
    assert finished == ["another request", "the flood"]
    assert 0 < most_in_a_turn < 4 * 1024


async def test_a_reader_that_takes_nothing_costs_no_memory_and_ends_with_the_run() -> None:
    written = 0

    async def endless(request: web.Request, body: bytes) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(bytes(100_000))
                written += 100_000
        return response

    async with a_service(endless) as service:
        async with doors_open(Doors(routes=ROUTES), service.root_url) as doors:
            connection = await _connected(doors.taskcluster)
            connection.sendall(GET + b"\r\n")
            before = -1
            while written != before or not written:
                before = written
                await asyncio.sleep(0.3)
        assert written < 40_000_000
        connection.close()


async def test_a_hello_that_never_comes_is_waited_for_no_longer_than_ten_seconds_and_many_do_not_stop_others() -> None:
    async with raw_server(b"answer") as raw:
        doors = Doors(destinations=(internal("files.test", raw.port),))
        async with doors_open(doors, names={"files.test": "127.0.0.1"}) as opened:
            target = b"CONNECT files.test:%d HTTP/1.1\r\nHost: x\r\n\r\n" % raw.port
            silent = [await _connected(opened.egress) for _ in range(50)]
            for connection in silent:
                connection.sendall(target)
            async with asyncio.timeout(SECONDS):
                answer = await say(opened.egress, target, real_hello("files.test"))
            assert answer.endswith(b"answer")
            for connection in silent:
                connection.close()


async def test_a_second_name_in_a_later_hello_is_the_hosts_own_business_but_the_first_is_checked() -> None:
    """TLS in TLS, and renegotiation, cannot be seen; what begins a tunnel can."""
    async with raw_server() as raw:
        doors = Doors(destinations=(internal("files.test", raw.port),))
        async with doors_open(doors, names={"files.test": "127.0.0.1"}) as opened:
            target = b"CONNECT files.test:%d HTTP/1.1\r\nHost: x\r\n\r\n" % raw.port
            answer = await say(opened.egress, target + real_hello("elsewhere.test") + real_hello("files.test"))
            assert answer.endswith(b"\x70")
            assert raw.everything == b""


@pytest.mark.parametrize("door", ["taskcluster", "egress"])
async def test_whatever_comes_first_the_door_goes_on(door: str) -> None:
    async with a_service() as service:
        both = Doors(routes=ROUTES, destinations=(internal("files.test", 443),))
        async with doors_open(both, service.root_url) as doors:
            port = getattr(doors, door)
            for said in (
                b"",
                b"\x16\x03\x01",
                b"\r\n",
                b"GET",
                b"\xff" * 100,
                real_hello("x"),
                b"A" * 17_000,
                b"\r\n\r\n",
            ):
                await say(port, said, end=True)
            assert status(await say(doors.taskcluster, GET + b"Connection: close\r\n\r\n")) == 200
