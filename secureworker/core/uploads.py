"""What is asked of the Queue before an artifact is uploaded, and where it then says the bytes go."""

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from secureworker.core.claim import Credentials
from secureworker.core.ids import ArtifactName


@dataclass(frozen=True, slots=True)
class StorageS3:
    """createArtifact with storage type `s3`."""

    name: ArtifactName
    content_type: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class StorageObject:
    """createArtifact with storage type `object`."""

    name: ArtifactName
    content_type: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class StorageError:
    """createArtifact with storage type `error`: a name that says why there is nothing behind it."""

    name: ArtifactName
    reason: str
    """One of the Queue's enum: `file-missing-on-worker`, `invalid-resource-on-worker`, `too-large-file-on-worker`,
    `file-not-readable-on-worker`."""
    message: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class StorageReference:
    """createArtifact with storage type `reference`: readers are sent elsewhere. May become a link later."""

    name: ArtifactName
    url: str
    content_type: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class StorageLink:
    """createArtifact with storage type `link`: another name for an artifact of the same run."""

    name: ArtifactName
    artifact: ArtifactName
    expires: datetime


ArtifactRequest: TypeAlias = StorageS3 | StorageObject | StorageError | StorageReference | StorageLink


@dataclass(frozen=True, slots=True)
class PutTarget:
    """Where the bytes of an s3 artifact go."""

    url: str
    """Presigned: a secret until it expires. Never logged."""


@dataclass(frozen=True, slots=True)
class ObjectTarget:
    """How the bytes of an object artifact get to the Object service."""

    object_name: str
    upload_id: str
    project_id: str
    credentials: Credentials


@dataclass(frozen=True, slots=True)
class NoTarget:
    """Nothing to upload."""


UploadTarget: TypeAlias = PutTarget | ObjectTarget | NoTarget
