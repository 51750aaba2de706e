"""Debian's Chromium without a window, asked by its DevTools protocol: all that is seen is asked for from outside."""

import asyncio
import base64
import json
import shutil
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

DEADLINE_SECONDS = 60.0
CHROMIUM = shutil.which("chromium")

Pixel = tuple[int, int, int]


@dataclass(frozen=True)
class Box:
    """Where something is drawn, in CSS pixels of the page."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass
class Picture:
    """A screenshot, by its rows of RGB."""

    width: int
    height: int
    rows: list[bytes]

    @property
    def colours(self) -> set[Pixel]:
        """Give all that are there."""
        return {colour for row in self.rows for colour in zip(row[::3], row[1::3], row[2::3], strict=True)}


def read_png(content: bytes) -> Picture:
    """Read what Chromium writes: 8 bits, RGB or RGBA, not interlaced (RFC 2083)."""
    width, height, depth, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", content, 16)
    assert (depth, interlaced) == (8, 0)
    step = {2: 3, 6: 4}[kind]
    packed, place = b"", 8
    while place < len(content):
        (length,) = struct.unpack_from(">I", content, place)
        if content[place + 4 : place + 8] == b"IDAT":
            packed += content[place + 8 : place + 8 + length]
        place += 12 + length
    flat = zlib.decompress(packed)
    rows: list[bytes] = []
    above = bytearray(width * step)
    for top in range(height):
        start = top * (width * step + 1)
        above = _unfiltered(flat[start], bytearray(flat[start + 1 : start + 1 + width * step]), above, step)
        rows.append(bytes(above) if step == 3 else bytes(byte for at, byte in enumerate(above) if at % 4 != 3))
    return Picture(width, height, rows)


def _unfiltered(kind: int, row: bytearray, above: bytearray, step: int) -> bytearray:
    if kind == 0:
        return row
    for at in range(len(row)):
        left = row[at - step] if at >= step else 0
        up, corner = above[at], above[at - step] if at >= step else 0
        guess = (0, left, up, (left + up) // 2, _paeth(left, up, corner))[kind]
        row[at] = (row[at] + guess) & 0xFF
    return row


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]


@dataclass
class Tab:
    """A page of the browser."""

    channel: aiohttp.ClientWebSocketResponse
    events: list[dict[str, Any]] = field(default_factory=list)
    numbers: Any = field(default_factory=lambda: count(1))

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser; keep what it tells meanwhile."""
        number = next(self.numbers)
        await self.channel.send_json({"id": number, "method": method, "params": parameters})
        while (told := await self._hear()).get("id") != number:
            self.events.append(told)
        assert "error" not in told, told
        result: dict[str, Any] = told["result"]
        return result

    async def _hear(self) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE_SECONDS):
            told: dict[str, Any] = json.loads((await self.channel.receive()).data)
        return told

    async def until(self, method: str) -> None:
        """Wait for an event."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(await self._hear())

    async def open(self, url: str, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Show a page; the page itself may run no script, as in a browser where they are turned off."""
        await self.ask("Emulation.setScriptExecutionDisabled", value=True)
        await self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.ask("Emulation.setEmulatedMedia", features=features)
        await self.show(url)

    async def show(self, url: str) -> None:
        for domain in ("Page", "Network", "Log", "Runtime"):
            await self.ask(f"{domain}.enable")
        self.events.clear()
        await self.ask("Page.navigate", url=url)
        await self.until("Page.loadEventFired")

    async def look(self, expression: str) -> Any:
        """Evaluate an expression from outside of the page."""
        told = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def boxes(self, selector: str) -> list[Box]:
        """Give where elements are drawn."""
        found = await self.look(
            f"Array.from(document.querySelectorAll({json.dumps(selector)})).map(e => e.getBoundingClientRect())"
            ".map(r => [r.left, r.top + scrollY, r.right, r.bottom + scrollY])"
        )
        return [Box(*corners) for corners in found]

    async def picture(self, box: Box) -> Picture:
        """Take a screenshot of a part of the page."""
        clip = {"x": box.left, "y": box.top, "width": box.right - box.left, "height": box.bottom - box.top, "scale": 1}
        told = await self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return read_png(base64.b64decode(told["data"]))

    def requests(self) -> list[str]:
        """Give what the page had fetched."""
        asked = (event for event in self.events if event.get("method") == "Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in asked]

    def complaints(self) -> list[str]:
        """Give what the browser's console says."""
        told = (event for event in self.events if event.get("method") == "Log.entryAdded")
        return [event["params"]["entry"]["text"] for event in told]


@asynccontextmanager
async def a_tab(directory: Path) -> AsyncIterator[Tab]:
    """Start the browser with one page."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        # Without its own sandbox: tests are run by root, whom it refuses that, and show nothing but pages of ours.
        *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
        *(
            "--remote-debugging-port=0",
            f"--user-data-dir={directory}",
            "--disable-background-networking",
            "about:blank",
        ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            line = ""
            while "DevTools listening on ws://" not in line:
                line = (await process.stderr.readline()).decode()
                assert line, "chromium has ended"
        place = line.partition("ws://")[2].partition("/")[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{place}/json/list") as answer:
                (page,) = [one for one in await answer.json() if one["type"] == "page"]
            async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as channel:
                yield Tab(channel)
    finally:
        process.kill()
        await process.communicate()
