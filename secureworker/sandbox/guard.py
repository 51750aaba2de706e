"""Watching what the kernel does not limit by itself: what a run keeps on disk, and half-killed groups of version 1.

It is polled: a script can exceed the limit on disk for as long as one round takes (a quarter of a second, or twenty
times what the last measurement took). No file alone can: RLIMIT_FSIZE is the kernel's. The out-of-memory killer of
version 1 takes one process and leaves the others; here the rest follows, as version 2 does by itself.
"""

import threading
import time
from collections.abc import Callable
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


def excess(path: str, limits: Limits) -> str:
    """Say what of the limits on disk is exceeded below `path`; empty where nothing is.

    Raises:
        files.TreeMoved: it could not be measured this time.
    """
    size = files.measure(path, most_bytes=limits.disk_bytes, most_files=limits.files)
    if size.allocated_bytes > limits.disk_bytes:
        return f"the script keeps more than {limits.disk_bytes} bytes on disk, its limit"
    if size.files > limits.files:
        return f"the script keeps more than {limits.files} files and directories, its limit"
    return ""


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
        if self._limits is None:
            return
        try:
            self.excess = excess(self._path, self._limits)
            self._moves = 0
        except files.TreeMoved:
            self.moved()
        except FileNotFoundError:
            # The directory itself goes only when the run is over.
            pass

    def moved(self) -> None:
        """Count a round that failed."""
        self._moves += 1
        if self._moves >= _MOVES:
            self.excess = "what the script keeps on disk cannot be measured: its deep directories move all the time"
