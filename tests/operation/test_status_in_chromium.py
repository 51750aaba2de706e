"""The status page in a browser: how it looks in light and dark, wide and narrow, and what it may not do."""

import itertools
import re
import socket
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from secureworker.core.happening import Claimed, Phase, PhaseEntered
from secureworker.core.ids import RunId
from secureworker.operation.page import security_policy
from secureworker.operation.page_style import DARK, LIGHT, SHADES
from secureworker.operation.server_http import Answer, Request
from secureworker.testing import TASK_ID
from tests.operation.browser import Box, Pixel, Tab, a_tab, read_png
from tests.operation.conftest import Serve
from tests.operation.test_status_page import HOSTILE, OTHER, TASK, told_by

pytestmark = pytest.mark.chromium

SECTIONS = ("state", "runs", "decisions", "resolutions", "errors", "worker")


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    async with a_tab(tmp_path / "profile") as opened:
        yield opened


@pytest.fixture
async def shown(serve: Serve) -> AsyncIterator[str]:
    """Serve a worker whose every text is hostile, with two running tasks; give the page's address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def evil(_: Request) -> Answer:
        page = (
            b"<title>calm</title><body style='background:rgb(255,0,0)'><script>document.title='owned'</script>"
            b"<img src='/status.json'><link rel=stylesheet href='/status.json'><iframe src='/'></iframe>"
            b"<form action='/status.json'><button></form>"
        )
        return Answer(page, "text/html", headers=(("Content-Security-Policy", security_policy()),))

    async with serve(places={"ports": (("127.0.0.1", port),)}, routes={"/evil": evil}) as served:
        for happening in told_by("\u05e9\u05dc\u05d5\u05dd".join(HOSTILE[:12])):
            served.board.saw(happening)
        served.board.saw(Claimed(TASK, RunId(3), "a task of a calm name"))
        served.board.saw(PhaseEntered(TASK, RunId(3), Phase.RUNNING))
        (served.logs / f"{OTHER}-0.log").write_text("y" * 60_000 + "".join(f"\n{text}" for text in HOSTILE[:7]))
        (served.logs / f"{TASK_ID}-3.log").write_text("compiling\n" * 100)
        yield f"http://127.0.0.1:{port}/"


def rgb(colour: str) -> Pixel:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400, 320])
async def test_a_screenshot_has_the_pages_structure(tab: Tab, shown: str, width: int, scheme: str) -> None:
    await tab.open(shown, width, 900, scheme)
    colours = LIGHT if scheme == "light" else DARK
    ground, raised = rgb(colours["ground"]), rgb(colours["raised"])
    height = float(await tab.look("document.documentElement.scrollHeight"))

    # Nothing is wider than the window, and what could not be narrower scrolls in a place of its own.
    assert await tab.look("document.documentElement.scrollWidth") == width
    for selector in ("h1", "section", "article", "pre", ".wide", "p", "dd", "li:not(.wide li)"):
        beyond = [box for box in await tab.boxes(selector) if box.left < 0 or box.right > width + 0.5]
        assert beyond == [], selector
    # Header, sections and footer stand below each other in this order, and none covers another.
    order = [(await tab.boxes(selector))[0] for selector in ("header", *(f"#{name}" for name in SECTIONS), "footer")]
    assert all(above.bottom <= below.top + 0.5 for above, below in itertools.pairwise(order))
    # The ground has the scheme's colour up to the edges from top to bottom, and each part has something on it.
    for left in (0, width - 4):
        assert (await tab.picture(Box(left, 0, left + 4, height))).colours == {ground}
    for box in order:
        begin = await tab.picture(Box(box.left, box.top, box.right, min(box.bottom, box.top + 60)))
        assert ground in begin.colours
        assert len(begin.colours) > 3
    # Each running task's bar is drawn, in the shade of the phase that took longest, on the raised ground of its place.
    bars = await tab.boxes("#runs article svg")
    assert len(bars) == 2
    for bar in bars:
        assert rgb(SHADES[1]) in (await tab.picture(bar)).colours
    for box in await tab.boxes("#runs article"):
        corner = Box(box.left + 3, box.top + 20, box.left + 6, box.top + 23)
        assert (await tab.picture(corner)).colours == {raised}


async def test_the_page_loads_nothing_runs_nothing_and_the_browser_has_nothing_to_complain_of(
    tab: Tab, shown: str
) -> None:
    # With scripts turned on: it is the page that has none.
    await tab.show(shown)
    assert [url for url in tab.requests() if not url.endswith("/favicon.ico")] == [shown]
    assert tab.complaints() == []
    assert await tab.look("document.querySelectorAll('script,img,iframe,link,object,form,b').length") == 0
    assert "owned" not in await tab.look("document.title")
    assert await tab.look("document.styleSheets[0].cssRules.length") > 10
    said = await tab.look("document.querySelector('pre').innerText")
    assert "<script>alert(1)</script>" in said


async def test_were_there_markup_of_somebody_elses_the_policy_would_still_keep_it_from_doing_anything(
    tab: Tab, shown: str
) -> None:
    await tab.show(f"{shown}evil")
    assert await tab.look("document.title") == "calm"
    assert await tab.look("getComputedStyle(document.body).backgroundColor") == "rgba(0, 0, 0, 0)"
    assert await tab.look("document.images[0].naturalWidth") == 0
    refused = " ".join(tab.complaints())
    for part in ("script", "style", "Loading the image"):
        assert part in refused, tab.complaints()


async def test_what_assistive_technology_is_told_has_landmarks_headings_and_tables(tab: Tab, shown: str) -> None:
    await tab.open(shown)
    await tab.ask("Accessibility.enable")
    nodes = (await tab.ask("Accessibility.getFullAXTree"))["nodes"]
    roles: dict[str, list[str]] = {}
    for node in nodes:
        if not node.get("ignored"):
            roles.setdefault(node["role"]["value"], []).append(str(node.get("name", {}).get("value", "")))
    assert {"main", "banner", "contentinfo", "navigation", "region", "table", "columnheader", "log"} <= set(roles)
    assert [name for name in roles["heading"] if not name] == []
    assert {"State", "Runs", "Last decisions", "Last resolutions", "Last errors and warnings", "Worker"} <= set(
        roles["heading"]
    )
    assert "" not in roles["region"]
    assert [name for name in roles["link"] if not name.strip()] == []


async def test_all_that_scrolls_can_be_reached_by_the_keyboard(tab: Tab, shown: str) -> None:
    await tab.open(shown, 400)
    scrolling = await tab.look(
        "Array.from(document.querySelectorAll('*')).filter(e => (e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > "
        "e.clientHeight + 1) && /auto|scroll/.test(getComputedStyle(e).overflowX)).map(e => e.tabIndex)"
    )
    assert scrolling
    assert set(scrolling) == {0}


def test_the_reader_of_pictures_reads_every_filter() -> None:
    rows = [bytes((kind, *range(10 * kind, 10 * kind + 9))) for kind in range(5)]
    parts: list[tuple[bytes, bytes]] = [
        (b"IHDR", struct.pack(">IIBBBBB", 3, 5, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"".join(rows))),
    ]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    picture = read_png(content)
    assert picture.rows[0] == bytes(range(9))
    assert picture.rows[1] == bytes((10, 11, 12, 23, 25, 27, 39, 42, 45))
    assert picture.rows[2] == bytes(above + 20 + at for at, above in enumerate(picture.rows[1]))
    assert picture.rows[3][0] == 30 + picture.rows[2][0] // 2
    assert picture.rows[4][0] == 40 + picture.rows[3][0]
    assert re.fullmatch(r"#[0-9a-f]{6}", LIGHT["text"])
