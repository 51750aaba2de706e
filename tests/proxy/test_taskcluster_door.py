"""The Taskcluster door: what the service gets of a request, what the script gets of an answer, and what is refused."""

import asyncio
import hashlib
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import aiohttp
import mohawk  # type: ignore[import-untyped]  # has no type information
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from secureworker.core.doors import Doors
from secureworker.proxy.doors import open_doors
from tests.proxy.harness import RunWith, a_service, doors_open, raw_server, routes, say, status

SECRETS = routes("GET /api/secrets/v1/secret/project/x/*", "PUT /api/secrets/v1/secret/project/x/*")
DOORS = Doors(routes=SECRETS, scopes=("secrets:get:project/x/*",))
ASK = b"GET /api/secrets/v1/secret/project/x/y HTTP/1.1\r\nHost: taskcluster\r\nConnection: close\r\n\r\n"


def ext(headers: dict[str, str]) -> dict[str, object]:
    """Give what the signature says beside the request."""
    found = headers["authorization"].split('ext="')[1].split('"')[0]
    said: dict[str, object] = json.loads(b64decode(found))
    return said


async def test_a_request_is_signed_for_the_granted_scopes_and_nothing_else() -> None:
    async with a_service() as service:
        run = RunWith("task-client/x", "token" * 9, json.dumps({"version": 1, "scopes": ["*"]}))
        async with doors_open(DOORS, service.root_url, run=run) as doors:
            answer = await say(doors.taskcluster, ASK)
    assert status(answer) == 200
    assert json.loads(answer.split(b"\r\n\r\n")[1]) == {"ok": True}
    ((method, target, headers, body),) = service.asked
    assert (method, target, body) == ("GET", "/api/secrets/v1/secret/project/x/y", b"")
    assert ext(headers) == {
        "authorizedScopes": ["secrets:get:project/x/*"],
        "certificate": {"version": 1, "scopes": ["*"]},
    }
    assert headers.keys() == {"host", "authorization", "user-agent"}
    assert headers["user-agent"].startswith("secureworker/")


async def test_the_signature_is_one_that_hawk_accepts_and_binds_the_request() -> None:
    async with a_service() as service, doors_open(DOORS, service.root_url, run=RunWith("me", "k" * 44)) as doors:
        await say(doors.taskcluster, ASK.replace(b"/y ", b"/y?a=1&b=%20 "))
    ((method, target, headers, _),) = service.asked

    def accepts(url: str) -> bool:
        try:
            mohawk.Receiver(
                lambda _: {"id": "me", "key": "k" * 44, "algorithm": "sha256"},
                headers["authorization"],
                url,
                method,
                accept_untrusted_content=True,
            )
        except mohawk.exc.HawkFail:
            return False
        return True

    assert target == "/api/secrets/v1/secret/project/x/y?a=1&b=%20"
    assert accepts(service.root_url + target)
    assert not accepts(service.root_url + target + "&c")


async def test_credentials_are_those_of_the_last_reclaim() -> None:
    run = RunWith("first", "k" * 44)
    async with a_service() as service, doors_open(DOORS, service.root_url, run=run) as doors:
        await say(doors.taskcluster, ASK)
        await run.reclaim()
        await say(doors.taskcluster, ASK)
    ids = [headers["authorization"].split('"')[1] for _, _, headers, _ in service.asked]
    assert ids == ["first", "first#1"]


