"""The run's control groups: made, limited, read back, emptied and removed by the worker itself.

The runtime finds the group ready and only puts its process there: so limits are in force before the first process
exists, they are the same whatever runtime is used, and what is killed is known even if the runtime fails half-way.
Which files have which values is said by pure functions; both versions of the kernel's interface are served.
"""

import os
import re
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from secureworker.core.errors import SandboxError
from secureworker.core.outcome import Usage
from secureworker.core.plan import Limits
from secureworker.sandbox import devices
from secureworker.sandbox.bundle import CPU_PERIOD_MICROSECONDS

V1_CONTROLLERS = ("memory", "pids", "cpu", "cpuacct", "devices")
V2_CONTROLLERS = ("memory", "pids", "cpu")
V1_WITHOUT_LIMITS = frozenset({"cpuacct", "devices"})
"""Joined for counting, or for the runtime to write to; may be missing."""
_EMPTYING_SECONDS = 10.0
_NANOSECONDS = 1e9
_MICROSECONDS = 1e6


class Version(Enum):
    """Of the kernel's interface; a hybrid host's limits are those of version 1."""

    NONE = 0
    """There is no group: for hosts that give this worker none, and policies that do without limits."""
    V1 = 1
    V2 = 2


def limit_files(version: Version, limits: Limits, processes: int) -> Mapping[str, tuple[tuple[str, str], ...]]:
    """Give, by controller, the files and values that limit a run; in the order in which they are written.

    Args:
        version: whose files.
        limits: of the plan.
        processes: `pids.max`: more during set-up than afterwards.
    """
    if version is Version.NONE:
        return {}
    memory = str(limits.memory_bytes)
    quota = str(int(limits.cpus * CPU_PERIOD_MICROSECONDS))
    if version is Version.V1:
        return {
            # memsw is memory and swap together, and may not be less than memory: so it is written second.
            "memory": (("memory.limit_in_bytes", memory), ("memory.memsw.limit_in_bytes", memory)),
            "pids": (("pids.max", str(processes)),),
            "cpu": (("cpu.cfs_period_us", str(CPU_PERIOD_MICROSECONDS)), ("cpu.cfs_quota_us", quota)),
        }
    return {
        # In version 2 swap is counted for itself. oom.group: no half-killed script goes on.
        "memory": (("memory.max", memory), ("memory.swap.max", "0"), ("memory.oom.group", "1")),
        "pids": (("pids.max", str(processes)),),
        "cpu": (("cpu.max", f"{quota} {CPU_PERIOD_MICROSECONDS}"),),
    }


_OPTIONAL = frozenset({"memory.memsw.limit_in_bytes", "memory.swap.max", "memory.oom.group"})
"""Missing where the kernel does not count swap: then there is none to limit. `oom.group` came with 4.19."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where this worker may make groups: one directory per controller, or the same for all in version 2."""

    version: Version
    bases: Mapping[str, str]
    """By controller: host path of the directory that holds the groups of this worker's runs."""
    paths: Mapping[str, str]
    """By controller: the same as a path within the hierarchy, as `/proc/<pid>/cgroup` shows it to the host."""
    others: tuple[str, ...] = ()
    """The same level in hierarchies that limit nothing here. runc makes groups in all of them; they are swept too."""

    def open(self, name: str) -> "Group":
        """Make the group of a run. The name must not exist yet."""
        directories = {controller: f"{base}/{name}" for controller, base in self.bases.items()}
        paths = {controller: f"{path.rstrip('/')}/{name}" for controller, path in self.paths.items()}
        group = Group(self.version, directories, paths, tuple(f"{other}/{name}" for other in self.others))
        made: list[str] = []
        try:
            for directory in dict.fromkeys(directories.values()):
                os.makedirs(os.path.dirname(directory), exist_ok=True)
                os.mkdir(directory)
                made.append(directory)
        except OSError as error:
            for directory in made:
                os.rmdir(directory)
            raise SandboxError(f"the control group {error.filename} cannot be made: {error.strerror}") from error
        return group

    def leftovers(self) -> tuple[str, ...]:
        """Give the names of the groups that exist."""
        return tuple(sorted({name for base in self._levels() if os.path.isdir(base) for name in _subdirectories(base)}))

    def _levels(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.bases.values(), *self.others)))

    def sweep(self) -> int:
        """Kill and remove what an earlier worker left; give the number of groups."""
        names = self.leftovers()
        for name in names:
            directories = {controller: f"{base}/{name}" for controller, base in self.bases.items()}
            Group(self.version, directories, {}, tuple(f"{other}/{name}" for other in self.others)).remove()
        return len(names)

    def remove(self) -> None:
        """Remove the worker's own level; fine where it is gone, or other groups are in it."""
        for base in self._levels():
            with suppress(OSError):
                os.rmdir(base)


WITHOUT_GROUPS = Hierarchy(Version.NONE, {}, {})
"""Limits nothing and counts nothing. A container's processes die with its init, by its pid namespace."""


