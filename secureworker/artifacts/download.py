"""One GET of one artifact: streamed, decoded, counted while it comes, watched for stalls, and never redirected.

Whose bytes they are is not known here: whoever takes them compares their digest with a signed one.
"""

import asyncio
import functools
import os
import ssl
import threading
import zlib
from collections.abc import Callable
from typing import Any, Final, cast, final

import aiohttp
from isal import isal_zlib
from yarl import URL

from secureworker.core.inputs import Source
from secureworker.host.threads import Abandoned, in_thread

BLOCK_BYTES: Final = 1024 * 1024
"""Handed on at once: hashing and writing get no faster with more, and memory is this times the downloads at a time."""
_GZIP: Final = 31
"""zlib's `wbits` for gzip with header and trailer, which it checks."""
_NO_GZIP: Final = (zlib.error, cast("type[Exception]", isal_zlib.IsalError))
_OK: Final = 200
_AGAIN: Final = frozenset({403, 408, 425, 429})
"""403 is S3's answer to an expired URL, and the next attempt has a fresh one."""
_BROKEN: Final = 500
_GONE: Final = frozenset({404, 410})
_CHANGED: Final = range(300, 400)


class NotDownloaded(Exception):
    """The bytes could not be had. Holds no URL: it is a secret until it expires.

    Attributes:
        again: whether another attempt, with a fresh address, may succeed.
    """

    def __init__(self, why: str, *, again: bool) -> None:
        super().__init__(why)
        self.again = again


class TooLarge(NotDownloaded):
    """It has more bytes than may still be taken."""

    def __init__(self, why: str) -> None:
        super().__init__(why, again=False)


