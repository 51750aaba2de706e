"""HTTP/1.1 requests, read strictly (RFC 9112): what could be read in two ways is refused, not guessed at.

What the other side gets is never these bytes, but a new request made of the values here. So a head that is accepted
by mistake can at most ask for something that its script may ask for.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from secureworker.proxy.chunks import BadChunk, Chunks
from secureworker.proxy.wire import READ_BYTES, Gone, TooLong, TooSlow, Wire

MAX_HEAD: Final = 16 * 1024
"""Bytes of request line and headers; Node and nginx take as much."""
MAX_HEADERS: Final = 64
IDLE_SECONDS: Final = 60.0
"""Between requests, and between parts of a body."""
HEAD_SECONDS: Final = 10.0
"""From the first byte of a head to its last."""

_LINE = re.compile(rb"([A-Z]{1,16}) ([\x21-\x7e]+) HTTP/1\.([01])")
# RFC 9110 lets a name have 15 other characters. But servers fold some of them (CGI and WSGI make one variable of
# `Transfer-Encoding` and `Transfer_Encoding`), and no header of this world needs them.
_HEADER = re.compile(rb"([0-9A-Za-z][0-9A-Za-z-]{0,63}):[ \t]*([\x20-\x7e\t]*)")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,14}")
_ONCE = frozenset({"host", "content-length", "transfer-encoding", "expect", "connection", "content-type"})


class Bad(Exception):
    """A request that is not understood, or not taken. It is answered, and the connection ends.

    Attributes:
        status: what it is answered with.
        noted: whether the task log says it already.
    """

    def __init__(self, status: int, message: str, *, noted: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.noted = noted


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    """Names in lower case, values without space around them."""
    old: bool
    """HTTP/1.0."""

    def get(self, name: str) -> str:
        """Give a header, the first of its name; empty where there is none."""
        for known, value in self.headers:
            if known == name:
                return value
        return ""

    @property
    def listed(self) -> frozenset[str]:
        """What `Connection` lists, in lower case."""
        return frozenset(word.strip().lower() for word in self.get("connection").split(","))

    @property
    def persistent(self) -> bool:
        """Whether the sender may use the connection again."""
        return not self.old and "close" not in self.listed

    @property
    def length(self) -> int | None:
        """How long the body is; None where it comes in chunks."""
        if self.get("transfer-encoding"):
            return None
        return int(self.get("content-length") or "0")

    @property
    def awaits_continue(self) -> bool:
        """Whether the sender holds its body back until it is told to go on."""
        return bool(self.get("expect")) and self.length != 0


def parse_head(content: bytes) -> Head:
    """Read a head, without the empty line at its end.

    1. Lines end in CR LF, and no line has either within it: no bare LF, no bare CR.
    2. The first is `METHOD target HTTP/1.x`, with single spaces.
    3. Every other is `name: value` from its first character on: no folded line, no space before the colon; names of
       letters, digits and dashes; visible ASCII only.
    4. What frames or directs a request is there at most once; `Host` exactly once, but for HTTP/1.0.
    5. The body is framed in one way: by a plain decimal length, or, in HTTP/1.1, by chunks and nothing else.
    6. The one expectation is `100-continue`.

    Raises:
        Bad: one of these does not hold.
    """
    # 1.
    first, *rest = content.split(b"\r\n")
    if any(b"\r" in line or b"\n" in line for line in (first, *rest)):
        raise Bad(400, "a line ends in a bare CR or LF")
    # 2.
    line = _LINE.fullmatch(first)
    if line is None:
        raise Bad(400, "the request line is not METHOD target HTTP/1.1")
    # 3.
    if len(rest) > MAX_HEADERS:
        raise Bad(431, f"more than {MAX_HEADERS} headers")
    headers = []
    for number, raw in enumerate(rest, start=1):
        header = _HEADER.fullmatch(raw)
        if header is None:
            raise Bad(400, f"header {number} is not name: value, of letters, digits and dashes, and visible ASCII")
        headers.append((header[1].decode("ascii").lower(), header[2].decode("ascii").strip(" \t")))
    head = Head(line[1].decode("ascii"), line[2].decode("ascii"), tuple(headers), old=line[3] == b"0")
    # 4.
    names = [name for name, _ in headers]
    twice = sorted(name for name in _ONCE if names.count(name) > 1)
    if twice:
        raise Bad(400, f"more than one {twice[0]}")
    if "host" not in names and not head.old:
        raise Bad(400, "no host")
    # 5.
    _check_framing(head, names)
    # 6.
    if "expect" in names and head.get("expect").lower() != "100-continue":
        raise Bad(417, "an expectation other than 100-continue")
    return head


def _check_framing(head: Head, names: list[str]) -> None:
    if "content-length" in names and "transfer-encoding" in names:
        raise Bad(400, "both content-length and transfer-encoding")
    if "content-length" in names and not _LENGTH.fullmatch(head.get("content-length")):
        raise Bad(400, "a content-length that is no plain decimal number")
    if "transfer-encoding" in names:
        if head.old:
            raise Bad(400, "a transfer-encoding in HTTP/1.0")
        if head.get("transfer-encoding").lower() != "chunked":
            raise Bad(501, "a transfer-encoding other than chunked")


async def read_head(wire: Wire) -> Head:
    """Read the next request's head.

    Raises:
        Gone: there is none.
        Bad: it is not taken: ill-formed, too large, or too slow.
    """
    try:
        content = await wire.head(b"\r\n\r\n", MAX_HEAD, IDLE_SECONDS, HEAD_SECONDS)
    except TooLong:
        raise Bad(431, f"a head of more than {MAX_HEAD} bytes, or one without an end") from None
    except TooSlow:
        if not wire.waiting:
            raise Gone from None
        raise Bad(408, f"a head that is not complete after {HEAD_SECONDS:g} seconds") from None
    return parse_head(content)


class Body:
    """A request's body, read as it is asked for, once."""

    def __init__(self, wire: Wire, head: Head) -> None:
        self._wire = wire
        self._length = head.length
        self.complete = head.length == 0
        """Whether its end was read: only then may another request be looked for."""
        self.problem: Bad | None = None
        """What was wrong with it, once that is known."""

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give it in pieces of bounded size.

        Raises:
            Bad: it is ill-formed, or too slow.
            Gone: the sender is.
        """
        try:
            if self._length is None:
                async for chunk in self._chunked():
                    yield chunk
            else:
                async for chunk in self._exactly(self._length):
                    yield chunk
        except TooSlow:
            self.problem = Bad(408, f"a body of which nothing came for {IDLE_SECONDS:g} seconds")
            raise self.problem from None
        except Bad as problem:
            self.problem = problem
            raise
        self.complete = True

    async def _exactly(self, size: int) -> AsyncIterator[bytes]:
        while size:
            chunk = await self._wire.some(min(size, READ_BYTES), IDLE_SECONDS)
            size -= len(chunk)
            yield chunk

    async def _chunked(self) -> AsyncIterator[bytes]:
        taken = Chunks()
        while not taken.ended:
            try:
                content, used = taken.take(self._wire.buffered)
            except BadChunk as bad:
                raise Bad(400, str(bad)) from None
            self._wire.drop(used)
            if content:
                yield content
            if used:
                # Others get their turns, however much has come already.
                await asyncio.sleep(0)
            elif not taken.ended:
                await self._wire.fill(IDLE_SECONDS)
