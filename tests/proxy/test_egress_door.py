"""The egress door: tunnels and plain requests to exactly what a rule names, and nothing of anything else."""

import asyncio
import socket
import ssl
import struct
from contextlib import suppress

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from secureworker.core.doors import Destination, Doors
from secureworker.proxy.doors import open_doors
from secureworker.proxy.tunnel import TunnelLimits
from tests.proxy.harness import SECONDS, Authority, doors_open, internal, raw_server, say, status
from tests.proxy.test_client_hello import a_hello, extension, name, real_hello

HERE = {"files.test": "127.0.0.1"}


def doors(*destinations: Destination) -> Doors:
    return Doors(destinations=destinations)


def connect(target: str, *, version: str = "1.1") -> bytes:
    return f"CONNECT {target} HTTP/{version}\r\nHost: {target}\r\n\r\n".encode()


async def hello_world(request: web.Request) -> web.Response:
    return web.Response(text=f"hello {request.path}")


def an_application() -> web.Application:
    application = web.Application()
    application.router.add_get("/{path:.*}", hello_world)
    return application


async def test_tls_goes_through_to_the_host_that_is_named_and_is_counted(authority: Authority) -> None:
    server = TestServer(an_application(), scheme="https", host="127.0.0.1")
    await server.start_server(ssl=authority.server("files.test"))
    port = server.port
    assert port is not None
    async with (
        doors_open(doors(internal("files.test", port)), names=HERE) as opened,
        aiohttp.ClientSession() as session,
    ):
        proxy = f"http://127.0.0.1:{opened.egress}"
        async with session.get(f"https://files.test:{port}/x", proxy=proxy, ssl=authority.client()) as answer:
            assert await answer.text() == "hello /x"
        (traffic,) = opened.traffic()
        assert opened.log.notes == []
    await server.close()
    assert (traffic.destination, traffic.connections) == (f"files.test:{port}", 1)
    assert traffic.sent_bytes > 300
    assert traffic.received_bytes > 500


async def test_http_1_0_clients_may_connect() -> None:
    """Python's http.client before 3.12 asks for tunnels in HTTP/1.0."""
    async with raw_server() as raw, doors_open(doors(internal("files.test", raw.port)), names=HERE) as opened:
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.egress)
        writer.write(connect(f"files.test:{raw.port}", version="1.0"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("elsewhere.test:443", 403),
        ("files.test:444", 403),
        ("sub.files.test:443", 403),
        ("xfiles.test:443", 403),
        ("files.test.elsewhere.test:443", 403),
        ("files.test.:443", 400),
        ("*.test:443", 400),
        ("files.test", 400),
        ("files.test:", 400),
        ("files.test:0443", 400),
        ("user@files.test:443", 400),
        ("files.test:443@elsewhere.test:443", 400),
        ("https://files.test:443", 400),
        ("files.test:443/", 400),
        ("/", 400),
        ("127.0.0.1:443", 403),
        ("127.1:443", 400),
        ("0177.0.0.1:443", 400),
        ("2130706433:443", 400),
        ("[::1]:443", 403),
        ("[::ffff:127.0.0.1]:443", 400),
        ("169.254.169.254:80", 403),
        ("taskcluster:80", 403),
        ("localhost:3128", 403),
    ],
)
async def test_a_host_that_is_not_named_is_refused(target: str, expected: int) -> None:
    async with doors_open(doors(Destination("files.test", 443, internal=True)), names=HERE) as opened:
        assert status(await say(opened.egress, connect(target))) == expected
        assert status(await say(opened.egress, connect(target))) == expected
        (note,) = opened.log.notes
        assert opened.traffic() == ()
    assert note.startswith("egress proxy: refused ")
    assert target.partition("@")[0][:20] in note


@pytest.mark.parametrize(
    "addresses", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "8.8.8.8 127.0.0.1"]
)
async def test_a_name_that_turns_out_to_be_within_is_refused_after_it_was_resolved(addresses: str) -> None:
    async with raw_server() as raw:
        named = doors(Destination("files.test", raw.port))
        async with doors_open(named, names={"files.test": addresses}) as opened:
            answer = await say(opened.egress, connect(f"files.test:{raw.port}"))
            assert status(answer) == 403
            assert b"is not an address of the public Internet" in answer
            assert len(opened.log.notes) == 1
        assert raw.received == []


