"""A worker's standing to look at, and a server of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from secureworker.core.happening import Began
from secureworker.core.ids import Sha256
from secureworker.host.clock import SystemClock
from secureworker.operation.board import Board
from secureworker.operation.server import Bounds
from secureworker.operation.view_open import Places, StatusSettings, open_status
from secureworker.testing import IDENTITY

BEGAN = Began(IDENTITY, "1.2.3", "https://tc.example.com", Sha256("5f" * 32))


@dataclass
class Served:
    """A status server in this process, and ways to ask it."""

    board: Board
    path: Path
    logs: Path

    async def raw(self, sent: bytes) -> bytes:
        """Send bytes, and give all that comes back."""
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        writer.write(sent)
        try:
            return await reader.read()
        finally:
            writer.close()

    async def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Ask as a browser would; give status, headers by lower-case name, and body."""
        given = {"Host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
        answer = await self.raw("\r\n".join(lines).encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        return int(first.split()[1]), {n.lower(): v for n, _, v in (line.partition(": ") for line in rest)}, body


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Give what serves a standing below `tmp_path`."""

    @asynccontextmanager
    async def begin(bounds: Bounds = Bounds(pause_seconds=0), **changes: Any) -> AsyncIterator[Served]:  # noqa: B008
        logs = tmp_path / "logs"
        logs.mkdir(exist_ok=True)
        path = tmp_path / "s"
        settings = StatusSettings(Places(str(path), **changes.pop("places", {})), str(logs), bounds=bounds, **changes)
        async with open_status(BEGAN, SystemClock(), settings) as board:
            yield Served(board, path, logs)

    return begin


@pytest.fixture
async def served(serve: Serve) -> AsyncIterator[Served]:
    """Serve a standing as a worker does."""
    async with serve() as running:
        yield running
