"""What the doors of a sandbox cost: requests and downloads through them, against the same without them.

Run: `python benchmarks/proxy.py [--seconds N] [--size MIB]`. Prints medians; asserts nothing. The services are
processes of their own, and so is each client; the doors are in this process, as they are in the worker.
"""

import argparse
import asyncio
import multiprocessing
import os
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from secureworker.core.address_blocks import Address
from secureworker.core.addresses import HostPort
from secureworker.core.doors import Destination, Door, Doors
from secureworker.core.paths import Route
from secureworker.ports import Network
from secureworker.proxy.doors import open_doors
from secureworker.sandbox.netns import network_namespace
from secureworker.testing import FakeClock, FakeRun, a_claim

PATH = "/api/queue/v1/task/fN1SbArXTPSVFUUvaOlinQ"
HOST = "files.test"
BODY = b'{"status": "a task definition of usual size", "x": "' + b"y" * 1500 + b'"}'
_CHUNK = 1 << 18
PROCESSES = multiprocessing.get_context("fork")


def certificate(directory: Path) -> Path:
    """Write a certificate for HOST with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = directory / "server.pem"
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


def tls(pem: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    return context


def serve_api(listener: socket.socket, pem: Path | None = None) -> None:
    """Answer every request with the same JSON; over TLS where there is a certificate."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=BODY, content_type="application/json")

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    web.run_app(application, sock=listener, print=None, access_log=None, ssl_context=tls(pem) if pem else None)


def serve_tls(listener: socket.socket, pem: Path) -> None:
    """Send as many bytes as a client asks for in its first line, over TLS, as fast as it can."""
    context = tls(pem)
    chunk = bytes(_CHUNK)
    while True:
        connection, _ = listener.accept()
        with context.wrap_socket(connection, server_side=True) as client:
            left = int(client.makefile("rb").readline())
            while left:
                left -= client.send(chunk[: min(left, _CHUNK)])