async def test_the_metadata_service_is_refused_to_internal_names_too() -> None:
    named = doors(internal("files.test", 80))
    async with doors_open(named, names={"files.test": "169.254.169.254"}) as opened:
        assert status(await say(opened.egress, connect("files.test:80"))) == 403


async def test_a_name_is_resolved_anew_for_each_connection_and_judged_each_time() -> None:
    names = dict(HERE)
    async with raw_server() as raw, doors_open(doors(internal("files.test", raw.port)), names=names) as opened:
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.egress)
        writer.write(connect(f"files.test:{raw.port}"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()
        names["files.test"] = "169.254.169.254"
        assert status(await say(opened.egress, connect(f"files.test:{raw.port}"))) == 403


async def test_a_name_that_is_none_and_a_host_that_is_not_there_are_502() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with doors_open(doors(internal("files.test", port), internal("none.test", 443)), names=HERE) as opened:
        assert status(await say(opened.egress, connect("none.test:443"))) == 502
        assert status(await say(opened.egress, connect(f"files.test:{port}"))) == 502
        assert len(opened.log.notes) == 2


@pytest.mark.parametrize(
    "said",
    [
        real_hello("elsewhere.test"),
        real_hello(None),
        real_hello("sub.files.test"),
        a_hello(name(b"files.test.")),
        a_hello(name(b"files.test"), extension(0xFE0D, b"x")),
        a_hello(name(b"files.test"), name(b"files.test")),
        b"GET / HTTP/1.1\r\nHost: files.test\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"CONNECT elsewhere.test:443 HTTP/1.1\r\n\r\n",
    ],
)
async def test_tls_with_another_host_or_no_tls_is_refused_and_the_host_gets_no_byte_of_it(said: bytes) -> None:
    async with raw_server() as raw, doors_open(doors(internal("files.test", raw.port)), names=HERE) as opened:
        answer = await say(opened.egress, connect(f"files.test:{raw.port}"), said)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"\x15\x03\x03\x00\x02\x02\x70")
        assert raw.everything == b""
        (note,) = opened.log.notes
        assert f"refused files.test:{raw.port}" in note
        assert opened.traffic() == ()


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
async def test_a_connect_with_a_body_is_refused(framing: bytes) -> None:
    async with raw_server() as raw, doors_open(doors(internal("files.test", raw.port)), names=HERE) as opened:
        said = connect(f"files.test:{raw.port}").replace(b"\r\n\r\n", b"\r\n" + framing + b"\r\n\r\nhello")
        assert status(await say(opened.egress, said)) == 400
        assert raw.received == []


async def test_a_name_without_an_address_is_a_502() -> None:
    async with doors_open(doors(internal("files.test", 443)), names={"files.test": ""}) as opened:
        assert status(await say(opened.egress, connect("files.test:443"))) == 502
        assert "has no address" in opened.log.notes[0]


async def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    names = {"files.test": "127.0.0.2 127.0.0.1"}
    async with raw_server(b"answer") as raw, doors_open(doors(internal("files.test", raw.port)), names=names) as opened:
        answer = await say(opened.egress, connect(f"files.test:{raw.port}"), real_hello("files.test"))
        assert answer.endswith(b"answer")


async def test_a_plain_answer_that_never_ends_is_cut() -> None:
    async with raw_server() as raw:
        limits, named = TunnelLimits(60, 0.1), doors(internal("files.test", raw.port, plain=True))
        async with doors_open(named, names=HERE, limits=limits) as opened:
            said = f"GET http://files.test:{raw.port}/ HTTP/1.1\r\nHost: files.test:{raw.port}\r\n\r\n"
            assert await say(opened.egress, said.encode()) == b""


async def test_a_plain_request_to_an_address_within_is_refused() -> None:
    async with raw_server() as raw:
        named = doors(Destination("files.test", raw.port, plain=True))
        async with doors_open(named, names=HERE) as opened:
            said = f"GET http://files.test:{raw.port}/ HTTP/1.1\r\nHost: files.test:{raw.port}\r\n\r\n"
            assert status(await say(opened.egress, said.encode())) == 403
        assert raw.received == []


async def test_a_side_that_breaks_off_ends_the_tunnel() -> None:
    async with (
        raw_server(b"answer", close=False) as raw,
        doors_open(doors(internal("files.test", raw.port)), names=HERE) as opened,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.egress)
        writer.write(connect(f"files.test:{raw.port}") + real_hello("files.test"))
        await reader.readuntil(b"answer")
        # A reset, not an end.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        async with asyncio.timeout(SECONDS):
            await raw.ended.wait()


async def test_tls_to_the_proxy_itself_is_refused() -> None:
    async with doors_open(doors(Destination("files.test", 443)), names=HERE) as opened:
        answer = await say(opened.egress, real_hello("files.test") + b"\r\n\r\n")
        assert status(answer) == 400
        assert len(opened.log.notes) == 1


async def test_a_host_named_by_its_address_is_reached_without_a_server_name(authority: Authority) -> None:
    server = TestServer(an_application(), scheme="https", host="127.0.0.1")
    await server.start_server(ssl=authority.server("127.0.0.1"))
    port = server.port
    assert port is not None
    async with doors_open(doors(internal("127.0.0.1", port))) as opened, aiohttp.ClientSession() as session:
        proxy = f"http://127.0.0.1:{opened.egress}"
        async with session.get(f"https://127.0.0.1:{port}/x", proxy=proxy, ssl=authority.client()) as answer:
            assert await answer.text() == "hello /x"
        said = await say(opened.egress, connect(f"127.0.0.1:{port}"), real_hello("127.0.0.1.test"))
        assert said.endswith(b"\x70")
    await server.close()


async def test_a_hello_in_small_pieces_is_put_together(authority: Authority) -> None:
    async with raw_server(b"answer") as raw, doors_open(doors(internal("files.test", raw.port)), names=HERE) as opened:
        hello = real_hello("files.test")
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.egress)
        writer.write(connect(f"files.test:{raw.port}"))
        await reader.readuntil(b"\r\n\r\n")
        for byte in hello:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert await reader.read() == b"answer"
        writer.close()
        assert raw.everything == hello


