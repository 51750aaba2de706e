"""Which script a task is for: step 5 of a decision. Exactly one, or a reason why none."""

from typing import assert_never

from secureworker.core.claim import TaskDefinition
from secureworker.core.constraints import among
from secureworker.core.outcome import Reason
from secureworker.core.policy import Always, PayloadEquals, Policy, ScopeEquals, ScriptRule
from secureworker.core.schemas import show, too_much
from secureworker.core.scopes import overlaps


def choose(task: TaskDefinition, policy: Policy) -> ScriptRule | Reason:
    """Find the one script whose `when` the task meets.

    The parser has seen to it that all rules of a policy choose in the same way.
    """
    by_scope: dict[str, ScriptRule] = {}
    by_payload: dict[tuple[str, str], ScriptRule] = {}
    prefixes: list[str] = []
    for rule in policy.scripts:
        match rule.when:
            case Always():
                return rule
            case ScopeEquals(prefix, equals):
                by_scope[prefix + equals] = rule
                prefixes.append(prefix)
            case PayloadEquals(field, equals):
                by_payload[field, equals] = rule
            case _:
                assert_never(rule.when)
    if by_payload:
        return _by_payload(task, by_payload)
    return _by_scope(task.scopes, by_scope, tuple(dict.fromkeys(prefixes)))


def runs_alone(task: TaskDefinition, policy: Policy) -> bool:
    """Say whether the task would be alone on its worker, if it is admitted at all. Asked before it is decided on."""
    if not any(rule.exclusive for rule in policy.scripts):
        return False
    if too_much(dict(task.verbatim)) or too_much(dict(task.payload)):
        return False
    rule = choose(task, policy)
    return isinstance(rule, ScriptRule) and rule.exclusive


def _by_scope(scopes: tuple[str, ...], rules: dict[str, ScriptRule], prefixes: tuple[str, ...]) -> ScriptRule | Reason:
    """Exactly one of the task's scopes names an action, whatever prefixes there are."""
    # A pattern that reaches into a prefix from above names every action below it: it counts as one of them.
    naming = tuple(
        scope for scope in dict.fromkeys(scopes) if any(overlaps(f"{prefix}*", scope) for prefix in prefixes)
    )
    known = f"the scripts here are chosen by {among(tuple(rules))}"
    if not naming:
        return Reason("scripts", f"none of the task's scopes ({len(scopes)}) names an action; {known}")
    if len(naming) > 1:
        return Reason(
            "scripts", f"{len(naming)} of the task's scopes name an action ({among(naming)}), not one; {known}"
        )
    if naming[0] not in rules:
        return Reason("scripts", f"the task's scope {show(naming[0])} names no action of this policy; {known}")
    return rules[naming[0]]


def _by_payload(task: TaskDefinition, rules: dict[tuple[str, str], ScriptRule]) -> ScriptRule | Reason:
    """Exactly one rule's key of the payload has that rule's value."""
    matching = [rule for (field, equals), rule in rules.items() if task.payload.get(field) == equals]
    if len(matching) == 1:
        return matching[0]
    fields = tuple(dict.fromkeys(field for field, _ in rules))
    found = ", ".join(f"payload.{field} is {show(task.payload.get(field))}" for field in fields)
    known = ", ".join(f"{field}: {equals}" for field, equals in rules)
    how_many = "no script" if not matching else f"{len(matching)} scripts"
    return Reason("scripts", f"{found}, which chooses {how_many}; the scripts here are chosen by {known}")
