"""Watching what the kernel does not limit by itself: what a run keeps on disk, and half-killed groups of version 1.

It is polled: a script can exceed the limit on disk for as long as one round takes (a quarter of a second, or twenty
times what the last measurement took). No file alone can: RLIMIT_FSIZE is the kernel's. The out-of-memory killer of
version 1 takes one process and leaves the others; here the rest follows, as version 2 does by itself.

A file that was removed while it is open takes its place on disk all the same, and no walk of the tree meets it: those
are found by the descriptors and mappings of the run's processes. Out of sight are those that are under way between two
processes, as messages of a socket (SCM_RIGHTS), and those that are moved about while the tree is walked.
"""

import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from secureworker.core.plan import Limits
from secureworker.host import files
from secureworker.sandbox.cgroups import Group

_ROUND_SECONDS = 0.25
_REST = 20
"""Measuring may take a twentieth of one processor's time: a tree of 100,000 files takes 0.3 s to measure."""
_MOVES = 8
"""Rounds in a row that may fail because deep directories were moved meanwhile."""


_BLOCK_BYTES = 512
"""The unit of `st_blocks` (stat(2))."""
_DELETED = b" (deleted)"


def excess(path: str, limits: Limits, pids: Iterable[int] = ()) -> str:
    """Say what of the limits on disk is exceeded below `path`; empty where nothing is.

    Args:
        path: of the tree.
        limits: of the run.
        pids: the run's processes, which may hold files that are not in the tree any more.

    Raises:
        files.TreeMoved: it could not be measured this time.
    """
    size = files.measure(path, most_bytes=limits.disk_bytes, most_files=limits.files)
    if size.allocated_bytes + nameless_bytes(pids, os.stat(path).st_dev) > limits.disk_bytes:
        return f"the script keeps more than {limits.disk_bytes} bytes on disk, its limit"
    if size.files > limits.files:
        return f"the script keeps more than {limits.files} files and directories, its limit"
    return ""


def nameless_bytes(pids: Iterable[int], device: int) -> int:
    """Give what removed files take on a file system that processes have open, or mapped, each counted once."""
    found: dict[int, int] = {}
    for pid in pids:
        for place in _held(pid):
            # Processes end, and files are closed, while we look.
            with suppress(OSError):
                status = os.stat(place)
                if stat.S_ISREG(status.st_mode) and not status.st_nlink and status.st_dev == device:
                    found[status.st_ino] = status.st_blocks * _BLOCK_BYTES
    return sum(found.values())


def _held(pid: int) -> Iterator[str]:
    """Give paths to what a process has open, or mapped without a name."""
    with suppress(OSError):
        # Thread by thread: one may have been made with a table of descriptors of its own.
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                yield from (entry.path for entry in os.scandir(f"/proc/{pid}/task/{thread}/fd"))
    with suppress(OSError), open(f"/proc/{pid}/maps", "rb") as maps:
        for line in maps:
            if line.rstrip(b"\n").endswith(_DELETED):
                # The kernel writes eight digits at least, and in names of `map_files` no leading zeros.
                first, _, last = line.split(b" ", 1)[0].partition(b"-")
                yield f"/proc/{pid}/map_files/{int(first, 16):x}-{int(last, 16):x}"


class Guard:
    """A thread that looks now and then, for as long as the block it guards lasts."""

    def __init__(self, path: str, limits: Limits | None, group: Group, alarm: Callable[[], None]) -> None:
        self._path = path
        self._limits = limits
        self._group = group
        self._alarm = alarm
        self._over = threading.Event()
        self._moves = 0
        self._thread = threading.Thread(target=self._watch, name="disk-guard", daemon=True)
        self.excess = ""
        """What of the limits on disk was exceeded; set before `alarm` is called, and never reset."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        rest = _ROUND_SECONDS
        while not self._over.wait(rest):
            began = time.monotonic()
            self.look()
            if self.excess or self._group.out_of_memory_kills():
                self._alarm()
                return
            rest = max(_ROUND_SECONDS, _REST * (time.monotonic() - began))

    def look(self) -> None:
        """Measure once; call it also when all processes have ended."""
        if self._limits is None or self.excess:
            return
        try:
            self.excess = excess(self._path, self._limits, self._group.pids())
            self._moves = 0
        except FileNotFoundError:
            # The directory itself goes only when the run is over.
            pass
        except (files.TreeMoved, OSError):
            # Whatever else a script may do to the tree must not end the thread that measures it.
            self.moved()

    def moved(self) -> None:
        """Count a round that failed."""
        self._moves += 1
        if self._moves >= _MOVES:
            self.excess = "what the script keeps on disk cannot be measured: its deep directories move all the time"
