"""What is legal in a policy, and unwise."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Final

from secureworker.core.claim import Json
from secureworker.core.outcome import Resolution
from secureworker.core.policy import Always, PayloadEquals, Policy, ScriptRule
from secureworker.core.schemas import BadSchema, CompiledSchema
from secureworker.core.trust import KeyState
from secureworker.host.documents import nearest

_INTERPRETERS: Final = (
    "sh",
    "bash",
    "dash",
    "zsh",
    "ksh",
    "busybox",
    "env",
    "python",
    "perl",
    "ruby",
    "node",
    "java",
    "lua",
)
_WHOLE: Final = re.compile(r"\$\{payload\.(?P<key>[A-Za-z_][A-Za-z0-9_]*)\}")
_SPOKEN_OF: Final = re.compile(r"\bpayload\.(?P<key>[A-Za-z_][A-Za-z0-9_]*)")
_WITHIN: Final = re.compile(r"\$\{([^}]*)\}")
_EVERY_TASKS: Final = ("maxRunTime", "upstreamArtifacts")
"""Keys that a payload may have whatever its schema says."""
_AT_REST: Final = frozenset({KeyState.RETIRED, KeyState.REVOKED})
"""States of keys that sign nothing any more: their last day is as it should be."""
_SHALLOW: Final = 2
"""Parts of a path below which a mount shows a whole tree of the host: /opt, /usr/local."""


@dataclass(frozen=True, slots=True)
class Warning:  # noqa: A001 - Python's own is never meant in a policy
    """Something a reviewer should look at twice."""

    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}"


def advise(policy: Policy, today: date, *, host: bool) -> tuple[Warning, ...]:
    """Name what is legal and unwise.

    Args:
        policy: a valid one.
        today: against which keys are found to have expired.
        host: whether this host's files are looked at.
    """
    found = [*_of_policy(policy, today)]
    for rule in policy.scripts:
        for key, message in (*_of_script(rule), *(_of_files(rule) if host else ())):
            found.append(Warning(f"scripts.{rule.name}.{key}", message))
    return tuple(found)


def _of_policy(policy: Policy, today: date) -> Iterator[Warning]:
    if policy.root_url.startswith("http://"):
        yield Warning("root-url", "without TLS; fit for trying things out only")
    for pool in policy.trust:
        for key in pool.keys:
            at = f"trust.worker-pools.{pool.worker_pool}"
            if key.state in _AT_REST:
                continue
            if key.valid_until is None:
                yield Warning(at, f"the key {key.fingerprint} never expires; give it a valid-until")
            elif key.valid_until < today:
                yield Warning(at, f"the key {key.fingerprint} expired on {key.valid_until}; nothing it signs is taken")


def _of_script(rule: ScriptRule) -> Iterator[tuple[str, str]]:
    yield from _of_command(rule)
    schema = rule.payload_schema.document
    if not {"additionalProperties", "unevaluatedProperties", "$ref"} & schema.keys():
        yield "payload", "the schema admits keys that it does not name; add additionalProperties: false"
    yield from _of_templates(rule)
    if not rule.requires_scopes and isinstance(rule.when, PayloadEquals | Always):
        yield "requires-scopes", "no scope is needed: whoever may create tasks for this pool may have this script run"
    if rule.unlimited:
        yield "limits", "nothing but the run time is limited: the script may use up the host"
    for mount in rule.mounts:
        if mount.source.count("/") < _SHALLOW:
            yield "mounts", f"{mount.source} is a whole tree of the host; mount what the script needs"
    if rule.upstream is not None and not rule.unlimited and rule.upstream.max_size >= rule.limits.disk_bytes:
        yield "upstream.max-size", "inputs of this size use up limits.disk before the script begins; raise one of them"
    yield from _of_ends(rule)


def _of_command(rule: ScriptRule) -> Iterator[tuple[str, str]]:
    first = rule.command[0].source
    name = os.path.basename(first) if isinstance(first, str) else ""
    if name.rstrip("0123456789.") in _INTERPRETERS:
        yield "command", f"{name} is an interpreter: what it runs is said by its arguments; run a script of its own"
    for index, word in enumerate(rule.command[1:], start=1):
        if isinstance(word.source, str) and _may_be_an_option(word.source, rule):
            yield f"command[{index}]", "the payload gives the whole argument: it may begin with a dash and be an option"


def _may_be_an_option(word: str, rule: ScriptRule) -> bool:
    """Whether an argument begins with something of the payload that may begin with a dash, as far as can be seen."""
    match = _WHOLE.match(word)
    if match is None:
        return word.startswith("${")
    properties = rule.payload_schema.document.get("properties")
    schema = properties.get(match["key"]) if isinstance(properties, dict) else None
    if not isinstance(schema, dict):
        return True
    try:
        value = CompiledSchema(schema)
    except BadSchema:
        # It refers to another part of its document.
        return True
    return any(not value.problems(option) for option in ("-", "-a", "--a", "-1"))


def _of_templates(rule: ScriptRule) -> Iterator[tuple[str, str]]:
    """Name keys that no payload has: a template that needs one refuses every task."""
    schema = rule.payload_schema.document
    properties = schema.get("properties")
    if schema.get("additionalProperties") is not False or not isinstance(properties, dict):
        return
    if "patternProperties" in schema:
        return
    known = (*properties, *_EVERY_TASKS)
    places = [(f"command[{index}]", word) for index, word in enumerate(rule.command)]
    places += [(f"requires-scopes[{index}]", scope) for index, scope in enumerate(rule.requires_scopes)]
    places += [("config", rule.config)] if rule.config is not None else []
    for key, template in places:
        for name in dict.fromkeys(_SPOKEN_OF.findall(" ".join(_expressions(template.source)))):
            if name not in known:
                near = nearest(name, known)
                hint = f"did you mean payload.{near}?" if near else f"it has {', '.join(properties)}"
                yield key, f"payload.{name} is no key of the payload, by its schema; {hint}"


def _expressions(source: Json) -> Iterator[str]:
    """Give the expressions of a template: what is not in one is a text."""
    if isinstance(source, str):
        yield from _WITHIN.findall(source)
    elif isinstance(source, list):
        for item in source:
            yield from _expressions(item)
    elif isinstance(source, dict):
        for key, value in source.items():
            if key in {"$eval", "$if"} and isinstance(value, str):
                yield value
            else:
                yield from _expressions(value)


def _of_ends(rule: ScriptRule) -> Iterator[tuple[str, str]]:
    for pattern in rule.outputs.allow:
        if pattern.split("/")[0] in {"*", "**"}:
            yield "artifacts", f"{pattern} stands for public and private names alike; begin it with public/"
    for code, resolution in rule.exit_codes.overrides:
        if resolution is Resolution.COMPLETED:
            yield "exit-codes", f"{code} means completed: is that no failure?"
    if rule.repeatable and (rule.network or rule.taskcluster.routes):
        yield "repeatable", "the script may change things elsewhere, and an interrupted run is started again"
    if rule.live_log and rule.secrets:
        yield "live-log", "the script has secrets: what masking misses is read before anybody can hold it back"


def _of_files(rule: ScriptRule) -> Iterator[tuple[str, str]]:
    for pin in rule.pinned:
        try:
            owner = os.stat(pin.path).st_uid
        except OSError:
            continue
        if owner != 0:
            yield "pinned", f"{pin.path} belongs to uid {owner}, who may change it; give it to root"
