"""What holds for the whole policy: which tasks may come at all, and whose outputs are trusted."""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from secureworker.core.ids import Sha256
from secureworker.core.plan import PinnedFile
from secureworker.core.policy import DenyRule, Source, TaskConstraints
from secureworker.core.privileges import ExtraScope
from secureworker.core.schemas import BadSchema, CompiledSchema, Path
from secureworker.core.scopes import overlaps
from secureworker.core.trust import TrustPool
from secureworker.host.documents import BadDocument
from secureworker.host.trustfile import parse_trust, read_pools
from secureworker.policyfile.draft import Draft
from secureworker.policyfile.quantities import parse_duration

_UNREAD: Final = Sha256("0" * 64)


@dataclass(frozen=True, slots=True)
class Trusted:
    """What is said under `trust`."""

    pools: tuple[TrustPool, ...]
    file: PinnedFile | None = None
    known: bool = True
    """Whether it could be read: else no rule can be held against it."""


def read_constraints(draft: Draft) -> TaskConstraints:
    """Read `tasks`."""
    at: Path = ("tasks", "scopes")
    allow, forbid = draft.get((*at, "allow"), []), draft.get((*at, "forbid"), [])
    for index, pattern in enumerate(allow):
        _check_allowed(draft, (*at, "allow", index), pattern)
    for key, patterns in (("allow", allow), ("forbid", forbid)):
        for index, pattern in enumerate(patterns):
            if pattern.endswith("**"):
                draft.complain((*at, key, index), f"found {pattern!r}; one * at the end stands for everything")
    sources: list[dict[str, str]] = draft.get(("tasks", "sources"), [])
    return TaskConstraints(
        scheduler_ids=tuple(draft.get(("tasks", "scheduler-ids"), [])),
        project_ids=tuple(draft.get(("tasks", "project-ids"), [])),
        scopes_allow=tuple(allow),
        scopes_forbid=tuple(forbid),
        max_run_time=parse_duration(draft.get(("tasks", "max-run-time"), "999y")),
        sources=tuple(
            Source(each["scheme"], each["host"], each.get("owner", ""), each["repository"]) for each in sources
        ),
        definition=_definition(draft, ("tasks", "definition")),
        deny=tuple(_denial(draft, index, each) for index, each in enumerate(draft.get(("tasks", "deny"), []))),
    )


def read_worker_scopes(draft: Draft) -> tuple[ExtraScope, ...]:
    """Read `worker-scopes`: what the worker's own credentials may do beside claiming."""
    at: Path = ("worker-scopes",)
    found: list[ExtraScope] = []
    for index, written in enumerate(draft.get(at, [])):
        scope, here = written["scope"], (*at, index, "scope")
        _check_allowed(draft, here, scope)
        if any(overlaps(own, scope) for own in ("queue:claim-work:*", "queue:worker-id:*")):
            draft.complain(here, f"found {scope!r}; the worker claims from worker-pool as itself, and needs no more")
        if any(each.scope == scope for each in found):
            draft.complain(here, f"{scope!r} is there twice; keep one")
        found.append(ExtraScope(scope, written["reason"]))
    return tuple(found)


def _check_allowed(draft: Draft, at: Path, pattern: str) -> None:
    """Refuse patterns that no reviewer can know the reach of."""
    if pattern.endswith("*") and ":" not in pattern.rstrip("*").rstrip(":"):
        draft.complain(at, f"found {pattern!r}, which covers a whole kind of scopes; allow what is needed here only")
    elif overlaps("assume:*", pattern):
        draft.complain(
            at, f"found {pattern!r}: what a role stands for changes without this policy; allow the scopes themselves"
        )


def _definition(draft: Draft, at: Path) -> CompiledSchema | None:
    return read_schema_at(draft, at) if draft.has(at) else None


def _denial(draft: Draft, index: int, written: dict[str, Any]) -> DenyRule:
    at: Path = ("tasks", "deny", index)
    return DenyRule(
        reason=written["reason"],
        scopes=tuple(written.get("scopes", [])),
        scheduler_ids=tuple(written.get("scheduler-ids", [])),
        project_ids=tuple(written.get("project-ids", [])),
        definition=compile_schema(draft, (*at, "definition"), written["definition"])
        if "definition" in written
        else None,
    )


def read_schema_at(draft: Draft, at: Path) -> CompiledSchema:
    """Read a JSON schema, or a reference to one; an empty one where it is wrong."""
    return compile_schema(draft, at, draft.get(at, {}))


def compile_schema(draft: Draft, at: Path, written: dict[str, Any]) -> CompiledSchema:
    """Compile a schema that stands at `at`."""
    try:
        return draft.places.schema(written)
    except BadSchema as error:
        where = (*at, *error.path)
        draft.complain(where if draft.has(where) else at, str(error))
    except ValueError as error:
        draft.complain(at, str(error))
    return CompiledSchema({})


def read_trust(draft: Draft) -> Trusted:
    """Read `trust`: from the policy, or from the file that it names."""
    at: Path = ("trust", "file")
    if draft.has(at):
        return _read_trust_file(draft, at)
    at = ("trust", "worker-pools")
    written = {name: pool for name in draft.keys(at) if (pool := draft.get((*at, name), None)) is not None}
    pools, found = read_pools(written, at)
    for path, message in found:
        draft.complain(path, message)
    return Trusted(pools)


def _read_trust_file(draft: Draft, at: Path) -> Trusted:
    """Read a trust file: with the checks of a policy, of which it is a part from then on."""
    written = draft.get(at, "")
    if written.startswith("/") and not draft.places.host:
        # Of another host: this one may have another file there, or none.
        return Trusted((), PinnedFile(written, _UNREAD), known=False)
    try:
        path = draft.places.resolve(written)
        content = draft.places.referred(path)
        trust = parse_trust(content, path)
    except BadDocument as error:
        draft.complain_all(at, error.problems)
        return Trusted((), known=False)
    except ValueError as error:
        draft.complain(at, str(error))
        return Trusted((), known=False)
    root_url: str = draft.get(("root-url",), "")
    if trust.root_url and trust.root_url.rstrip("/") != root_url.rstrip("/"):
        draft.complain(at, f"{path} is for {trust.root_url}, and this policy for {root_url}")
    return Trusted(trust.pools, PinnedFile(path, Sha256(hashlib.sha256(content).hexdigest())))
