"""The tables of artifacts, of objects, and of the blobs behind both."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from secureworker.localqueue.database import Database
from secureworker.localqueue.times import from_milliseconds, milliseconds


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """An artifact's row."""

    task_id: str
    run_id: int
    name: str
    storage_type: str
    content_type: str
    expires: datetime
    present: bool
    details: dict[str, Any]
    """What the storage type needs: `url`, `artifact`, `reason` and `message`, `uploadId`, `contentLength`."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object's row."""

    name: str
    project_id: str
    upload_id: str | None
    """None once the upload is finished."""
    expires: datetime
    hashes: dict[str, str]


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """Where the bytes of a blob are, and the headers they are given out with."""

    file: str
    size: int
    headers: dict[str, str]


class ArtifactRows:
    """Artifacts of runs."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def get(self, task_id: str, run_id: int, name: str) -> StoredArtifact | None:
        """Look an artifact up."""
        found = self._artifacts("task_id = ? AND run_id = ? AND name = ?", task_id, run_id, name)
        return found[0] if found else None

    def of_run(self, task_id: str, run_id: int, limit: int, offset: int) -> list[StoredArtifact]:
        """Give a run's artifacts by name."""
        return self._artifacts(
            "task_id = ? AND run_id = ? ORDER BY name LIMIT ? OFFSET ?", task_id, run_id, limit, offset
        )

    def save(self, artifact: StoredArtifact) -> None:
        """Keep an artifact, in place of what it was."""
        row = (
            artifact.task_id,
            artifact.run_id,
            artifact.name,
            artifact.storage_type,
            artifact.content_type,
            milliseconds(artifact.expires),
            artifact.present,
            json.dumps(artifact.details),
        )
        self._db.execute("INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def _artifacts(self, where: str, *values: str | int) -> list[StoredArtifact]:
        return [
            StoredArtifact(
                task_id, run_id, name, kind, content_type, from_milliseconds(expires), bool(present), details
            )
            for task_id, run_id, name, kind, content_type, expires, present, text in self._db.execute(
                f"SELECT * FROM artifacts WHERE {where}",  # noqa: S608 literals above
                values,
            )
            for details in [json.loads(text)]
        ]


class ObjectRows:
    """Objects of the Object service."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def get(self, name: str) -> StoredObject | None:
        """Look an object up, finished or not."""
        for project_id, upload_id, expires, hashes in self._db.execute(
            "SELECT project_id, upload_id, expires, hashes FROM objects WHERE name = ?", (name,)
        ):
            return StoredObject(name, project_id, upload_id, from_milliseconds(expires), json.loads(hashes))
        return None

    def save(self, stored: StoredObject) -> None:
        """Keep an object, in place of what it was."""
        row = (
            stored.name,
            stored.project_id,
            stored.upload_id,
            milliseconds(stored.expires),
            json.dumps(stored.hashes),
        )
        self._db.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", row)


class BlobRows:
    """Which file holds which blob."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def get(self, key: str) -> StoredBlob | None:
        """Look a blob up."""
        for file, size, headers in self._db.execute("SELECT file, size, headers FROM blobs WHERE key = ?", (key,)):
            return StoredBlob(file, size, json.loads(headers))
        return None

    def save(self, key: str, blob: StoredBlob) -> None:
        """Keep where a blob is, in place of where it was."""
        row = (key, blob.file, blob.size, json.dumps(blob.headers))
        self._db.execute("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, ?)", row)
