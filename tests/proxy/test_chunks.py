"""Taking bodies in chunks apart: one form, in whatever pieces it comes, and never more than a bit of it at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.proxy.chunks import MOST_AT_ONCE, BadChunk, Chunks


def taken(raw: bytes, *, piece: int) -> tuple[bytes, bytes, bool]:
    """Give content, what was not used, and whether the end was there; of bytes that come in pieces."""
    chunks, buffered, content = Chunks(), bytearray(), b""
    for at in range(0, len(raw), piece):
        buffered += raw[at : at + piece]
        used = -1
        while used:
            some, used = chunks.take(buffered)
            content += some
            del buffered[:used]
    return content, bytes(buffered), chunks.ended


def written(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


@given(st.lists(st.binary(min_size=1, max_size=40)), st.integers(1, 50), st.binary(max_size=20))
def test_in_whatever_pieces_it_comes_a_body_is_what_was_written_and_what_follows_is_left(
    chunks: list[bytes], piece: int, following: bytes
) -> None:
    assert taken(written(*chunks) + following, piece=piece) == (b"".join(chunks), following, True)


def test_sizes_are_hexadecimal_in_either_case() -> None:
    assert taken(b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", piece=3)[0] == b"0123456789" * 2


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n", b"\n", b" 1\r\n", b"1 \r\n", b"1;a=b\r\n", b"1\ta\r\n", b"+1\r\n", b"-1\r\n", b"0x1\r\n", b"01\r\n",
        b"00\r\n",
        b"g\r\n", b"1_0\r\n", b"123456789\r\n", b"1\na\r\n", b"1\r\r\n", b"1\ra", b"1\r\naX", b"1\r\na\n", b"1\r\na\rX",
        b"0\r\nX: y\r\n\r\n", b"0\r\n\n", b"0\n\r\n", "\uff11\r\n".encode(),
    ],
)  # fmt: skip
@pytest.mark.parametrize("piece", [1, 100])
def test_every_other_form_is_refused_as_soon_as_it_is_there(raw: bytes, piece: int) -> None:
    with pytest.raises(BadChunk):
        taken(raw, piece=piece)


@given(st.binary(max_size=100), st.integers(1, 20))
def test_whatever_comes_is_a_body_or_refused_and_pieces_make_no_difference(raw: bytes, piece: int) -> None:
    found: list[tuple[bytes, bytes, bool] | None] = []
    for size in (piece, len(raw) or 1):
        try:
            found.append(taken(raw, piece=size))
        except BadChunk:
            found.append(None)
    assert found[0] == found[1]


def test_of_many_chunks_only_some_are_taken_at_once() -> None:
    raw = written(*(b"a",) * 50_000)
    chunks = Chunks()
    content, used = chunks.take(raw)
    assert content == b"a" * MOST_AT_ONCE
    assert used == 6 * MOST_AT_ONCE
    assert not chunks.ended