@dataclass(frozen=True, slots=True)
class Group:
    """The control group of one run, in as many hierarchies as the host has."""

    version: Version
    directories: Mapping[str, str]
    """Host paths by controller."""
    paths: Mapping[str, str]
    """Paths within the hierarchy by controller."""
    others: tuple[str, ...] = ()
    """Host paths of directories that the runtime may have made beside."""

    @property
    def path(self) -> str:
        """The path that is the same in every hierarchy, for `cgroupsPath`."""
        return self.paths.get("memory", "")

    def procs_files(self) -> tuple[str, ...]:
        """Give the files into which a process writes `0` to enter the group."""
        return tuple(f"{directory}/cgroup.procs" for directory in dict.fromkeys(self.directories.values()))

    def limit(self, limits: Limits, processes: int) -> None:
        """Set the limits, and read them back."""
        expected = limit_files(self.version, limits, processes)
        for controller, files in expected.items():
            for name, value in files:
                path = f"{self.directories[controller]}/{name}"
                if name in _OPTIONAL and not os.path.exists(path):
                    continue
                try:
                    with open(path, "w") as file:
                        file.write(value)
                except OSError as error:
                    raise SandboxError(f"the limit {path} cannot be set to {value}: {error.strerror}") from error
        self.check(limits, processes)

    def check(self, limits: Limits, processes: int) -> None:
        """Compare what is in force with what was asked for.

        Raises:
            SandboxError: a limit is not in force.
        """
        page = os.sysconf("SC_PAGE_SIZE")
        for controller, files in limit_files(self.version, limits, processes).items():
            for name, value in files:
                path = f"{self.directories[controller]}/{name}"
                found = _read(path)
                if found is None and name in _OPTIONAL:
                    continue
                # The kernel rounds memory down to whole pages.
                rounded = str(int(value) // page * page) if controller == "memory" and value.isdigit() else value
                if found not in {value, rounded}:
                    raise SandboxError(f"the limit {path} is {found}, and not {value}, as was asked for")

    def restrict_devices(self) -> None:
        """Let the group open the few harmless devices and no other. Before, the runtime may have allowed more."""
        if self.version is Version.V2:
            devices.restrict_v2(self.directories["memory"])
        elif "devices" in self.directories:
            devices.restrict_v1(self.directories["devices"])

    def pids(self) -> frozenset[int]:
        """Give the processes that are in the group, in any hierarchy."""
        found: set[int] = set()
        for path in self.procs_files():
            found.update(int(pid) for pid in (_read(path) or "").split())
        return frozenset(found)

    def kill(self) -> None:
        """Kill all, until nothing is left; children that are our own are reaped.

        Raises:
            SandboxError: something is still alive after ten seconds (in an uninterruptible sleep).
        """
        deadline = time.monotonic() + _EMPTYING_SECONDS
        while pids := self.pids():
            if self.version is Version.V2:
                # It came with 5.14; where it is missing, the loop does the same more slowly.
                with suppress(OSError), open(f"{self.directories['memory']}/cgroup.kill", "w") as file:
                    file.write("1")
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for pid in pids:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            if time.monotonic() > deadline:
                raise SandboxError(
                    f"the processes {sorted(pids)} of {self.directories['memory']} do not die; look for a hung disk"
                )
            time.sleep(0.001)

    def remove(self) -> None:
        """Kill all that is left, and remove the group with the groups within it."""
        self.kill()
        for directory in dict.fromkeys((*self.directories.values(), *self.others)):
            _remove(directory)

    def out_of_memory_kills(self) -> int:
        """Give how many processes the kernel has killed at the memory limit."""
        if self.version is Version.NONE:
            return 0
        directory = self.directories["memory"]
        name = "memory.oom_control" if self.version is Version.V1 else "memory.events"
        return fields(_read(f"{directory}/{name}") or "").get("oom_kill", 0)

    def usage(self) -> Usage:
        """Give what the run has used, as far as this host counts it."""
        if self.version is Version.NONE:
            return Usage()
        if self.version is Version.V1:
            nanoseconds = (
                _number(f"{self.directories['cpuacct']}/cpuacct.usage") if "cpuacct" in self.directories else None
            )
            return Usage(
                cpu_seconds=None if nanoseconds is None else nanoseconds / _NANOSECONDS,
                memory_peak_bytes=_number(f"{self.directories['memory']}/memory.max_usage_in_bytes"),
                processes_peak=_number(f"{self.directories['pids']}/pids.peak"),
            )
        directory = self.directories["memory"]
        microseconds = fields(_read(f"{directory}/cpu.stat") or "").get("usage_usec")
        return Usage(
            cpu_seconds=None if microseconds is None else microseconds / _MICROSECONDS,
            memory_peak_bytes=_number(f"{directory}/memory.peak"),
            processes_peak=_number(f"{directory}/pids.peak"),
        )


def fields(text: str) -> dict[str, int]:
    """Read lines of `name number`."""
    return {name: int(number) for name, number in re.findall(r"^(\S+) (\d+)$", text, re.MULTILINE)}


def _read(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return None


def _number(path: str) -> int | None:
    text = _read(path)
    return int(text) if text is not None and text.isdigit() else None


def _subdirectories(directory: str) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def _remove(directory: str) -> None:
    """Remove a group and those within it; a group is a directory whose files go with it."""
    if not os.path.isdir(directory):
        return
    for name in _subdirectories(directory):
        _remove(f"{directory}/{name}")
    deadline = time.monotonic() + _EMPTYING_SECONDS
    while True:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            # A process that was just reaped may count for some more microseconds.
            if time.monotonic() > deadline:
                raise SandboxError(f"the control group {directory} cannot be removed: {error.strerror}") from error
            time.sleep(0.001)
        else:
            return
