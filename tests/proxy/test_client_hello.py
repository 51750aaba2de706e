"""Reading the first message of TLS clients: real ones are understood, and what hides or contradicts is refused."""

import ssl
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.proxy.hello import BadHello, parse_hello


def real_hello(server_name: str | None, *, oldest: bool = False) -> bytes:
    """Let OpenSSL write one."""
    context = ssl.create_default_context()
    context.check_hostname = False
    if oldest:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    written = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), written, server_hostname=server_name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return written.read()


HIDING = [0xFE08, 0xFE09, 0xFE0A, 0xFE0B, 0xFE0C, 0xFE0D, 0xFF02, 0xFF03, 0xFF04, 0xFFCE, 0xDA09, 0xFD00]
"""Extensions of ECH, its drafts, and what came before."""


def extension(kind: int, content: bytes) -> bytes:
    return struct.pack("!HH", kind, len(content)) + content


def name(text: bytes, kind: int = 0) -> bytes:
    entry = struct.pack("!BH", kind, len(text)) + text
    return extension(0, struct.pack("!H", len(entry)) + entry)


def a_hello(*extensions: bytes, version: int = 0x0303, tail: bytes = b"", kind: int = 1) -> bytes:
    together = b"".join(extensions)
    body = struct.pack("!H", version) + bytes(32) + b"\0" + b"\0\2\x13\x01" + b"\1\0"
    body += struct.pack("!H", len(together)) + together + tail
    message = bytes([kind]) + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + struct.pack("!H", len(message)) + message


@pytest.mark.parametrize("oldest", [False, True])
def test_a_real_client_is_understood(oldest: bool) -> None:  # noqa: FBT001 - a parameter
    hello = parse_hello(real_hello("Files.Example.com", oldest=oldest))
    assert hello is not None
    assert hello.server_name == "files.example.com"


def test_extensions_of_no_meaning_hide_nothing() -> None:
    """RFC 8701: clients send them so that servers stay used to what they do not know."""
    hello = parse_hello(a_hello(extension(0x0A0A, b""), name(b"a.example"), extension(0xFAFA, b"\0")))
    assert hello is not None
    assert hello.server_name == "a.example"


def test_a_client_without_a_name_is_understood() -> None:
    for content in (real_hello(None), a_hello()):
        hello = parse_hello(content)
        assert hello is not None
        assert hello.server_name is None


def test_a_client_hello_without_any_extension_is_understood() -> None:
    body = b"\x03\x01" + bytes(32) + b"\0" + b"\0\2\x13\x01" + b"\1\0"
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    hello = parse_hello(b"\x16\x03\x01" + struct.pack("!H", len(message)) + message)
    assert hello is not None
    assert hello.server_name is None


def test_what_comes_in_pieces_is_waited_for_and_what_follows_is_left_alone() -> None:
    content = real_hello("a.example")
    assert all(parse_hello(content[:end]) is None for end in range(len(content)))
    hello = parse_hello(content + b"\x17\x03\x03anything")
    assert hello is not None
    assert hello.server_name == "a.example"


@pytest.mark.parametrize(
    "content",
    [
        b"GET / HTTP/1.1\r\n",
        b"SSH-2.0-x",
        b"\x80\x2e\x01\x03\x01",  # SSLv2
        b"\x15\x03\x01\x00\x02\x02\x28",  # an alert
        b"\x17\x03\x03\x00\x01a",  # application data
        b"\x16\x03\x00\x00\x05",  # SSLv3
        b"\x16\x03\x04\x00\x05",
        b"\x16\x02\x01\x00\x05",
        b"\x16\x03\x01\x00\x00",  # an empty record
        b"\x16\x03\x01\x40\x01",  # a record too long
        b"\x16\x03\x01\x00\x01\x01",  # a message spread over records
        a_hello(name(b"a.example"), kind=2),
        a_hello(name(b"a.example"), version=0x0300),
        a_hello(name(b"a.example"), version=0x0304),
        a_hello(name(b"a.example"), tail=b"x"),
        a_hello(name(b"a.example"), name(b"b.example")),
        a_hello(name(b"a.example"), extension(5, b""), extension(5, b"")),
        a_hello(name(b"a.example"), extension(0xFE0D, b"x")),
        *(a_hello(name(b"a.example"), extension(kind, b"x")) for kind in HIDING),
        a_hello(extension(0xFE0D, b"x"), name(b"a.example")),
        a_hello(extension(0xFE0D, b"\0" + bytes(200))),
        a_hello(name(b"")),
        a_hello(name(b"a\0.example")),
        a_hello(name(b"a example")),
        a_hello(name(b"\xc3\xa4.example")),
        a_hello(name(b"a.example", kind=1)),
        a_hello(extension(0, b"")),
        a_hello(extension(0, b"\0\0")),
        a_hello(extension(0, b"\0\5\0\0\2a")),
        a_hello(extension(0, b"\0\x08\0\0\1a\0\0\1b")),  # two names
        a_hello(extension(0, b"\0\4\0\0\1ax")),
        a_hello(b"\0\0\0"),
        a_hello(b"\0\0\xff\xff"),
    ],
)
def test_what_is_no_plain_client_hello_is_refused(content: bytes) -> None:
    with pytest.raises(BadHello):
        parse_hello(content)


def test_a_message_longer_or_shorter_than_its_record_is_refused() -> None:
    good = a_hello(name(b"a.example"))
    for wrong in (-1, 1):
        message = good[5:6] + (int.from_bytes(good[6:9], "big") + wrong).to_bytes(3, "big") + good[9:]
        with pytest.raises(BadHello):
            parse_hello(good[:5] + message)


@given(st.data())
def test_however_a_client_hello_is_damaged_there_is_an_answer(data: st.DataObject) -> None:
    content = bytearray(a_hello(extension(10, b"\0\2\0\x1d"), name(b"a.example"), extension(16, b"\0\3\2h2")))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(BadHello):
        parse_hello(bytes(content))


@given(st.binary(max_size=300))
def test_whatever_is_sent_there_is_an_answer(content: bytes) -> None:
    with suppress(BadHello):
        parse_hello(b"\x16\x03\x01" + content)