@pytest.mark.parametrize("name", ["a!$&'()*+,=:@~b", "a%20b%3F%23%5B%22", "a?x=%2F&y=a+b&z", "a?", "a?a?b/c"])
async def test_what_is_signed_is_what_is_sent(name: str) -> None:
    async with a_service() as service, doors_open(DOORS, service.root_url, run=RunWith("me", "k" * 44)) as doors:
        assert status(await say(doors.taskcluster, ASK.replace(b"/y ", f"/{name} ".encode()))) == 200
    ((method, target, headers, _),) = service.asked
    assert target == f"/api/secrets/v1/secret/project/x/{name}".removesuffix("?")
    mohawk.Receiver(
        lambda _: {"id": "me", "key": "k" * 44, "algorithm": "sha256"},
        headers["authorization"],
        service.root_url + target,
        method,
        accept_untrusted_content=True,
    )


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        ("GET /api/secrets/v1/secret/project/y/z", 403),
        ("DELETE /api/secrets/v1/secret/project/x/y", 403),
        ("POST /api/queue/v1/claim-work/a/b", 403),
        ("POST /api/queue/v1/task/fN1SbArXTPSVFUUvaOlinQ/runs/0/completed", 403),
        ("GET /credentials", 400),
        ("GET /bewit", 400),
        ("GET /api/secrets/v1/secret/project/x/../../z", 400),
        ("GET /api/secrets/v1/secret/project/x/%2E%2E/z", 400),
        ("GET /api/secrets/v1/secret/project/x//y", 400),
        ("GET /api/secrets/v1/secret/project/x/%2F/y", 400),
        ("GET /api/secrets/v1/secret/project/x/y%252Fz", 400),
        ("GET /api/secrets/v1/secret/project/x/y%5C..", 400),
        ("GET /api/secrets/v1/secret/project/x/%79", 400),
        ("GET /api/secrets/v1/secret/project/x/y%2fz", 400),
        ("GET /api/secrets/v1/secret/project/x/y;z", 400),
        ("GET /api/secrets/v1/secret/project/x/y#z", 400),
        ("GET /api/secrets/v1/secret/project/x/y?bewit=abc", 400),
        ("GET /api/secrets/v1/secret/project/x/y?a&%62ewit=abc", 400),
        ("GET /api/secrets%2Fv1/secret/project/x/y", 400),
        ("GET //api/secrets/v1/secret/project/x/y", 400),
        ("GET http://taskcluster/api/secrets/v1/secret/project/x/y", 400),
        ("GET http://elsewhere/api/secrets/v1/secret/project/x/y", 400),
        ("OPTIONS *", 400),
        ("CONNECT taskcluster:80", 400),
        ("GET /api/secrets/v1/secret/project/x/" + "y" * 5000, 400),
    ],
)
async def test_a_request_that_is_not_among_the_routes_is_refused_and_nobody_else_hears_of_it(
    request_line: str, expected: int
) -> None:
    async with a_service() as service, doors_open(DOORS, service.root_url) as doors:
        answer = await say(doors.taskcluster, f"{request_line} HTTP/1.1\r\nHost: taskcluster\r\n\r\n".encode())
        assert status(answer) == expected
        assert service.asked == []
        (note,) = doors.log.notes
    assert note.startswith(f"taskcluster proxy: refused {request_line[:100]}")


@pytest.mark.parametrize(
    "host", ["elsewhere", "taskcluster:81", "taskcluster.", "127.0.0.1", "taskcluster@elsewhere", ""]
)
async def test_another_host_is_refused(host: str) -> None:
    async with a_service() as service, doors_open(DOORS, service.root_url) as doors:
        answer = await say(doors.taskcluster, ASK.replace(b"Host: taskcluster", f"Host: {host}".encode()))
        assert status(answer) == 421
        assert service.asked == []


async def test_slashes_in_names_go_through_as_they_came() -> None:
    async with a_service() as service, doors_open(DOORS, service.root_url) as doors:
        answer = await say(doors.taskcluster, ASK.replace(b"project/x/y", b"project%2Fx%2Fy"))
    assert status(answer) == 200
    assert service.asked[0][1] == "/api/secrets/v1/secret/project%2Fx%2Fy"


async def test_no_header_goes_on_by_which_somebody_else_could_be_meant() -> None:
    told = (
        b"Authorization: Hawk id=mine\r\nCookie: a=b\r\nProxy-Authorization: Basic x\r\nX-Forwarded-Host: elsewhere\r\n"
        b"X-Forwarded-For: 1.2.3.4\r\nForwarded: host=elsewhere\r\nX-HTTP-Method-Override: DELETE\r\n"
        b"X-Original-URL: /api/elsewhere\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nTE: trailers\r\nX-Secret: 1\r\n"
        b"Accept: text/plain\r\nUser-Agent: me\r\nRange: bytes=0-1\r\n"
    )
    async with a_service() as service, doors_open(DOORS, service.root_url, run=RunWith("run", "k" * 44)) as doors:
        await say(doors.taskcluster, ASK.replace(b"Connection: close\r\n", told + b"Connection: close, Range\r\n"))
    headers = service.asked[0][2]
    assert headers.keys() == {"host", "authorization", "accept", "user-agent"}
    assert 'id="run"' in headers["authorization"]


