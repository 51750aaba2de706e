"""What a script may see and reach beside its task: mounts, secrets, network, Taskcluster, inputs."""

import os
import re
import stat
from typing import Any, Final

from secureworker.core.addresses import BadHost, parse_host_port
from secureworker.core.doors import NEVER_GRANTED, Destination
from secureworker.core.origin import TracedRepository, TraceRule
from secureworker.core.paths import BadTarget, Route, canonical, is_workers_own
from secureworker.core.plan import TASK_DIR, Mount
from secureworker.core.policy import (
    SecretRule,
    TaskclusterRule,
    TaskConstraints,
    UpstreamRule,
)
from secureworker.core.schemas import Path, show
from secureworker.core.scopes import overlaps, pattern_covers
from secureworker.core.website import BRANCH, REVISION, TAG, Question, Website
from secureworker.policyfile.common import Trusted
from secureworker.policyfile.draft import Draft
from secureworker.policyfile.quantities import parse_size

_PLACEHOLDER = re.compile(r"\{[^}]*\}?|\}")
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


def read_mounts(draft: Draft, at: Path) -> tuple[Mount, ...]:
    """Read the places of the host that a script sees."""
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
    draft.complain_all(at, _against_source(os.path.realpath(source)))


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


def read_secrets(draft: Draft, at: Path) -> tuple[SecretRule, ...]:
    """Read which secrets a script gets."""
    secrets: dict[str, str] = draft.get(at, {})
    rules: list[SecretRule] = []
    for file, source in sorted(secrets.items()):
        kind, _, place = source.partition(":")
        if kind == "file" and os.path.normpath(place) != place:
            draft.complain((*at, file), f"found {source!r}; expected 'file:{os.path.normpath(place)}'")
            continue
        try:
            rules.append(SecretRule(file, source))
        except ValueError as error:
            draft.complain((*at, file), f"found {source!r}: {error}")
    return tuple(rules)


def read_network(draft: Draft, at: Path) -> tuple[Destination, ...]:
    """Read which hosts a script may reach."""
    found: list[Destination] = []
    for index, written in enumerate(draft.get((*at, "allow"), [])):
        entry: dict[str, Any] = written if isinstance(written, dict) else {"destination": written}
        plain, host_port = entry["destination"].startswith("http://"), entry["destination"].removeprefix("http://")
        try:
            place = parse_host_port(host_port)
        except BadHost as error:
            draft.complain((*at, "allow", index), f"found {show(host_port)}; this is {error}")
            continue
        if any(each.at == place for each in found):
            draft.complain((*at, "allow", index), f"{host_port} is allowed twice; keep one")
        found.append(Destination(place.host, place.port, plain, entry.get("internal", False)))
    return tuple(found)


def read_taskcluster(draft: Draft, at: Path, constraints: TaskConstraints) -> TaskclusterRule:
    """Read what a script may do at Taskcluster."""
    routes: list[str] = draft.get((*at, "routes"), [])
    parsed: list[Route] = []
    for index, written in enumerate(routes):
        method, _, path = written.partition(" ")
        try:
            # A request's path is compared decoded; what stands before the star must be the beginning of such a path.
            route = Route(method, f"{canonical(path[:-1] + 'x')[:-1]}*" if path.endswith("*") else canonical(path))
        except BadTarget as error:
            draft.complain((*at, "routes", index), f"found {show(written)}; no request has such a path: {error}")
            continue
        if is_workers_own(method, route.path):
            draft.complain(
                (*at, "routes", index), f"found {show(written)}, which is the worker's own; no script may do that"
            )
        parsed.append(route)
    scopes: list[str] = draft.get((*at, "scopes"), [])
    for index, scope in enumerate(scopes):
        here = (*at, "scopes", index)
        if any(overlaps(own, scope) for own in NEVER_GRANTED):
            draft.complain(here, f"found {scope!r}, which reaches into what belongs to the worker; no script gets that")
        elif constraints.scopes_allow and not any(overlaps(allowed, scope) for allowed in constraints.scopes_allow):
            draft.complain(
                here, f"no task can have {scope!r}: tasks.scopes.allow does not cover it; allow it there, or remove it"
            )
    return TaskclusterRule(tuple(parsed), tuple(scopes))


