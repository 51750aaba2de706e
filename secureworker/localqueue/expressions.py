"""Scope expressions (`AllOf`, `AnyOf`), sets of scopes and roles.

An expression is a scope, or `{"AllOf": [...]}`, or `{"AnyOf": [...]}`, as in the published references.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from secureworker.core.scopes import overlaps, pattern_covers, satisfies
from secureworker.localqueue.errors import ApiError
from secureworker.localqueue.settings import PARAMETER, Role

Expression: TypeAlias = str | dict[str, list[Any]]
"""`list[Any]` is a list of expressions; mypy has no recursive dict values that literals fit."""

_PLACE = re.compile(r"<([A-Za-z]+)>")


def substitute(template: Expression, values: Mapping[str, str]) -> Expression:
    """Fill in `<name>` everywhere; every name must be among `values`."""
    if isinstance(template, str):
        return _PLACE.sub(lambda place: values[place[1]], template)
    return {kind: [substitute(part, values) for part in parts] for kind, parts in template.items()}


def missing(granted: tuple[str, ...], expression: Expression) -> Expression | None:
    """Give what remains of `expression` without what is granted; None where it is satisfied."""
    if isinstance(expression, str):
        return None if satisfies(granted, expression) else expression
    ((kind, parts),) = expression.items()
    rest = [missing(granted, part) for part in parts]
    remaining = [part for part in rest if part is not None]
    if not remaining or (kind == "AnyOf" and len(remaining) < len(parts)):
        return None
    return remaining[0] if len(remaining) == 1 else {kind: remaining}


def show(expression: Expression) -> str:
    """Write an expression as error messages do."""
    return expression if isinstance(expression, str) else json.dumps(expression, indent=2)


def require(client_id: str | None, granted: tuple[str, ...], expression: Expression) -> None:
    """Do nothing where the scopes satisfy the expression.

    Raises:
        ApiError: `InsufficientScopes`, with what is missing; worded differently where there are no credentials.
    """
    rest = missing(granted, expression)
    if rest is None:
        return
    asked = f"```\n{show(expression)}\n```"
    if client_id is None:
        message = (
            f"This request requires Taskcluster credentials that satisfy the following scope expression:\n\n{asked}"
        )
        raise ApiError("InsufficientScopes", message)
    message = (
        f"Client ID {client_id} does not have sufficient scopes and is missing the following scopes:"
        f"\n\n```\n{show(rest)}\n```\n\n"
        f"This request requires the client to satisfy the following scope expression:\n\n{asked}"
    )
    raise ApiError("InsufficientScopes", message)


def normalize(scopes: Iterable[str]) -> tuple[str, ...]:
    """Sort, and drop scopes that others cover."""
    # A star sorts before everything it covers, and nothing else comes between: each scope is covered, if at all, by the
    # one kept last.
    kept: list[str] = []
    for scope in sorted(set(scopes), key=_place):
        if not kept or not pattern_covers(kept[-1], scope):
            kept.append(scope)
    return tuple(kept)


def _place(scope: str) -> tuple[str, bool]:
    return (scope[:-1], False) if scope.endswith("*") else (scope, True)


def expand(scopes: Iterable[str], roles: tuple[Role, ...]) -> tuple[str, ...]:
    """Add what the roles among `scopes` stand for, and theirs; normalized.

    Auth takes no roles that lead to themselves. Here they are followed once for each role there is, which is as far as
    others can lead.
    """
    known = set(scopes)
    for _ in roles:
        assumed = [scope for scope in known if overlaps("assume:*", scope)]
        stood_for = {scope for role in roles for each in assumed for scope in _stands_for(role, each)}
        if stood_for <= known:
            break
        known |= stood_for
    return normalize(known)


def _stands_for(role: Role, assumed: str) -> tuple[str, ...]:
    """Give what a role gives to who has the scope `assumed`; nothing where that is not about the role.

    A role `a/*` is everybody's who has `assume:a/…`, and in its scopes `<..>` stands for the rest. Where that ends in
    `*`, nothing of the scope follows it.
    """
    name = f"assume:{role.role_id}"
    if not name.endswith("*"):
        return role.scopes if pattern_covers(assumed, name) else ()
    if assumed.startswith(name[:-1]):
        rest = assumed.removeprefix(name[:-1])
    elif pattern_covers(assumed, name):
        rest = "*"
    else:
        return ()
    to_its_end = rest.endswith("*")
    return tuple(
        scope.partition(PARAMETER)[0] + rest if to_its_end and PARAMETER in scope else scope.replace(PARAMETER, rest)
        for scope in role.scopes
    )
