"""Scopes as Taskcluster means them: a scope that ends in `*` stands for every scope that begins with the rest of it.

The rule is that of Taskcluster's `scopes` library (design document "Scopes"): only a `*` at the very end is special, it
stands for any characters or none, and a scope that is asked for may itself end in `*`, and then asks for all of those.
Roles (`assume:`) are not expanded here: that takes the Auth service.
"""

from collections.abc import Iterable


def pattern_covers(pattern: str, scope: str) -> bool:
    """Whether whoever has `pattern` has `scope`, and with it everything that `scope` stands for."""
    return scope.startswith(pattern[:-1]) if pattern[-1:] == "*" else pattern == scope


def overlaps(one: str, other: str) -> bool:
    """Whether some scope is covered by both. Symmetric; what a rule that forbids has to ask."""
    # Written out: a decision asks this several times for each of a task's scopes.
    return (one[-1:] == "*" and other.startswith(one[:-1])) or (
        one.startswith(other[:-1]) if other[-1:] == "*" else one == other
    )


def satisfies(granted: Iterable[str], required: str) -> bool:
    """Whether one of `granted` covers `required`. Scopes are never combined: two halves do not make a whole."""
    return any(pattern_covers(pattern, required) for pattern in granted)


def satisfies_all(granted: Iterable[str], required: Iterable[str]) -> bool:
    """Whether each of `required` is satisfied; true where nothing is required."""
    return not unsatisfied(granted, required)


def unsatisfied(granted: Iterable[str], required: Iterable[str]) -> tuple[str, ...]:
    """Give those of `required` that `granted` does not satisfy, in their order."""
    patterns = tuple(granted)
    return tuple(scope for scope in required if not satisfies(patterns, scope))


def intersect(one: Iterable[str], other: Iterable[str]) -> tuple[str, ...]:
    """Give the scopes that both satisfy: of each overlapping pair the narrower one, sorted, none of them redundant."""
    others = tuple(other)
    # Two that cover each other are `a*` and `a**`: the latter stands for less, namely what begins with `a*`.
    common = {
        max((each for each in (left, right) if pattern_covers(left, each) and pattern_covers(right, each)), key=len)
        for left in one
        for right in others
        if overlaps(left, right)
    }
    kept: list[str] = []
    # A wider one comes before what it covers: its prefix is shorter, or the same and it is the pattern of the two.
    for scope in sorted(common, key=lambda scope: (len(scope.removesuffix("*")), not scope.endswith("*"))):
        if not satisfies(kept, scope):
            kept.append(scope)
    return tuple(sorted(kept))
