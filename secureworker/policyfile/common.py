"""What holds for the whole policy: which tasks may come at all, and whose outputs are trusted."""

import base64
import hashlib
import struct
from datetime import date
from typing import Any, Final

from secureworker.core.ids import WorkerPool
from secureworker.core.policy import DenyRule, Source, TaskConstraints, TrustedKey, TrustedPool
from secureworker.core.privileges import ExtraScope
from secureworker.core.schemas import BadSchema, CompiledSchema, Path
from secureworker.core.scopes import overlaps
from secureworker.policyfile.draft import Draft
from secureworker.policyfile.quantities import parse_duration

_ALGORITHM: Final = b"ssh-ed25519"


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


def fingerprint(public: bytes) -> str:
    """Give the OpenSSH fingerprint of an Ed25519 public key: of its wire form (RFC 8709), without padding."""
    wire = struct.pack(">I", len(_ALGORITHM)) + _ALGORITHM + struct.pack(">I", len(public)) + public
    return "SHA256:" + base64.b64encode(hashlib.sha256(wire).digest()).decode().rstrip("=")


def read_trust(draft: Draft) -> tuple[TrustedPool, ...]:
    """Read `trust`."""
    at: Path = ("trust", "worker-pools")
    pools: list[TrustedPool] = []
    for name in draft.keys(at):
        written: dict[str, Any] | None = draft.get((*at, name), None)
        if written is not None:
            keys = tuple(_key(draft, (*at, name, "keys", index), key) for index, key in enumerate(written["keys"]))
            pools.append(TrustedPool(WorkerPool.parse(name), keys, written["implementation"]))
    return tuple(pools)


def _key(draft: Draft, at: Path, written: dict[str, str]) -> TrustedKey:
    public = base64.b64decode(written["public"])
    if fingerprint(public) != written["id"]:
        draft.complain((*at, "id"), f"found {written['id']!r}; the key's fingerprint is {fingerprint(public)}")
    until: date | None = None
    if "valid-until" in written:
        try:
            until = date.fromisoformat(written["valid-until"])
        except ValueError as error:
            draft.complain((*at, "valid-until"), f"found {written['valid-until']!r}: {error}")
    return TrustedKey(written["id"], written["public"], until, revoked=written.get("state") == "revoked")