async def test_a_redirect_is_passed_on_and_not_followed() -> None:
    async def redirect(request: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(status=303, headers={"Location": "http://storage.invalid/x"}, text="there")

    async with a_service(redirect) as service, doors_open(DOORS, service.root_url) as doors:
        answer = await say(doors.taskcluster, ASK)
    assert status(answer) == 303
    assert b"\r\nLocation: http://storage.invalid/x\r\n" in answer
    assert answer.endswith(b"\r\n\r\nthere")
    assert len(service.asked) == 1


async def test_an_answer_is_as_it_came_but_for_what_belongs_to_the_connection() -> None:
    raw_answer = (
        b"HTTP/1.1 418 I'm a teapot\r\nContent-Type: text/x\r\nContent-Encoding: gzip\r\nSet-Cookie: a=b\r\n"
        b"Keep-Alive: timeout=5\r\nWWW-Authenticate: Hawk\r\nX-Own: 1\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x00\x01"
    )
    async with raw_server(raw_answer) as raw, doors_open(DOORS, f"http://127.0.0.1:{raw.port}") as doors:
        answer = await say(doors.taskcluster, ASK)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 418 I'm a Teapot",
        b"Content-Type: text/x",
        b"Content-Encoding: gzip",
        b"X-Own: 1",
        b"Content-Length: 4",
        b"Connection: close",
    ]
    assert body == b"\x1f\x8b\x00\x01"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
    ],
)
async def test_an_answer_that_is_cut_short_is_not_given_as_whole(answer: bytes) -> None:
    async with raw_server(answer) as raw, doors_open(DOORS, f"http://127.0.0.1:{raw.port}") as doors:
        got = await say(doors.taskcluster, ASK)
    assert b"0\r\n\r\n" not in got
    assert got.count(b"short") <= 1


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", b"\0"])
async def test_an_answer_that_is_none_is_a_502(answer: bytes) -> None:
    async with raw_server(answer) as raw, doors_open(DOORS, f"http://127.0.0.1:{raw.port}") as doors:
        assert status(await say(doors.taskcluster, ASK)) == 502


async def test_a_taskcluster_that_is_not_there_is_a_502_and_the_log_says_so() -> None:
    async with doors_open(DOORS, "http://127.0.0.1:1") as doors:
        assert status(await say(doors.taskcluster, ASK)) == 502
        (note,) = doors.log.notes
    assert "cannot be reached" in note


async def test_a_connection_serves_one_request_after_the_other_also_when_they_came_at_once() -> None:
    other = ASK.replace(b"/y ", b"/z ")
    async with a_service() as service, doors_open(DOORS, service.root_url) as doors:
        answer = await say(doors.taskcluster, ASK.replace(b"Connection: close\r\n", b"") + other)
        (traffic,) = doors.traffic()
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert [target[-1] for _, target, _, _ in service.asked] == ["y", "z"]
    assert (traffic.destination, traffic.connections, traffic.received_bytes) == ("taskcluster:secrets", 2, 24)


async def test_http_1_0_is_answered_and_closed() -> None:
    async def streamed(request: web.Request, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"abc")
        return response

    async with a_service(streamed) as service, doors_open(DOORS, service.root_url) as doors:
        answer = await say(doors.taskcluster, b"GET /api/secrets/v1/secret/project/x/y HTTP/1.0\r\n\r\n")
    assert answer.endswith(b"Connection: close\r\n\r\nabc")
    assert b"chunked" not in answer


