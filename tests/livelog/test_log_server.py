"""Logs, as strangers read them over TLS."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from secureworker.livelog import wire
from secureworker.livelog.server import Limits, Logs, LogServer
from tests.end_to_end.daemon import eventually
from tests.livelog.reading import SECONDS, Pair, Reader, read

TOKEN = "A" * 43
PATH = f"/log/{TOKEN}"


@dataclass
class Stage:
    """A server, and a log that a test writes."""

    port: int
    pair: Pair
    logs: Logs
    log: Path

    def write(self, text: bytes) -> None:
        with self.log.open("ab") as file:
            file.write(text)

    def end(self) -> None:
        self.logs.end(wire.digest_of(TOKEN))

    async def read(self, path: str = PATH, method: str = "GET") -> tuple[str, bytes]:
        return await read(self.port, self.pair, path, method)

    async def reader(self, *, buffer: int = 2**16) -> Reader:
        one = await Reader.connect(self.port, self.pair, buffer=buffer)
        await one.ask(PATH)
        return one


@asynccontextmanager
async def a_stage(directory: Path, limits: Limits) -> AsyncIterator[Stage]:
    pair = Pair.make(directory)
    log = directory / "log"
    log.touch()
    logs = Logs(limits.linger_seconds)
    logs.show(wire.digest_of(TOKEN), os.open(log, os.O_RDONLY))
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with listener:
        async with LogServer(logs, limits).serving(listener, pair.server()):
            yield Stage(port, pair, logs, log)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with a_stage(tmp_path, Limits()) as made:
        yield made


async def test_a_log_is_read_from_its_beginning_while_it_is_written(stage: Stage) -> None:
    stage.write(b"first\n")
    one = await stage.reader()
    head = await one.head()
    assert head.startswith("HTTP/1.1 200 ")
    assert "text/plain" in head
    assert await one.chunk() == b"first\n"
    stage.write(b"second\n")
    assert await one.chunk() == b"second\n"
    stage.write(b"third\n")
    stage.end()
    assert await one.rest() == b"third\n"
    await one.close()


async def test_who_comes_late_reads_the_whole_log(stage: Stage) -> None:
    content = os.urandom(1_000_000)
    stage.write(content)
    stage.end()
    assert (await stage.read())[1] == content


async def test_a_reader_that_takes_nothing_holds_up_nobody(stage: Stage) -> None:
    stage.write(os.urandom(20_000_000))
    slow = await stage.reader(buffer=1024)
    await slow.head()
    stage.end()
    _, content = await stage.read()
    assert len(content) == 20_000_000
    await slow.close()


async def test_a_reader_that_takes_nothing_for_long_is_left(tmp_path: Path) -> None:
    async with a_stage(tmp_path, Limits(stall_seconds=0.05)) as stage:
        stage.write(os.urandom(50_000_000))
        slow = await stage.reader(buffer=1024)
        await slow.head()
        # Its own buffer is full, so nothing is taken from the connection meanwhile.
        await eventually(lambda: not stage.logs._shown[wire.digest_of(TOKEN)].readers, "the reader's end")
        with pytest.raises((asyncio.IncompleteReadError, ValueError, ConnectionError)):
            await slow.rest()
        await slow.close()


async def test_a_reader_that_leaves_is_no_error_in_the_workers_log(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stage.write(b"first\n")
    one = await stage.reader()
    await one.head()
    await one.chunk()
    one.writer.transport.abort()
    await eventually(lambda: not stage.logs._shown[wire.digest_of(TOKEN)].readers, "the reader's end")
    # aiohttp writes its line after the handler's end: the next answer comes after it.
    stage.end()
    assert (await stage.read())[1] == b"first\n"
    assert caplog.records == []


async def test_a_log_that_is_gone_is_no_complete_one(tmp_path: Path) -> None:
    async with a_stage(tmp_path, Limits(linger_seconds=0.2)) as stage:
        stage.write(os.urandom(50_000_000))
        one = await stage.reader(buffer=1024)
        await one.head()
        stage.end()
        await eventually(lambda: not stage.logs._shown, "the end of its time")
        with pytest.raises((asyncio.IncompleteReadError, ValueError, ConnectionError)):
            await one.rest()
        assert (await stage.read())[0].startswith("HTTP/1.1 404 ")
        await one.close()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/log/",
        "/log/" + "B" * 43,
        PATH + "/",
        PATH + "?",
        PATH[:-1],
        PATH + "A",
        "//log/" + TOKEN,
        "/log/../log/" + TOKEN,
        "/log/%41" + TOKEN[1:],
        "/log/" + "A" * 42 + "%0a",
        "/log/" + wire.digest_of(TOKEN),
    ],
)
async def test_nothing_but_the_address_leads_to_a_log(stage: Stage, path: str) -> None:
    stage.write(b"a log\n")
    head, content = await stage.read(path)
    assert head.startswith("HTTP/1.1 404 ")
    assert b"a log\n" not in content


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "OPTIONS", "TRACE"])
async def test_only_get_is_answered(stage: Stage, method: str) -> None:
    assert (await stage.read(PATH, method))[0].startswith("HTTP/1.1 405 ")


async def test_a_browser_makes_nothing_of_it_but_text(stage: Stage) -> None:
    stage.end()
    head = (await stage.read())[0].lower()
    for line in ("x-content-type-options: nosniff", "cache-control: no-store", "sandbox", "connection: close"):
        assert line in head


async def test_what_asks_for_nothing_is_let_go_of(tmp_path: Path) -> None:
    async with a_stage(tmp_path, Limits(request_seconds=0.2)) as stage:
        silent = await Reader.connect(stage.port, stage.pair)
        dripping = await Reader.connect(stage.port, stage.pair)
        dripping.writer.write(b"GET / HTTP/1.1\r\nHost: ")
        plain = await asyncio.open_connection("127.0.0.1", stage.port)
        async with asyncio.timeout(SECONDS):
            assert await silent.reader.read() == b""
            assert await dripping.reader.read() == b""
            assert await plain[0].read() == b""
        for each in (silent, dripping):
            await each.close()
        plain[1].close()


async def test_a_reader_is_not_let_go_of_for_reading_long(tmp_path: Path) -> None:
    async with a_stage(tmp_path, Limits(request_seconds=0.1)) as stage:
        one = await stage.reader()
        await one.head()
        silent = await Reader.connect(stage.port, stage.pair)
        async with asyncio.timeout(SECONDS):
            assert await silent.reader.read() == b""
        stage.write(b"still here\n")
        assert await one.chunk() == b"still here\n"
        await one.close()
        await silent.close()


async def test_there_are_not_more_readers_than_may_be(tmp_path: Path) -> None:
    async with a_stage(tmp_path, Limits(readers=2)) as stage:
        readers = [await stage.reader() for _ in range(2)]
        for each in readers:
            assert "200" in await each.head()
        assert (await stage.read())[0].startswith("HTTP/1.1 503 ")
        await readers[0].close()
        await eventually(lambda: stage.logs._shown[wire.digest_of(TOKEN)].readers == 1, "a reader's leaving")
        stage.end()
        assert (await stage.read())[0].startswith("HTTP/1.1 200 ")
        await readers[1].close()


async def test_there_are_not_more_connections_than_may_be(tmp_path: Path) -> None:
    async with a_stage(tmp_path, Limits(connections=2)) as stage:
        held = [await stage.reader() for _ in range(2)]
        for each in held:
            await each.head()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await stage.read()
        for each in held:
            await each.close()


async def test_who_never_finishes_a_handshake_is_counted_and_takes_no_more_than_its_place(tmp_path: Path) -> None:
    async with a_stage(tmp_path, Limits(connections=3)) as stage:
        one = await stage.reader()
        await one.head()
        silent = [await asyncio.open_connection("127.0.0.1", stage.port) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        async with asyncio.timeout(SECONDS):
            with suppress(ConnectionError):
                assert await reader.read() == b""
        stage.write(b"still here\n")
        assert await one.chunk() == b"still here\n"
        for each in (writer, *(each for _, each in silent)):
            each.close()
        await one.close()


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x00" * 100_000,
        b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10_000 + b"\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        f"GET {PATH} HTTP/1.0\r\n\r\n".encode(),
        b"POST / HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n",
    ],
)
async def test_nonsense_is_refused_without_a_word_in_the_workers_log(
    stage: Stage, nonsense: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    one = await Reader.connect(stage.port, stage.pair)
    one.writer.write(nonsense)
    try:
        async with asyncio.timeout(SECONDS):
            answer = await one.reader.read()
    except ConnectionError:
        answer = b""
    assert not answer.startswith(b"HTTP/1.1 200")
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []
    await one.close()
