"""From a name to a connection: lookups of one run are its own, and a public name never leads to this very host."""

import asyncio
import fcntl
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from secureworker.core.address_blocks import Address
from secureworker.core.addresses import HostPort
from secureworker.core.doors import Destination, Doors
from secureworker.proxy import names
from secureworker.proxy.doors import open_doors
from secureworker.sandbox import kernel
from tests.proxy.harness import SECONDS, doors_open, internal, raw_server, say, status
from tests.proxy.test_client_hello import real_hello

CONNECT = b"CONNECT %b HTTP/1.1\r\nHost: x\r\n\r\n"


class SlowNames:
    """A name server that answers for `slow` and `other` only once it is let; blocking, as the real one is."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.asked: list[str] = []
        self.begun = threading.Semaphore(0)

    def __call__(self, place: HostPort) -> tuple[Address, ...]:
        self.asked.append(place.host)
        self.begun.release()
        if place.host != "files.test":
            self.let.wait(SECONDS)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return (ip_address("127.0.0.1"),)


async def asking(port: int, target: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(CONNECT % target)
    return reader, writer


async def test_slow_names_of_one_run_do_not_delay_the_lookups_of_another() -> None:
    slow = SlowNames()
    several = Doors(destinations=tuple(Destination(f"slow{number}.test", 443) for number in range(8)))
    async with raw_server(b"answer") as raw, open_doors(look_up=slow) as proxy:
        fast = Doors(destinations=(internal("files.test", raw.port),))
        async with doors_open(several, proxy=proxy) as first, doors_open(fast, proxy=proxy) as second:
            waiting = [await asking(first.egress, b"slow%d.test:443" % (number % 8)) for number in range(60)]
            for _ in range(names.AT_ONCE):
                await asyncio.to_thread(slow.begun.acquire)
            async with asyncio.timeout(SECONDS):
                answer = await say(second.egress, CONNECT % b"files.test:%d" % raw.port, real_hello("files.test"))
            assert answer.endswith(b"answer")
            assert len(slow.asked) == names.AT_ONCE + 1
            slow.let.set()
            for reader, writer in waiting:
                assert status(await reader.read()) == 502
                writer.close()


async def test_a_name_is_looked_up_once_for_all_that_ask_meanwhile_and_again_for_those_that_ask_later() -> None:
    slow = SlowNames()
    async with doors_open(Doors(destinations=(Destination("slow.test", 443),)), names=slow) as opened:
        waiting = [await asking(opened.egress, b"slow.test:443") for _ in range(30)]
        await asyncio.to_thread(slow.begun.acquire)
        # Who leaves takes the answer from nobody else.
        waiting[0][1].close()
        slow.let.set()
        for reader, _ in waiting[1:]:
            assert status(await reader.read()) == 502
        assert len(slow.asked) == 1
        assert status(await say(opened.egress, CONNECT % b"slow.test:443")) == 502
        assert len(slow.asked) == 2
        for _, writer in waiting[1:]:
            writer.close()


async def test_a_lookup_that_does_not_end_does_not_keep_its_run_from_ending() -> None:
    slow = SlowNames()
    both = (Destination("slow.test", 443), Destination("slower.test", 443), Destination("slowest.test", 443))
    async with asyncio.timeout(SECONDS):
        async with doors_open(Doors(destinations=both), names=slow) as opened:
            waiting = [await asking(opened.egress, b"%b:443" % each.host.encode()) for each in both]
            for _ in range(names.AT_ONCE):
                await asyncio.to_thread(slow.begun.acquire)
        for reader, writer in waiting:
            assert await reader.read() == b""
            writer.close()
    slow.let.set()
    assert len(slow.asked) == names.AT_ONCE


GLOBAL = "198.41.0.4"
"""Of a root name server, in the world; in the namespace of these tests, of this host."""
ANOTHER = "193.0.14.129"


def in_a_namespace(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do something in a network of its own, where this host has two global addresses, IPv4 and IPv6."""
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            kernel.unshare_network()
            for number, address in enumerate(("127.0.0.1", GLOBAL, ANOTHER)):
                give_address("lo" if not number else f"lo:{number}", address)
            asyncio.run(work())
        except BaseException as error:  # noqa: BLE001 - raised below, in the test's own thread
            failed.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def give_address(interface: str, address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = interface.encode()
        wanted = struct.pack("16sH2x4s8x", name, socket.AF_INET, socket.inet_aton(address))
        fcntl.ioctl(any_socket, 0x8916, wanted)  # SIOCSIFADDR
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH22x", name, 0x1))  # SIOCSIFFLAGS, IFF_UP


@pytest.mark.sandbox
@pytest.mark.parametrize("address", [GLOBAL, ANOTHER])
def test_a_public_name_with_an_address_of_this_very_host_is_refused_and_its_services_get_no_byte(address: str) -> None:
    async def work() -> None:
        received: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received.append(await reader.read())
            writer.close()

        server = await asyncio.start_server(serve, "0.0.0.0", 8000)
        both = (Destination("files.test", 8000), Destination("files.test", 8000, plain=True))
        async with server, doors_open(Doors(destinations=both), names={"files.test": address}) as opened:
            plain = b"GET http://files.test:8000/ HTTP/1.1\r\nHost: files.test:8000\r\n\r\n"
            for said in (plain, CONNECT % b"files.test:8000"):
                answer = await say(opened.egress, said, real_hello("files.test"))
                assert status(answer) == 403
                assert b"is this very host" in answer
            assert len(opened.log.notes) == 1
            assert opened.traffic() == ()
        # Accepted by the kernel, and closed without a byte.
        assert set(received) <= {b""}

    in_a_namespace(work)


@pytest.mark.sandbox
def test_an_internal_name_may_have_an_address_of_this_very_host() -> None:
    async def work() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), GLOBAL, 8000)
        named = Doors(destinations=(internal("files.test", 8000),))
        async with server, doors_open(named, names={"files.test": GLOBAL}) as opened:
            reader, writer = await asyncio.open_connection("127.0.0.1", opened.egress)
            with closing(writer):
                writer.write(CONNECT % b"files.test:8000")
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")

    in_a_namespace(work)


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


