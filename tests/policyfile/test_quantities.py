"""Durations and sizes as people write them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.policyfile.quantities import parse_duration, parse_size, spell_duration, spell_size


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("1h30m", 5400), ("2w", 1209600), ("1y", 31536000), ("1d1s", 86401)]
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "count"), [("1B", 1), ("2 kB", 2000), ("2KiB", 2048), ("1MB", 10**6), ("3GiB", 3 * 2**30), ("1TB", 10**12)]
)
def test_sizes(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "5", "5XB", "GiB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


@given(st.integers(0, 10**9))
def test_a_duration_is_read_as_it_was_spelled(seconds: int) -> None:
    span = timedelta(seconds=seconds)
    assert parse_duration(spell_duration(span)) == span


@given(st.integers(1, 2**50))
def test_a_size_is_read_as_it_was_spelled(count: int) -> None:
    assert parse_size(spell_size(count)) == count
