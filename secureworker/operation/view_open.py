"""Opens the operator's view of a worker: the board, and the server of it at the places that were asked for."""

import ipaddress
import logging
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from secureworker.core.errors import SettingsError
from secureworker.core.happening import Began
from secureworker.host.sockets import listening_in_files, listening_on_loopback
from secureworker.operation.board import Board, showing_warnings
from secureworker.operation.server import Bounds, Get, Site, serving
from secureworker.operation.view_site import Views
from secureworker.ports import Clock

logger = logging.getLogger(__name__)

SOCKET: Final = "status.sock"
"""Below the state directory."""
NOWHERE: Final = "none"
_MAX_PORT: Final = 65535
_ADDRESS = re.compile(r"\[([0-9a-fA-F:]+)\]:([0-9]{1,5})|([0-9.]+):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Places:
    """Where a worker's standing can be read."""

    path: str | None
    """Of a UNIX socket."""
    ports: tuple[tuple[str, int], ...] = ()
    """Loopback addresses."""


NOT_SHOWN: Final = Places(None)


@dataclass(frozen=True, slots=True)
class StatusSettings:
    """What is served, beside the standing, and where."""

    places: Places
    logs: str
    """The directory of the logs of runs."""
    routes: Mapping[str, Get] = field(default_factory=dict)
    """More paths, and who makes their answers; see `server.Site`."""
    bounds: Bounds = field(default_factory=Bounds)


def parse_places(given: tuple[str, ...], state_dir: str) -> Places:
    """Read what `--status` says: `unix:/path`, `127.0.0.1:PORT`, `[::1]:PORT`, or `none` alone.

    The socket in the state directory is there unless another one is named.

    Raises:
        SettingsError: it is something else, or an address that others can reach.
    """
    if given == (NOWHERE,):
        return NOT_SHOWN
    path = str(Path(state_dir).absolute() / SOCKET)
    ports: list[tuple[str, int]] = []
    for one in given:
        found = _ADDRESS.fullmatch(one)
        if one.startswith("unix:/"):
            path = str(Path(one.removeprefix("unix:")))
        elif found:
            ports.append(_loopback(one, found[1] or found[3], int(found[2] or found[4])))
        else:
            raise SettingsError(
                f"the status is to be at {one!r}; unix:/path, 127.0.0.1:PORT, [::1]:PORT or (alone) none is expected"
            )
    return Places(path, tuple(ports))


def _loopback(one: str, address: str, port: int) -> tuple[str, int]:
    try:
        near = ipaddress.ip_address(address).is_loopback
    except ValueError:
        near = False
    if not near or port > _MAX_PORT:
        raise SettingsError(
            f"the status is to be at {one!r}, and only loopback addresses are taken: everybody who reaches it may read "
            "it; have a server with accounts of its own ask there, or forward it by ssh"
        )
    return address, port


@asynccontextmanager
async def open_status(began: Began, clock: Clock, settings: StatusSettings) -> AsyncIterator[Board]:
    """Keep a worker's standing, and serve it while the block runs.

    Raises:
        SettingsError: a place cannot be served at.
    """
    board = Board(began, clock)
    async with AsyncExitStack() as stack:
        stack.enter_context(showing_warnings(board))
        listeners: list[socket.socket] = []
        places = settings.places
        if places.path is not None:
            listeners.append(stack.enter_context(listening_in_files(places.path)))
            logger.info("status: secureworker status --socket %s", places.path)
        for address, port in places.ports:
            listener = stack.enter_context(listening_on_loopback(address, port))
            listeners.append(listener)
            shown = f"[{address}]" if ":" in address else address
            logger.info("status: http://%s:%d/", shown, listener.getsockname()[1])
        site = Site({**Views(board, clock, settings.logs).routes(), **settings.routes}, settings.bounds)
        await stack.enter_async_context(serving(listeners, site))
        yield board