async def test_head_has_no_body_and_keeps_its_length() -> None:
    async def large(request: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(body=b"x" * 1000)

    doors_ = Doors(routes=routes("HEAD /api/secrets/v1/secret/project/x/*"))
    async with a_service(large) as service, doors_open(doors_, service.root_url) as doors:
        answer = await say(doors.taskcluster, ASK.replace(b"GET", b"HEAD"))
    assert answer.endswith(b"\r\n\r\n")
    assert b"Content-Length: 1000\r\n" in answer


@pytest.mark.parametrize("chunked", [False, True])
async def test_100_mb_go_up_and_down_and_nothing_of_them_stays(chunked: bool) -> None:  # noqa: FBT001 - a parameter
    size, piece = 100_000_000, bytes(1_000_000)
    digest = hashlib.sha256()

    async def exchange(request: web.Request) -> web.StreamResponse:
        async for chunk in request.content.iter_any():
            digest.update(chunk)
        response = web.StreamResponse(headers={} if chunked else {"Content-Length": str(size)})
        await response.prepare(request)
        for _ in range(size // len(piece)):
            await response.write(piece)
        return response

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size // len(piece)):
            yield piece

    application = web.Application(client_max_size=1 << 40)
    application.router.add_put("/{path:.*}", exchange)
    async with (
        TestServer(application) as server,
        doors_open(DOORS, f"http://127.0.0.1:{server.port}") as doors,
        aiohttp.ClientSession() as session,
    ):
        headers = {"Host": "taskcluster"} | ({} if chunked else {"Content-Length": str(size)})
        url = f"http://127.0.0.1:{doors.taskcluster}/api/secrets/v1/secret/project/x/large"
        received = 0
        async with session.put(url, data=pieces(), headers=headers) as response:
            assert response.status == 200
            async for chunk in response.content.iter_any():
                received += len(chunk)
        (traffic,) = doors.traffic()
    assert received == size
    assert digest.hexdigest() == hashlib.sha256(bytes(size)).hexdigest()
    assert (traffic.sent_bytes, traffic.received_bytes) == (size, size)


async def test_a_body_is_sent_only_after_it_was_asked_for() -> None:
    async with a_service() as service, doors_open(DOORS, service.root_url) as doors:
        reader, writer = await asyncio.open_connection("127.0.0.1", doors.taskcluster)
        writer.write(
            b"PUT /api/secrets/v1/secret/project/x/y HTTP/1.1\r\nHost: taskcluster\r\n"
            b"Content-Length: 4\r\nExpect: 100-continue\r\nContent-Type: text/x\r\n\r\n"
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        writer.close()
    ((_, _, headers, body),) = service.asked
    assert body == b"body"
    assert headers["content-length"] == "4"
    assert headers["content-type"] == "text/x"
    assert "expect" not in headers


async def test_a_refusal_is_sent_before_the_body_is_and_ends_the_connection() -> None:
    async with a_service() as service, doors_open(DOORS, service.root_url) as doors:
        answer = await say(
            doors.taskcluster,
            b"PUT /api/auth/v1/clients/x HTTP/1.1\r\nHost: taskcluster\r\nContent-Length: 100000\r\n\r\n",
            b"x" * 100_000,
        )
        assert answer.count(b"HTTP/1.1") == 1
        assert status(answer) == 403
        assert service.asked == []


async def test_an_answer_that_comes_before_all_of_the_body_is_passed_on_and_ends_the_connection() -> None:
    early = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\n\r\nno!"
    async with raw_server(early, close=False) as raw, doors_open(DOORS, f"http://127.0.0.1:{raw.port}") as doors:
        reader, writer = await asyncio.open_connection("127.0.0.1", doors.taskcluster)
        writer.write(ASK.replace(b"GET", b"PUT").replace(b"Connection: close", b"Content-Length: 100000000"))
        writer.write(bytes(1000))
        answer = await reader.readuntil(b"no!")
        writer.close()
    assert status(answer) == 413
    assert b"\r\nConnection: close\r\n" in answer
    assert len(raw.received) == 1


async def test_a_put_whose_connection_breaks_is_not_sent_again_without_its_body() -> None:
    """aiohttp repeats requests on a connection that was closed meanwhile; the body is gone by then."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        # The next request on this connection finds it closed after its head.
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head + await reader.readexactly(4))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, doors_open(DOORS, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as doors:
        assert status(await say(doors.taskcluster, ASK)) == 200
        put = ASK.replace(b"GET", b"PUT").replace(b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\nbody")
        assert status(await say(doors.taskcluster, put)) == 502
    assert len(seen) == 2


async def test_nothing_answers_after_the_task() -> None:
    async with a_service() as service:
        async with doors_open(DOORS, service.root_url) as doors:
            reader, writer = await asyncio.open_connection("127.0.0.1", doors.taskcluster)
            writer.write(ASK.replace(b"Connection: close\r\n", b""))
            await reader.readuntil(b"}")
        with suppress(ConnectionError):
            writer.write(ASK)
            assert await reader.read() == b""
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", doors.taskcluster)
        writer.close()
    assert len(service.asked) == 1


async def test_two_runs_never_use_each_others_credentials() -> None:
    one, two = RunWith("one", "a" * 44), RunWith("two", "b" * 44)
    async with (
        a_service() as service,
        doors_open(DOORS, service.root_url, run=one) as first,
        doors_open(replace(DOORS, scopes=()), service.root_url, run=two) as second,
    ):
        for port in (first.taskcluster, second.taskcluster) * 5:
            await say(port, ASK)
    said = [
        (headers["authorization"].split('"')[1], ext(headers)["authorizedScopes"]) for *_, headers, _ in service.asked
    ]
    assert said == [("one", ["secrets:get:project/x/*"]), ("two", [])] * 5


async def test_no_connection_that_answered_one_run_is_used_for_another() -> None:
    peers: list[object] = []

    async def note(request: web.Request, body: bytes) -> web.StreamResponse:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        return web.Response()

    async with a_service(note) as service, open_doors() as proxy:
        for _ in range(2):
            async with doors_open(DOORS, service.root_url, proxy=proxy) as doors:
                await say(doors.taskcluster, ASK)
                await say(doors.taskcluster, ASK)
    assert peers[0] == peers[1] != peers[2] == peers[3]