async def test_one_direction_may_end_before_the_other() -> None:
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got = await reader.read()
        writer.write(b"%d" % len(got))
        writer.close()
        done.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, doors_open(doors(internal("files.test", port)), names=HERE) as opened:
        hello = real_hello("files.test")
        answer = await say(opened.egress, connect(f"files.test:{port}"), hello, b"x" * 10_000_000, end=True)
        assert answer.endswith(b"\r\n\r\n%d" % (len(hello) + 10_000_000))
        (traffic,) = opened.traffic()
    assert traffic.sent_bytes == len(hello) + 10_000_000
    assert done.is_set()


@pytest.mark.parametrize(
    ("limits", "why"), [(TunnelLimits(0.1, 60), "idle for 0.1 s"), (TunnelLimits(60, 0.1), "open for 0.1 s")]
)
async def test_a_tunnel_that_is_idle_or_lasts_too_long_is_cut(limits: TunnelLimits, why: str) -> None:
    async with (
        raw_server() as raw,
        doors_open(doors(internal("files.test", raw.port)), names=HERE, limits=limits) as opened,
    ):
        await say(opened.egress, connect(f"files.test:{raw.port}"), real_hello("files.test"))
        (note,) = opened.log.notes
    assert why in note


async def test_a_tunnel_that_moves_is_not_idle() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(10):
            await asyncio.sleep(0.1)
            writer.write(b"x")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    limits = TunnelLimits(0.5, 60)
    async with server, doors_open(doors(internal("files.test", port)), names=HERE, limits=limits) as opened:
        answer = await say(opened.egress, connect(f"files.test:{port}"), real_hello("files.test"))
    assert answer.endswith(b"x" * 10)


