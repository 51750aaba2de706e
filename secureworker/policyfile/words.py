"""A policy in plain words, for somebody who has never seen the code."""

import json
from collections.abc import Iterator
from typing import Final, assert_never

from secureworker.core.claim import Json
from secureworker.core.policy import Always, DenyRule, PayloadEquals, Policy, ScopeEquals, ScriptRule
from secureworker.core.secrets import SECRETS_DIR
from secureworker.core.trust import KeyState, TrustKey
from secureworker.policyfile.quantities import spell_duration, spell_size

_WIDTH: Final = 13
"""Columns of the words at the left."""


def describe(policy: Policy) -> tuple[str, ...]:
    """Say what a worker with this policy may do: lines of text."""
    return (
        f"This worker talks to {policy.root_url}, and claims tasks of the worker pool {policy.worker_pool} only.",
        *_worker_scopes(policy),
        f"It runs {_count(policy.max_capacity, 'task')} at a time at most.",
        "",
        "A task is refused unless",
        *(f"  - {line}" for line in _constraints(policy)),
        *(line for rule in policy.scripts for line in ("", *describe_script(rule))),
        *_trust(policy),
    )


def _worker_scopes(policy: Policy) -> tuple[str, ...]:
    if not policy.worker_scopes:
        return ("Its own credentials can do that, and nothing else.",)
    return (
        "Its own credentials can do that, and besides",
        *(f"  - {each.scope}: {each.reason}" for each in policy.worker_scopes),
    )


def _count(number: float, thing: str, things: str = "") -> str:
    return f"{number:.10g} {thing if number == 1 else things or thing + 's'}"


