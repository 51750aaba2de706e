"""What of a policy this version of the program gives effect to."""

from collections.abc import Callable
from typing import Final

from secureworker.core.policy import Policy, ScriptRule

_NOT_YET: Final[tuple[tuple[Callable[[ScriptRule], bool], str, str], ...]] = ()
"""Whether a script's rule has a key that nothing enforces, the key, and why. Empty: there is none at the moment."""


def unenforceable(policy: Policy) -> tuple[str, ...]:
    """Name the rules that are understood, and that nothing here enforces or provides yet.

    A worker with such a policy must not start: it would seem to hold to rules that it ignores.

    Returns:
        a sentence each, with the rule's key.
    """
    return tuple(
        f"scripts.{rule.name}.{key}: {why}; remove the key"
        for rule in policy.scripts
        for has, key, why in _NOT_YET
        if has(rule)
    )