async def test_tunnels_are_cut_when_the_run_ends() -> None:
    async with raw_server(b"answer", close=False) as raw:
        async with doors_open(doors(internal("files.test", raw.port)), names=HERE) as opened:
            reader, writer = await asyncio.open_connection("127.0.0.1", opened.egress)
            writer.write(connect(f"files.test:{raw.port}") + real_hello("files.test"))
            await reader.readuntil(b"answer")
        async with asyncio.timeout(SECONDS):
            with suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()


async def test_plain_http_goes_through_where_a_rule_says_so() -> None:
    raw_answer = b"HTTP/1.1 200 OK\r\nX-Own: 1\r\nContent-Length: 5\r\n\r\nhello"
    async with raw_server(raw_answer) as raw:
        named = doors(internal("files.test", raw.port, plain=True))
        async with doors_open(named, names=HERE) as opened:
            url = f"http://files.test:{raw.port}/x?y"
            told = f"GET {url} HTTP/1.1\r\nHost: files.test:{raw.port}\r\nProxy-Connection: close\r\nX-Mine: 1\r\n\r\n"
            assert await say(opened.egress, told.encode()) == raw_answer
            (traffic,) = opened.traffic()
    assert raw.everything.split(b"\r\n") == [
        b"GET /x?y HTTP/1.1",
        f"Host: files.test:{raw.port}".encode(),
        b"x-mine: 1",
        b"Connection: close",
        b"",
        b"",
    ]
    assert traffic.received_bytes == len(raw_answer)


@pytest.mark.parametrize("chunked", [False, True])
async def test_plain_http_carries_a_body(chunked: bool) -> None:  # noqa: FBT001 - a parameter
    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    application = web.Application(client_max_size=1 << 30)
    application.router.add_put("/x", echo)
    async with TestServer(application) as server:
        assert server.port is not None
        named = doors(internal("files.test", server.port, plain=True))
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 10"
        body = b"4\r\nbody\r\n6\r\nbodies\r\n0\r\n\r\n" if chunked else b"bodybodies"
        async with doors_open(named, names=HERE) as opened:
            target = f"http://files.test:{server.port}/x".encode()
            head = b"PUT " + target + b" HTTP/1.1\r\nHost: files.test:%d\r\n" % server.port + framing
            answer = await say(opened.egress, head + b"\r\nExpect: 100-continue\r\n\r\n", body)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
    assert answer.endswith(b"bodybodies")


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 9000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n895440\r\n"]
)
@pytest.mark.parametrize("reads_on", [False, True])
async def test_an_answer_that_comes_before_the_request_was_sent_whole_arrives(
    framing: bytes, *, reads_on: bool
) -> None:
    """Also where the host takes no byte more of the request and closes, so that sending fails."""
    early = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!"
    async with raw_server(early, close=not reads_on) as raw:
        named = doors(internal("files.test", raw.port, plain=True))
        async with doors_open(named, names=HERE) as opened:
            place = b"files.test:%d" % raw.port
            reader, writer = await asyncio.open_connection("127.0.0.1", opened.egress)
            writer.write(b"POST http://%b/x HTTP/1.1\r\nHost: %b\r\n" % (place, place) + framing + bytes(1000))
            async with asyncio.timeout(SECONDS):
                assert await reader.readexactly(len(early)) == early
            writer.close()


async def test_a_plain_request_that_turns_out_ill_formed_is_refused_and_not_passed_on_as_whole() -> None:
    async with raw_server(close=False) as raw:
        named = doors(internal("files.test", raw.port, plain=True))
        async with doors_open(named, names=HERE) as opened:
            place = b"files.test:%d" % raw.port
            said = b"PUT http://%b/x HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % (place, place)
            assert status(await say(opened.egress, said + b"1\r\na\r\nx\r\n")) == 400
            async with asyncio.timeout(SECONDS):
                await raw.ended.wait()
    assert b"Transfer-Encoding: chunked" in raw.everything
    assert b"0\r\n" not in raw.everything


