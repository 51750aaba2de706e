"""Whatever a witness, a store or a stranger sends, it is a cosignature of this checkpoint or a BadNote."""

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.core.checkpoint import BadNote
from secureworker.core.witness import (
    WitnessKey,
    check_cosigned,
    cosignature_message,
    parse_vkey,
    read_conflict,
    with_cosignature,
)
from secureworker.testing import EPOCH
from tests.audit.conftest import a_key

KEY = a_key()
WITNESS = WitnessKey("witness.example.org/w1", KEY.public.raw, KEY.public.verifies)
TEXT = b"secureworker/a/b/c/d/000001\n7\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
NOTE = TEXT + "\n\u2014 secureworker/a/b/c/d/000001 AAAAAAAA\n".encode()


def line(seconds: int = 1_780_000_000) -> bytes:
    signature = KEY.sign(cosignature_message(TEXT, seconds))
    blob = base64.b64encode(WITNESS.id + seconds.to_bytes(8, "big") + signature).decode()
    return f"\u2014 {WITNESS.name} {blob}\n".encode()


GOOD = line()


def test_a_cosignature_is_put_below_the_logs_own_and_says_when() -> None:
    cosigned = with_cosignature(NOTE, GOOD, WITNESS)

    assert cosigned == NOTE + GOOD
    assert check_cosigned(cosigned, WITNESS) == datetime(2026, 5, 28, 20, 26, 40, tzinfo=UTC)
    assert check_cosigned(with_cosignature(NOTE, line(1), WITNESS), WITNESS) < EPOCH


@given(st.binary(max_size=300))
def test_whatever_is_answered_is_no_cosignature(answer: bytes) -> None:
    with pytest.raises(BadNote):
        with_cosignature(NOTE, answer, WITNESS)


@given(st.integers(0, len(GOOD) - 2), st.integers(1, 255))
def test_a_line_that_was_changed_anywhere_is_none(place: int, change: int) -> None:
    changed = bytearray(GOOD)
    changed[place] ^= change

    with pytest.raises(BadNote):
        with_cosignature(NOTE, bytes(changed), WITNESS)


@given(st.integers(0, len(TEXT) - 1), st.integers(1, 255))
def test_a_checkpoint_that_was_changed_anywhere_is_not_cosigned(place: int, change: int) -> None:
    changed = bytearray(NOTE + GOOD)
    changed[place] ^= change

    with pytest.raises(BadNote):
        check_cosigned(bytes(changed), WITNESS)


def test_another_spelling_of_the_same_line_is_none() -> None:
    last = GOOD[-4:-3]
    other = bytes([last[0] + 1])
    spelt = GOOD[:-4] + other + GOOD[-3:]
    assert base64.b64decode(spelt.split()[2]) == base64.b64decode(GOOD.split()[2])

    with pytest.raises(BadNote):
        with_cosignature(NOTE, spelt, WITNESS)


def test_the_first_line_of_a_witness_decides() -> None:
    bad = line(5).replace(b"\n", b"")[:-6] + b"AAAA==\n"

    with pytest.raises(BadNote):
        check_cosigned(NOTE + bad + GOOD, WITNESS)


@given(st.text(max_size=200))
def test_whatever_is_given_for_a_key_is_one_or_a_valueerror(text: str) -> None:
    with pytest.raises(ValueError, match=r"witness|Ed25519|copy it anew"):
        parse_vkey(text, lambda _: lambda _, __: False)


@given(st.binary(max_size=30))
def test_a_size_is_a_number_in_its_one_form_or_none(body: bytes) -> None:
    try:
        size = read_conflict(body)
    except BadNote:
        return
    assert body.removesuffix(b"\n") == str(size).encode()
