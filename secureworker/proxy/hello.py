"""The first message of a TLS client, read strictly, for the one thing in it that says where the client wants to go.

RFC 8446, 4.1.2 and 5.1; RFC 6066, 3. Pure: bytes in, a value out. What has not come to its end yet is `None`.
"""

from dataclasses import dataclass
from typing import Final

MAX_RECORD: Final = 1 << 14
"""The protocol's. The ClientHellos of today's clients have 200 to 2,000 bytes, with post-quantum keys."""
_RECORD_HEADER = 5
"""Type, version, length."""
_HANDSHAKE = 22
_CLIENT_HELLO = 1
_VERSIONS = range(0x0301, 0x0304)
_SERVER_NAME = 0
_HOST_NAME = 0
_HIDDEN_NAMES = frozenset(
    {
        *range(0xFE08, 0xFE0E),  # encrypted_client_hello: RFC 9849, and its drafts from the eighth on
        *range(0xFF02, 0xFF05),  # earlier drafts, with what belongs to them
        0xDA09,  # of an inner hello, in drafts
        0xFD00,  # ech_outer_extensions: of an inner hello
        0xFFCE,  # encrypted_server_name
    }
)
"""With these, the name that counts could not be seen. Browsers send one of them with random content (GREASE), which is
made to look the same: that is refused too. No client of scripts (OpenSSL, Go, Node, rustls, GnuTLS) does so unasked."""
UNRECOGNISED_NAME: Final = b"\x15\x03\x03\x00\x02\x02\x70"
"""The alert that a client is told by why it goes no further."""


class BadHello(Exception):
    """No ClientHello, or one that hides where it goes."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What is looked at of a ClientHello."""

    server_name: str | None
    """In lower case; None where the client names none."""


class _Reader:
    """Takes values from the front of a message, each of which must be there."""

    def __init__(self, content: bytes) -> None:
        self._rest = content

    def take(self, count: int) -> bytes:
        if count > len(self._rest):
            raise BadHello("the ClientHello contradicts itself about its lengths")
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def vector(self, count: int) -> "_Reader":
        return _Reader(self.take(self.number(count)))

    @property
    def left(self) -> int:
        return len(self._rest)

    def end(self) -> None:
        if self._rest:
            raise BadHello("the ClientHello contradicts itself about its lengths")


def parse_hello(content: bytes) -> Hello | None:
    """Read a ClientHello from what a client has sent so far.

    1. What has come is one TLS record, and in it one message, a ClientHello.
    2. Its parts have the lengths that they say, and nothing follows them.
    3. No extension is there twice, and none hides the server's name.
    4. There is at most one name, and it is visible ASCII.

    Returns:
        what it says; None where its end has not come yet.

    Raises:
        BadHello: one of these does not hold.
    """
    # 1.
    message = _message(content)
    if message is None:
        return None
    # 2.
    reader = _Reader(message)
    if reader.number(2) not in _VERSIONS:
        raise BadHello("a version of TLS that is not known")
    reader.take(32)  # random
    reader.vector(1)  # session
    reader.vector(2)  # cipher suites
    reader.vector(1)  # compression methods
    extensions = reader.vector(2) if reader.left else _Reader(b"")
    reader.end()
    # 3.
    found: dict[int, _Reader] = {}
    while extensions.left:
        kind = extensions.number(2)
        if kind in found:
            raise BadHello("an extension that is there twice")
        if kind in _HIDDEN_NAMES:
            raise BadHello("a server name that is encrypted; switch ECH off in the client")
        found[kind] = extensions.vector(2)
    # 4.
    if _SERVER_NAME not in found:
        return Hello(None)
    names = found[_SERVER_NAME].vector(2)
    found[_SERVER_NAME].end()
    if names.number(1) != _HOST_NAME:
        raise BadHello("a server name that is no host name")
    name = names.vector(2)
    names.end()
    text = name.take(name.left)
    if not text or not all(0x21 <= byte <= 0x7E for byte in text):  # noqa: PLR2004 - visible ASCII
        raise BadHello("a server name with characters that no host name has")
    return Hello(text.decode("ascii").lower())


def _message(content: bytes) -> bytes | None:
    """Give the message in the first record; None where that has not come whole.

    It is in one record, although the protocol lets it be spread over several: clients do not, who hides things does.
    """
    if content[:1] not in (b"", bytes([_HANDSHAKE])):
        raise BadHello("no TLS")
    if len(content) < _RECORD_HEADER:
        return None
    size = int.from_bytes(content[3:_RECORD_HEADER], "big")
    if int.from_bytes(content[1:3], "big") not in _VERSIONS or not 0 < size <= MAX_RECORD:
        raise BadHello("no TLS record of a version that is known")
    if len(content) < _RECORD_HEADER + size:
        return None
    record = _Reader(content[_RECORD_HEADER : _RECORD_HEADER + size])
    if record.number(1) != _CLIENT_HELLO:
        raise BadHello("TLS that does not begin with a ClientHello")
    message = record.vector(3)
    record.end()
    return message.take(message.left)
