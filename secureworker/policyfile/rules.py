"""One script's rule: from its part of the document to a `ScriptRule`."""

import os
import stat
from typing import Final

from secureworker.core.claim import Json
from secureworker.core.ids import ScriptName, Sha256
from secureworker.core.plan import PinnedFile
from secureworker.core.policy import (
    Always,
    PayloadEquals,
    ScopeEquals,
    ScriptRule,
    TaskConstraints,
    When,
)
from secureworker.core.schemas import Path, show
from secureworker.core.scopes import overlaps, satisfies
from secureworker.core.templates import BadTemplate, Template
from secureworker.policyfile.bounds import read_exit_codes, read_grace, read_limits, read_outputs
from secureworker.policyfile.common import Trusted, read_schema_at
from secureworker.policyfile.draft import Draft
from secureworker.policyfile.reach import read_mounts, read_network, read_secrets, read_taskcluster, read_upstream

_NO_DIGEST: Final = Sha256("0" * 64)

_WORKERS_OWN: Final = frozenset(
    {"HOME", "PATH", "TASK_ID", "RUN_ID", "TASK_GROUP_ID", "TMPDIR", "http_proxy", "https_proxy", "no_proxy"}
)
_WORKERS_PREFIXES: Final = ("TASKCLUSTER_", "SECUREWORKER_")
_HARMLESS_PYTHON: Final = frozenset(
    {
        "PYTHONUNBUFFERED",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONFAULTHANDLER",
        "PYTHONHASHSEED",
        "PYTHONIOENCODING",
        "PYTHONNOUSERSITE",
        "PYTHONSAFEPATH",
        "PYTHONUTF8",
    }
)
_HARMLESS_GIT: Final = frozenset(
    {"GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "GIT_TERMINAL_PROMPT"}
)
_LOADERS: Final = ("LD_", "DYLD_", "PYTHON", "GIT_", "PERL5", "RUBY", "GCONV_", "MALLOC_", "BASH_FUNC_")
"""Prefixes of variables that make an interpreter, a loader or git run or load something else (environ(7), ld.so(8))."""
_LOADER_NAMES: Final = frozenset(
    {"BASH_ENV", "ENV", "IFS", "SHELLOPTS", "BASHOPTS", "PS4", "NODE_OPTIONS", "NODE_PATH", "PERLLIB", "PERLIO_DEBUG"}
    | {"GLIBC_TUNABLES", "NLSPATH", "LOCPATH", "GETCONF_DIR", "HOSTALIASES", "RES_OPTIONS", "JAVA_TOOL_OPTIONS"}
    | {"_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH", "EDITOR", "VISUAL", "PAGER", "BROWSER", "SSH_ASKPASS"}
)


def read_rule(draft: Draft, name: str, constraints: TaskConstraints, trust: Trusted, *, alone: bool) -> ScriptRule:
    """Read `scripts.<name>`. Problems go into `draft`; what is given back then is of no use."""
    at: Path = ("scripts", name)
    pinned = _pinned(draft, (*at, "pinned"))
    limits, unlimited = read_limits(draft, (*at, "limits"), constraints)
    return ScriptRule(
        name=ScriptName(name),
        description=draft.get((*at, "description"), ""),
        when=_when(draft, at, constraints, alone=alone),
        command=_command(draft, at, pinned),
        pinned=tuple(pinned.values()),
        payload_schema=read_schema_at(draft, (*at, "payload")),
        requires_scopes=_required_scopes(draft, (*at, "requires-scopes"), constraints),
        environment=_environment(draft, (*at, "environment")),
        config=_config(draft, (*at, "config")),
        limits=limits,
        mounts=read_mounts(draft, (*at, "mounts")),
        outputs=read_outputs(draft, (*at, "artifacts")),
        exit_codes=read_exit_codes(draft, (*at, "exit-codes")),
        repeatable=draft.get((*at, "repeatable"), default=True),
        exclusive=draft.get((*at, "exclusive"), default=False),
        live_log=draft.get((*at, "live-log"), default=False),
        grace=read_grace(draft, (*at, "on-shutdown")),
        secrets=read_secrets(draft, (*at, "secrets")),
        network=read_network(draft, (*at, "network")),
        taskcluster=read_taskcluster(draft, (*at, "taskcluster"), constraints),
        upstream=read_upstream(draft, (*at, "upstream"), trust),
        unlimited=unlimited,
    )


def check_environment(draft: Draft, at: Path) -> dict[str, str]:
    """Read environment variables, and refuse those that are the worker's, or make programs run something else."""
    variables: dict[str, str] = draft.get(at, {})
    for name in variables:
        if name in _WORKERS_OWN or name.startswith(_WORKERS_PREFIXES):
            draft.complain((*at, name), "the worker sets this variable itself; remove it")
        elif name in _HARMLESS_PYTHON | _HARMLESS_GIT:
            continue
        elif name in _LOADER_NAMES or name.startswith(_LOADERS):
            draft.complain(
                (*at, name), "this variable makes programs load or run something else; put it into the script"
            )
    return variables


def _when(draft: Draft, at: Path, constraints: TaskConstraints, *, alone: bool) -> When:
    if not draft.has((*at, "when")):
        if not alone:
            draft.complain(at, "'when' is missing; only a policy's single script may do without it")
        return Always()
    when: dict[str, str] | None = draft.get((*at, "when"), None)
    if when is None:
        return Always()
    if "payload-field" in when:
        return PayloadEquals(when["payload-field"], when["equals"])
    chosen = ScopeEquals(when["scope-prefix"], when["equals"])
    scope = chosen.prefix + chosen.equals
    if chosen.prefix.endswith("*") or scope.endswith("*"):
        draft.complain((*at, "when"), f"found {scope!r}; expected a scope without *, which names one action")
    else:
        _check_reachable(draft, (*at, "when"), scope, constraints)
    return chosen


def _check_reachable(draft: Draft, path: Path, scope: str, constraints: TaskConstraints) -> None:
    """Complain about a rule that no admitted task can meet: its author meant something else."""
    if constraints.scopes_allow and not satisfies(constraints.scopes_allow, scope):
        draft.complain(
            path, f"no task can have the scope {scope!r}: tasks.scopes.allow does not cover it; allow it there"
        )
    for pattern in constraints.scopes_forbid:
        if overlaps(pattern, scope):
            draft.complain(path, f"no task can have the scope {scope!r}: tasks.scopes.forbid has {pattern!r}")


def _pinned(draft: Draft, at: Path) -> dict[str, PinnedFile]:
    """Read and verify the pins; by the path as it is written."""
    pins: dict[str, PinnedFile] = {}
    for written in draft.keys(at):
        wanted = draft.get((*at, written), None)
        try:
            path = draft.places.resolve(written)
        except ValueError as error:
            draft.complain((*at, written), str(error))
            continue
        if path in {pin.path for pin in pins.values()}:
            draft.complain((*at, written), "this file is pinned twice; keep one")
        pins[written] = PinnedFile(path, Sha256(wanted) if wanted is not None else _NO_DIGEST)
        if wanted is not None and draft.places.host:
            _verify_pin(draft, (*at, written), pins[written])
    return pins


def _verify_pin(draft: Draft, at: Path, pin: PinnedFile) -> None:
    try:
        found = draft.places.digest(pin.path)
    except ValueError as error:
        draft.complain(at, f"{error}; put the file there, or remove the pin")
        return
    if found != pin.sha256:
        draft.complain(
            at,
            f"{pin.path} has sha256 {found}, the policy pins {pin.sha256}; review the change and pin the new digest",
        )
    draft.complain_all(at, draft.places.exposed(pin.path))


def _template(draft: Draft, at: Path, source: Json) -> Template:
    try:
        return Template(source)
    except BadTemplate as error:
        where = (*at, *error.path)
        draft.complain(where if draft.has(where) else at, str(error))
        return Template(None)


def _command(draft: Draft, at: Path, pinned: dict[str, PinnedFile]) -> tuple[Template, ...]:
    words: list[Json] = draft.get((*at, "command"), [])
    if not words:
        return ()
    first = words[0]
    if not isinstance(first, str) or (not draft.has((*at, "pinned", first)) and first not in pinned):
        draft.complain(
            (*at, "command", 0),
            f"the executable {show(first)} is not pinned; add it to {name_of(at)}.pinned with its sha256",
        )
    elif first in pinned and draft.places.host and not _executable(pinned[first].path):
        draft.complain((*at, "command", 0), f"{pinned[first].path} may not be executed; chmod +x {pinned[first].path}")
    # A word that is written like a pin means that file; the executable always is one.
    return tuple(
        _template(draft, (*at, "command", index), pinned[word].path.replace("${", "$${") if word in pinned else word)
        if isinstance(word, str)
        else _template(draft, (*at, "command", index), word)
        for index, word in enumerate(words)
    )


def name_of(at: Path) -> str:
    """Write a rule's path."""
    return ".".join(map(str, at))


def _executable(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH))
    except OSError:
        # The pin of the same file has been complained about.
        return True


def _required_scopes(draft: Draft, at: Path, constraints: TaskConstraints) -> tuple[Template, ...]:
    scopes: list[Json] = draft.get(at, [])
    templates = tuple(_template(draft, (*at, index), scope) for index, scope in enumerate(scopes))
    for index, template in enumerate(templates):
        if template.fixed and isinstance(template.source, str):
            _check_reachable(draft, (*at, index), template.source, constraints)
    return templates


def _environment(draft: Draft, at: Path) -> tuple[tuple[str, str], ...]:
    variables = {**draft.get(("defaults", "environment"), {}), **check_environment(draft, at)}
    return tuple(sorted(variables.items()))


def _config(draft: Draft, at: Path) -> Template | None:
    config: dict[str, Json] | None = draft.get(at, None)
    if config is None:
        return None
    for key, place in (("work_dir", "work"), ("artifact_dir", "artifacts")):
        if key in config and config[key] != {"$eval": f"sandbox.{place}"}:
            draft.complain(
                (*at, key), f"the worker sets this key itself; remove it, or write {{$eval: sandbox.{place}}}"
            )
    return _template(draft, at, config)
