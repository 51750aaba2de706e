"""One accepted connection: bytes in with bounds in size and time, bytes out with the reader's pace. No HTTP here."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

READ_BYTES = 1 << 18
"""At once; what a connection costs in memory while something flows."""


class Gone(Exception):
    """The other side closed the connection, or broke it."""


class TooLong(Exception):
    """More was sent than is taken before the end that is looked for."""


class TooSlow(Exception):
    """What was waited for did not come in time."""


class Wire:
    """A connected, non-blocking stream socket, and what was read from it and not used yet.

    While bytes are waited for, the loop watches the socket, and goes on when they came: who asks and is answered
    in turn costs no more system calls than reading and writing. What comes while nobody waits stays with the kernel.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._loop = asyncio.get_running_loop()
        self._read = bytearray()
        self._watched = False
        self._waiting: asyncio.Future[bool] | None = None
        self._descriptor = connection.fileno()

    def __enter__(self) -> Self:
        """Close the socket at the end of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching, and close the socket."""
        self.rest()
        self.socket.close()

    def rest(self) -> None:
        """Stop watching: before somebody else does, and before the socket is closed."""
        if self._watched:
            self._loop.remove_reader(self._descriptor)
            self._watched = False

    def _ready(self) -> None:
        """Read, where somebody waits; here and not there, or the loop would be told again before they get to it."""
        if self._waiting is None:
            self.rest()
            return
        if self._waiting.done():
            return
        try:
            chunk = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        self._read += chunk
        self._waiting.set_result(bool(chunk))

    async def _fill(self) -> None:
        # Waiting, although something may be there: so others always get their turns in between.
        if not self._watched:
            self._loop.add_reader(self._descriptor, self._ready)
            self._watched = True
        self._waiting = self._loop.create_future()
        try:
            more = await self._waiting
        finally:
            self._waiting = None
        if not more:
            raise Gone

    async def head(self, end: bytes, most: int, first_seconds: float, seconds: float) -> bytes:
        """Read up to and without `end`.

        Args:
            end: what the head ends with.
            most: bytes, `end` included.
            first_seconds: to the first byte.
            seconds: from the first byte to `end`: all of it, however steadily it drips.

        Raises:
            Gone: before anything came, or in the middle.
            TooLong: `end` is not within the first `most` bytes.
            TooSlow: not in time.
        """
        if not self._read:
            await self.fill(first_seconds)
        found = self._read.find(end, 0, most)
        if found < 0:
            found = await self._rest_of_head(end, most, seconds)
        return self.take(found + len(end))[: -len(end)]

    async def _rest_of_head(self, end: bytes, most: int, seconds: float) -> int:
        async with _in_time(seconds):
            looked = 0
            while (found := self._read.find(end, looked, most)) < 0:
                if len(self._read) >= most:
                    raise TooLong
                looked = max(0, len(self._read) - len(end) + 1)
                await self._fill()
        return found

    async def fill(self, seconds: float) -> None:
        """Read some more, whatever is there."""
        # A timer by itself: asyncio.timeout costs four times as much, and this is done for every request.
        timer = self._loop.call_later(seconds, self._late)
        try:
            await self._fill()
        finally:
            timer.cancel()

    def _late(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(TooSlow())

    def peek(self) -> bytes:
        """Give what was read and not used, and keep it."""
        return bytes(self._read)

    @property
    def buffered(self) -> bytearray:
        """What was read and not used; to be looked at, and not kept."""
        return self._read

    def drop(self, count: int) -> None:
        """Forget the first bytes of what was read."""
        del self._read[:count]

    @property
    def waiting(self) -> int:
        """How many bytes were read and not used."""
        return len(self._read)

    def take(self, most: int) -> bytes:
        """Give what was read, at most so much of it, and forget it."""
        taken = bytes(self._read[:most])
        del self._read[:most]
        return taken

    async def some(self, most: int, seconds: float) -> bytes:
        """Give at least one byte, and at most `most`.

        Raises:
            Gone: there is no more.
            TooSlow: nothing came.
        """
        if not self._read:
            await self.fill(seconds)
        return self.take(most)

    async def send(self, content: bytes, seconds: float) -> None:
        """Send all of it.

        Raises:
            Gone: the other side takes nothing any more.
            TooSlow: it did not take all of it in time.
        """
        try:
            sent = self.socket.send(content)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise Gone from error
        if sent == len(content):
            return
        async with _in_time(seconds):
            try:
                await self._loop.sock_sendall(self.socket, memoryview(content)[sent:])
            except OSError as error:
                raise Gone from error

    async def part(self) -> None:
        """End the connection so that the last answer arrives: no more is sent, and what still comes is dropped.

        A socket that is closed with unread bytes sends a reset, which may overtake the answer at the other side.
        """
        try:
            self.rest()
            self.socket.shutdown(socket.SHUT_WR)
            async with _in_time(_LINGER_SECONDS):
                for _ in range(_LINGER_READS):
                    if not await self._loop.sock_recv(self.socket, READ_BYTES):
                        return
        except (OSError, TooSlow):
            return


_LINGER_SECONDS = 1.0
_LINGER_READS = 64


@asynccontextmanager
async def _in_time(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise TooSlow from error
