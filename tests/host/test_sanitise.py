"""Output of a hostile script, made harmless. Edge case 8."""

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from secureworker.host.sanitise import MARK, Sanitiser, sanitise_line


def sanitise(*chunks: bytes) -> bytes:
    sanitiser = Sanitiser()
    return b"".join([*map(sanitiser.feed, chunks), sanitiser.end()])


@pytest.mark.parametrize(
    "text",
    [b"", b"plain\n", b"no newline at the end", b"tab\there\n", "ünï — 漢字 🦊\n".encode(), b"\n\n", rb"C:\path\x1b"],
)
def test_harmless_text_stays_as_it_is(text: bytes) -> None:
    assert sanitise(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"\x1b[31mred\x1b[0m", rb"\x1b[31mred\x1b[0m"),
        (b"nul\0", rb"nul\x00"),
        (b"bell\x07 back\x08 delete\x7f", rb"bell\x07 back\x08 delete\x7f"),
        (b"over\rwritten", rb"over\rwritten"),
        (b"dos\r\nlines\r\n", b"dos\nlines\n"),
        (b"\r\r\n", rb"\r" + b"\n"),
        (b"end\r", rb"end\r"),
        (b"\xff\xfe bytes", rb"\xff\xfe bytes"),
        (b"cut \xe2\x82", rb"cut \xe2\x82"),
        ("c1 \x9b".encode(), rb"c1 \x9b"),
        ("bidi \u202e \u2066".encode(), rb"bidi \u202e \u2066"),
        ("zero \u200b\u200d\ufeff".encode(), rb"zero \u200b\u200d\ufeff"),
        ("lines \u2028\u2029".encode(), rb"lines \u2028\u2029"),
        ("tags \U000e0041".encode(), rb"tags \U000e0041"),
        ("soft\u00ad".encode(), rb"soft\xad"),
    ],
)
def test_what_moves_hides_or_reorders_is_shown_as_an_escape(text: bytes, shown: bytes) -> None:
    assert sanitise(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        b"[taskcluster 2026-01-25T23:31:13.787Z] exit code: 0\n",
        b"[taskcluster:error] no\n",
        b"fine\n[taskcluster] x",
        b"fine\r\n[taskcluster] x",
        b" \t[taskcluster] x",
        b"[TaskCluster] x",
        b"\n\n  [TASKCLUSTER:",
    ],
)
def test_a_forged_line_of_the_worker_is_broken(text: bytes) -> None:
    shown = sanitise(text)

    assert not re.search(rb"^\s*\[taskcluster", shown, re.MULTILINE | re.IGNORECASE)
    assert rb"\x5btaskcluster" in shown.lower()


def test_the_mark_within_a_line_is_left_alone() -> None:
    assert sanitise(b"see [taskcluster docs]\n") == b"see [taskcluster docs]\n"


def test_after_an_end_a_new_line_begins() -> None:
    sanitiser = Sanitiser()
    sanitiser.feed(b"unfinished")
    sanitiser.end()

    assert sanitiser.feed(b"[taskcluster x") == rb"\x5btaskcluster x"


def test_a_long_line_is_passed_on_as_it_comes() -> None:
    sanitiser = Sanitiser()

    assert sum(len(sanitiser.feed(b"x" * 65536)) for _ in range(100)) == 6553600


def test_at_most_a_few_bytes_are_held_back() -> None:
    sanitiser = Sanitiser()
    for chunk in (b" " * 65536, b"[taskcluste", b"\r", b"\xf0\x9f\xa6", b"[t\r"):
        assert len(sanitiser.feed(chunk)) >= len(chunk) - len(MARK)


def test_every_character_that_unicode_calls_a_control_or_format_is_shown() -> None:
    for code in range(0x110000):
        character = chr(code)
        if unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp"} and character not in "\t\n":
            assert sanitise(character.encode("utf-8", "surrogatepass")) != character.encode()


hostile = st.lists(
    st.one_of(
        st.binary(max_size=8),
        st.text(max_size=8).map(lambda text: text.encode()),
        st.sampled_from([b"[taskcluster", b"[task", b"cluster", b"\r", b"\n", b"\r\n", b" ", b"\xe2", b"\x80\xae"]),
    ),
    max_size=30,
)


@given(hostile)
@example([b"\r", b"\n"])
@example([b"\n ", b"[taskc", b"luster"])
@example([b"[task", b"[taskcluster"])
@example([b"\xe2\x80", b"\xae"])
def test_the_pieces_output_comes_in_make_no_difference(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    single = [whole[place : place + 1] for place in range(len(whole))]

    assert sanitise(*chunks) == sanitise(whole) == sanitise(*single)


@given(hostile)
def test_nothing_gets_through(chunks: list[bytes]) -> None:
    shown = sanitise(*chunks).decode()

    assert not re.search(r"^[ \t]*\[taskcluster", shown, re.MULTILINE | re.IGNORECASE)
    assert all(
        character in "\t\n" or unicodedata.category(character) not in {"Cc", "Cf", "Zl", "Zp"} for character in shown
    )


@given(st.text())
def test_a_line_of_the_workers_own_is_one_harmless_line(text: str) -> None:
    line = sanitise_line(text)

    assert "\n" not in line
    assert all(unicodedata.category(character) not in {"Cf", "Zl", "Zp"} for character in line)


def test_a_quoted_surrogate_is_shown() -> None:
    assert sanitise_line("name \udcff") == r"name \udcff"
