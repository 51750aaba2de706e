"""Serving listeners: nothing that happens on a connection ends anything else, and all of it ends with its block."""

import asyncio
import logging
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from secureworker.proxy.account import Account
from secureworker.proxy.serving import Served, serving
from secureworker.proxy.wire import Wire
from tests.proxy.harness import SECONDS, Log, say


async def echo(wire: Wire) -> None:
    said = await wire.some(100, SECONDS)
    if said == b"break":
        raise RuntimeError("a defect")
    await wire.send(said, SECONDS)


@contextmanager
def a_listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)  # noqa: FBT003 - the socket's own signature
        yield listener


async def test_a_defect_met_on_a_connection_ends_it_alone_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with a_listener() as listener:
        port = listener.getsockname()[1]
        async with serving((Served("a door", listener, echo),), Account(Log())):
            assert await say(port, b"break") == b""
            assert await say(port, b"hello") == b"hello"
    (record,) = caplog.records
    assert "a door: a connection ended by an error of the worker's own" in record.message


async def test_an_error_of_the_run_ends_the_serving_and_stays_what_it_is() -> None:
    with a_listener() as listener:
        port = listener.getsockname()[1]

        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None

        async def run() -> None:
            nonlocal reader, writer
            async with serving((Served("a door", listener, echo),), Account(Log())):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                raise LookupError("of the run")

        with pytest.raises(LookupError, match="of the run"):
            await run()
        assert reader is not None
        assert writer is not None
        assert await reader.read() == b""
        writer.close()
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_without_a_descriptor_left_a_connection_waits_until_there_is_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warned = asyncio.Event()

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                warned.set()

    logger = logging.getLogger("secureworker.proxy.serving")
    logger.addHandler(told := Told())
    with a_listener() as listener, socket.create_connection(listener.getsockname()) as client:
        client.setblocking(False)  # noqa: FBT003 - the socket's own signature
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
        try:
            filling = []
            while True:
                try:
                    filling.append(os.dup(0))
                except OSError:
                    break
            async with serving((Served("a door", listener, echo),), Account(Log())), asyncio.timeout(SECONDS):
                await warned.wait()
                for descriptor in filling:
                    os.close(descriptor)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                await asyncio.get_running_loop().sock_sendall(client, b"hello")
                assert await asyncio.get_running_loop().sock_recv(client, 100) == b"hello"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            logger.removeHandler(told)
    assert "a connection cannot be accepted: " in caplog.records[0].message
