"""Everything the services remember, but the bytes of artifacts: one SQLite database.

Statements run on the event loop. Each touches a few rows by an index; the journal is a write-ahead log with
`synchronous=NORMAL`, which waits for the disk only at checkpoints. What must be one step is one `with database.step()`.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

Value: TypeAlias = str | int | None

_FORMAT = 1
"""Of the tables. A database of another format is refused, not converted: it is a test's or a demo's."""

_LOCKED_SECONDS = 0.5
"""How long a server that ends at this moment is waited for."""

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tasks (
    task_id TEXT PRIMARY KEY, pool TEXT NOT NULL, task_group TEXT NOT NULL, state TEXT NOT NULL,
    rank INTEGER NOT NULL, turn INTEGER NOT NULL, deadline INTEGER NOT NULL, taken_until INTEGER NOT NULL,
    retries_left INTEGER NOT NULL, definition TEXT NOT NULL, runs TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS waiting ON tasks (pool, state, rank, turn);
CREATE INDEX IF NOT EXISTS turns ON tasks (turn);
CREATE INDEX IF NOT EXISTS claims ON tasks (state, taken_until);
CREATE INDEX IF NOT EXISTS deadlines ON tasks (state, deadline);
CREATE INDEX IF NOT EXISTS groups ON tasks (task_group);
CREATE TABLE IF NOT EXISTS dependencies (
    needed TEXT NOT NULL, task_id TEXT NOT NULL, PRIMARY KEY (needed, task_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS artifacts (
    task_id TEXT NOT NULL, run_id INTEGER NOT NULL, name TEXT NOT NULL, storage_type TEXT NOT NULL,
    content_type TEXT NOT NULL, expires INTEGER NOT NULL, present INTEGER NOT NULL, details TEXT NOT NULL,
    PRIMARY KEY (task_id, run_id, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
    name TEXT PRIMARY KEY, project_id TEXT NOT NULL, upload_id TEXT, expires INTEGER NOT NULL,
    hashes TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blobs (
    key TEXT PRIMARY KEY, file TEXT NOT NULL, size INTEGER NOT NULL, headers TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS secrets (
    name TEXT PRIMARY KEY, secret TEXT NOT NULL, expires INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS workers (
    worker TEXT PRIMARY KEY, first_claim INTEGER NOT NULL, seen INTEGER NOT NULL, quarantine_until INTEGER NOT NULL,
    quarantines TEXT NOT NULL, recent TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS registrations (worker TEXT PRIMARY KEY, secret TEXT NOT NULL) WITHOUT ROWID;
"""


class UnusableData(Exception):
    """The data directory cannot be used; the message says why and what to do."""


class Database:
    """The database. For one thread and one process."""

    def __init__(self, directory: str | None) -> None:
        path = ":memory:" if directory is None else str(Path(directory) / "state.sqlite3")
        self._db = _connected(path)
        try:
            self._open(path)
        except sqlite3.Error as problem:
            self._db.close()
            message = f"{path}: {problem}; end the local-queue that uses it, or give another --data directory"
            raise UnusableData(message) from problem

    def _open(self, path: str) -> None:
        # EXCLUSIVE: two servers on one directory would hand out the same task twice.
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        ((found,),) = self._db.execute("PRAGMA user_version").fetchall()
        if found not in {0, _FORMAT}:
            self._db.close()
            raise UnusableData(f"{path} is of format {found}, this version reads {_FORMAT}; give another directory")
        self._db.executescript(_TABLES)
        self._db.execute(f"PRAGMA user_version={_FORMAT}")

    def execute(self, statement: str, values: Sequence[Value] = ()) -> list[Any]:
        """Run one statement and give its rows."""
        return self._db.execute(statement, values).fetchall()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Make what is done inside one step: all of it, or nothing. Must not be awaited in."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def remembered(self, name: str, fresh: str) -> str:
        """Give the value kept under `name`; `fresh`, which then is kept, where there is none."""
        self._db.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT DO NOTHING", (name, fresh))
        ((value,),) = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchall()
        return str(value)


def _connected(path: str) -> sqlite3.Connection:
    try:
        return sqlite3.connect(path, timeout=_LOCKED_SECONDS, isolation_level=None)
    except sqlite3.Error as problem:
        raise UnusableData(f"{path}: {problem}; give another --data directory") from problem
