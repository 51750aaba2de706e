"""What happened to tasks, runs and artifacts, in order and with times, for whoever wants to look at it afterwards.

A status only says how things are. Whether a run was resolved twice, renewed too late, or had an artifact replaced is
seen here.
"""

import gzip
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, TypeAlias

from secureworker.localqueue.lifecycle import Run, Task
from secureworker.localqueue.times import javascript

CLAIM_RESOLVER: Final = "claim-resolver"
DEADLINE_RESOLVER: Final = "deadline-resolver"
DEPENDENCY_RESOLVER: Final = "dependency-resolver"
STORAGE: Final = "storage"
"""Behind a presigned URL, nobody has a name."""
_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One change."""

    when: datetime
    what: str
    """`pending`, `claimed`, `reclaimed`, `resolved`, `artifact`, `finished`, `stored`."""
    task_id: str
    run_id: int
    by: str
    """The client, or one of the resolvers above."""
    details: tuple[tuple[str, str], ...] = ()

    def __getitem__(self, name: str) -> str:
        """Give a detail; empty where there is none of that name."""
        return dict(self.details).get(name, "")


Keep: TypeAlias = Callable[[Entry], None]


@dataclass(frozen=True, slots=True)
class Journal:
    """Writes down what is told, where anybody wants it."""

    keep: Keep | None
    clock: Callable[[], datetime]

    def of_task(self, before: Task | None, after: Task, by: str) -> None:
        """Write down what has become of a task's runs."""
        if self.keep is not None:
            for what, run_id, details in _changes(before, after):
                self.keep(Entry(self.clock(), what, after.task_id, run_id, by, details))

    def of_artifact(self, what: str, run: tuple[str, int], by: str, **details: str) -> None:
        """Write down that an artifact was created or finished."""
        if self.keep is not None:
            self.keep(Entry(self.clock(), what, *run, by, tuple(details.items())))

    def of_blob(self, key: str, file: Path, encoding: str) -> None:
        """Write down what was stored behind a URL; blocks while it is read.

        Args:
            key: with its bucket: `<bucket>/<task>/<run>/<name>`, of objects `<bucket>/t/<task>/<run>/<name>`.
            file: the bytes as they came.
            encoding: `gzip`: the digest is that of what it holds.
        """
        if self.keep is None:
            return
        bucket, _, rest = key.partition("/")
        task_id, _, more = rest.removeprefix("t/").partition("/")
        run_id, _, name = more.partition("/")
        if run_id.isdecimal():
            details = (("name", name), ("sha256", _digest(file, encoding)), ("bucket", bucket))
            self.keep(Entry(self.clock(), "stored", task_id, int(run_id), STORAGE, details))


def _changes(before: Task | None, after: Task) -> Iterator[tuple[str, int, tuple[tuple[str, str], ...]]]:
    old = () if before is None else before.runs
    for run_id, run in enumerate(after.runs):
        was = old[run_id] if run_id < len(old) else None
        if run != was:
            yield _what(was, run), run_id, _details(run)


def _what(was: Run | None, run: Run) -> str:
    if run.state == "running":
        return "claimed" if was is None or was.state != "running" else "reclaimed"
    return "pending" if run.state == "pending" else "resolved"


def _details(run: Run) -> tuple[tuple[str, str], ...]:
    taken_until = None if run.taken_until is None else javascript(run.taken_until)
    worker = None if run.worker_id is None else f"{run.worker_group}/{run.worker_id}"
    known = (
        ("state", run.state),
        ("reason", run.reason_resolved),
        ("created", run.reason_created),
        ("worker", worker),
        ("takenUntil", taken_until),
    )
    return tuple((name, value) for name, value in known if value is not None)


def _digest(file: Path, encoding: str) -> str:
    digest = hashlib.sha256()
    try:
        with gzip.open(file) if encoding == "gzip" else file.open("rb") as content:
            while block := content.read(_BLOCK_BYTES):
                digest.update(block)
    except (OSError, EOFError) as error:
        return f"unreadable: {type(error).__name__}"
    return digest.hexdigest()