async def test_a_plain_request_whose_sender_leaves_is_not_passed_on_as_whole() -> None:
    async with raw_server(close=False) as raw:
        named = doors(internal("files.test", raw.port, plain=True))
        async with doors_open(named, names=HERE) as opened:
            place = b"files.test:%d" % raw.port
            said = b"PUT http://%b/x HTTP/1.1\r\nHost: %b\r\nContent-Length: 10\r\n\r\nshort" % (place, place)
            assert await say(opened.egress, said, end=True) == b""
            async with asyncio.timeout(SECONDS):
                await raw.ended.wait()
    assert raw.everything.endswith(b"\r\n\r\nshort")


async def test_a_long_upload_is_not_idle() -> None:
    async with raw_server(b"", close=False) as raw:
        named = doors(internal("files.test", raw.port, plain=True))
        async with doors_open(named, names=HERE, limits=TunnelLimits(0.5, 60)) as opened:
            place = b"files.test:%d" % raw.port
            reader, writer = await asyncio.open_connection("127.0.0.1", opened.egress)
            writer.write(b"PUT http://%b/x HTTP/1.1\r\nHost: %b\r\nContent-Length: 10\r\n\r\n" % (place, place))
            for _ in range(10):
                await asyncio.sleep(0.1)
                writer.write(b"x")
            async with asyncio.timeout(SECONDS):
                # Cut only once it rests.
                assert await reader.read() == b""
            assert raw.everything.endswith(b"\r\n\r\n" + b"x" * 10)
            writer.close()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GET http://files.test/", 403),
        ("GET http://elsewhere.test:8080/", 403),
        ("GET http://user@files.test:8080/", 400),
        ("GET http://files.test:8080@elsewhere.test/", 400),
        ("GET http://files.test.:8080/", 400),
        ("GET http://127.1:8080/", 400),
        ("GET https://files.test:8080/", 400),
        ("GET ftp://files.test:8080/", 400),
        ("GET HTTP://files.test:8080/", 400),
        ("GET http:///files.test:8080/", 400),
        ("GET http://files.test:8080/#x", 400),
        ("GET http://files.test:8080\\@elsewhere.test/", 400),
        ("GET /", 400),
        ("GET *", 400),
        ("GET files.test:8080", 400),
        ("TRACE http://files.test:8080/", 400),
        ("CONNECT files.test:8080", 403),
    ],
)
async def test_other_urls_are_refused(line: str, expected: int) -> None:
    async with doors_open(doors(internal("files.test", 8080, plain=True)), names=HERE) as opened:
        url = line.removeprefix("GET http://").strip("/")
        host = url if url in {"files.test", "elsewhere.test:8080"} else "files.test:8080"
        said = f"{line} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        assert status(await say(opened.egress, said)) == expected
        assert len(opened.log.notes) == 1


async def test_another_host_in_the_header_than_in_the_url_is_refused() -> None:
    async with doors_open(doors(internal("files.test", 8080, plain=True)), names=HERE) as opened:
        said = b"GET http://files.test:8080/ HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n"
        assert status(await say(opened.egress, said)) == 400


async def test_a_rule_for_tls_is_none_for_plain_http() -> None:
    async with doors_open(doors(internal("files.test", 8080)), names=HERE) as opened:
        said = b"GET http://files.test:8080/ HTTP/1.1\r\nHost: files.test:8080\r\n\r\n"
        assert status(await say(opened.egress, said)) == 403
        assert "by TLS only" in opened.log.notes[0]


async def test_names_are_resolved_as_the_host_does(authority: Authority) -> None:
    server = TestServer(an_application(), scheme="https", host="127.0.0.1")
    await server.start_server(ssl=authority.server("localhost"))
    port = server.port
    assert port is not None

    async with (
        open_doors() as proxy,
        doors_open(doors(internal("localhost", port)), proxy=proxy) as opened,
        aiohttp.ClientSession() as session,
    ):
        url = f"http://127.0.0.1:{opened.egress}"
        async with session.get(f"https://localhost:{port}/x", proxy=url, ssl=authority.client()) as answer:
            assert await answer.text() == "hello /x"
    await server.close()


def test_the_contexts_of_these_tests_check_names(authority: Authority) -> None:
    assert authority.client().verify_mode is ssl.CERT_REQUIRED
