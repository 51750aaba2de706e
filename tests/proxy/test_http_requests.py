"""Reading HTTP requests: what could be meant in two ways is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.proxy.requests import MAX_HEADERS, Bad, parse_head


def head(*lines: bytes, first: bytes = b"GET /x HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join((first, host, *lines))


def test_a_request_is_read() -> None:
    read = parse_head(
        head(b"Content-Length: 12", b"X-A:  b c \t", b"Connection: Close, X-A", first=b"PUT /x?y HTTP/1.1")
    )
    assert (read.method, read.target, read.length, read.old) == ("PUT", "/x?y", 12, False)
    assert read.headers == (("host", "a"), ("content-length", "12"), ("x-a", "b c"), ("connection", "Close, X-A"))
    assert read.listed == {"close", "x-a"}
    assert not read.persistent
    assert not read.awaits_continue


def test_a_body_has_a_length_or_comes_in_chunks_or_is_not_there() -> None:
    assert parse_head(head()).length == 0
    assert parse_head(head(b"Transfer-Encoding: Chunked")).length is None
    assert parse_head(head(b"Content-Length: 0", b"Expect: 100-Continue")).awaits_continue is False
    assert parse_head(head(b"Content-Length: 1", b"Expect: 100-continue")).awaits_continue


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (400, b""),
        (400, b"\r\nGET /x HTTP/1.1\r\nHost: a"),
        (400, b"GET /x HTTP/1.1\nHost: a"),
        (400, b"GET /x HTTP/1.1\r\nHost: a\nContent-Length: 1"),
        (400, b"GET /x HTTP/1.1\r\nHost: a\rContent-Length: 1"),
        (400, b"GET /x HTTP/1.1\r\nHost: a\r"),
        (400, head(first=b"get /x HTTP/1.1")),
        (400, head(first=b"GET  /x HTTP/1.1")),
        (400, head(first=b"GET /x  HTTP/1.1")),
        (400, head(first=b"GET\t/x HTTP/1.1")),
        (400, head(first=b" GET /x HTTP/1.1")),
        (400, head(first=b"GET /x HTTP/1.1 ")),
        (400, head(first=b"GET /x y HTTP/1.1")),
        (400, head(first=b"GET /x HTTP/1.2")),
        (400, head(first=b"GET /x HTTP/2.0")),
        (400, head(first=b"GET /x HTTP/0.9")),
        (400, head(first=b"GET /x http/1.1")),
        (400, head(first=b"GET /x")),
        (400, head(first=b"GET /\x00 HTTP/1.1")),
        (400, head(first=b"GET /\x80 HTTP/1.1")),
        (400, head(first=b"PRI * HTTP/2.0")),
        (400, head(b" folded: a")),
        (400, head(b"X: a", b" folded")),
        (400, head(b"X: a", b"\tfolded")),
        (400, head(b"X : a")),
        (400, head(b"X")),
        (400, head(b": a")),
        (400, head(b"")),
        (400, head(b"X: \x00")),
        (400, head(b"X: \x7f")),
        (400, head(b"X: \x0b")),
        (400, head(b"X: \xe4")),
        (400, head(b"X\xe4: a")),
        (400, head(b"X Y: a")),
        (400, head(b"X" * 65 + b": a")),
        (400, head(b"Transfer_Encoding: chunked")),
        (400, head(b"Content_Length: 5")),
        (400, head(b"X.A: a")),
        (400, head(b"X!: a")),
        (400, head(b"X~: a")),
        (400, head(b"-X: a")),
        (400, head(b"$X: a")),
        (400, head(b"Host: b")),
        (400, head(b"host: a")),
        (400, b"GET /x HTTP/1.1\r\nX: a"),
        (400, head(b"Content-Length: 1", b"Content-Length: 1")),
        (400, head(b"Content-Length: 1", b"content-length: 2")),
        (400, head(b"Content-Length: 1, 1")),
        (400, head(b"Content-Length: +1")),
        (400, head(b"Content-Length: -1")),
        (400, head(b"Content-Length: 01")),
        (400, head(b"Content-Length: 0x1")),
        (400, head(b"Content-Length: 1_0")),
        (400, head(b"Content-Length: ")),
        (400, head(b"Content-Length: 1 2")),
        (400, head(b"Content-Length: " + b"9" * 16)),
        (400, head(b"Content-Length: 1", b"Transfer-Encoding: chunked")),
        (400, head(b"Transfer-Encoding: chunked", b"Content-Length: 1")),
        (400, head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")),
        (400, head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity")),
        (400, head(b"Transfer-Encoding: chunked", first=b"GET /x HTTP/1.0")),
        (501, head(b"Transfer-Encoding: gzip, chunked")),
        (501, head(b"Transfer-Encoding: chunked, identity")),
        (501, head(b"Transfer-Encoding: xchunked")),
        (501, head(b"Transfer-Encoding: chunked;a=b")),
        (501, head(b'Transfer-Encoding: "chunked"')),
        (400, head(b"Transfer-Encoding:\x0bchunked")),
        (501, head(b"Transfer-Encoding: identity")),
        (417, head(b"Expect: 200-ok")),
        (400, head(b"Expect: 100-continue", b"Expect: 100-continue")),
        (431, head(*(b"X: a",) * MAX_HEADERS)),
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_refused(status: int, content: bytes) -> None:
    with pytest.raises(Bad) as refused:
        parse_head(content)
    assert refused.value.status == status
    assert str(refused.value).isascii()


def test_a_transfer_encoding_that_is_there_and_empty_is_no_way_around() -> None:
    with pytest.raises(Bad):
        parse_head(head(b"Transfer-Encoding: ", b"Content-Length: 5"))
    with pytest.raises(Bad):
        parse_head(head(b"Transfer-Encoding: "))


@given(st.binary(max_size=200))
def test_whatever_is_sent_is_a_request_or_refused(content: bytes) -> None:
    try:
        read = parse_head(content)
    except Bad:
        return
    assert read.method.isupper()


@given(st.lists(st.sampled_from([b"Content-Length: 3", b"Transfer-Encoding: chunked", b"X: a", b"content-length:3"])))
def test_whatever_headers_are_combined_the_body_is_framed_in_one_way(lines: list[bytes]) -> None:
    framing = [line for line in lines if not line.startswith(b"X")]
    try:
        read = parse_head(head(*lines))
    except Bad:
        assert len(framing) > 1 or len(lines) >= MAX_HEADERS
        return
    assert len(framing) <= 1
    assert read.length == (None if b"Transfer-Encoding: chunked" in lines else 3 * len(framing))
