"""One PUT of one body: streamed with constant memory, watched for stalls, and told apart by what to do next."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from yarl import URL

from secureworker.core.errors import HostError

_BLOCK_BYTES = 256 * 1024
"""Per write to the socket: small enough that a slow line shows progress within a stall timeout."""
_ANSWER_BYTES = 4096
"""Of an error's body; S3's are below 1 kB."""
_OK = frozenset({200, 201, 204})
_AGAIN = frozenset({403, 408, 425, 429})
"""403 is S3's answer to an expired URL, and the next attempt has a fresh one."""


@dataclass(frozen=True, slots=True)
class FileBody:
    """The first `size` bytes, which are all, of a file in the spool."""

    path: str
    size: int

    async def read(self) -> bytes:
        """Give a small body whole.

        Raises:
            HostError: the file cannot be read.
        """
        try:
            return await asyncio.to_thread(Path(self.path).read_bytes)
        except OSError as error:
            raise HostError(f"a sealed output cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class BytesBody:
    """A small body in memory."""

    content: bytes

    @property
    def size(self) -> int:
        """Its length."""
        return len(self.content)

    async def read(self) -> bytes:
        """Give it."""
        return self.content


@dataclass(frozen=True, slots=True)
class NotStored:
    """Why a PUT did not succeed. Holds no URL: it is a secret until it expires."""

    why: str
    again: bool
    """Whether another attempt, with a fresh URL, may succeed."""


async def put(
    session: aiohttp.ClientSession,
    url: str,
    body: FileBody | BytesBody,
    headers: Mapping[str, str],
    *,
    stall_seconds: float,
) -> NotStored | None:
    """PUT `body`; None where it is stored.

    There is no limit to how long it takes, only to how long nothing moves.

    Raises:
        HostError: the file in the spool cannot be read, or is shorter than it was.
    """
    try:
        address = URL(url, encoded=True)
    except ValueError:
        address = URL()
    if address.scheme not in {"http", "https"} or not address.host:
        return NotStored("the URL to upload to is none of http or https", again=False)
    source = _Source(body)
    try:
        async with asyncio.timeout(stall_seconds) as watch:
            async with session.put(
                address,
                headers=_with_length(headers, body.size),
                data=source.blocks(watch, stall_seconds) if body.size else b"",
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None),
            ) as answer:
                if answer.status in _OK:
                    return None
                return _judge(answer.status, await answer.content.read(_ANSWER_BYTES))
    except TimeoutError:
        return NotStored(f"nothing moved for {stall_seconds:g} s", again=True)
    except (aiohttp.ClientError, OSError) as error:
        if source.failure is not None:
            raise HostError(f"a sealed output cannot be read: {source.failure}") from None
        # Neither str(error) nor error.strerror: aiohttp puts the URL into both.
        number = error.errno if isinstance(error, OSError) else None
        told = os.strerror(number) if number else type(error).__name__
        return NotStored(f"the connection failed: {told}", again=True)
    finally:
        source.close()


def _with_length(headers: Mapping[str, str], size: int) -> dict[str, str]:
    """Say the length, once: S3 refuses chunked encoding, and the Object service names it among its headers too."""
    kept = {name: value for name, value in headers.items() if name.lower() != "content-length"}
    return {**kept, "Content-Length": str(size)}


def _judge(status: int, text: bytes) -> NotStored:
    # S3 answers a body that came too slowly with 400; any other 400 will be one again.
    timed_out = status == 400 and b"<Code>RequestTimeout</Code>" in text  # noqa: PLR2004 - named by the line above
    return NotStored(f"the storage answered {status}", again=timed_out or status in _AGAIN or status >= 500)  # noqa: PLR2004


class _Source:
    """Gives a body to aiohttp, which would take an error of ours for one of the connection."""

    def __init__(self, body: FileBody | BytesBody) -> None:
        self.failure: str | None = None
        self._body = body
        self._lock = threading.Lock()
        self._file: int | None = None
        if isinstance(body, FileBody):
            try:
                # Here and not in a thread: it takes microseconds, and cancellation cannot lose the descriptor.
                self._file = os.open(body.path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise HostError(f"a sealed output cannot be read: {error.strerror}") from error

    def close(self) -> None:
        """Close the file, after the read of a block that is still going on."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    async def blocks(self, watch: asyncio.Timeout, stall_seconds: float) -> AsyncIterator[bytes]:
        """Give the body in blocks; every one that is asked for is progress."""
        if isinstance(self._body, BytesBody):
            yield self._body.content
            return
        loop = asyncio.get_running_loop()
        left = self._body.size
        while left:
            try:
                block = await asyncio.to_thread(self._read, min(_BLOCK_BYTES, left))
            except OSError as error:
                self.failure = error.strerror
                raise
            if not block:
                self.failure = "it is shorter than when it was sealed"
                raise OSError(self.failure)
            left -= len(block)
            watch.reschedule(loop.time() + stall_seconds)
            yield block

    def _read(self, size: int) -> bytes:
        # The lock: aiohttp goes on asking for a moment after a request is over, and the number of a descriptor that
        # is closed under a read may already be that of another file.
        with self._lock:
            return b"" if self._file is None else os.read(self._file, size)
