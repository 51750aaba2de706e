"""Certificates for live logs, and readers of them."""

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

from tests.proxy.harness import Authority, an_authority

SECONDS = 30.0
"""For what takes milliseconds."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its key in files, and what trusts it."""

    certificate: Path
    key: Path
    authority: Authority

    @classmethod
    def make(cls, directory: Path) -> "Pair":
        authority = an_authority(directory)
        authority.server("127.0.0.1")
        both = (directory / "127.0.0.1.pem").read_bytes()
        pair = cls(directory / "live.crt", directory / "live.key", authority)
        pair.replace(both)
        return pair

    def replace(self, both: bytes) -> None:
        """Write other files in their places, as who renews certificates does."""
        begin = both.index(b"-----BEGIN CERTIFICATE")
        for path, content, mode in ((self.key, both[:begin], 0o600), (self.certificate, both[begin:], 0o644)):
            fresh = path.with_suffix(".new")
            fresh.touch(mode=mode)
            fresh.write_bytes(content)
            fresh.replace(path)

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass
class Reader:
    """Whoever reads a log, byte by byte if need be."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def connect(cls, port: int, pair: Pair, *, buffer: int = 2**16) -> "Reader":
        context = pair.authority.client()
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=buffer))

    async def ask(self, path: str, method: str = "GET") -> None:
        self.writer.write(f"{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        await self.writer.drain()

    async def head(self) -> str:
        async with asyncio.timeout(SECONDS):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def chunk(self) -> bytes:
        """Give the next chunk; the last one is empty."""
        async with asyncio.timeout(SECONDS):
            size = int(await self.reader.readline(), 16)
            content = await self.reader.readexactly(size + 2)
        return content[:-2]

    async def rest(self) -> bytes:
        """Give the content of all chunks to the end.

        Raises:
            asyncio.IncompleteReadError, ValueError: the connection ended before the log did.
        """
        content = b""
        while piece := await self.chunk():
            content += piece
        return content

    async def close(self) -> None:
        self.writer.transport.abort()


async def read(port: int, pair: Pair, path: str, method: str = "GET") -> tuple[str, bytes]:
    """Read all that is answered to one request; head and content."""
    one = await Reader.connect(port, pair)
    try:
        await one.ask(path, method)
        head = await one.head()
        if "chunked" in head:
            return head, await one.rest()
        async with asyncio.timeout(SECONDS):
            return head, await one.reader.read()
    finally:
        await one.close()
