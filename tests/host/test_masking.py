"""Known secrets stay out of logs."""

import base64
import json
import urllib.parse

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from secureworker.host.masking import MASK, Masker, forms

SECRET = b'p\xc3\xa4ss "w/rd+!?'


def mask(secrets: tuple[bytes, ...], *chunks: bytes) -> bytes:
    masker = Masker(secrets)
    return b"".join([*map(masker.feed, chunks), masker.end()])


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        base64.b64encode(SECRET),
        base64.urlsafe_b64encode(SECRET),
        base64.b64encode(b"a" + SECRET),
        base64.b64encode(b"ab" + SECRET),
        base64.b64encode(b"user:" + SECRET + b":more"),
        urllib.parse.quote(SECRET).encode(),
        urllib.parse.quote(SECRET, safe="").encode(),
        urllib.parse.quote_plus(SECRET).encode(),
        json.dumps(SECRET.decode()).encode(),
        json.dumps(SECRET.decode(), ensure_ascii=False).encode(),
    ],
)
def test_a_secret_is_masked_in_the_forms_it_is_printed_in(form: bytes) -> None:
    masked = mask((SECRET,), b"before " + form + b" after")

    assert MASK in masked
    assert masked.startswith(b"before ")
    assert masked.endswith(b" after")
    assert all(piece not in masked for piece in forms(SECRET))


def test_a_secret_that_is_no_text_is_masked() -> None:
    assert mask((b"\xff\xfe\xfd\xfc\xfb\xfa",), b"x\xff\xfe\xfd\xfc\xfb\xfa") == b"x" + MASK


def test_a_secret_split_over_two_writes_is_masked() -> None:
    for place in range(len(SECRET)):
        assert mask((SECRET,), b"a " + SECRET[:place], SECRET[place:] + b" b") == b"a " + MASK + b" b"


def test_of_two_secrets_at_one_place_the_longer_is_masked() -> None:
    assert mask((b"secret", b"secret-and-more"), b"secret-and-more secret-and-") == MASK + b" " + MASK + b"-and-"


def test_short_secrets_would_tell_themselves_and_are_not_masked() -> None:
    assert mask((b"abc",), b"abc") == b"abc"


def test_without_secrets_nothing_is_held_back() -> None:
    assert Masker(()).feed(b"abc") == b"abc"


pieces = st.lists(st.sampled_from([b"abcdef", b"abc", b"def", b"cdefab", b"x", b"abcdefabcd", b"ab"]), max_size=20)


@given(pieces)
@example([b"abcdefabc", b"def"])
def test_the_pieces_text_comes_in_make_no_difference(chunks: list[bytes]) -> None:
    secrets = (b"abcdef", b"cdefab", b"abcdefabcd")
    whole = b"".join(chunks)
    single = [whole[place : place + 1] for place in range(len(whole))]

    masked = mask(secrets, *chunks)

    assert masked == mask(secrets, whole) == mask(secrets, *single)
    assert not any(secret in masked for secret in secrets)


@given(st.binary(min_size=6, max_size=20), st.binary(max_size=5), st.binary(max_size=5))
def test_base64_is_masked_wherever_the_secret_begins(secret: bytes, before: bytes, after: bytes) -> None:
    encoded = base64.b64encode(before + secret + after)

    assert MASK in mask((secret,), encoded)


@given(
    keys=st.lists(st.binary(min_size=6, max_size=12), min_size=12, max_size=20, unique=True),
    noise=st.binary(max_size=30),
    size=st.integers(1, 40),
    data=st.data(),
)
def test_many_secrets_are_masked_as_by_a_search_for_each(
    keys: list[bytes], noise: bytes, size: int, data: st.DataObject
) -> None:
    one, other = data.draw(st.sampled_from(keys)), data.draw(st.sampled_from(keys))
    text = noise + one + noise + base64.b64encode(other) + other[:7] + noise
    quick, thorough = Masker(tuple(keys)), Masker(tuple(keys))
    assert quick._beginnings is not None
    thorough._beginnings = None
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    results = [b"".join(map(masker.feed, pieces)) + masker.end() for masker in (quick, thorough)]
    assert results[0] == results[1]


@pytest.mark.parametrize("others", [0, 20])
def test_only_what_may_be_the_beginning_of_a_secret_is_held_back(others: int) -> None:
    secrets = (b"a-long-secret" * 50, *(b"other-secret-%d" % number for number in range(others)))
    masker = Masker(secrets)
    assert masker.feed(b"a line\n") == b"a line\n"
    assert masker.feed(b"a-long-secreta-lo") == b""
    assert masker.feed(b"t of others\na") == b"a-long-secreta-lot of others\n"
    assert masker.feed(b"n end") == b"an end"


@given(
    st.lists(st.text("ab", min_size=6, max_size=9), min_size=1, max_size=30),
    st.lists(st.text("ab", max_size=12), max_size=8),
)
@example(["aaaaaab", "aaaaaa"], ["aaaaa", "a", "a", "b"])
def test_secrets_that_are_like_each_other_are_masked_in_whatever_pieces_they_come(
    secrets: list[str], pieces: list[str]
) -> None:
    given_secrets = tuple(secret.encode() for secret in secrets)
    masked = mask(given_secrets, *(piece.encode() for piece in pieces))
    assert masked.decode() == Masker(given_secrets).whole("".join(pieces))
