"""HTTP/1.1 answers of a service, read strictly. Pure: bytes in, values out.

The service is believed about what it says, and not about how long that is: where an answer could end in two places, the
next one could begin in two.
"""

import re
from dataclasses import dataclass
from typing import Final

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_LENGTH: Final = re.compile(r"[0-9]{1,15}")
_INTERIM: Final = range(100, 200)
_WITHOUT_BODY: Final = frozenset({204, 304})
_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection"})


class BadReply(Exception):
    """What came is no answer, or one that could be understood in two ways."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer without its body."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    """As they came."""
    length: int | None
    """What it says of its body's length."""
    chunked: bool
    persistent: bool
    """Whether the connection may be used again."""

    @property
    def interim(self) -> bool:
        """Whether the answer proper follows."""
        return self.status in _INTERIM

    def has_body(self, method: str) -> bool:
        """Say whether an answer to such a request has a body."""
        return method != "HEAD" and self.status not in _WITHOUT_BODY

    def ends(self, method: str) -> bool:
        """Say whether it ends before its connection does."""
        return self.chunked or self.length is not None or not self.has_body(method)


def parse_reply(content: bytes) -> Reply:
    """Read an answer's head, without the empty line at its end.

    1. Lines end in CR LF, and no line has either within it.
    2. The first is a status line of HTTP/1, every other is `name: value`.
    3. The body is framed in one way: by one plain length, by chunks and nothing else, or by the connection's end.
    4. It changes to no other protocol.

    Raises:
        BadReply: one of these does not hold.
    """
    # 1.
    first, *rest = content.split(b"\r\n")
    # 2.
    line = _STATUS_LINE.fullmatch(first)
    if line is None:
        raise BadReply("no status line")
    headers: list[tuple[str, str]] = []
    framing: dict[str, str] = {}
    for raw in rest:
        header = _HEADER.fullmatch(raw)
        if header is None:
            raise BadReply("a header that is none")
        name, value = header[1].decode("ascii"), header[2].decode("latin-1").strip(" \t")
        headers.append((name, value))
        if (known := name.lower()) in _FRAMING:
            if known in framing:
                raise BadReply(f"more than one {known}")
            framing[known] = value
    # 3.
    length, encoding = framing.get("content-length"), framing.get("transfer-encoding")
    if length is not None and not _LENGTH.fullmatch(length):
        raise BadReply("a length that is no number")
    if encoding is not None and (encoding.lower() != "chunked" or length is not None):
        raise BadReply("chunks and something else")
    # 4.
    status = int(line[2])
    if status == 101:  # noqa: PLR2004 - Switching Protocols
        raise BadReply("another protocol")
    return Reply(
        status,
        (line[3] or b"").decode("latin-1"),
        tuple(headers),
        None if length is None else int(length),
        chunked=encoding is not None,
        persistent=line[1] == b"1" and "close" not in framing.get("connection", "").lower(),
    )
