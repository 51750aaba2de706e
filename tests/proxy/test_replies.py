"""Reading answers of Taskcluster: whose end could be seen in two places is none."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.proxy.replies import BadReply, parse_reply


def reply(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join((first, *lines))


def test_an_answer_is_read() -> None:
    read = parse_reply(reply(b"Content-Type: text/x", b"content-length:  5 \t", b"X-Own: \xe4"))
    assert (read.status, read.reason, read.length, read.chunked, read.persistent) == (200, "OK", 5, False, True)
    assert read.headers == (("Content-Type", "text/x"), ("content-length", "5"), ("X-Own", "\xe4"))
    assert read.has_body("GET")
    assert not read.has_body("HEAD")
    assert read.ends("GET")


@pytest.mark.parametrize(
    ("content", "ends", "persistent"),
    [
        (reply(b"Transfer-Encoding: Chunked"), True, True),
        (reply(b"Content-Length: 0"), True, True),
        (reply(), False, True),
        (reply(first=b"HTTP/1.1 204 No Content"), True, True),
        (reply(first=b"HTTP/1.1 304 Not Modified"), True, True),
        (reply(b"Content-Length: 1", b"Connection: keep-alive, Close"), True, False),
        (reply(b"Content-Length: 1", first=b"HTTP/1.0 200 OK"), True, False),
        (reply(b"Content-Length: 1", first=b"HTTP/1.1 200"), True, True),
    ],
)
def test_where_an_answer_ends_and_what_comes_of_its_connection(content: bytes, *, ends: bool, persistent: bool) -> None:
    read = parse_reply(content)
    assert read.ends("GET") is ends
    assert read.persistent is persistent


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        reply(first=b"HTTP/2 200 OK"),
        reply(first=b"HTTP/1.1 099 X"),
        reply(first=b"HTTP/1.1 20 X"),
        reply(first=b"HTTP/1.1  200 OK"),
        reply(first=b"HTTP/1.1 200 O\rK"),
        reply(first=b"HTTP/1.1 200 O\x00K"),
        reply(first=b"HTTP/1.1 101 Switching Protocols"),
        reply(b"X: a\rb"),
        reply(b"X: a\nSet-Cookie: b"),
        reply(b"X: a\x00b"),
        reply(b"X: a", b" folded"),
        reply(b"X : a"),
        reply(b"X"),
        reply(b": a"),
        reply(b"Content-Length: +3"),
        reply(b"Content-Length: "),
        reply(b"Content-Length: 3, 3"),
        reply(b"Content-Length: 0x3"),
        reply(b"Content-Length: 99999999999999999999"),
        reply(b"Content-Length: 3", b"Content-Length: 3"),
        reply(b"Content-Length: 3", b"Content-Length: 20"),
        reply(b"Content-Length: 3", b"Transfer-Encoding: chunked"),
        reply(b"Transfer-Encoding: chunked", b"Content-Length: 3"),
        reply(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        reply(b"Transfer-Encoding: gzip, chunked"),
        reply(b"Transfer-Encoding: identity"),
        reply(b"Transfer-Encoding: "),
        reply(b"Connection: close", b"Connection: keep-alive"),
    ],
)
def test_what_could_be_understood_in_two_ways_is_no_answer(content: bytes) -> None:
    with pytest.raises(BadReply):
        parse_reply(content)


@given(st.binary(max_size=200))
def test_whatever_comes_is_an_answer_or_none(content: bytes) -> None:
    with suppress(BadReply):
        parse_reply(b"HTTP/1.1 200 OK\r\n" + content)