@dataclass(frozen=True)
class Way:
    """How a client gets to a service."""

    port: int
    pem: Path | None = None
    """TLS, with a server of this certificate."""
    tunnel: int | None = None
    """Port of the egress door."""

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.tunnel or self.port)
        if self.tunnel:
            writer.write(f"CONNECT {HOST}:{self.port} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
        if self.pem:
            await writer.start_tls(ssl.create_default_context(cafile=str(self.pem)), server_hostname=HOST)
        return reader, writer


def ask(way: Way, connections: int, seconds: float, results: Any) -> None:
    """Make requests over so many connections, one after the other on each; give the time of each."""

    async def one(until: float, times: list[float]) -> None:
        reader, writer = await way.connect()
        request = f"GET {PATH} HTTP/1.1\r\nHost: taskcluster\r\n\r\n".encode()
        while time.perf_counter() < until:
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(head.decode())
            await reader.readexactly(len(BODY))
            times.append(time.perf_counter() - began)
        writer.close()

    async def many() -> list[float]:
        times: list[float] = []
        until = time.perf_counter() + seconds
        await asyncio.gather(*(one(until, times) for _ in range(connections)))
        return times

    results.put(asyncio.run(many()))


def download(port: int, through: int | None, size: int, pem: Path, results: Any) -> None:
    """Read so many bytes over TLS; give the seconds."""
    context = ssl.create_default_context(cafile=str(pem))
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", through or port)) as connection:
        if through:
            connection.sendall(f"CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            if not connection.recv(4096).startswith(b"HTTP/1.1 200"):
                raise SystemExit("no tunnel")
        with context.wrap_socket(connection, server_hostname=HOST) as secure:
            secure.sendall(b"%d\n" % size)
            buffer, left = bytearray(_CHUNK), size
            while left:
                left -= secure.recv_into(buffer)
    results.put(time.perf_counter() - began)


async def elsewhere(work: Callable[..., None], *arguments: Any) -> Any:
    """Run a client in a process of its own, and give its result."""
    results = PROCESSES.Queue()
    process = PROCESSES.Process(target=work, args=(*arguments, results))
    process.start()
    result = await asyncio.to_thread(results.get)
    await asyncio.to_thread(process.join)
    return result


@contextmanager
def served(work: Callable[..., None], *arguments: Any) -> Iterator[int]:
    """Serve in a process of its own; give the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = PROCESSES.Process(target=work, args=(listener, *arguments), daemon=True)
        process.start()
        yield listener.getsockname()[1]
        process.kill()
        process.join()


def look_up(_: HostPort) -> tuple[Address, ...]:
    return (ip_address("127.0.0.1"),)


async def requests(door: str, direct: Way, through: Way, seconds: float) -> None:
    for connections in (1, 32):
        medians = {}
        for name, way in (("direct", direct), ("door", through)):
            times = await elsewhere(ask, way, connections, seconds)
            medians[name] = 1000 * statistics.median(times)
            print(
                f"{door:<11} {connections:2} connections, {name:<6} {len(times) / seconds:8.0f} requests/s, "
                f"median {medians[name]:6.2f} ms"
            )
        print(f"{'':<28} added {medians['door'] - medians['direct']:6.2f} ms")


async def downloads(direct: int, through: int, size: int, pem: Path) -> None:
    rates: dict[str, list[float]] = {"direct": [], "door": []}
    for _ in range(3):
        for name, port in (("direct", None), ("door", through)):
            rates[name].append(size / await elsewhere(download, direct, port, size, pem) / 1e6)
    for name, values in rates.items():
        print(f"download of {size >> 20} MiB over TLS, {name:<6} {statistics.median(values):6.0f} MB/s")
    print(f"{'':<28} ratio {statistics.median(rates['door']) / statistics.median(rates['direct']):.2f}")


def namespaces() -> None:
    times = []
    for _ in range(50):
        began = time.perf_counter()
        with network_namespace((Door.TASKCLUSTER, Door.EGRESS)):
            times.append(1000 * (time.perf_counter() - began))
    print(f"namespace with two listeners, made: median {statistics.median(times):.2f} ms, worst {max(times):.2f} ms")


async def main(seconds: float, size: int) -> None:
    from tests.proxy.harness import a_plan  # noqa: PLC0415 - only where it is run from a checkout

    if os.geteuid() == 0:
        namespaces()
    with tempfile.TemporaryDirectory() as place:
        pem = certificate(Path(place))
        with served(serve_api) as api, served(serve_api, pem) as secure, served(serve_tls, pem) as files:
            doors = Doors(
                routes=(Route("GET", "/api/queue/v1/task/*"),),
                scopes=("queue:get-artifact:private/*",),
                destinations=tuple(Destination(HOST, port, internal=True) for port in (secure, files)),
            )
            run = FakeRun(a_claim(), FakeClock())
            listeners = {door: socket.create_server(("127.0.0.1", 0)) for door in doors.open}
            network = Network(-1, tuple((door, listener.fileno()) for door, listener in listeners.items()))
            plan = a_plan(doors, f"http://127.0.0.1:{api}")
            async with open_doors(look_up=look_up) as proxy, proxy.open(run, plan, network, Silent()):
                taskcluster, egress = (listeners[door].getsockname()[1] for door in Door)
                await requests("taskcluster", Way(api), Way(taskcluster), seconds)
                await requests("egress, TLS", Way(secure, pem), Way(secure, pem, egress), seconds)
                await downloads(files, egress, size, pem)


class Silent:
    """A task log that has nothing to say, unless something is wrong."""

    def note(self, text: str) -> None:
        """Print it."""
        print(text)

    def error(self, text: str) -> None:
        """Print it."""
        print(text)

    def output(self, chunk: bytes) -> None:
        """Nobody reads it."""


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--size", type=int, default=1024)
    given = parser.parse_args()
    asyncio.run(main(given.seconds, given.size << 20))
