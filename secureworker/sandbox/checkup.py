"""What this host can do, point by point, for `secureworker doctor`. Looks, and changes nothing.

Every point is looked at whatever the others say: an operator wants the whole list, not the first that is missing.
"""

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from secureworker.core.errors import HostError, SandboxError
from secureworker.host import userns
from secureworker.host.workspace import RUN_DIR, UidRange
from secureworker.sandbox import delegation, kernel, mountinfo, runtime, seccomp, survey
from secureworker.sandbox.cgroups import Version

_LEAST_KERNEL = (5, 12)
"""mount_setattr, by which runtimes make whole trees of mounts read-only."""
_REFUSALS = (("unprivileged_userns_clone", "0"), ("apparmor_restrict_unprivileged_userns", "1"))
"""Sysctls of Debian's and Ubuntu's kernels, with the value that keeps user namespaces from users."""
_NAMESPACES = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")


class State(Enum):
    """Of one point."""

    OK = "ok"
    NOTE = "note"
    """Not needed, or not checked; something would be better with it."""
    MISSING = "missing"
    """Without it there is no sandbox."""


@dataclass(frozen=True, slots=True)
class Point:
    """One thing that was looked at."""

    name: str
    state: State
    found: str
    advice: str = ""
    """What to do about it; empty where nothing is to be done."""


def examine() -> tuple[Point, ...]:
    """Look at everything."""
    return tuple(point for look in _LOOKS for point in look())


def able(points: tuple[Point, ...]) -> bool:
    """Whether a sandbox can be made."""
    return all(point.state is not State.MISSING for point in points)


def _need(name: str, *, there: bool, found: str, advice: str) -> Point:
    return Point(name, State.OK, found) if there else Point(name, State.MISSING, found, advice)


def _kernel() -> Iterator[Point]:
    least = ".".join(map(str, _LEAST_KERNEL))
    yield _need(
        "kernel",
        there=kernel.kernel_version() >= _LEAST_KERNEL,
        found=f"{platform.system()} {platform.release()} {platform.machine()}",
        advice=f"use Linux {least} or later",
    )
    try:
        os.close(os.pidfd_open(os.getpid()))
        pidfd = True
    except OSError:
        pidfd = False
    openat2 = _finds_itself()
    for name, there, since in (("pidfd", pidfd, "5.3"), ("openat2", openat2, "5.6")):
        yield _need(name, there=there, found="yes" if there else "no", advice=f"use Linux {since} or later")
    version = kernel.landlock_version()
    found = f"version {version}" if version else "no"
    yield Point(
        "Landlock", State.OK if version else State.NOTE, found, "" if version else "scripts cannot confine themselves"
    )


def _finds_itself() -> bool:
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        os.close(kernel.open_in_root(root, "/proc"))
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(root)


def _namespaces() -> Iterator[Point]:
    missing = [name for name in _NAMESPACES if not os.path.exists(f"/proc/self/ns/{name}")]
    most = _text("/proc/sys/user/max_user_namespaces")
    yield _need(
        "namespaces",
        there=not missing and most != "0",
        found=f"no {', '.join(missing)}"
        if missing
        else f"{', '.join(_NAMESPACES)}; up to {most or '?'} user namespaces",
        advice="use a kernel with these namespaces; set the sysctl user.max_user_namespaces to more than 0",
    )


def _privileges() -> Iterator[Point]:
    if os.geteuid() == 0:
        yield Point("user", State.OK, "root: scripts get user ids of their own")
        return
    found = f"uid {os.geteuid()}, not root"
    try:
        users, groups = userns.find_spans()
    except HostError as error:
        yield Point("user", State.MISSING, found, f"{error}. Or start the worker as root, which may find more below")
        return
    refusing = [name for name, value in _REFUSALS if _text(f"/proc/sys/kernel/{name}").strip() == value]
    yield _need(
        "user",
        there=not refusing,
        found=f"{found}: scripts get its subordinate ids, {min(users.count, groups.count)} from {users.first} on",
        advice=f"this host gives user namespaces to root only: change the sysctl kernel.{', kernel.'.join(refusing)}",
    )


