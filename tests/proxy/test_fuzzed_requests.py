"""Requests put together at random from nasty pieces, judged by what the services behind the doors received."""

import random
import re

import pytest
from aiohttp import web

from secureworker.core.doors import Doors
from tests.proxy.harness import RunWith, a_service, doors_open, internal, raw_server, routes, say
from tests.proxy.test_client_hello import real_hello

ROUTES = routes("GET /api/queue/v1/task/x", "PUT /api/object/v1/upload/*")
METHODS = [b"GET", b"PUT", b"POST", b"get", b"G ET", b"CONNECT", b"GET\t", b""]
TARGETS = [
    b"/api/queue/v1/task/x",
    b"/api/object/v1/upload/y",
    b"/api/object/v1/upload/y?z",
    b"/api/object/v1/upload/../../../secrets/v1/secret/hidden",
    b"/api/object/v1/upload/..%2F..%2Fhidden",
    b"/api/secrets/v1/secret/hidden",
    b"//taskcluster/api/queue/v1/task/x",
    b"http://taskcluster/api/queue/v1/task/x",
    b"http://files.test:PORT/x",
    b"http://files.test:PORT@hidden/x",
    b"http://hidden:PORT/x",
    b"files.test:PORT",
    b"hidden:PORT",
    b"*",
]
HEADERS = [
    b"Host: taskcluster",
    b"Host: files.test:PORT",
    b"Host: hidden",
    b"Content-Length: 0",
    b"Content-Length: 5",
    b"Content-Length: 70",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding:\tchunked",
    b"Connection: close",
    b"Connection: keep-alive, Content-Length",
    b"Connection: Transfer-Encoding",
    b"Expect: 100-continue",
    b"Upgrade: h2c",
    b"X-Forwarded-Host: hidden",
    b" folded: hidden",
    b"X: hidden\rHost: hidden",
    b"X:",
]
ENDS = [b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n"]
BODIES = [
    b"",
    b"hello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"0\r\n\r\n",
    b"5;x\r\nhello\r\n0\r\n\r\n",
    b"GET /api/secrets/v1/secret/hidden HTTP/1.1\r\nHost: taskcluster\r\n\r\n",
    b"0\r\n\r\nGET /api/secrets/v1/secret/hidden HTTP/1.1\r\nHost: taskcluster\r\n\r\n",
    b"\x00\xff",
]
GOOD = [
    b"GET /api/queue/v1/task/x HTTP/1.1\r\nHost: taskcluster",
    b"PUT /api/object/v1/upload/y?z HTTP/1.1\r\nHost: taskcluster\r\nTransfer-Encoding: chunked",
    b"PUT /api/object/v1/upload/y HTTP/1.1\r\nHost: taskcluster\r\nContent-Length: 5",
]
PLAIN = [
    b"GET http://files.test:PORT/x HTTP/1.1\r\nHost: files.test:PORT",
    b"PUT http://files.test:PORT/x HTTP/1.1\r\nHost: files.test:PORT\r\nContent-Length: 5",
    b"POST http://files.test:PORT/x HTTP/1.1\r\nHost: files.test:PORT\r\nTransfer-Encoding: chunked",
]
PER_SEED = 150


def a_request(dice: random.Random, *good: bytes) -> bytes:
    """Put one together; most begin with one of the good lines."""
    end = dice.choice(ENDS) if dice.random() < 0.2 else b"\r\n"
    lines = [b"%b %b HTTP/1.%b" % (dice.choice(METHODS[:3]), dice.choice(TARGETS), dice.choice([b"1", b"1", b"0"]))]
    if dice.random() < 0.6:
        lines = list(dice.choice(good).split(b"\r\n"))
    elif dice.random() < 0.1:
        lines[0] = b"%b %b HTTP/1.1" % (dice.choice(METHODS), dice.choice(TARGETS))
    lines += dice.sample(HEADERS, dice.choice([0, 1, 1, 2, 4]))
    if dice.random() < 0.1:
        lines.insert(1, dice.choice(HEADERS[:2]))
    return end.join(lines) + end + b"\r\n" + dice.choice(BODIES)


@pytest.mark.parametrize("seed", range(4))
async def test_taskcluster_sees_only_what_the_routes_name_signed_and_narrowed(seed: int) -> None:
    dice = random.Random(seed)

    async def fine(request: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(text="ok")

    doors = Doors(routes=ROUTES, scopes=("a:b",))
    async with a_service(fine) as service, doors_open(doors, service.root_url, run=RunWith("run", "k" * 44)) as opened:
        for _ in range(PER_SEED):
            said = b"".join(a_request(dice, *GOOD) for _ in range(dice.randint(1, 3))).replace(b"PORT", b"1")
            await say(opened.taskcluster, said, end=True)
        assert len(service.asked) > 5
        for method, target, headers, _ in service.asked:
            assert (method, target) == ("GET", "/api/queue/v1/task/x") or (
                method == "PUT" and re.fullmatch(r"/api/object/v1/upload/y(\?z)?", target)
            )
            assert headers["authorization"].startswith('Hawk id="run"')
            assert "hidden" not in str(headers)


@pytest.mark.parametrize("seed", range(4))
async def test_a_plain_host_sees_only_whole_requests_for_itself(seed: int) -> None:
    dice = random.Random(seed)
    async with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as raw:
        doors = Doors(destinations=(internal("files.test", raw.port, plain=True),))
        async with doors_open(doors, names={"files.test": "127.0.0.1", "hidden": "127.0.0.1"}) as opened:
            for _ in range(PER_SEED):
                await say(opened.egress, a_request(dice, *PLAIN).replace(b"PORT", b"%d" % raw.port), end=True)
        assert len(raw.received) > 3
        for received in raw.received:
            head, _, body = bytes(received).partition(b"\r\n\r\n")
            first, *headers = head.split(b"\r\n")
            assert re.fullmatch(rb"(GET|PUT|POST) /x HTTP/1\.1", first)
            names = [line.partition(b":")[0].lower() for line in headers]
            assert names.count(b"host") == 1
            assert headers[0] == b"Host: files.test:%d" % raw.port
            assert headers.count(b"Connection: close") == 1
            assert len({b"content-length", b"transfer-encoding"} & set(names)) <= 1
            if {b"content-length", b"transfer-encoding"}.isdisjoint(names):
                assert body == b""


@pytest.mark.parametrize("seed", range(4))
async def test_a_tunnel_begins_with_an_unharmed_hello_or_not_at_all(seed: int) -> None:
    dice = random.Random(seed)
    async with raw_server(b"answer") as raw:
        doors = Doors(destinations=(internal("files.test", raw.port),))
        async with doors_open(doors, names={"files.test": "127.0.0.1"}) as opened:
            good = real_hello("files.test")
            for _ in range(PER_SEED):
                hello = bytearray(good)
                for _ in range(dice.choice([0, 1, 1, 2, 5])):
                    hello[dice.randrange(len(hello))] = dice.randrange(256)
                target = b"CONNECT files.test:%d HTTP/1.1\r\nHost: x\r\n\r\n" % raw.port
                await say(opened.egress, target, bytes(hello), end=True)
        begun = [bytes(received) for received in raw.received if received]
        assert len(begun) > 5
        assert all(b"files.test" in received.lower() for received in begun)
