"""From a path to a `Policy`, or to everything that is wrong with it."""

import hashlib
import json
import os
from functools import cache
from importlib.resources import files
from typing import Any

from secureworker.core.errors import PolicyError
from secureworker.core.ids import Sha256, WorkerPool
from secureworker.core.policy import Policy, ScopeEquals, ScriptRule, TaskConstraints
from secureworker.core.schemas import CompiledSchema, Path
from secureworker.core.scopes import overlaps
from secureworker.host.documents import BadDocument, parse
from secureworker.policyfile.draft import Draft
from secureworker.policyfile.places import Places
from secureworker.policyfile.quantities import parse_duration
from secureworker.policyfile.rules import read_rule


def read_schema(name: str) -> dict[str, Any]:
    """Give one of the schemas that come with the program: `policy`."""
    text = files("secureworker").joinpath("_schemas", f"{name}.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def policy_schema() -> CompiledSchema:
    """Give the schema of the policy file, compiled once."""
    return CompiledSchema(read_schema("policy"))


def load(path: str, *, host: bool = True) -> Policy:
    """Read, check and resolve a policy.

    Blocking: it reads and hashes every file that the policy pins.

    Args:
        path: the policy file. Relative paths in it start from its directory.
        host: whether this host is the one the policy is for. Without it, owners, digests and mounts are not looked at:
            for reviewing and testing a policy elsewhere, never for running it.

    Raises:
        PolicyError: it cannot be used; all problems that were found, in the order of the file.
    """
    full = os.path.abspath(path)
    places = Places(os.path.dirname(full), host=host)
    try:
        content = places.read(full)
        document = parse(content, path)
    except BadDocument as error:
        raise PolicyError(error.problems) from error
    except ValueError as error:
        raise PolicyError((f"{path}: {error}",)) from error
    draft = Draft(document, places, policy_schema())
    draft.complain_all((), places.exposed(full))
    policy = _read(draft, Sha256(hashlib.sha256(content).hexdigest()))
    draft.finish()
    return policy


def _read(draft: Draft, sha256: Sha256) -> Policy:
    tasks = _constraints(draft)
    names = draft.keys(("scripts",))
    scripts = tuple(read_rule(draft, name, tasks, alone=len(names) == 1) for name in names)
    _check_choices(draft, scripts)
    return Policy(
        sha256=sha256,
        root_url=draft.get(("root-url",), ""),
        worker_pool=WorkerPool.parse(draft.get(("worker-pool",), "none/none")),
        tasks=tasks,
        scripts=scripts,
    )


def _constraints(draft: Draft) -> TaskConstraints:
    at: Path = ("tasks", "scopes")
    allow, forbid = draft.get((*at, "allow"), []), draft.get((*at, "forbid"), [])
    for index, pattern in enumerate(allow):
        _check_allowed(draft, (*at, "allow", index), pattern)
    for key, patterns in (("allow", allow), ("forbid", forbid)):
        for index, pattern in enumerate(patterns):
            if pattern.endswith("**"):
                draft.complain((*at, key, index), f"found {pattern!r}; one * at the end stands for everything")
    return TaskConstraints(
        scheduler_ids=tuple(draft.get(("tasks", "scheduler-ids"), [])),
        project_ids=tuple(draft.get(("tasks", "project-ids"), [])),
        scopes_allow=tuple(allow),
        scopes_forbid=tuple(forbid),
        max_run_time=parse_duration(draft.get(("tasks", "max-run-time"), "999y")),
    )


def _check_allowed(draft: Draft, at: Path, pattern: str) -> None:
    """Refuse patterns that no reviewer can know the reach of."""
    if pattern.endswith("*") and ":" not in pattern.rstrip("*").rstrip(":"):
        draft.complain(at, f"found {pattern!r}, which covers a whole kind of scopes; allow what is needed here only")
    elif overlaps("assume:*", pattern):
        draft.complain(
            at, f"found {pattern!r}: what a role stands for changes without this policy; allow the scopes themselves"
        )


def _check_choices(draft: Draft, scripts: tuple[ScriptRule, ...]) -> None:
    chosen: dict[str, str] = {}
    for rule in scripts:
        if isinstance(rule.when, ScopeEquals):
            scope = rule.when.prefix + rule.when.equals
            if scope in chosen:
                draft.complain(
                    ("scripts", rule.name, "when"), f"scripts.{chosen[scope]} is chosen by {scope!r} already"
                )
            chosen[scope] = rule.name