def read_upstream(draft: Draft, at: Path, trust: Trusted) -> UpstreamRule | None:
    """Read which inputs a script may have."""
    if not draft.has(at):
        return None
    patterns = _trusted(draft, (*at, "worker-pools"), trust)
    return UpstreamRule(
        required=draft.get((*at, "required"), default=False),
        worker_pools=patterns,
        max_size=parse_size(draft.get((*at, "max-size"), "8GiB")),
        forbid_features=tuple(draft.get((*at, "forbid-features"), [])),
        trace=_read_trace(draft, (*at, "trace"), trust),
    )


def _trusted(draft: Draft, at: Path, trust: Trusted) -> tuple[str, ...]:
    """Read patterns of pools, each of which must mean one whose keys are known."""
    patterns: list[str] = draft.get(at, [])
    for index, pattern in enumerate(patterns):
        if trust.known and not any(pattern_covers(pattern, str(pool.worker_pool)) for pool in trust.pools):
            where = "trust.worker-pools" if trust.file is None else trust.file.path
            draft.complain((*at, index), f"{where} has no pool {pattern!r}; add it with its keys")
    return tuple(patterns)


def _read_trace(draft: Draft, at: Path, trust: Trusted) -> TraceRule | None:
    """Read how inputs are followed to the tree."""
    if not draft.has(at):
        return None
    repositories: list[TracedRepository] = []
    for index, written in enumerate(draft.get((*at, "repositories"), [])):
        here = (*at, "repositories", index)
        repository = TracedRepository(
            written["scheme"],
            written["host"],
            written.get("owner", ""),
            written["repository"],
            written.get("mirror", ""),
            tuple(written["branches"]),
            written["environment-prefix"],
            _read_website(draft, (*here, "https"), written["https"]) if "https" in written else None,
        )
        if ("mirror" in written) == ("https" in written):
            draft.complain(here, "a repository is read from a mirror or by https; give one of them")
        elif "mirror" in written:
            _look_at_mirror(draft, (*here, "mirror"), repository.mirror)
        if any(each.url == repository.url for each in repositories):
            draft.complain(here, f"{repository.url} is there twice; keep one")
        repositories.append(repository)
    pools = _trusted(draft, (*at, "decision-pools"), trust)
    return TraceRule(pools, tuple(repositories), draft.get((*at, "max-depth"), 5))


def _look_at_mirror(draft: Draft, at: Path, mirror: str) -> None:
    if os.path.normpath(mirror) != mirror:
        draft.complain(at, f"found {mirror!r}; expected {os.path.normpath(mirror)!r}")
    elif draft.places.host and not os.path.isfile(f"{mirror}/HEAD"):
        draft.complain(at, f"{mirror} is no bare git repository; make it")
    else:
        # It belongs to whoever fetches into it, which may be another user. Its place must be nobody else's.
        draft.complain_all(at, draft.places.exposed(os.path.dirname(mirror)))
        if draft.places.host and _anybodys(mirror):
            draft.complain(
                at, f"{mirror} is a link, or may be written by everybody: a directory is expected, chmod o-w"
            )


def _anybodys(mirror: str) -> bool:
    mode = os.lstat(mirror).st_mode
    return not stat.S_ISDIR(mode) or bool(mode & stat.S_IWOTH)


def _read_website(draft: Draft, at: Path, written: dict[str, Any]) -> Website:
    """Read where a repository is read over https: addresses whose hosts are written out, which the schema sees to."""
    website = Website(
        written["file"], _question(written["branch"]), _question(written["tag"]) if "tag" in written else None
    )
    places = [("file", website.file, {REVISION}), ("branch", website.branch.url, {REVISION, BRANCH})]
    if website.tag is not None:
        said = " ".join((website.tag.url, *website.tag.values))
        places.append(("tag", said, {REVISION, TAG}))
    for key, text, due in places:
        found = set(_PLACEHOLDER.findall(text))
        if found != due:
            names = " and ".join(sorted(due))
            draft.complain((*at, key), f"found {', '.join(sorted(found)) or 'none'} in it; expected {names}")
    return website


def _question(written: dict[str, Any]) -> Question:
    return Question(written["url"], written["key"], tuple(written["values"]))
