"""Accepting connections at a listener, and talking on each until it ends; all of it ends with the block that serves."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from secureworker.proxy.account import Account
from secureworker.proxy.answers import refusal
from secureworker.proxy.requests import MAX_HEAD, Bad
from secureworker.proxy.wire import Gone, TooSlow, Wire

logger = logging.getLogger(__name__)

MOST_CONNECTIONS: Final = 64
"""At a time, at one listener. A tunnel costs six descriptors (two sockets, two pipes), and two megabytes at most."""
ANSWER_SECONDS: Final = 10.0
"""For an answer of our own to be taken."""
_PAUSE_SECONDS = 0.1
"""When the process has no descriptor left."""
_FULL = refusal(503, f"this script has {MOST_CONNECTIONS} connections open; close some")

Talk = Callable[[Wire], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Served:
    """A listener, and who talks to those who come."""

    name: str
    """As the task log calls it."""
    listener: socket.socket
    """Non-blocking; closed when serving ends."""
    talk: Talk


@asynccontextmanager
async def serving(doors: tuple[Served, ...], account: Account) -> AsyncIterator[None]:
    """Serve listeners while the block runs. At its end, by any way, they and all that came by them are closed."""
    failed: Exception | None = None
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(_accept(door, account)) for door in doors]
            try:
                yield
            except Exception as problem:  # noqa: BLE001 - raised below: the group would wrap what is not its own
                failed = problem
            finally:
                for task in running:
                    task.cancel()
    finally:
        for door in doors:
            _shut(door.listener)
    if failed is not None:
        raise failed


def _shut(listener: socket.socket) -> None:
    """Close a listener, also for those who hold another descriptor of it."""
    with suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


async def _accept(door: Served, account: Account) -> None:
    """Take connections for ever. When this is cancelled, all of them are closed before it ends."""
    loop = asyncio.get_running_loop()
    talking: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as group:
        while True:
            try:
                connection, _ = await loop.sock_accept(door.listener)
            except OSError as error:
                logger.warning("%s: a connection cannot be accepted: %s", door.name, error)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            # Accepting does not wait where somebody is waiting: a flood must not keep the loop from all other work.
            await asyncio.sleep(0)
            if len(talking) >= MOST_CONNECTIONS:
                account.refuse(door.name, "a connection", f"{MOST_CONNECTIONS} are open already")
                _turn_away(connection)
                continue
            task = group.create_task(_converse(door, connection, account))
            talking.add(task)
            task.add_done_callback(talking.discard)


def _turn_away(connection: socket.socket) -> None:
    with connection:
        connection.setblocking(False)  # noqa: FBT003 - the socket's own signature
        with suppress(OSError):
            connection.send(_FULL)
            connection.shutdown(socket.SHUT_WR)
            # What has come already and was not read would make of the end a reset, which overtakes the answer.
            connection.recv(MAX_HEAD)


async def _converse(door: Served, connection: socket.socket, account: Account) -> None:
    """Talk on one connection. Nothing that happens on it ends anything else."""
    connection.setblocking(False)  # noqa: FBT003 - the socket's own signature
    with Wire(connection) as wire:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                await door.talk(wire)
            except Bad as bad:
                if not bad.noted:
                    account.refuse(door.name, "a request", str(bad))
                await wire.send(refusal(bad.status, f"refused: {bad}"), ANSWER_SECONDS)
                await wire.part()
        except (Gone, TooSlow, OSError) as error:
            logger.debug("%s: a connection ended: %s", door.name, type(error).__name__)
        except Exception:
            # A defect of ours, met by bytes that the script chose: neither its run nor the worker ends by it.
            logger.exception("%s: a connection ended by an error of the worker's own", door.name)
