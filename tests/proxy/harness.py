"""The doors of a run at ports of this host, what lies behind them, and clients that say exactly what they are told."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from secureworker.core.address_blocks import Address
from secureworker.core.addresses import HostPort
from secureworker.core.claim import Credentials, Secret
from secureworker.core.doors import Destination, Door, Doors, Traffic
from secureworker.core.ids import RunId, ScriptName, Sha256, TaskId
from secureworker.core.paths import Route
from secureworker.core.plan import Limits, OutputRules, PinnedFile, Plan
from secureworker.ports import Network
from secureworker.proxy.doors import ProxyDoors, open_doors
from secureworker.proxy.names import LookUp
from secureworker.proxy.tunnel import TunnelLimits
from secureworker.testing import FakeClock, FakeRun, a_claim

TASK_ID = TaskId("fN1SbArXTPSVFUUvaOlinQ")
SECONDS = 30.0
"""For what takes milliseconds."""


def a_plan(doors: Doors, root_url: str = "http://taskcluster.invalid") -> Plan:
    return Plan(
        task_id=TASK_ID,
        run_id=RunId(0),
        task_group_id=TASK_ID,
        root_url=root_url,
        script=ScriptName("sign"),
        argv=("/opt/sign",),
        pinned=(PinnedFile("/opt/sign", Sha256("0" * 64)),),
        environment=(),
        config=None,
        task={},
        mounts=(),
        limits=Limits(timedelta(hours=1), 2**28, 64, 1.0, 2**30, 10_000, 2**20, 256),
        outputs=OutputRules((), 0, 0, 0),
        doors=doors,
    )


@dataclass
class Log:
    """A task log that keeps what it is told."""

    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def error(self, text: str) -> None:
        self.notes.append(text)

    def output(self, chunk: bytes) -> None: ...


@dataclass
class Open:
    """Doors that are open."""

    ports: dict[Door, int]
    log: Log
    traffic: Callable[[], tuple[Traffic, ...]]

    @property
    def taskcluster(self) -> int:
        return self.ports[Door.TASKCLUSTER]

    @property
    def egress(self) -> int:
        return self.ports[Door.EGRESS]


@asynccontextmanager
async def doors_open(
    doors: Doors,
    root_url: str = "http://taskcluster.invalid",
    *,
    run: Any = None,
    names: dict[str, str] | LookUp | None = None,
    limits: TunnelLimits | None = None,
    proxy: ProxyDoors | None = None,
) -> AsyncIterator[Open]:
    """Open the doors at free ports of the loopback; `names` says what each host is resolved to."""
    log = Log()
    async with AsyncExitStack() as stack:
        listeners = {door: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for door in doors.open}
        if proxy is None:
            proxy = await stack.enter_async_context(
                open_doors(limits or TunnelLimits(), names if callable(names) else resolver(names or {}))
            )
        network = Network(-1, tuple((door, listener.fileno()) for door, listener in listeners.items()))
        ports = {door: listener.getsockname()[1] for door, listener in listeners.items()}
        run = run or FakeRun(a_claim(), FakeClock())
        opened = await stack.enter_async_context(proxy.open(run, a_plan(doors, root_url), network, log))
        yield Open(ports, log, opened.traffic)


def resolver(names: dict[str, str]) -> LookUp:
    """Give a name server that knows a few names; several addresses are divided by spaces."""

    def look_up(place: HostPort) -> tuple[Address, ...]:
        if place.host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return tuple(ip_address(each) for each in names[place.host].split())

    return look_up


def routes(*lines: str) -> tuple[Route, ...]:
    return tuple(Route(*line.split(" ", 1)) for line in lines)


class RunWith(FakeRun):
    """A run with credentials that a test sets."""

    def __init__(self, client_id: str, token: str, certificate: str | None = None) -> None:
        claim = a_claim()
        mine = Credentials(client_id, Secret(token), Secret(certificate) if certificate else None)
        super().__init__(replace(claim, credentials=mine), FakeClock())


async def say(port: int, *parts: bytes, end: bool = False) -> bytes:
    """Send bytes as they are, and give all that comes until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        if end:
            writer.write_eof()
        async with asyncio.timeout(SECONDS):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@dataclass
class Raw:
    """A server that keeps every byte, and answers each connection's first bytes with the same."""

    port: int
    received: list[bytearray] = field(default_factory=list)
    """One for each connection."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """A connection is over."""

    @property
    def everything(self) -> bytes:
        return b"".join(self.received)


@asynccontextmanager
async def raw_server(
    answer: bytes = b"", *, close: bool = True, context: ssl.SSLContext | None = None
) -> AsyncIterator[Raw]:
    raw = Raw(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = bytearray()
        raw.received.append(mine)
        try:
            answered = False
            while chunk := await reader.read(65536):
                mine += chunk
                if not answered and answer:
                    writer.write(answer)
                    await writer.drain()
                    answered = True
                    if close:
                        break
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            raw.ended.set()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    raw.port = server.sockets[0].getsockname()[1]
    try:
        yield raw
    finally:
        server.close()


@dataclass
class Service:
    """A Taskcluster that answers as a test says, and keeps what it was asked."""

    root_url: str
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    """(method, target, headers in lower case, body)."""


Answering = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


async def _fine(request: web.Request, body: bytes) -> web.StreamResponse:
    return web.json_response({"ok": True})


@asynccontextmanager
async def a_service(answer: Answering = _fine) -> AsyncIterator[Service]:
    service = Service("")

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        service.asked.append((request.method, request.raw_path, headers, body))
        return await answer(request, body)

    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", handle)
    async with TestServer(application, auto_decompress=False) as server:
        service.root_url = f"http://127.0.0.1:{server.port}"
        yield service


@dataclass(frozen=True)
class Authority:
    """A CA of the test's own."""

    directory: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def file(self) -> Path:
        return self.directory / "ca.pem"

    def server(self, *names: str) -> ssl.SSLContext:
        """Give a context for a server of these names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName([_name(name) for name in names])
        certificate = _certificate("server", key, self, alternatives)
        path = self.directory / f"{names[0].replace(':', '_')}.pem"
        path.write_bytes(_key(key) + certificate.public_bytes(serialization.Encoding.PEM))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(path)
        return context

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.file))


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(IPv4Address(name))
    except ValueError:
        return x509.DNSName(name)


def _key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: Authority | None, extra: x509.ExtensionType
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    authority = issuer is None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(extra, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key((issuer.key if issuer else key).public_key()),
            critical=False,
        )
    )
    return builder.sign(issuer.key if issuer else key, hashes.SHA256())


def an_authority(directory: Path) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate("ca", key, None, x509.SubjectKeyIdentifier.from_public_key(key.public_key()))
    (directory / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(directory, key, certificate)


def internal(host: str, port: int, *, plain: bool = False) -> Destination:
    """Name a server of the test's own, on the loopback."""
    return Destination(host, port, plain=plain, internal=True)