@pytest.mark.sandbox
def test_an_address_that_only_a_route_makes_this_hosts_own_is_refused_too() -> None:
    """There, the two ends of a connection have different addresses."""

    async def work() -> None:
        ip(f"route add local 198.97.190.0/24 dev lo src {GLOBAL}")
        server = await asyncio.start_server(lambda _, writer: writer.close(), "198.97.190.53", 8000)
        named = Doors(destinations=(Destination("files.test", 8000),))
        async with server, doors_open(named, names={"files.test": "198.97.190.53"}) as opened:
            assert status(await say(opened.egress, CONNECT % b"files.test:8000")) == 403

    in_a_namespace(work)


@pytest.mark.sandbox
@pytest.mark.parametrize("nonlocal_bind", ["0", "1"])
def test_a_public_name_of_another_host_is_reached_also_where_all_addresses_can_be_bound_to(nonlocal_bind: str) -> None:
    async def work() -> None:
        Path("/proc/sys/net/ipv4/ip_nonlocal_bind").write_text(nonlocal_bind)
        with another_host("199.7.83.42") as listener:
            ip("link set here up")
            ip("addr add 199.7.83.41/24 dev here")
            server = await asyncio.start_server(lambda _, writer: writer.close(), sock=listener)
            named = Doors(destinations=(Destination("files.test", 8000), Destination("home.test", 8000)))
            names = {"files.test": "199.7.83.42", "home.test": GLOBAL}
            home = await asyncio.start_server(lambda _, writer: writer.close(), GLOBAL, 8000)
            async with server, home, doors_open(named, names=names) as opened:
                reader, writer = await asyncio.open_connection("127.0.0.1", opened.egress)
                with closing(writer):
                    writer.write(CONNECT % b"files.test:8000")
                    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
                assert status(await say(opened.egress, CONNECT % b"home.test:8000")) == 403

    in_a_namespace(work)


@contextmanager
def another_host(address: str) -> Iterator[socket.socket]:
    """Make a second namespace, at the other end of a cable named `here`; give a listener there."""
    made: list[socket.socket] = []
    ready, cabled, done = threading.Event(), threading.Event(), threading.Event()

    def enter() -> None:
        kernel.unshare_network()
        ready.set()
        cabled.wait(SECONDS)
        ip("link set there up")
        ip(f"addr add {address}/24 dev there")
        made.append(socket.create_server((address, 8000)))
        done.set()

    thread = threading.Thread(target=enter)
    thread.start()
    ready.wait(SECONDS)
    ip(f"link add here type veth peer name there netns {thread.native_id}")
    cabled.set()
    assert done.wait(SECONDS)
    thread.join()
    with made[0] as listener:
        yield listener
