"""One script's rule: from its part of the document to a `ScriptRule`."""

import os
import stat
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from secureworker.core.claim import Json
from secureworker.core.ids import ScriptName, Sha256
from secureworker.core.outcome import ExitCodes, Resolution
from secureworker.core.plan import TASK_DIR, Limits, Mount, OutputRules, PinnedFile
from secureworker.core.policy import Always, ScopeEquals, ScriptRule, TaskConstraints, When
from secureworker.core.schemas import BadSchema, CompiledSchema, Path, show
from secureworker.core.scopes import overlaps, satisfies
from secureworker.core.templates import BadTemplate, Template
from secureworker.policyfile.draft import Draft
from secureworker.policyfile.quantities import parse_duration, parse_size, spell_duration

_NO_DIGEST: Final = Sha256("0" * 64)
_DEFAULT_RUN_TIME: Final = "30m"
_DEFAULT_LIMITS: Final[Mapping[str, Any]] = {
    "memory": "2GiB",
    "processes": 256,
    "cpus": 1,
    "disk": "10GiB",
    "files": 100_000,
    "log": "64MiB",
    "open-files": 1024,
}

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

_HIDDEN_SOURCES: Final = ("/proc", "/sys", "/dev", "/run", "/var/run", "/boot")
"""Nothing of these is shown to a script: handles on the host, and sockets of its services."""
_PRIVATE_SOURCES: Final = ("/etc", "/root", "/home", "/var", "/var/lib")
"""Not shown as a whole; what lies deeper may be."""
_SANDBOX_OWN: Final = ("/proc", "/sys", "/dev", "/tmp", "/run", TASK_DIR)  # noqa: S108 - the sandbox's, not the host's
"""Targets at and below which the sandbox has its own."""
_SANDBOX_TREES: Final = ("/", "/usr", "/etc", "/bin", "/sbin", "/lib", "/lib64", "/home", "/var", "/opt")
"""Targets that would hide a part of the sandbox's root."""


def _within(path: str, trees: tuple[str, ...]) -> bool:
    return any(path == tree or path.startswith(f"{tree}/") for tree in trees)


def read_rule(draft: Draft, name: str, constraints: TaskConstraints, *, alone: bool) -> ScriptRule:
    """Read `scripts.<name>`. Problems go into `draft`; what is given back then is of no use."""
    at: Path = ("scripts", name)
    pinned = _pinned(draft, (*at, "pinned"))
    return ScriptRule(
        name=ScriptName(name),
        description=draft.get((*at, "description"), ""),
        when=_when(draft, at, constraints, alone=alone),
        command=_command(draft, at, pinned),
        pinned=tuple(pinned.values()),
        payload_schema=_payload(draft, (*at, "payload")),
        requires_scopes=_required_scopes(draft, (*at, "requires-scopes"), constraints),
        environment=_environment(draft, (*at, "environment")),
        config=_config(draft, (*at, "config")),
        limits=_limits(draft, (*at, "limits"), constraints),
        mounts=_mounts(draft, (*at, "mounts")),
        outputs=_outputs(draft, (*at, "artifacts")),
        exit_codes=_exit_codes(draft, (*at, "exit-codes")),
        repeatable=draft.get((*at, "repeatable"), default=True),
        grace=parse_duration(draft.get((*at, "on-shutdown", "grace"), "10s")),
    )


def _when(draft: Draft, at: Path, constraints: TaskConstraints, *, alone: bool) -> When:
    if not draft.has((*at, "when")):
        if not alone:
            draft.complain(at, "'when' is missing; only a policy's single script may do without it")
        return Always()
    when = draft.get((*at, "when"), None)
    if when is None:
        return Always()
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
    if not isinstance(first, str) or (first not in draft.keys((*at, "pinned")) and first not in pinned):
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


def _payload(draft: Draft, at: Path) -> CompiledSchema:
    written = draft.get(at, None)
    if written is not None:
        try:
            return draft.places.schema(written)
        except BadSchema as error:
            where = (*at, *error.path)
            draft.complain(where if draft.has(where) else at, str(error))
        except ValueError as error:
            draft.complain(at, str(error))
    return CompiledSchema({})


def _required_scopes(draft: Draft, at: Path, constraints: TaskConstraints) -> tuple[Template, ...]:
    scopes: list[Json] = draft.get(at, [])
    templates = tuple(_template(draft, (*at, index), scope) for index, scope in enumerate(scopes))
    for index, template in enumerate(templates):
        if template.fixed and isinstance(template.source, str):
            _check_reachable(draft, (*at, index), template.source, constraints)
    return templates


