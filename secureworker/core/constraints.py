"""What every task must satisfy, whatever script it is for: steps 3 and 4 of a decision."""

import re
from collections.abc import Iterator
from typing import Final

from secureworker.core.claim import Json, TaskDefinition
from secureworker.core.outcome import Reason
from secureworker.core.policy import DenyRule, Source, TaskConstraints
from secureworker.core.schemas import show, spell
from secureworker.core.scopes import overlaps, satisfies

_LISTED: Final = 5
"""Names listed in a sentence; the rest is counted."""
_ROLES: Final = "assume:*"
_SOURCE: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[a-z0-9.-]+(?::[0-9]+)?)/(?P<path>[A-Za-z0-9._~@/+-]+)"
)
"""A plain URL: no user, no escapes, no query, nothing that two parsers could read differently."""


def among(names: tuple[str, ...]) -> str:
    """List names for a sentence."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(map(show, names[:_LISTED])) + more


def comes_from(url: str, source: Source) -> bool:
    """Whether a task's source URL lies in a repository: scheme, host, owner and name compared as whole parts."""
    match = _SOURCE.fullmatch(url)
    if match is None or (match["scheme"], match["host"]) != (source.scheme, source.host):
        return False
    segments = match["path"].rstrip("/").split("/")
    if any(segment in {"", ".", ".."} for segment in segments):
        return False
    wanted = [source.owner, source.repository] if source.owner else [source.repository]
    return segments[: len(wanted)] == wanted


def against_origin(task: TaskDefinition, constraints: TaskConstraints) -> Iterator[Reason]:
    """Step 3: scheduler, project, source and definition. Compared exactly."""
    if task.scheduler_id not in constraints.scheduler_ids:
        allowed = among(constraints.scheduler_ids)
        yield Reason(
            "tasks.scheduler-ids",
            f"the task's schedulerId is {show(task.scheduler_id)}, and only {allowed} may schedule tasks here",
        )
    if task.project_id not in constraints.project_ids:
        allowed = among(constraints.project_ids)
        yield Reason(
            "tasks.project-ids",
            f"the task's projectId is {show(task.project_id)}, and only {allowed} may run tasks here",
        )
    if constraints.sources and not any(comes_from(task.source, source) for source in constraints.sources):
        allowed = among(tuple(map(str, constraints.sources)))
        yield Reason(
            "tasks.sources",
            f"the task's metadata.source is {show(task.source)}, and tasks must come from {allowed}",
        )
    if constraints.definition is not None:
        definition: Json = dict(task.verbatim)
        for problem in constraints.definition.problems(definition):
            yield Reason("tasks.definition", f"{spell(('task', *problem.path))}: {problem.message}")


def against_scopes(scopes: tuple[str, ...], constraints: TaskConstraints) -> Iterator[Reason]:
    """Step 4. What is forbidden wins, also over a pattern that only reaches into it."""
    for scope in dict.fromkeys(scopes):
        if overlaps(_ROLES, scope):
            yield Reason(
                "tasks.scopes.allow",
                f"the task's scope {show(scope)} stands for roles, which this worker does not expand; "
                "give the task the scopes themselves",
            )
        elif not satisfies(constraints.scopes_allow, scope):
            yield Reason(
                "tasks.scopes.allow",
                f"the task has the scope {show(scope)}, which nothing here allows; remove it from the task",
            )
        for pattern in constraints.scopes_forbid:
            if overlaps(pattern, scope):
                yield Reason(
                    "tasks.scopes.forbid",
                    f"the task has the scope {show(scope)}, and {show(pattern)} is forbidden; remove it from the task",
                )


def against_denials(task: TaskDefinition, constraints: TaskConstraints) -> Iterator[Reason]:
    """Step 4, after the scopes: what is refused whatever else is said."""
    for index, rule in enumerate(constraints.deny):
        if _denies(rule, task):
            yield Reason(f"tasks.deny[{index}]", rule.reason)


def _denies(rule: DenyRule, task: TaskDefinition) -> bool:
    """Whether a task fulfils every condition of a rule; a condition that is not given is fulfilled."""
    definition: Json = dict(task.verbatim)
    problems = rule.definition.problems(definition) if rule.definition is not None else ()
    # A problem without a keyword says that the definition could not be looked at: then it is denied.
    as_described = all(not problem.keyword for problem in problems)
    return (
        (not rule.scopes or any(overlaps(pattern, scope) for pattern in rule.scopes for scope in task.scopes))
        and (not rule.scheduler_ids or task.scheduler_id in rule.scheduler_ids)
        and (not rule.project_ids or task.project_id in rule.project_ids)
        and as_described
    )
