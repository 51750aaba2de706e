"""The page, the document and the table: what they show, and that nothing in them comes out of hostile text."""

import base64
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from secureworker.core.happening import (
    Appended,
    Claimed,
    Decided,
    Faulted,
    Happening,
    Hindrance,
    Phase,
    PhaseEntered,
    Renewed,
    Resolved,
    SelfTested,
    SignerMet,
    State,
    StateEntered,
)
from secureworker.core.ids import RunId, Sha256, TaskId
from secureworker.core.outcome import Reason, Refused, Resolution
from secureworker.core.schemas import CompiledSchema
from secureworker.core.standing import Standing, after, at_start
from secureworker.host.tails import read_tail
from secureworker.operation.page import as_page
from secureworker.operation.page_html import element, joined
from secureworker.operation.page_style import DARK, LIGHT, SHADES
from secureworker.operation.server import Bounds
from secureworker.operation.view import as_document, duration
from secureworker.operation.view_table import as_tables
from secureworker.policyfile.load import read_schema
from secureworker.testing import TASK_ID
from tests.operation.conftest import BEGAN, Served

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
TASK, RUN = TaskId(TASK_ID), RunId(0)
OTHER = TaskId("AAAAAAAAQACAAAAAAAAAAA")
HOSTILE = (
    "<script>alert(1)</script>",
    "</title></style></pre></td></table><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "&lt;b&gt; &#60;b&#62; &#x3c;b&#x3e;",
    "<!-- <b> --> <![CDATA[<b>]]>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "javascript:alert(1) {{7*7}} ${7*7}",
    "\x1b[2J\x1b]0;owned\x07\x1b]8;;https://evil.example\x07link\x1b]8;;\x07 \x9b31m",
    "abc\u202egnp.exe \u2066isolated \u200b\ufeff",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 right to left",
    "[bold red]markup[/] [link=https://evil.example]x[/link] :skull:",
    "line\nend\r\nand \x00 nul \ud800 surrogate",
    "<" * 1_000_000,
)
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def told_by(text: str) -> tuple[Happening, ...]:
    """Give happenings in which everything that others write is `text`."""
    return (
        SignerMet("SHA256:abc"),
        SelfTested(27),
        Appended(text, 5, Sha256("cc" * 32), text),
        Claimed(TASK, RUN, text),
        Decided(TASK, RUN, text, (Reason(text, text), Reason("", text))),
        PhaseEntered(TASK, RUN, Phase.DECIDING),
        Resolved(TASK, RUN, Refused(()), Resolution.MALFORMED_PAYLOAD, reported=False, summary=text),
        PhaseEntered(TASK, RUN, Phase.ENDED),
        Resolved(OTHER, RUN, Refused(()), Resolution.NOT_OURS, reported=False, summary=text),
        Claimed(OTHER, RUN, text),
        Decided(OTHER, RUN, text or "script"),
        PhaseEntered(OTHER, RUN, Phase.RUNNING),
        Renewed(OTHER, RUN, 700.0),
        Faulted("error", text),
        Faulted("warning", text),
        Faulted("warning", text),
        StateEntered(State.HINDERED, text, (Hindrance("disk", text),)),
    )


def full(text: str) -> Standing:
    """Give a standing with that text everywhere."""
    standing = at_start(BEGAN, NOW)
    for number, happening in enumerate(told_by(text)):
        standing = after(standing, happening, NOW + timedelta(seconds=number))
    return standing


def document_of(text: str) -> dict[str, Any]:
    return as_document(full(text), NOW + timedelta(hours=30))


def page_of(text: str) -> bytes:
    return as_page(document_of(text), {(OTHER, 0): text.encode("utf-8", "backslashreplace").decode()}, 5)