def _cgroups() -> Iterator[Point]:
    mounts = mountinfo.parse(_text("/proc/self/mountinfo"))
    try:
        chosen = delegation.find_mounts(mounts, delegation.available_controllers(mounts))
    except SandboxError as error:
        yield Point("control groups", State.MISSING, "not usable", str(error))
        return
    controllers = ", ".join(sorted(chosen.by_controller))
    found = f"version {chosen.version.value}: {controllers}"
    if os.geteuid() == 0 or delegation.is_delegated(chosen):
        yield Point("control groups", State.OK, found)
    else:
        yield Point(
            "control groups",
            State.NOTE,
            f"{found}; none is delegated to this user",
            f"only policies with `limits: none` for every script can be used here; for limits, {delegation.HOW}",
        )
    yield from _runtimes(unified=chosen.version is Version.V2)


def _runtimes(*, unified: bool) -> Iterator[Point]:
    for name in ("crun", "runc"):
        path = runtime.find(name)
        if path is None:
            yield Point(name, State.NOTE, "not installed", f"apt-get install {name}")
            continue
        try:
            found = runtime.identify(path)
        except SandboxError as error:
            yield Point(name, State.NOTE, "does not work", str(error))
            continue
        if name == "crun" and not unified:
            yield Point(
                name, State.NOTE, f"{found.version}, {path}", "takes hosts with control groups of version 2 only"
            )
        else:
            yield Point(name, State.OK, f"{found.version}, {path}")
    yield _found("OCI runtime", lambda: _named(survey.find_runtime(None, unified=unified)))


def _named(chosen: runtime.Runtime) -> str:
    return f"{chosen.name} {chosen.version} is used"


def _found(name: str, look: Callable[[], str]) -> Point:
    try:
        return Point(name, State.OK, look())
    except SandboxError as error:
        return Point(name, State.MISSING, "not usable", str(error))


def _init() -> Iterator[Point]:
    yield _found("tini", survey.find_init)


def _system() -> Iterator[Point]:
    yield _found("/usr", lambda: f"merged: {', '.join(name for name, _ in survey.root_links())}")
    actions = _text("/proc/sys/kernel/seccomp/actions_avail").split()
    known = seccomp.knows(platform.machine())
    yield _need(
        "seccomp",
        there="errno" in actions and known,
        found="filter for " + platform.machine() if known else f"no filter for {platform.machine()}",
        advice="use a kernel with CONFIG_SECCOMP_FILTER on one of the supported architectures",
    )


def _ids() -> Iterator[Point]:
    if os.geteuid() != 0:
        return  # Its own, which `_privileges` has shown.
    uids = UidRange()
    taken = [line for line in _text("/etc/subuid").splitlines() if _overlaps(line, uids)]
    yield _need(
        "user ids",
        there=not taken,
        found=f"{uids.base} to {uids.base + uids.count - 1}, two per run"
        if not taken
        else f"taken: {', '.join(taken)}",
        advice="these are the worker's; remove the line from /etc/subuid",
    )


def _overlaps(line: str, uids: UidRange) -> bool:
    _, _, numbers = line.partition(":")
    first, _, count = numbers.partition(":")
    if not (first.isdigit() and count.isdigit()):
        return False
    return int(first) < uids.base + uids.count and uids.base < int(first) + int(count)


def _places() -> Iterator[Point]:
    if os.geteuid() != 0:
        return  # In the state directory, which is looked at when it is used.
    closed = [path for path in _parents(RUN_DIR) if os.path.isdir(path) and not os.stat(path).st_mode & 0o001]
    yield _need(
        "run directory",
        there=not closed,
        found=RUN_DIR if not closed else f"{closed[0] if closed else ''} is closed to others",
        advice="chmod o+x it: the container's ids have to pass",
    )


def _parents(path: str) -> Iterator[str]:
    while path != "/":
        yield path
        path = os.path.dirname(path)


def _text(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


_LOOKS = (_kernel, _namespaces, _privileges, _cgroups, _init, _system, _ids, _places)
