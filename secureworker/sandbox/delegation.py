"""Finding the place in the control-group tree where this worker may make groups with limits."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from secureworker.core.errors import SandboxError
from secureworker.sandbox.cgroups import V1_CONTROLLERS, V1_WITHOUT_LIMITS, V2_CONTROLLERS, Hierarchy, Version
from secureworker.sandbox.mountinfo import Mounted, parse

_ROOT = "/"
_OWN_LEAF = "worker"
"""Where the worker itself goes in version 2: a group with limits for its children may have no process of its own."""
HOW = (
    "run the worker by systemd with `Delegate=yes` (for a trial: `systemd-run --user --scope -p Delegate=yes`), "
    "or as root"
)


@dataclass(frozen=True, slots=True)
class Mounts:
    """Where the hierarchies are mounted."""

    version: Version
    by_controller: Mapping[str, Mounted]
    """Version 2 has one, under the name of each of its controllers that is available."""


def find_mounts(mounts: tuple[Mounted, ...], available: Mapping[str, frozenset[str]]) -> Mounts:
    """Choose the version. Pure.

    Args:
        mounts: of this process.
        available: by target of a cgroup2 mount: what its `cgroup.controllers` lists.

    Raises:
        SandboxError: a controller is missing in both versions.
    """
    for mount in mounts:
        if mount.kind == "cgroup2" and available.get(mount.target, frozenset()).issuperset(V2_CONTROLLERS):
            return Mounts(Version.V2, dict.fromkeys(V2_CONTROLLERS, mount))
    found = {
        controller: mount
        for controller in V1_CONTROLLERS
        for mount in mounts
        if mount.kind == "cgroup" and controller in mount.super_options
    }
    missing = [name for name in V1_CONTROLLERS if name not in found and name not in V1_WITHOUT_LIMITS]
    if missing:
        raise SandboxError(
            f"no control groups for {', '.join(missing)}: without them a script has no limits; "
            "mount cgroup2 on /sys/fs/cgroup, and enable them (some boards need cgroup_enable=memory at boot)"
        )
    return Mounts(Version.V1, found)


def own_paths(text: str) -> Mapping[str, str]:
    """Read `/proc/self/cgroup`: path by controller, that of version 2 under the empty name. Pure."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    return paths


def find_hierarchy(name: str, *, proc: str = "/proc/self", privileged: bool = True) -> Hierarchy:
    """Find, and in version 2 prepare, the place for the groups of the worker called `name`.

    In a delegated group of version 2, this process moves into a leaf of its own.

    Args:
        name: of the level that holds the groups of runs.
        proc: what the kernel says of this process.
        privileged: whether this is root.

    Raises:
        SandboxError: there is no place where this worker may set limits.
    """
    mounts = parse(_read(f"{proc}/mountinfo"))
    chosen = find_mounts(mounts, available_controllers(mounts))
    own = own_paths(_read(f"{proc}/cgroup"))
    if chosen.version is Version.V2:
        mount = chosen.by_controller["memory"]
        base = delegated_base(mount.target, _within(mount, own[""]), privileged=privileged)
        path = "/".join(filter(None, (mount.root.rstrip("/"), base.removeprefix(mount.target).strip("/"), name)))
        path = path if path.startswith("/") else f"/{path}"
        level = f"{base}/{name}"
        # Controllers are enabled level by level: those of the level above are not inherited.
        os.makedirs(level, exist_ok=True)
        _enable(level)
        return Hierarchy(Version.V2, dict.fromkeys(V2_CONTROLLERS, level), dict.fromkeys(V2_CONTROLLERS, path))
    return _first_version(name, mounts, chosen, own)


def available_controllers(mounts: tuple[Mounted, ...]) -> Mapping[str, frozenset[str]]:
    """Give what version 2 offers, by mount point."""
    return {
        mount.target: frozenset(_read(f"{mount.target}/cgroup.controllers").split())
        for mount in mounts
        if mount.kind == "cgroup2"
    }


