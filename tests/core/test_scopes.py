"""Scope satisfaction is Taskcluster's: cases from its documentation, and properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.core.scopes import intersect, overlaps, pattern_covers, satisfies, satisfies_all, unsatisfied

# Taskcluster forbids scopes that end in more than one star: `**` would cover `*`, and less than it.
SCOPES = st.text(alphabet="ab:*", max_size=5).filter(lambda scope: not scope.endswith("**"))
SCOPE_SETS = st.lists(SCOPES, max_size=4)


@pytest.mark.parametrize(
    ("pattern", "scope", "covered"),
    [
        ("a:b", "a:b", True),
        ("a:b", "a:bc", False),
        ("a:bc", "a:b", False),
        ("a:*", "a:b", True),
        ("a:*", "a:", True),
        ("a:*", "a", False),
        ("a:b*", "a:b", True),
        ("a:b*", "a:b*", True),
        ("a:b*", "a:bc*", True),
        ("a:bc*", "a:b*", False),
        ("a:b", "a:b*", False),
        ("*", "anything", True),
        ("*", "*", True),
        ("*", "", True),
        ("a", "*", False),
        ("a*b", "a*b", True),
        ("a*b", "axb", False),
        ("a**", "a*", True),
        ("a**", "ab", False),
        ("", "", True),
        ("", "a", False),
        ("A:b", "a:b", False),
    ],
)
def test_a_pattern_covers_what_begins_with_it(pattern: str, scope: str, *, covered: bool) -> None:
    assert pattern_covers(pattern, scope) is covered


def test_two_granted_scopes_are_never_combined() -> None:
    assert not satisfies(["a:b", "a:c"], "a:*")


def test_each_required_scope_must_be_satisfied() -> None:
    assert satisfies_all(["a:*", "b"], ["a:x", "b"])
    assert not satisfies_all(iter(["a:*"]), iter(["a:x", "b", "c"]))
    assert unsatisfied(["a:*"], ["b", "a:x", "c"]) == ("b", "c")


def test_nothing_required_is_satisfied_by_nothing() -> None:
    assert satisfies_all([], [])
    assert not satisfies([], "a")


def test_overlap_is_some_scope_in_both() -> None:
    assert overlaps("a:*", "a:b*")
    assert overlaps("a:b*", "a:*")
    assert overlaps("a:b", "a:*")
    assert not overlaps("a:b*", "a:c*")
    assert not overlaps("a:b", "a:c")


def test_the_intersection_keeps_the_narrower_of_each_pair_and_nothing_redundant() -> None:
    assert intersect(["a:*", "b", "c*"], ["a:x*", "a:xy", "b*", "d"]) == ("a:x*", "b")


def test_the_intersection_of_a_star_and_two_is_the_narrower() -> None:
    assert intersect(["a*"], ["a**"]) == ("a**",)
    assert intersect(["a**"], ["a*"]) == ("a**",)


@given(SCOPES, SCOPES, SCOPES)
def test_covering_is_transitive(one: str, two: str, three: str) -> None:
    if pattern_covers(one, two) and pattern_covers(two, three):
        assert pattern_covers(one, three)


@given(SCOPES, SCOPES)
def test_overlap_is_one_covering_the_other(one: str, other: str) -> None:
    assert overlaps(one, other) is (pattern_covers(one, other) or pattern_covers(other, one))


@given(SCOPES, SCOPES)
def test_overlap_is_symmetric(one: str, other: str) -> None:
    assert overlaps(one, other) is overlaps(other, one)


@given(SCOPE_SETS, SCOPES, SCOPES)
def test_more_scopes_never_satisfy_less(granted: list[str], more: str, required: str) -> None:
    if satisfies(granted, required):
        assert satisfies([*granted, more], required)


@given(SCOPE_SETS, SCOPE_SETS, SCOPES)
def test_the_intersection_satisfies_exactly_what_both_satisfy(one: list[str], other: list[str], scope: str) -> None:
    assert satisfies(intersect(one, other), scope) is (satisfies(one, scope) and satisfies(other, scope))
