"""A workspace as the sandbox leaves it, and a storage to upload to."""

import hashlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from secureworker.artifacts.store import HttpArtifactStore, UploadSettings
from secureworker.core.ids import ArtifactName, Sha256
from secureworker.host.http import open_session
from secureworker.ports import Artifact, Workspace
from secureworker.testing import EPOCH
from tests.artifacts.storage import S3, HurriedClock, UploadRun

Sealed = Callable[..., Artifact]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    places = {name: tmp_path / name for name in ("task", "scripts", "spool", "bundle")}
    for place in places.values():
        place.mkdir()
    (places["task"] / "artifacts" / "public" / "logs").mkdir(parents=True)
    return Workspace(**{name: str(place) for name, place in places.items()}, uid=1000)


@pytest.fixture
def outputs(workspace: Workspace) -> Path:
    """Give the directory that the script writes to."""
    return Path(workspace.task) / "artifacts"


@pytest.fixture
async def storage() -> AsyncIterator[S3]:
    async with S3() as storage:
        yield storage


@pytest.fixture
def run(storage: S3) -> UploadRun:
    return UploadRun(storage)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as session:
        yield session


@pytest.fixture
async def clock() -> HurriedClock:
    return HurriedClock()


@pytest.fixture
async def store(session: aiohttp.ClientSession, clock: HurriedClock) -> HttpArtifactStore:
    return HttpArtifactStore(session, clock, UploadSettings("https://tc.example.com"))


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    """Give a function that puts content into a spool, as sealing does."""

    def seal(name: str, content: bytes, content_type: str = "application/octet-stream") -> Artifact:
        path = tmp_path / hashlib.sha256(name.encode()).hexdigest()
        path.write_bytes(content)
        digest = Sha256(hashlib.sha256(content).hexdigest())
        expires = EPOCH + timedelta(days=1)
        return Artifact(ArtifactName(name), len(content), digest, str(path), content_type, expires)

    return seal
