"""One accepted connection: bytes in with bounds in size and time, bytes out with the reader's pace. No HTTP here."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

READ_BYTES = 1 << 18
"""At once; what a connection costs in memory while something flows."""


class Gone(Exception):
    """The other side closed the connection, or broke it."""


class TooLong(Exception):
    """More was sent than is taken before the end that is looked for."""


class TooSlow(Exception):
    """What was waited for did not come in time."""


class Wire:
    """A connected, non-blocking stream socket, and what was read from it and not used yet."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._loop = asyncio.get_running_loop()
        self._read = bytearray()

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
        async with _in_time(seconds):
            looked = 0
            while (found := self._read.find(end, looked, most)) < 0:
                if len(self._read) >= most:
                    raise TooLong
                looked = max(0, len(self._read) - len(end) + 1)
                await self._fill()
        return self.take(found + len(end))[: -len(end)]

    async def fill(self, seconds: float) -> None:
        """Read some more, whatever is there."""
        async with _in_time(seconds):
            await self._fill()

    async def _fill(self) -> None:
        try:
            chunk = await self._loop.sock_recv(self.socket, READ_BYTES)
        except OSError as error:
            raise Gone from error
        if not chunk:
            raise Gone
        self._read += chunk
        # Reading does not wait where something is there: others have to get their turns.
        await asyncio.sleep(0)

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
        async with _in_time(seconds):
            try:
                await self._loop.sock_sendall(self.socket, content)
            except OSError as error:
                raise Gone from error

    async def part(self) -> None:
        """End the connection so that the last answer arrives: no more is sent, and what still comes is dropped.

        A socket that is closed with unread bytes sends a reset, which may overtake the answer at the other side.
        """
        try:
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