def _environment(draft: Draft, at: Path) -> tuple[tuple[str, str], ...]:
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


def _limits(draft: Draft, at: Path, constraints: TaskConstraints) -> Limits:
    def get(key: str) -> Any:
        return draft.get((*at, key), _DEFAULT_LIMITS[key])

    longest = constraints.max_run_time
    if draft.has((*at, "run-time")):
        run_time = parse_duration(draft.get((*at, "run-time"), _DEFAULT_RUN_TIME))
        if run_time > longest:
            draft.complain(
                (*at, "run-time"),
                f"found {spell_duration(run_time)}; expected at most tasks.max-run-time, {spell_duration(longest)},",
            )
    else:
        run_time = min(parse_duration(_DEFAULT_RUN_TIME), longest)
    values: dict[str, Any] = {
        "run_time": run_time,
        "memory_bytes": parse_size(get("memory")),
        "processes": get("processes"),
        "cpus": float(get("cpus")),
        "disk_bytes": parse_size(get("disk")),
        "files": get("files"),
        "log_bytes": parse_size(get("log")),
        "open_files": get("open-files"),
    }
    try:
        return Limits(**values)
    except ValueError as error:
        draft.complain(at, str(error))
        return Limits(timedelta(minutes=1), 2**30, 2, 1, 2**30, 1000, 2**20, 64)


def _mounts(draft: Draft, at: Path) -> tuple[Mount, ...]:
    mounts: dict[str, Mount] = {}
    for index, written in enumerate(draft.get(at, [])):
        here = (*at, index)
        try:
            source = draft.places.resolve(written["source"])
        except ValueError as error:
            draft.complain((*here, "source"), str(error))
            continue
        target = written.get("target", source)
        draft.complain_all((*here, "source"), _against_source(source))
        draft.complain_all((*here, "target") if "target" in written else here, _against_target(target))
        if target in mounts:
            draft.complain(here, f"two mounts are at {target}; keep one")
        if draft.places.host:
            _look_at_source(draft, (*here, "source"), source)
        mounts[target] = Mount(source, target)
    return tuple(mounts[target] for target in sorted(mounts))


def _look_at_source(draft: Draft, at: Path, source: str) -> None:
    if not os.path.lexists(source):
        draft.complain(at, f"{source} does not exist on this host; make it, or remove the mount")
    elif not (os.path.isdir(source) or os.path.isfile(source)):
        draft.complain(at, f"{source} is neither a directory nor a regular file")
    # What a link leads to is what the script would see.
    draft.complain_all(at, (message for message in _against_source(os.path.realpath(source))))


def _against_source(source: str) -> tuple[str, ...]:
    if source == "/" or _within(source, _HIDDEN_SOURCES) or source in _PRIVATE_SOURCES:
        return (f"{source} holds more of the host than a script may see; mount what the script needs",)
    return ()


def _against_target(target: str) -> tuple[str, ...]:
    if os.path.normpath(target) != target:
        return (f"found {target!r}; expected {os.path.normpath(target)!r}",)
    if target in _SANDBOX_TREES or _within(target, _SANDBOX_OWN):
        return (f"{target} is the sandbox's own; choose a target of its own, like /opt/<name>",)
    return ()


def _outputs(draft: Draft, at: Path) -> OutputRules:
    def get(key: str, default: Any) -> Any:
        return draft.get((*at, key), default)

    patterns: list[str] = get("allow", [])
    for index, pattern in enumerate(patterns):
        if any(segment in {"", ".", ".."} for segment in pattern.split("/")):
            draft.complain(
                (*at, "allow", index), f"found {pattern!r}; expected a pattern without empty segments, '.' and '..'"
            )
    expires: str | None = get("expires", None)
    rules = OutputRules(
        allow=tuple(patterns),
        max_size=parse_size(get("max-size", "4GiB")),
        max_total=parse_size(get("max-total", "16GiB")),
        max_count=get("max-count", 500),
        expires=None if expires is None else parse_duration(expires),
        content_types=tuple(sorted(get("content-types", {}).items())),
        on_failure=get("on-failure", "publish") == "publish",
    )
    if draft.has((*at, "max-size")) and rules.max_size > rules.max_total:
        draft.complain((*at, "max-size"), "one artifact may be larger than all together (max-total); raise that")
    return rules


def _exit_codes(draft: Draft, at: Path) -> ExitCodes:
    codes = draft.get(at, {})
    return ExitCodes(tuple(sorted((int(code), Resolution(meaning)) for code, meaning in codes.items())))