def _either(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def _constraints(policy: Policy) -> Iterator[str]:
    tasks = policy.tasks
    yield f"its schedulerId is {_either(tasks.scheduler_ids)}"
    yield f"its projectId is {_either(tasks.project_ids)}"
    if tasks.sources:
        yield f"it comes from {_either(tuple(map(str, tasks.sources)))}"
    if tasks.scopes_allow:
        yield f"every scope it has is covered by {', '.join(tasks.scopes_allow)}"
    else:
        yield "it has no scopes at all"
    if tasks.scopes_forbid:
        yield f"no scope it has reaches into {', '.join(tasks.scopes_forbid)}"
    if tasks.definition is not None:
        yield "its whole definition is as a JSON schema says (tasks.definition)"
    for rule in tasks.deny:
        yield f"it is not one of those with {' and '.join(_denial(rule))}: {rule.reason}"
    if len(policy.scripts) > 1:
        yield "it is for exactly one of the scripts below"
    yield f"it asks for no more time than the script has (at most {spell_duration(tasks.max_run_time)})"


def _denial(rule: DenyRule) -> Iterator[str]:
    if rule.scopes:
        yield f"a scope that reaches into {', '.join(rule.scopes)}"
    if rule.scheduler_ids:
        yield f"the schedulerId {_either(rule.scheduler_ids)}"
    if rule.project_ids:
        yield f"the projectId {_either(rule.project_ids)}"
    if rule.definition is not None:
        yield "a definition as a JSON schema says"


def describe_script(rule: ScriptRule) -> tuple[str, ...]:
    """Say what one script is, gets and may do."""
    rows = ((what, text) for what, texts in _rows(rule) for what, text in _first_named(what, tuple(texts)))
    return (f"{rule.name}: {rule.description}", *(f"  {what:<{_WIDTH}}{text}".rstrip() for what, text in rows))


def _first_named(what: str, texts: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for index, text in enumerate(texts):
        yield (what if index == 0 else "", text)


def _rows(rule: ScriptRule) -> Iterator[tuple[str, Iterator[str]]]:
    yield "runs", _runs(rule)
    yield "when", _when(rule)
    yield "needs", (f"the scope {_source(scope.source)}" for scope in rule.requires_scopes)
    yield "takes", iter((_payload(rule),))
    yield "gets", _gets(rule)
    yield "sees", (f"{mount.source} of the host as {mount.target}, read-only" for mount in rule.mounts)
    yield "may reach", _reaches(rule)
    yield "may use", _uses(rule)
    yield "may publish", _publishes(rule)
    yield "ends", _ends(rule)


def _source(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _runs(rule: ScriptRule) -> Iterator[str]:
    yield " ".join([*(_source(word.source) for word in rule.command), *(["<config file>"] if rule.config else [])])
    for pin in rule.pinned:
        yield f"with {pin.path} exactly as sha256 {pin.sha256}"
    if rule.exclusive:
        yield "alone: no other task of the worker is at work meanwhile"


def _when(rule: ScriptRule) -> Iterator[str]:
    match rule.when:
        case Always():
            yield "always: every task that is not refused is for it"
        case ScopeEquals(prefix, equals):
            yield f"the one scope that the task has under {prefix} is {prefix}{equals}"
        case PayloadEquals(field, equals):
            yield f"the payload's {field} is {equals}"
        case _:
            assert_never(rule.when)


def _payload(rule: ScriptRule) -> str:
    schema = rule.payload_schema.document
    properties = schema.get("properties")
    required = schema.get("required")
    named = properties if isinstance(properties, dict) else {}
    must = required if isinstance(required, list) else []
    keys = ", ".join(f"{key}{'' if key in must else ' (optional)'}" for key in named)
    closed = schema.get("additionalProperties") is False
    if not named:
        return "an empty payload" if closed else "any payload that its JSON schema admits"
    return f"a payload with {keys}{'' if closed else ', and keys that its schema does not name'}"


def _gets(rule: ScriptRule) -> Iterator[str]:
    for name, value in rule.environment:
        yield f"the environment variable {name}={value}"
    if rule.config is not None and isinstance(rule.config.source, dict) and rule.config.source:
        yield f"a config file with {', '.join(rule.config.source)}"
    for secret in rule.secrets:
        yield f"the secret {secret.source} as the file {SECRETS_DIR}/{secret.file}"
    if rule.upstream is not None:
        must = "must have" if rule.upstream.required else "may have"
        pools = ", ".join(rule.upstream.worker_pools)
        yield f"inputs: it {must} artifacts of {pools}, up to {spell_size(rule.upstream.max_size)}"
        if rule.upstream.forbid_features:
            yield f"no inputs of tasks that used {', '.join(rule.upstream.forbid_features)}"
        if rule.upstream.trace is not None:
            trace = rule.upstream.trace
            yield f"only inputs that come, over at most {trace.max_depth} steps, from decision tasks"
            yield f"that ran in {_either(trace.decision_pools)}, and are what .taskcluster.yml makes in"
            for each in trace.repositories:
                has = "as {} has it" if each.website is None else "as this host says: {}"
                yield f"{each.url}, on {_either(each.branches)} {has.format(each.place)}"


def _reaches(rule: ScriptRule) -> Iterator[str]:
    yield from map(str, rule.network)
    for route in rule.taskcluster.routes:
        yield f"Taskcluster: {route}"
    for scope in rule.taskcluster.scopes:
        yield f"Taskcluster with the scope {scope}, as far as the task has it"
    if not rule.network and not rule.taskcluster.routes:
        yield "nothing: it has no network"


def _uses(rule: ScriptRule) -> Iterator[str]:
    limits = rule.limits
    if rule.unlimited:
        yield f"{spell_duration(limits.run_time)} of time, and whatever the host has: nothing else is limited"
        return
    yield (
        f"{spell_duration(limits.run_time)} of time, {_count(limits.cpus, 'processor')}, "
        f"{spell_size(limits.memory_bytes)} of memory, {_count(limits.processes, 'process', 'processes')}, "
        f"{_count(limits.open_files, 'open file')} in each"
    )
    disk, log = spell_size(limits.disk_bytes), spell_size(limits.log_bytes)
    yield f"{disk} of disk in {_count(limits.files, 'file')}; {log} of log"


def _publishes(rule: ScriptRule) -> Iterator[str]:
    outputs = rule.outputs
    if not outputs.allow:
        yield "nothing but its log"
        return
    for pattern in outputs.allow:
        yield f"{pattern}{'' if pattern.startswith('public/') else ' (readable only with a scope)'}"
    kept = "as long as the task" if outputs.expires is None else f"for {spell_duration(outputs.expires)}"
    unless = "" if outputs.on_failure else ", and nothing if it failed"
    yield (
        f"up to {_count(outputs.max_count, 'file')} of {spell_size(outputs.max_size)}, "
        f"{spell_size(outputs.max_total)} in all, kept {kept}{unless}"
    )


def _ends(rule: ScriptRule) -> Iterator[str]:
    for code, resolution in rule.exit_codes.overrides:
        yield f"as {resolution.value} with exit code {code}"
    yield f"within {spell_duration(rule.grace)} when the worker must stop"
    if not rule.repeatable:
        yield "for good when it is interrupted: it is not started again"
    if rule.live_log:
        yield "with its log shown all the while to whoever has the address"


def _trust(policy: Policy) -> tuple[str, ...]:
    if not policy.trust:
        return ()
    file = policy.trust_file
    where = () if file is None else (f"as {file.path} says, with sha256 {file.sha256}",)
    return (
        "",
        " ".join(("Inputs may come from", *where)),
        *(
            f"  - {pool.worker_pool} ({pool.implementation.value}), signed by " + " or ".join(map(_key, pool.keys))
            for pool in policy.trust
        ),
    )


def _key(key: TrustKey) -> str:
    said = [] if key.state is KeyState.ACTIVE else [key.state.value]
    said += [f"{word} {day}" for word, day in (("from", key.valid_from), ("until", key.valid_until)) if day]
    return f"{key.fingerprint} ({', '.join(said)})" if said else key.fingerprint
