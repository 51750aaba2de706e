"""What of a policy this version of the program gives effect to."""

from secureworker.core.policy import Policy, ScriptRule


def unenforceable(policy: Policy) -> tuple[str, ...]:
    """Name the rules that are understood, and that nothing here enforces or provides yet.

    A worker with such a policy must not start: it would seem to hold to rules that it ignores.

    Returns:
        a sentence each, with the rule's key.
    """
    found = [line for rule in policy.scripts for line in _of_script(rule)]
    if policy.trust:
        found.append("trust: inputs of other tasks are not verified yet")
    return tuple(found)


def _of_script(rule: ScriptRule) -> tuple[str, ...]:
    at = f"scripts.{rule.name}"
    keys = (
        (rule.upstream is not None, "upstream", "inputs of other tasks are not fetched yet"),
        (rule.unlimited, "limits", "the sandbox runs nothing without limits yet"),
    )
    return tuple(f"{at}.{key}: {why}; remove the key" for there, key, why in keys if there)