def _first_version(name: str, mounts: tuple[Mounted, ...], chosen: Mounts, own: Mapping[str, str]) -> Hierarchy:
    # Version 1 has no rule against processes beside groups: below the worker's own group, so that what limits the
    # worker limits its scripts too. The path must be the same in all, for `cgroupsPath`: so each hierarchy has the
    # path that the worker has in that of memory.
    path = f"{own['memory'].rstrip('/')}/{name}"
    bases = {controller: mount.target + _within(mount, path) for controller, mount in chosen.by_controller.items()}
    others = tuple(
        mount.target + _within(mount, path)
        for mount in mounts
        if mount.kind in {"cgroup", "cgroup2"} and mount not in chosen.by_controller.values()
    )
    for controller, base in bases.items():
        try:
            os.makedirs(base, exist_ok=True)
        except OSError as error:
            raise SandboxError(
                f"no control group for {controller} can be made in {base}: {error.strerror}; {HOW}"
            ) from error
    return Hierarchy(Version.V1, bases, dict.fromkeys(bases, path), others)


def _within(mount: Mounted, path: str) -> str:
    """Give `path` of a hierarchy as seen from the mount, which may show only a part of it."""
    return "/" + path.removeprefix(mount.root).strip("/") if path != _ROOT else ""


def delegated_base(top: str, own: str, *, privileged: bool) -> str:
    """Find the group of version 2 whose children may have limits, and enable the controllers for them.

    1. The worker's own group, or the one above where it has moved to a leaf before, if it was delegated to it.
    2. For root: the top of the tree, which is the only one that may have processes beside groups.

    Args:
        top: where the hierarchy is mounted.
        own: path of this process's group below `top`.
        privileged: whether this is root.
    """
    here = (top + own).rstrip("/")
    for candidate in _candidates(here):
        if candidate != top and _is_delegated(candidate, privileged=privileged):
            _make_room(candidate)
            _enable(candidate)
            return candidate
    if not privileged:
        raise SandboxError(f"the control group {here} is not delegated to this worker: no limits are possible; {HOW}")
    try:
        _enable(top)
    except SandboxError:
        # In a container the top is none in truth, and has processes: a group of their own for them.
        _make_room(top)
        _enable(top)
    return top


def _candidates(here: str) -> list[str]:
    return [os.path.dirname(here), here] if os.path.basename(here) == _OWN_LEAF else [here]


def is_delegated(chosen: Mounts, *, proc: str = "/proc/self") -> bool:
    """Say whether a worker of this user, which is not root, could limit its scripts. Changes nothing."""
    if chosen.version is not Version.V2:
        return False
    mount = chosen.by_controller["memory"]
    here = (mount.target + _within(mount, own_paths(_read(f"{proc}/cgroup"))[""])).rstrip("/")
    return any(group != mount.target and _is_delegated(group, privileged=False) for group in _candidates(here))


def _is_delegated(group: str, *, privileged: bool) -> bool:
    # systemd marks what it delegates; without root, what belongs to us can only have been delegated.
    if not privileged:
        return os.stat(group).st_uid == os.geteuid() and os.access(f"{group}/cgroup.subtree_control", os.W_OK)
    for mark in ("trusted.delegate", "user.delegate"):
        with suppress(OSError):
            return os.getxattr(group, mark) == b"1"
    return False


def _make_room(group: str) -> None:
    """Move the processes of `group` into a leaf: a group with limited children may have none itself."""
    leaf = f"{group}/{_OWN_LEAF}"
    try:
        os.makedirs(leaf, exist_ok=True)
        for pid in _read(f"{group}/cgroup.procs").split():
            # One that has just ended, or a kernel thread.
            with suppress(ProcessLookupError):
                _write(f"{leaf}/cgroup.procs", pid)
    except OSError as error:
        raise SandboxError(
            f"the worker cannot move into a group of its own, {leaf}: {error.strerror}; {HOW}"
        ) from error


def _enable(group: str) -> None:
    enabled = _read(f"{group}/cgroup.subtree_control").split()
    missing = [name for name in V2_CONTROLLERS if name not in enabled]
    if not missing:
        return
    try:
        _write(f"{group}/cgroup.subtree_control", " ".join(f"+{name}" for name in missing))
    except OSError as error:
        raise SandboxError(
            f"the controllers {', '.join(missing)} cannot be enabled in {group}: {error.strerror}; {HOW}"
        ) from error


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
