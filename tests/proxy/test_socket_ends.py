"""One connection, by its two ends: bounds in time and size, and what is left for whom."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from secureworker.proxy.wire import Gone, TooLong, TooSlow, Wire
from tests.proxy.harness import SECONDS


@dataclass
class Ends:
    """A connection over the loopback."""

    here: socket.socket
    there: socket.socket

    def reset(self) -> None:
        """End it with a reset."""
        self.there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.there.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        there = socket.create_connection(listener.getsockname())
        here, _ = listener.accept()
    here.settimeout(0)
    with here, there:
        yield Ends(here, there)


async def test_a_head_is_read_in_pieces_and_the_rest_is_left(ends: Ends) -> None:
    with Wire(ends.here) as wire:
        ends.there.sendall(b"one\r")
        await wire.fill(SECONDS)
        ends.there.sendall(b"\ntwo\r\nthree")
        assert await wire.head(b"\r\n", 10, SECONDS, SECONDS) == b"one"
        assert await wire.head(b"\r\n", 10, SECONDS, SECONDS) == b"two"
        assert wire.peek() == b"three"
        with pytest.raises(TooLong):
            await wire.head(b"\r\n", 5, SECONDS, SECONDS)
        assert await wire.some(2, SECONDS) == b"th"
        assert wire.waiting == 3


async def test_silence_and_a_drip_are_told_from_an_end(ends: Ends) -> None:
    with Wire(ends.here) as wire:
        with pytest.raises(TooSlow):
            await wire.some(1, 0.05)
        ends.there.sendall(b"x")
        with pytest.raises(TooSlow):
            await wire.head(b"\r\n", 10, SECONDS, 0.05)
        ends.there.close()
        with pytest.raises(Gone):
            await wire.head(b"\r\n", 10, SECONDS, SECONDS)


async def test_a_reset_is_an_end_for_reading_and_writing(ends: Ends) -> None:
    with Wire(ends.here) as wire:
        ends.reset()
        with pytest.raises(Gone):
            await wire.some(1, SECONDS)
        with pytest.raises(Gone):
            await wire.send(b"x", SECONDS)
        await wire.part()


async def test_what_is_not_taken_at_once_is_sent_at_the_readers_pace_or_not_at_all(ends: Ends) -> None:
    content = bytes(20_000_000)
    with Wire(ends.here) as wire:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(wire.send(content, SECONDS))
            taken = await asyncio.to_thread(_take, ends.there, len(content))
            await sending
        assert taken == len(content)
        with pytest.raises(TooSlow):
            await wire.send(content, 0.05)
        # Nothing more fits.
        with pytest.raises(TooSlow):
            await wire.send(content, 0.05)
        ends.reset()
        with pytest.raises(Gone):
            await wire.send(content, SECONDS)


def _take(end: socket.socket, size: int) -> int:
    taken = 0
    while taken < size and (chunk := end.recv(1 << 20)):
        taken += len(chunk)
    return taken


async def test_a_reset_while_something_is_sent_is_an_end(ends: Ends) -> None:
    with Wire(ends.here) as wire:
        sending = asyncio.ensure_future(wire.send(bytes(50_000_000), SECONDS))
        await asyncio.to_thread(_take, ends.there, 1_000_000)
        ends.reset()
        with pytest.raises(Gone):
            await sending


async def test_what_comes_while_nobody_waits_stays_with_the_kernel_and_somebody_else_may_watch(ends: Ends) -> None:
    loop = asyncio.get_running_loop()
    with Wire(ends.here) as wire:
        ends.there.sendall(b"x")
        assert await wire.some(10, SECONDS) == b"x"
        ends.there.sendall(b"y")
        # Turns of the loop in which it is told of what came.
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert wire.waiting == 0
        wire.rest()
        assert await loop.sock_recv(ends.here, 10) == b"y"
        ends.there.sendall(b"z")
        assert await wire.some(10, SECONDS) == b"z"
    # Closed, and watched by nobody: another connection may have the same descriptor.
    with pytest.raises(ValueError, match="Invalid file descriptor"):
        loop.remove_reader(ends.here)


async def test_who_gives_up_waiting_takes_nothing_from_who_waits_next(ends: Ends) -> None:
    with Wire(ends.here) as wire:
        waiting = asyncio.ensure_future(wire.some(1, SECONDS))
        await asyncio.sleep(0)
        waiting.cancel()
        ends.there.sendall(b"x")
        await asyncio.wait((waiting,))
        assert waiting.cancelled()
        assert await wire.some(1, SECONDS) == b"x"


async def test_parting_lets_the_last_answer_arrive_and_waits_not_for_ever(ends: Ends) -> None:
    with Wire(ends.here) as wire:
        ends.there.sendall(b"never read")
        await wire.send(b"the answer", SECONDS)
        await wire.part()
    ends.there.settimeout(SECONDS)
    assert ends.there.recv(100) == b"the answer"
    assert ends.there.recv(100) == b""
