"""Bodies in chunks (RFC 9112, 7.1), taken apart strictly. Pure: bytes in, bytes out.

Many chunks are taken at once: a sender chooses how small they are, and a turn of the event loop for each byte would be
slow for honest ones, as no turn for anybody else would be fatal with others.
"""

import re
from enum import Enum, auto
from typing import Final

MOST_AT_ONCE: Final = 256
"""Chunks; half a millisecond's work, and a run may have 128 connections. 43,000 may be buffered: they once kept the
worker from all else."""
_SIZE = re.compile(rb"0|[1-9A-Fa-f][0-9A-Fa-f]{0,7}")
_SIZE_SO_FAR = re.compile(rb"(?:0|[1-9A-Fa-f][0-9A-Fa-f]{0,7})?\r?")
_END: Final = b"\r\n"


class BadChunk(ValueError):
    """Chunks that are not in the one form expected."""


class _Next(Enum):
    SIZE = auto()
    CONTENT = auto()
    END_OF_CHUNK = auto()
    END_OF_BODY = auto()
    NOTHING = auto()


class Chunks:
    """A body's chunks: a hexadecimal size with nothing after it, content; at the end an empty line, no trailers."""

    def __init__(self) -> None:
        self._next = _Next.SIZE
        self._left = 0

    @property
    def ended(self) -> bool:
        """Whether the body's end was taken."""
        return self._next is _Next.NOTHING

    def take(self, raw: bytes | bytearray) -> tuple[bytes, int]:
        """Take what can be taken, of `MOST_AT_ONCE` chunks at most, and nothing beyond the body's end.

        Args:
            raw: what has come and was not taken yet.

        Returns:
            content, and how much of `raw` was used. Where nothing was, more has to come.

        Raises:
            BadChunk: it is ill-formed, as far as it has come.
        """
        found: list[bytes | bytearray] = []
        at = 0
        for _ in range(3 * MOST_AT_ONCE):
            used = self._step(raw, at, found)
            if not used:
                break
            at += used
        return b"".join(found), at

    def _step(self, raw: bytes | bytearray, at: int, found: list[bytes | bytearray]) -> int:
        """Take the next part; say how long it was, 0 where it has not come or there is none."""
        match self._next:
            case _Next.SIZE:
                return self._size(raw, at)
            case _Next.CONTENT:
                piece = raw[at : at + self._left]
                found.append(piece)
                self._left -= len(piece)
                if not self._left:
                    self._next = _Next.END_OF_CHUNK
                return len(piece)
            case _Next.END_OF_CHUNK:
                return self._end(raw, at, _Next.SIZE, "a chunk that is longer than it says")
            case _Next.END_OF_BODY:
                return self._end(raw, at, _Next.NOTHING, "trailers")
            case _Next.NOTHING:
                return 0

    def _size(self, raw: bytes | bytearray, at: int) -> int:
        line = raw[at : at + 10]
        size, end, _ = line.partition(_END)
        if not end:
            if not _SIZE_SO_FAR.fullmatch(line):
                raise BadChunk("a chunk's size that is no plain hexadecimal number")
            return 0
        if not _SIZE.fullmatch(size):
            raise BadChunk("a chunk's size that is no plain hexadecimal number")
        self._left = int(size, 16)
        self._next = _Next.CONTENT if self._left else _Next.END_OF_BODY
        return len(size) + len(end)

    def _end(self, raw: bytes | bytearray, at: int, then: _Next, otherwise: str) -> int:
        there = raw[at : at + 2]
        if not _END.startswith(there):
            raise BadChunk(otherwise)
        if there != _END:
            return 0
        self._next = then
        return 2