class Seen(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.others: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.others.append(data)

    def unknown_decl(self, data: str) -> None:
        self.others.append(data)

    def handle_pi(self, data: str) -> None:
        self.others.append(data)


def skeleton(page: bytes) -> list[tuple[str, tuple[tuple[str, str | None], ...]]]:
    seen = Seen(page)
    assert seen.others == []
    return seen.elements


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_element_and_no_attribute_of_the_page_comes_out_of_hostile_text(text: str) -> None:
    assert skeleton(page_of(text)) == skeleton(page_of("harmless"))


@pytest.mark.parametrize("character", ["\U000e0001", "'", "\x00", "\u05e9"])
def test_the_largest_standing_that_there_can_be_is_within_what_is_answered(character: str) -> None:
    text = character * 2_000
    reasons = tuple(Reason(text, text) for _ in range(50))
    standing = full(text)
    for number in range(100):
        task, run = TaskId(TASK_ID), RunId(number)
        happenings: tuple[Happening, ...] = (
            Claimed(task, run, text),
            Decided(task, run, "", reasons),
            *(PhaseEntered(task, run, phase) for phase in Phase if phase is not Phase.ENDED),
            Resolved(task, run, Refused(()), Resolution.FAILED, reported=True, summary=text),
            Faulted(f"{number}{text}", text),
            StateEntered(State.HINDERED, text, tuple(Hindrance(text, text) for _ in range(50))),
        )
        for happening in happenings:
            standing = after(standing, happening, NOW)
    document = as_document(standing, NOW)
    assert len(as_page(document, {(OTHER, 0): "'" * 65536}, 5)) < Bounds().answer_bytes
    assert len(json.dumps(document, indent=2)) < Bounds().answer_bytes


@given(st.text(min_size=1, max_size=300))
def test_whatever_is_written_there_the_page_has_the_same_elements(text: str) -> None:
    assert skeleton(page_of(text)) == skeleton(page_of("harmless"))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_hidden_or_controlling_is_in_the_document_nor_the_page_nor_the_table(text: str) -> None:
    document = document_of(text)

    def texts(value: Any) -> Iterable[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            for inner in value.values():
                yield from texts(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from texts(inner)

    assert [found for found in texts(document) if CONTROLS.search(found)] == []
    page = as_page(document, {}).decode()
    assert CONTROLS.search(page) is None
    for width in (40, 100, 200):
        drawn = io.StringIO()
        Console(file=drawn, width=width, force_terminal=False).print(as_tables(document))
        assert CONTROLS.search(drawn.getvalue()) is None
        assert max(map(len, drawn.getvalue().splitlines())) <= width
    assert len(page) < 100_000


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_the_document_is_as_its_schema_says_whatever_is_in_it(text: str) -> None:
    schema = CompiledSchema(read_schema("status"))
    assert schema.problems(document_of(text)) == ()
    assert schema.problems(as_document(at_start(BEGAN, NOW), NOW)) == ()


def test_the_schemas_example_is_right_and_every_key_is_described() -> None:
    document = read_schema("status")
    schema = CompiledSchema(document)
    for example in document["examples"]:
        assert schema.problems(example) == ()

    def undescribed(part: Any, path: str) -> Iterable[str]:
        for name, inner in part.get("properties", {}).items():
            place = f"{path}.{name}"
            if not ("description" in inner or "const" in inner or "$ref" in inner):
                yield place
            for each in (inner, inner.get("items", {}), *inner.get("oneOf", ())):
                yield from undescribed(each, place)

    assert list(undescribed(document, "")) == []


def test_a_hostile_document_is_made_harmless_for_the_terminal_once_more() -> None:
    document = json.loads(json.dumps(read_schema("status")["examples"][0]))
    document["runs"][0]["name"] = "\x1b[2J" + "x" * 1_000_000
    document["state"]["why"] = "\x1b]0;owned\x07"
    drawn = io.StringIO()
    Console(file=drawn, width=100, force_terminal=True, color_system="standard").print(as_tables(document))
    shown = re.sub("\x1b\\[[0-9;]*m", "", drawn.getvalue())  # rich's own colours
    assert CONTROLS.search(shown) is None
    assert "\\x1b[2J" in shown
    assert len(shown) < 20_000


def test_text_is_text_and_no_style_of_the_terminals_markup() -> None:
    drawn = io.StringIO()
    Console(file=drawn, width=200).print(as_tables(document_of("[bold]loud[/bold] :skull:")))
    assert "[bold]loud[/bold] :skull:" in drawn.getvalue()


def test_the_page_says_all_that_is_known() -> None:
    text = Seen(page_of("what it says")).text
    for said in (
        "test-provisioner",
        "hindered",
        "disk",
        "running",
        "for 1 d 5 h",
        "renewed once",
        "refused",
        "malformed-payload (the Queue does not know)",
        "not-ours",
        "5f" * 32,
        "cc" * 32,
        "SHA256:abc",
        "27 probes",
        "2 times since",
        "read again every 5 s",
    ):
        assert said in text, said


def test_a_page_of_a_worker_that_has_only_begun_says_so() -> None:
    text = Seen(as_page(as_document(at_start(BEGAN, NOW), NOW), {})).text
    for said in ("starting", "Nothing runs.", "None yet.", "not met yet", "not made yet", "nothing written yet"):
        assert said in text


def test_the_page_can_be_found_ones_way_in_without_eyes() -> None:
    seen = Seen(page_of("a task"))
    tags = Counter(tag for tag, _ in seen.elements)
    attributes = [(tag, dict(given)) for tag, given in seen.elements]
    assert tags["h1"] == tags["main"] == tags["header"] == tags["footer"] == tags["title"] == 1
    assert ("html", {"lang": "en"}) in attributes
    assert all(given.get("scope") == "col" for tag, given in attributes if tag == "th")
    assert tags["table"] == tags["caption"] == 3
    ids = [given["id"] for _, given in attributes if "id" in given]
    assert len(ids) == len(set(ids))
    assert {given["aria-labelledby"] for _, given in attributes if "aria-labelledby" in given} <= set(ids)
    assert all("aria-label" in given for tag, given in attributes if tag in {"nav", "article", "pre"})
    assert ("a", {"class": "skip", "href": "#runs"}) in attributes
    # What the picture of the phases says is in words beside it.
    assert all(given.get("aria-hidden") == "true" for tag, given in attributes if tag == "svg")
    assert "claimed" in seen.text
    assert tags["script"] == 0
    assert not [name for _, given in attributes for name in given if name.startswith("on") or name in {"style", "src"}]


def luminance(colour: str) -> float:
    """Give what WCAG 2.2 calls relative luminance."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_have_the_contrast_of_level_aa(colours: dict[str, str]) -> None:
    grounds = (colours["ground"], colours["raised"])
    words = [value for name, value in colours.items() if name not in {"ground", "raised", "line"}]
    assert min(contrast(word, ground) for word in words for ground in grounds) >= 4.5
    assert min(contrast(shade, ground) for shade in SHADES for ground in grounds) >= 3


async def test_the_page_asks_to_be_read_again_only_where_that_was_asked_for(served: Served) -> None:
    found = {}
    for query in (
        "",
        "?every=5",
        "?every=1",
        "?every=9999",
        "?every=0",
        "?every=x",
        "?every=5;url=https://evil.example",
    ):
        _, _, page = await served.get(f"/{query}")
        refreshes = [
            dict(given).get("content") for tag, given in Seen(page).elements if ("http-equiv", "refresh") in given
        ]
        found[query] = refreshes
    assert list(found.values()) == [[], ["5"], ["2"], ["3600"], [], [], []]


async def test_the_pages_style_is_the_one_that_its_policy_names(served: Served) -> None:
    _, headers, page = await served.get("/")
    (rules,) = re.findall(r"<style>(.*?)</style>", page.decode(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(rules.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in headers["content-security-policy"]


async def test_hostile_logs_are_shown_as_they_are_and_make_no_element(served: Served) -> None:
    served.board.saw(Claimed(TASK, RUN, HOSTILE[1]))
    log = served.logs / f"{TASK_ID}-0.log"
    log.write_text("harmless\n")
    before = skeleton((await served.get("/"))[2])
    log.write_text("\n".join((*HOSTILE[:7], "<b>" * 500_000)))
    _, _, page = await served.get("/")
    assert skeleton(page) == before
    assert "<b><b>" in Seen(page).text
    assert len(page) < 200_000


@pytest.mark.parametrize(
    ("content", "tail"),
    [
        (b"", b""),
        (b"one\ntwo\n", b"one\ntwo\n"),
        (b"x" * 200 + b"\nlast line\n", b"last line\n"),
        (b"\xe2\x82\xac" * 100, b"\xe2\x82\xac" * 33),
        (b"x" * 1_000_000, b"x" * 100),
        (b"x" * 1_000_000 + b"\n", b"x" * 99 + b"\n"),
        (b"\x80" * 200, b"\x80" * 100),
    ],
)
def test_a_tail_is_whole_lines_and_never_more_than_asked_for(tmp_path: Path, content: bytes, tail: bytes) -> None:
    (tmp_path / "log").write_bytes(content)
    assert read_tail(str(tmp_path / "log"), 100) == tail


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0.0 s"), (0.25, "0.2 s"), (59.9, "59.9 s"), (61, "1 min 1 s"), (3725, "1 h 2 min"), (90061, "1 d 1 h")],
)
def test_durations_are_said_in_their_two_largest_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_markup_is_made_by_elements_only() -> None:
    assert joined("<", element("p", "a & b", class_='x"y', aria_label="z"), None, 5).text == (
        '&lt;<p class="x&quot;y" aria-label="z">a &amp; b</p>5'
    )
