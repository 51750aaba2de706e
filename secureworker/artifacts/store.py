"""Uploading what is sealed: the `ArtifactStore` port."""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import assert_never

import aiohttp

from secureworker.artifacts.abreast import each
from secureworker.artifacts.compress import compress_file
from secureworker.artifacts.names import is_compressible
from secureworker.artifacts.objects import ObjectService
from secureworker.artifacts.transfer import BytesBody, FileBody, NotStored, put
from secureworker.core.errors import HostError, ServiceError
from secureworker.core.ids import ArtifactName, Sha256
from secureworker.core.uploads import (
    ArtifactRequest,
    NoTarget,
    ObjectTarget,
    PutTarget,
    StorageError,
    StorageObject,
    StorageS3,
    UploadTarget,
)
from secureworker.host.threads import in_thread
from secureworker.ports import Artifact, ClaimedRun, Clock, SignedFile

logger = logging.getLogger(__name__)

MAX_MESSAGE = 4096
"""`maxLength` of an error artifact's message in the Queue's schema."""
_LONGEST_WAIT_SECONDS = 30.0


class Storage(Enum):
    """Where a Taskcluster keeps what is uploaded: how its Queue is set up decides, so its operator says."""

    S3 = "s3"
    OBJECT = "object"


@dataclass(frozen=True, slots=True)
class UploadSettings:
    """How to upload."""

    root_url: str
    storage: Storage = Storage.S3
    at_a_time: int = 4
    attempts: int = 9
    """Per artifact: with waits of 1, 2, 4 ... 30 s, about two minutes of an outage."""
    stall_seconds: float = 60.0
    """How long nothing may move. There is no limit to how long an upload takes."""


@dataclass(frozen=True, slots=True)
class _Upload:
    """A body under a name, with all that must be the same at every attempt."""

    name: ArtifactName
    content_type: str
    expires: datetime
    body: FileBody | BytesBody
    sha256: Sha256
    encoding: str = ""


class HttpArtifactStore:
    """Uploads by HTTP, to S3 or to Taskcluster's Object service."""

    def __init__(self, session: aiohttp.ClientSession, clock: Clock, settings: UploadSettings) -> None:
        self._session = session
        self._clock = clock
        self._settings = settings
        self._objects = ObjectService(session, settings.root_url, settings.stall_seconds)

    async def put(self, run: ClaimedRun, artifacts: tuple[Artifact, ...]) -> None:
        """Upload all, several at a time; the first that fails for good ends the others.

        Raises:
            ServiceError: one could not be stored, after all retries.
            Stop: the run is not ours any more.
            HostError: what was sealed cannot be read, or there is no space to compress it.
        """

        async def store(artifact: Artifact) -> None:
            async with self._packed(artifact) as upload:
                await self._store(run, upload)

        await each(artifacts, store, at_a_time=self._settings.at_a_time)

    async def put_signed(self, run: ClaimedRun, files: tuple[SignedFile, ...]) -> None:
        """Upload statements and signatures exactly as they are, never compressed; they expire with the task.

        Raises:
            ServiceError: one could not be stored, after all retries.
            Stop: the run is not ours any more.
        """

        async def store(file: SignedFile) -> None:
            digest = Sha256(hashlib.sha256(file.content).hexdigest())
            expires = run.claim.task.expires
            await self._store(run, _Upload(file.name, file.content_type, expires, BytesBody(file.content), digest))

        await each(files, store, at_a_time=self._settings.at_a_time)

    async def put_error(self, run: ClaimedRun, name: ArtifactName, reason: str, message: str) -> None:
        """Say in an artifact's place why there is none."""
        expires = run.claim.task.expires
        await run.create_artifact(StorageError(name, reason, message[:MAX_MESSAGE], expires))

    @asynccontextmanager
    async def _packed(self, artifact: Artifact) -> AsyncIterator[_Upload]:
        """Give the artifact's body, compressed where that makes it smaller, and remove the compressed copy after.

        Never for the Object service: it has no Content-Encoding, and hashes what is transferred.
        """
        packed = f"{artifact.path}.gz"
        size = None
        if self._settings.storage is Storage.S3 and is_compressible(artifact.content_type):
            try:
                size = await in_thread(lambda abandoned: compress_file(artifact.path, packed, abandoned))
            except OSError as error:
                raise HostError(f"the output {artifact.name} cannot be compressed: {error.strerror}") from error
        plain = FileBody(artifact.path, artifact.size)
        try:
            yield _Upload(
                name=artifact.name,
                content_type=artifact.content_type,
                expires=artifact.expires,
                body=plain if size is None else FileBody(packed, size),
                sha256=artifact.sha256,
                encoding="" if size is None else "gzip",
            )
        finally:
            if size is not None:
                await asyncio.to_thread(Path(packed).unlink, missing_ok=True)

    async def _store(self, run: ClaimedRun, upload: _Upload) -> None:
        """Create, transfer, finish. Every attempt asks for a fresh URL, with the same words."""

        async def transfer() -> NotStored | UploadTarget:
            target = await run.create_artifact(self._request(upload))
            return await self._transfer(target, upload) or target

        target = await self._until_done(upload.name, transfer)
        if isinstance(target, ObjectTarget):

            async def finish() -> NotStored | UploadTarget:
                return await self._objects.finish(target, upload.sha256) or target

            await self._until_done(upload.name, finish)
            await run.finish_artifact(upload.name, target.upload_id)

    def _request(self, upload: _Upload) -> ArtifactRequest:
        match self._settings.storage:
            case Storage.S3:
                return StorageS3(upload.name, upload.content_type, upload.expires)
            case Storage.OBJECT:
                return StorageObject(upload.name, upload.content_type, upload.expires)
            case _:
                assert_never(self._settings.storage)

    async def _transfer(self, target: UploadTarget, upload: _Upload) -> NotStored | None:
        match target:
            case PutTarget():
                headers = {"Content-Type": upload.content_type}
                if upload.encoding:
                    headers["Content-Encoding"] = upload.encoding
                stall_seconds = self._settings.stall_seconds
                return await put(self._session, target.url, upload.body, headers, stall_seconds=stall_seconds)
            case ObjectTarget():
                return await self._objects.upload(target, upload.body, upload.content_type, upload.expires)
            case NoTarget():
                return NotStored("the Queue gave no place to upload to", again=False)
            case _:
                assert_never(target)

    async def _until_done(
        self, name: ArtifactName, attempt: Callable[[], Awaitable[NotStored | UploadTarget]]
    ) -> UploadTarget:
        number = 1
        while True:
            done = await attempt()
            if not isinstance(done, NotStored):
                return done
            if not done.again or number >= self._settings.attempts:
                attempts = f"attempt {number} of {self._settings.attempts}"
                raise ServiceError(f"the artifact {name} could not be stored, {attempts}: {done.why}")
            logger.info("%s is not stored yet, attempt %d: %s", name, number, done.why)
            # Spread over half the time, so that workers that failed together do not come back together.
            longest = min(2.0 ** (number - 1), _LONGEST_WAIT_SECONDS)
            await self._clock.sleep(longest * (0.5 + secrets.randbelow(512) / 1024))
            number += 1
