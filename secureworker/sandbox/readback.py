"""Comparing what the runtime built with what it was asked for, before and after the script begins.

Runtimes do not always do what a bundle says: crun before 1.11.1 drops flags of read-write binds in a user namespace,
runc 1.1 ignores the mode of a tmpfs, and crun without its cgroup manager ignores limits without a word. Each check
reads what the kernel says of the container's process. Any difference is a SandboxError, and the script does not run,
or is killed.
"""

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from secureworker.core.errors import SandboxError
from secureworker.sandbox import mountinfo
from secureworker.sandbox.mountinfo import Mounted

NAMESPACES = ("pid", "mnt", "ipc", "uts", "user", "cgroup", "net")
_FLAGS = frozenset({"ro", "nosuid", "nodev", "noexec"})
_DEVICES = frozenset(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty"))
_PROC_OPTIONS = (frozenset({"hidepid=2", "hidepid=invisible"}), frozenset({"subset=pid"}))
_LIMITS = {
    # As /proc/<pid>/limits calls them.
    "RLIMIT_CORE": "Max core file size",
    "RLIMIT_FSIZE": "Max file size",
    "RLIMIT_MEMLOCK": "Max locked memory",
    "RLIMIT_MSGQUEUE": "Max msgqueue size",
    "RLIMIT_NOFILE": "Max open files",
    "RLIMIT_NPROC": "Max processes",
    "RLIMIT_RTPRIO": "Max realtime priority",
    "RLIMIT_SIGPENDING": "Max pending signals",
}
_EXEC_SECONDS = 10.0
"""From `start` until the init runs: 1 ms; the rest is for a host under load."""


def check_created(pid: int, config: Mapping[str, Any], network: int | None, paths: Mapping[str, str]) -> None:
    """Check a container whose process has not begun.

    1. Every namespace is another than the worker's, and the network namespace is the one that was made for it.
    2. Exactly the two ids are mapped.
    3. Every mount is there with its flags and source, and none that was not asked for.
    4. Resource limits and the badness for the out-of-memory killer are in force.
    5. The process is in the run's control groups.

    Args:
        pid: the container's init.
        config: of the bundle.
        network: descriptor of the network namespace; None where the runtime made it.
        paths: of the control group, by controller.
    """
    # 1.
    for kind in NAMESPACES:
        theirs = os.stat(f"/proc/{pid}/ns/{kind}").st_ino
        _expect(theirs != os.stat(f"/proc/self/ns/{kind}").st_ino, f"the {kind} namespace is the worker's own")
        if kind == "net" and network is not None:
            _expect(theirs == os.fstat(network).st_ino, "the net namespace is not the one that was made for the run")
    # 2.
    for name, mappings in (("uid_map", "uidMappings"), ("gid_map", "gidMappings")):
        found = sorted(tuple(map(int, line.split())) for line in _read(f"/proc/{pid}/{name}").splitlines())
        wanted = sorted((m["containerID"], m["hostID"], m["size"]) for m in config["linux"][mappings])
        _expect(found == wanted, f"{name} is {found}, and not {wanted}")
    # 3.
    mounts = mountinfo.parse(_read(f"/proc/{pid}/mountinfo"))
    check_mounts(mounts, config, mountinfo.parse(_read("/proc/self/mountinfo")))
    for mount in config["mounts"]:
        if mount["type"] == "bind":
            _check_source(pid, mount["destination"], mount["source"])
    # 4.
    check_limits(_read(f"/proc/{pid}/limits"), config)
    badness = int(_read(f"/proc/{pid}/oom_score_adj"))
    _expect(badness == config["process"]["oomScoreAdj"], f"oom_score_adj is {badness}")
    # 5.
    check_groups(_read(f"/proc/{pid}/cgroup"), paths)


def check_started(pid: int, init: str, config: Mapping[str, Any]) -> None:
    """Check a container whose init has begun; it may have ended since, as long as it has not been waited for.

    No capability in any set, no new privileges, a filter of system calls, the script's ids and no other.
    """
    # The runtime's process becomes the init some microseconds after `start` has returned: until then it shows the
    # privileges of the set-up. The name stays with a process that has ended.
    deadline = time.monotonic() + _EXEC_SECONDS
    while (name := _read(f"/proc/{pid}/comm").strip()) != os.path.basename(init)[:15]:
        _expect(time.monotonic() < deadline, f"the init did not begin: the process is still {name!r}")
        time.sleep(0.0002)
    check_status(_read(f"/proc/{pid}/status"), config)


def check_status(text: str, config: Mapping[str, Any]) -> None:
    """Check `/proc/<pid>/status` of the running init."""
    status = dict(re.findall(r"^(\w+):\t(.*)$", text, re.MULTILINE))
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        _expect(int(status[name], 16) == 0, f"the capability set {name} is {status[name]}")
    _expect(status["NoNewPrivs"] == "1", f"NoNewPrivs is {status['NoNewPrivs']}")
    _expect(status["Seccomp"] == "2", f"Seccomp is {status['Seccomp']}")
    inside = config["process"]["user"]["uid"]
    for name, mappings in (("Uid", "uidMappings"), ("Gid", "gidMappings")):
        (outside,) = (m["hostID"] for m in config["linux"][mappings] if m["containerID"] == inside)
        _expect(set(status[name].split()) == {str(outside)}, f"{name} is {status[name]!r}, and not {outside}")
    groups = status["Groups"].split()
    _expect(not groups or set(groups) == {str(outside)}, f"there are supplementary groups: {groups}")


def check_mounts(mounts: tuple[Mounted, ...], config: Mapping[str, Any], host: tuple[Mounted, ...]) -> None:
    """Compare the container's mounts with the config's. Pure.

    Args:
        mounts: of the container.
        config: of the bundle.
        host: mounts of the worker: what is mounted within a bind's source comes along with it.
    """
    wanted: dict[str, frozenset[str]] = {"/": frozenset({"ro"})}
    for mount in config["mounts"]:
        flags = _FLAGS.intersection(mount["options"])
        wanted[mount["destination"]] = flags
        if "rbind" in mount["options"]:
            wanted |= dict.fromkeys(
                (mount["destination"] + below for below in mountinfo.submounts(host, mount["source"])), flags
            )
    optional = _DEVICES.union(config["linux"]["maskedPaths"], config["linux"]["readonlyPaths"])
    for mounted in mounts:
        if mounted.target in wanted:
            lacking = wanted[mounted.target] - mounted.options
            _expect(not lacking, f"the mount {mounted.target} lacks {', '.join(sorted(lacking))}")
        else:
            _expect(mounted.target in optional, f"there is a mount on {mounted.target} that nobody asked for")
        if mounted.kind == "proc" and mounted.target == "/proc":
            for alternatives in _PROC_OPTIONS:
                _expect(bool(alternatives & mounted.super_options), f"/proc is mounted without {min(alternatives)}")
    missing = wanted.keys() - {mounted.target for mounted in mounts}
    _expect(not missing, f"the mounts {', '.join(sorted(missing))} are missing")


def check_limits(text: str, config: Mapping[str, Any]) -> None:
    """Check `/proc/<pid>/limits`. Pure."""
    for limit in config["process"]["rlimits"]:
        name = _LIMITS[limit["type"]]
        (found,) = re.findall(rf"^{name}\s+(\S+)\s+(\S+)", text, re.MULTILINE)
        _expect(
            found == (str(limit["soft"]), str(limit["hard"])), f"{limit['type']} is {found[0]}, and not {limit['soft']}"
        )


def check_groups(text: str, paths: Mapping[str, str]) -> None:
    """Check `/proc/<pid>/cgroup`. Pure."""
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            # Version 2 has one line, without names, for all controllers.
            wanted = paths.get(controller) if controllers else _only(paths)
            if wanted is not None:
                _expect(
                    path == wanted, f"the process is in the control group {path} of {controller or 'v2'}, not {wanted}"
                )


def _only(paths: Mapping[str, str]) -> str | None:
    # With version 1 in use, version 2 has no limits here, and its path is of no interest.
    return paths.get("")


def _check_source(pid: int, target: str, source: str) -> None:
    # Through the container's own root: what is really there, whatever the mount table says of it.
    theirs, ours = os.stat(f"/proc/{pid}/root{target}"), os.stat(source)
    _expect((theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino), f"the mount {target} shows another file")


def _expect(condition: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as a sentence where it is called
    if not condition:
        raise SandboxError(
            f"the container is not what was asked for: {otherwise}; the runtime has a defect, use another version"
        )


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError as error:
        raise SandboxError(
            f"the container cannot be checked: {path}: {error.strerror}; did its process end?"
        ) from error
