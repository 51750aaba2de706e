"""Room for what runs leave: bytes and inodes of the state directory, and memory."""

import os
from collections.abc import Callable, Iterator
from typing import Final, final

from secureworker.core.happening import Hindrance
from secureworker.core.room import Room
from secureworker.host.guards.looking import Headroom

RESERVE_BYTES: Final = 32 * 1024 * 1024
"""Bundles, copies of scripts, the audit log, and blocks that are not full."""
RESERVE_FILES: Final = 256
RESERVE_MEMORY: Final = 64 * 1024 * 1024
"""The worker itself uses about as much."""
_MIB: Final = 1024 * 1024
_KIB: Final = 1024


@final
class StateDirectory:
    """Looks at the file system of the state directory."""

    def __init__(self, directory: str, room: Room, running: Callable[[], int] = lambda: 0) -> None:
        """Take the directory, what a run needs, and what says how many are under way."""
        self._directory = directory
        self._bytes = Headroom(room.disk_bytes, RESERVE_BYTES, running)
        self._files = Headroom(room.files, RESERVE_FILES, running)

    def __call__(self, runs: int) -> tuple[Hindrance, ...]:
        """See `Look`."""
        return tuple(self._look(runs))

    def _look(self, runs: int) -> Iterator[Hindrance]:
        place = self._directory
        try:
            space = os.statvfs(place)
        except OSError as error:
            yield Hindrance("disk", f"the state directory {place} cannot be looked at: {error.strerror}; bring it back")
            return
        if space.f_flag & os.ST_RDONLY:
            yield Hindrance("disk", f"the file system of {place} is read-only; look for errors of its disk")
        free = space.f_bavail * space.f_frsize
        if self._bytes.missing(free, runs) > 0:
            yield Hindrance(
                "disk",
                f"{free // _MIB} MiB are free in {place}, and {-(-self._bytes.needed // _MIB)} MiB are needed for as "
                "much as scripts may write; make room, lower the policy's limits, or say --disk-per-run",
            )
        # Some file systems have inodes without end, and say that they have none.
        if space.f_files and self._files.missing(space.f_favail, runs) > 0:
            yield Hindrance(
                "inodes",
                f"{space.f_favail} more files have room in {place}, and {self._files.needed} are needed for as many as "
                "scripts may write; remove some, or lower the policy's limits",
            )


@final
class Memory:
    """Looks at the memory that the host, and the worker's own control group, have left."""

    def __init__(
        self,
        room: Room,
        group: str | None = None,
        running: Callable[[], int] = lambda: 0,
        meminfo: str = "/proc/meminfo",
    ) -> None:
        """Take what a run needs.

        Args:
            room: for one.
            group: directory of the memory group that runs are made in, if there is one.
            running: says how many runs are under way.
            meminfo: what the kernel says of this host's memory.
        """
        self._meminfo = meminfo
        groups = tuple(_with_parents(group)) if group else ()
        self._host = Headroom(room.memory_bytes, RESERVE_MEMORY, running)
        self._within = {directory: Headroom(room.memory_bytes, 0, running) for directory in groups}

    def __call__(self, runs: int) -> tuple[Hindrance, ...]:
        """See `Look`."""
        return tuple(self._look(runs))

    def _look(self, runs: int) -> Iterator[Hindrance]:
        available = _fields(_read(self._meminfo)).get("MemAvailable:")
        if available is None:
            yield Hindrance("memory", f"{self._meminfo} does not say how much memory is available")
        elif self._host.missing(available * _KIB, runs) > 0:
            yield _too_little("this host", available * _KIB, self._host.needed)
        for directory, headroom in self._within.items():
            left = left_in(directory)
            if left is not None and headroom.missing(left, runs) > 0:
                yield _too_little(f"the control group {directory}", left, headroom.needed)


def _too_little(where: str, free: int, needed: int) -> Hindrance:
    return Hindrance(
        "memory",
        f"{free // _MIB} MiB of memory are available in {where}, and {-(-needed // _MIB)} MiB are needed for as much "
        "as scripts may use; end what uses it, lower the policy's limits, or say --memory-per-run",
    )


def left_in(directory: str) -> int | None:
    """Say how much memory a control group has left, of either version; None: it has no limit, or is none."""
    for limit, usage, prefix in (
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        most, used = _read(f"{directory}/{limit}").strip(), _read(f"{directory}/{usage}").strip()
        if most.isdigit() and used.isdigit():
            counted = _fields(_read(f"{directory}/memory.stat"))
            # What is only remembered of files goes when memory is wanted (cgroup-v2.rst, memory.stat).
            files = counted.get(f"{prefix}active_file", 0) + counted.get(f"{prefix}inactive_file", 0)
            return int(most) - int(used) + files
    return None


def _with_parents(directory: str) -> Iterator[str]:
    while os.path.exists(f"{directory}/cgroup.procs"):
        yield directory
        directory = os.path.dirname(directory)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _fields(text: str) -> dict[str, int]:
    """Read lines of a name, a number, and perhaps a unit."""
    parts = (line.split() for line in text.splitlines())
    return {part[0]: int(part[1]) for part in parts if len(part) > 1 and part[1].isdigit()}