@final
class Allowance:
    """Bytes that may still be taken, by several downloads together, each in a thread of its own."""

    def __init__(self, left: int) -> None:
        self.left = left
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Count what came."""
        with self._lock:
            if count > self.left:
                raise TooLarge(f"it has more than the {self.left} bytes that are left for inputs")
            self.left -= count

    def give_back(self, count: int) -> None:
        """Do not count what is thrown away."""
        with self._lock:
            self.left += count


async def download(  # noqa: PLR0913 - by keyword, and by two callers
    session: aiohttp.ClientSession,
    source: Source,
    write: Callable[[bytes], None],
    allowance: Allowance,
    *,
    plain: bool,
    stall_seconds: float,
    tls: ssl.SSLContext | bool = True,
) -> None:
    """GET `source`, and hand the decoded bytes to `write`, in a thread, a block at a time.

    There is no limit to how long it takes, only to how long nothing comes.

    Args:
        session: without credentials.
        source: where the Queue says it is. Nothing else is followed: a storage that redirects is none.
        write: called with blocks of a few `BLOCK_BYTES` at most; an OSError of it must be made another.
        allowance: decoded bytes that may come; where the length is known before, an excess ends it before it begins.
        plain: whether http will do: only where the Queue itself is asked so.
        stall_seconds: how long nothing may come.
        tls: whom to take for the other side; by default, whom the system's CAs vouch for.

    Raises:
        NotDownloaded: it could not be had, is too large, or is encoded in another way than gzip.
    """
    address = _address(source, plain=plain)
    try:
        async with asyncio.timeout(stall_seconds) as watch:
            async with session.get(
                address,
                headers={"Accept-Encoding": "gzip"},
                allow_redirects=False,
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),
                ssl=tls,
            ) as answer:
                _judge(answer.status)
                encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
                if encoding == "identity" and (answer.content_length or 0) > allowance.left:
                    raise TooLarge(f"it has {answer.content_length} bytes, and {allowance.left} are left for inputs")
                await _read(answer, _decoder(encoding, write, allowance), watch, stall_seconds)
    except TimeoutError:
        raise NotDownloaded(f"nothing came for {stall_seconds:g} s", again=True) from None
    except _NO_GZIP:
        raise NotDownloaded("it says that it is gzip, and is not", again=True) from None
    except (aiohttp.ClientSSLError, ssl.SSLError) as error:
        # Their number is OpenSSL's: as the kernel's, 1 would be "operation not permitted".
        why = "no CA of this host vouches for it, or it has another name"
        told = why if isinstance(error, aiohttp.ClientConnectorCertificateError) else type(error).__name__
        raise NotDownloaded(f"TLS failed: {told}", again=True) from None
    except (aiohttp.ClientError, OSError) as error:
        # Neither str(error) nor error.strerror: aiohttp puts the URL into both.
        number = error.errno if isinstance(error, OSError) else None
        told = os.strerror(number) if number else type(error).__name__
        raise NotDownloaded(f"the connection failed: {told}", again=True) from None


def _address(source: Source, *, plain: bool) -> URL:
    try:
        # `encoded`: a presigned URL is signed as it is written.
        address = URL(source.url, encoded=True)
    except ValueError:
        address = URL()
    if address.scheme not in ({"http", "https"} if plain else {"https"}) or not address.host:
        raise NotDownloaded("the Queue points to an address that is not https", again=False)
    return address


def _judge(status: int) -> None:
    if status == _OK:
        return
    if status in _CHANGED:
        raise NotDownloaded(f"the storage redirects to somewhere else ({status}), which is not followed", again=False)
    if status in _GONE:
        raise NotDownloaded("the storage does not have it", again=False)
    raise NotDownloaded(f"the storage answered {status}", again=status in _AGAIN or status >= _BROKEN)


async def _read(answer: aiohttp.ClientResponse, decoder: "_Decoder", watch: asyncio.Timeout, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    pieces: list[bytes] = []
    waiting = 0
    async for piece in answer.content.iter_any():
        watch.reschedule(loop.time() + seconds)
        pieces.append(piece)
        waiting += len(piece)
        if waiting >= BLOCK_BYTES:
            await in_thread(functools.partial(decoder.feed, b"".join(pieces)))
            pieces, waiting = [], 0
            # Slow disks are no stall of the other side.
            watch.reschedule(loop.time() + seconds)
    await in_thread(functools.partial(decoder.feed, b"".join(pieces)))
    decoder.finish()


class _Decoder:
    """Identity: counts, and hands on."""

    def __init__(self, write: Callable[[bytes], None], allowance: Allowance) -> None:
        self._write = write
        self._allowance = allowance

    def feed(self, content: bytes, abandoned: threading.Event) -> None:
        self._hand_on(content, abandoned)

    def finish(self) -> None:
        """See that it is whole; for identity, HTTP has."""

    def _hand_on(self, content: bytes, abandoned: threading.Event) -> None:
        if abandoned.is_set():
            raise Abandoned
        if content:
            self._allowance.take(len(content))
            self._write(content)


class _Gunzip(_Decoder):
    """Unpacks by blocks: a bomb is found out after the allowance, and never held in memory."""

    def __init__(self, write: Callable[[bytes], None], allowance: Allowance) -> None:
        super().__init__(write, allowance)
        self._member: Any = None

    def feed(self, content: bytes, abandoned: threading.Event) -> None:
        while content:
            if self._member is None:
                self._member = isal_zlib.decompressobj(wbits=_GZIP)
            unpacked = self._member.decompress(content, BLOCK_BYTES)
            self._hand_on(unpacked, abandoned)
            # A full block may have more behind it, also where all of the input is used up.
            while not self._member.eof and (self._member.unconsumed_tail or len(unpacked) == BLOCK_BYTES):
                unpacked = self._member.decompress(self._member.unconsumed_tail, BLOCK_BYTES)
                self._hand_on(unpacked, abandoned)
            content = b""
            if self._member.eof:
                # A gzip file may have several members, one after the other (RFC 1952 section 2.2).
                content, self._member = self._member.unused_data, None

    def finish(self) -> None:
        if self._member is not None:
            raise NotDownloaded("it ended before its gzip did", again=True)


def _decoder(encoding: str, write: Callable[[bytes], None], allowance: Allowance) -> _Decoder:
    match encoding:
        case "identity" | "":
            return _Decoder(write, allowance)
        case "gzip" | "x-gzip":
            return _Gunzip(write, allowance)
        case _:
            raise NotDownloaded(f"it is encoded as {encoding[:40]!a}, and only gzip is decoded", again=False)
