"""What a change of a policy lets through, and what it takes away: for whoever reviews it."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from secureworker.core.claim import Json
from secureworker.core.origin import TraceRule
from secureworker.core.policy import Policy, ScriptRule, TaskConstraints, UpstreamRule
from secureworker.core.scopes import satisfies
from secureworker.policyfile import summary
from secureworker.policyfile.quantities import spell_duration, spell_size
from secureworker.policyfile.words import describe_script


class Effect(Enum):
    """What a change does to what a worker may do."""

    LOOSER = "+"
    TIGHTER = "-"
    DIFFERENT = "~"


@dataclass(frozen=True, slots=True)
class Change:
    """One change, with what it means."""

    effect: Effect
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.effect.value} {self.key}: {self.message}"


def compare(old: Policy, new: Policy) -> tuple[Change, ...]:
    """Say what changes from one policy to another; nothing where they allow the same."""
    before, after = ({rule.name: rule for rule in policy.scripts} for policy in (old, new))
    changes = [*_of_policy(old, new), *_of_tasks(old.tasks, new.tasks)]
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            said = "; ".join(line.strip() for line in describe_script(after[name])[:3])
            changes.append(Change(Effect.LOOSER, f"scripts.{name}", f"a new script may run: {said}"))
        elif name not in after:
            changes.append(Change(Effect.TIGHTER, f"scripts.{name}", "this script does not run any more"))
        else:
            changes.extend(_of_script(before[name], after[name]))
    return tuple(changes)


def _changed(key: str, old: Json, new: Json, what: str = "") -> Iterator[Change]:
    if old != new:
        shown = what or f"was {json.dumps(old)}, is {json.dumps(new)}"
        yield Change(Effect.DIFFERENT, key, shown)


def _members(key: str, old: Iterable[str], new: Iterable[str], *, more: Effect = Effect.LOOSER) -> Iterator[Change]:
    """A set of which more means looser (or, for what forbids, tighter)."""
    less = Effect.TIGHTER if more is Effect.LOOSER else Effect.LOOSER
    before, after = dict.fromkeys(old), dict.fromkeys(new)
    for member in after:
        if member not in before:
            yield Change(more, key, f"{member} was added")
    for member in before:
        if member not in after:
            yield Change(less, key, f"{member} was removed")


def _amount(key: str, old: float, new: float, spelled: tuple[str, str]) -> Iterator[Change]:
    if old != new:
        yield Change(Effect.LOOSER if new > old else Effect.TIGHTER, key, f"was {spelled[0]}, is {spelled[1]}")


def _of_policy(old: Policy, new: Policy) -> Iterator[Change]:
    yield from _changed("root-url", old.root_url, new.root_url)
    yield from _changed("worker-pool", str(old.worker_pool), str(new.worker_pool))
    before, after = (
        [
            f"{pool.worker_pool} ({pool.implementation.value}) with the key {key.fingerprint}"
            for pool in policy.trust
            for key in pool.keys
        ]
        for policy in (old, new)
    )
    yield from _members("worker-scopes", *([each.scope for each in policy.worker_scopes] for policy in (old, new)))
    yield from _members("trust", before, after)
    was, now = (
        {key.fingerprint: summary.of_key(key) for pool in policy.trust for key in pool.keys} for policy in (old, new)
    )
    for identity in sorted(was.keys() & now.keys()):
        yield from _changed(f"trust[{identity}]", was[identity], now[identity])
    most = old.max_capacity, new.max_capacity
    yield from _amount("max-capacity", *most, (str(most[0]), str(most[1])))
    old_file, new_file = (None if each.trust_file is None else each.trust_file.path for each in (old, new))
    yield from _changed("trust.file", old_file, new_file)


def _of_tasks(old: TaskConstraints, new: TaskConstraints) -> Iterator[Change]:
    yield from _members("tasks.scheduler-ids", old.scheduler_ids, new.scheduler_ids)
    yield from _members("tasks.project-ids", old.project_ids, new.project_ids)
    if bool(old.sources) != bool(new.sources):
        effect = Effect.TIGHTER if new.sources else Effect.LOOSER
        said = f"only {', '.join(map(str, new.sources))}" if new.sources else "from anywhere"
        yield Change(effect, "tasks.sources", f"tasks may now come {said}")
    else:
        yield from _members("tasks.sources", map(str, old.sources), map(str, new.sources))
    for scope in new.scopes_allow:
        if not satisfies(old.scopes_allow, scope):
            yield Change(Effect.LOOSER, "tasks.scopes.allow", f"tasks may now have scopes covered by {scope}")
    for scope in old.scopes_allow:
        if not satisfies(new.scopes_allow, scope):
            yield Change(
                Effect.TIGHTER, "tasks.scopes.allow", f"not all scopes covered by {scope} are allowed any more"
            )
    yield from _members("tasks.scopes.forbid", old.scopes_forbid, new.scopes_forbid, more=Effect.TIGHTER)
    was, now = summary.of_constraints(old), summary.of_constraints(new)
    yield from _changed("tasks.definition", was["definition"], now["definition"], "the schema of definitions changed")
    before, after = (
        [json.dumps(rule, sort_keys=True) for rule in each]
        for each in (was["deny"], now["deny"])
        if isinstance(each, list)
    )
    yield from _members("tasks.deny", before, after, more=Effect.TIGHTER)
    spelled = spell_duration(old.max_run_time), spell_duration(new.max_run_time)
    yield from _amount(
        "tasks.max-run-time", old.max_run_time.total_seconds(), new.max_run_time.total_seconds(), spelled
    )


_COMPARED_WHOLE: Final = (
    *("when", "command", "config", "environment"),
    *("exit-codes", "on-shutdown", "repeatable", "exclusive", "live-log"),
)


def _of_script(old: ScriptRule, new: ScriptRule) -> Iterator[Change]:
    at = f"scripts.{new.name}"
    was, now = summary.of_script(old), summary.of_script(new)
    for key in _COMPARED_WHOLE:
        yield from _changed(f"{at}.{key}", was[key], now[key])
    yield from _of_pins(at, old, new)
    yield from _changed(f"{at}.payload", was["payload"], now["payload"], _payload_change(old, new))
    before, after = ([json.dumps(scope.source) for scope in rule.requires_scopes] for rule in (old, new))
    yield from _members(f"{at}.requires-scopes", before, after, more=Effect.TIGHTER)
    yield from _members(
        f"{at}.secrets", *([f"{each.source} as {each.file}" for each in rule.secrets] for rule in (old, new))
    )
    yield from _members(
        f"{at}.mounts", *([f"{each.source} as {each.target}" for each in rule.mounts] for rule in (old, new))
    )
    yield from _members(f"{at}.network", map(str, old.network), map(str, new.network))
    yield from _members(f"{at}.taskcluster.routes", *(map(str, rule.taskcluster.routes) for rule in (old, new)))
    yield from _members(f"{at}.taskcluster.scopes", old.taskcluster.scopes, new.taskcluster.scopes)
    yield from _of_upstream(at, old.upstream, new.upstream)
    yield from _of_limits(at, old, new)
    yield from _of_outputs(at, old, new)


def _of_pins(at: str, old: ScriptRule, new: ScriptRule) -> Iterator[Change]:
    before, after = ({pin.path: pin.sha256 for pin in rule.pinned} for rule in (old, new))
    yield from _members(f"{at}.pinned", before, after)
    for path in before.keys() & after.keys():
        yield from _changed(
            f"{at}.pinned", before[path], after[path], f"{path} is another file now (sha256 {after[path]}); review it"
        )


def _payload_change(old: ScriptRule, new: ScriptRule) -> str:
    before, after = (
        properties if isinstance(properties := rule.payload_schema.document.get("properties"), dict) else {}
        for rule in (old, new)
    )
    named = [f"{key} is new" for key in after if key not in before]
    named += [f"{key} is gone" for key in before if key not in after]
    named += [f"{key} is another" for key in after if key in before and before[key] != after[key]]
    return f"the schema of payloads changed: {', '.join(named) or 'not in its named keys'}"


def _of_upstream(at: str, old: UpstreamRule | None, new: UpstreamRule | None) -> Iterator[Change]:
    key = f"{at}.upstream"
    if old is None or new is None:
        if old != new:
            effect = Effect.TIGHTER if new is None else Effect.LOOSER
            yield Change(
                effect,
                key,
                "the script may have no inputs any more" if new is None else "the script may have inputs now",
            )
        return
    yield from _members(f"{key}.worker-pools", old.worker_pools, new.worker_pools)
    yield from _members(f"{key}.forbid-features", old.forbid_features, new.forbid_features, more=Effect.TIGHTER)
    yield from _amount(
        f"{key}.max-size", old.max_size, new.max_size, (spell_size(old.max_size), spell_size(new.max_size))
    )
    yield from _of_trace(f"{key}.trace", old.trace, new.trace)
    yield from _amount(f"{key}.required", -old.required, -new.required, (str(old.required), str(new.required)))


def _of_trace(key: str, old: TraceRule | None, new: TraceRule | None) -> Iterator[Change]:
    if old is None or new is None:
        if old != new:
            effect, what = (Effect.TIGHTER, "now") if old is None else (Effect.LOOSER, "no more")
            yield Change(effect, key, f"inputs are followed to the tree {what}")
        return
    yield from _members(f"{key}.decision-pools", old.decision_pools, new.decision_pools)
    yield from _members(
        f"{key}.repositories",
        *(
            [
                f"{each.url}, {branch}, as {each.place} has it, by {each.prefix}"
                for each in rule.repositories
                for branch in each.branches
            ]
            for rule in (old, new)
        ),
    )
    yield from _amount(f"{key}.max-depth", old.max_depth, new.max_depth, (str(old.max_depth), str(new.max_depth)))


def _of_limits(at: str, old: ScriptRule, new: ScriptRule) -> Iterator[Change]:
    if old.unlimited != new.unlimited:
        yield Change(
            Effect.LOOSER if new.unlimited else Effect.TIGHTER,
            f"{at}.limits",
            "nothing but the run time is limited any more" if new.unlimited else "limits hold now",
        )
    was, now = old.limits, new.limits
    before, after = summary.of_limits(was), summary.of_limits(now)
    amounts = {
        "run-time": (was.run_time.total_seconds(), now.run_time.total_seconds()),
        "memory": (was.memory_bytes, now.memory_bytes),
        "processes": (was.processes, now.processes),
        "cpus": (was.cpus, now.cpus),
        "disk": (was.disk_bytes, now.disk_bytes),
        "files": (was.files, now.files),
        "log": (was.log_bytes, now.log_bytes),
        "open-files": (was.open_files, now.open_files),
    }
    for name, (less, more) in amounts.items():
        yield from _amount(f"{at}.limits.{name}", less, more, (str(before[name]), str(after[name])))


def _of_outputs(at: str, old: ScriptRule, new: ScriptRule) -> Iterator[Change]:
    was, now = old.outputs, new.outputs
    key = f"{at}.artifacts"
    yield from _members(f"{key}.allow", was.allow, now.allow)
    for name, less, more in (("max-size", was.max_size, now.max_size), ("max-total", was.max_total, now.max_total)):
        yield from _amount(f"{key}.{name}", less, more, (spell_size(less), spell_size(more)))
    yield from _amount(f"{key}.max-count", was.max_count, now.max_count, (str(was.max_count), str(now.max_count)))
    before, after = summary.of_outputs(was), summary.of_outputs(now)
    for name in ("expires", "content-types", "on-failure"):
        yield from _changed(f"{key}.{name}", before[name], after[name])
