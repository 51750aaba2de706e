"""Uploads to the Object service: the embedded one, with faults put before it."""

import asyncio
import json
import os
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from taskcluster.aio import Object

from secureworker.artifacts.store import HttpArtifactStore, Storage, UploadSettings
from secureworker.core.claim import Credentials, Secret
from secureworker.core.errors import HostError, ServiceError
from secureworker.core.ids import ArtifactName
from secureworker.core.uploads import ObjectTarget, StorageObject
from secureworker.localqueue.blobs import OBJECTS
from secureworker.localqueue.server import Running, serve
from secureworker.localqueue.settings import Settings, StaticClient
from secureworker.ports import SignedFile
from tests.artifacts.conftest import Sealed
from tests.artifacts.storage import HurriedClock, UploadRun

NAME = "t/ddVaxIRdRAaAAr5ryHnORA/0/public/a"
TOKEN = Secret("0123456789012345678901234567890123456789012")


class Faults:
    """Answers to give in place of the service's, by the beginning of the path; and what was asked."""

    def __init__(self) -> None:
        self.next: dict[str, deque[web.Response]] = {}
        self.asked: list[tuple[str, Any]] = []
        self.silent = 0
        """How many requests to leave without an answer."""

    def add(self, beginning: str, *answers: web.Response) -> None:
        self.next.setdefault(beginning, deque()).extend(answers)

    def middleware(self) -> Any:
        @web.middleware
        async def strike(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path.startswith("/api/object/"):
                self.asked.append((request.path.split("/")[4], json.loads(await request.read())))
            if self.silent:
                self.silent -= 1
                await asyncio.Event().wait()
            for beginning, answers in self.next.items():
                if request.path.startswith(beginning) and answers:
                    await request.read()
                    return answers.popleft()
            return await handler(request)

        return strike


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
async def taskcluster(faults: Faults) -> AsyncIterator[Running]:
    client = StaticClient("uploader", TOKEN, ("object:upload:none:*", "object:download:*"))
    async with serve(Settings(clients=(client,)), middlewares=[faults.middleware()]) as running:
        yield running


@pytest.fixture
def objects(run: UploadRun) -> UploadRun:
    run.target = ObjectTarget(NAME, "TyRoGA_OS3W2QMCEuF1icw", "none", Credentials("uploader", TOKEN))
    return run


@pytest.fixture
async def store(taskcluster: Running, session: aiohttp.ClientSession, clock: HurriedClock) -> HttpArtifactStore:
    return HttpArtifactStore(session, clock, UploadSettings(taskcluster.root_url, Storage.OBJECT, attempts=3))


@pytest.fixture
async def impatient(taskcluster: Running, session: aiohttp.ClientSession, clock: HurriedClock) -> HttpArtifactStore:
    settings = UploadSettings(taskcluster.root_url, Storage.OBJECT, attempts=3, stall_seconds=0.3)
    return HttpArtifactStore(session, clock, settings)


async def download(taskcluster: Running) -> tuple[bytes, dict[str, str], dict[str, str]]:
    """Give content, headers and hashes, as any client would get them."""
    credentials = {"clientId": "uploader", "accessToken": TOKEN.reveal()}
    async with aiohttp.ClientSession() as session:
        service = Object({"rootUrl": taskcluster.root_url, "credentials": credentials}, session=session)
        answer = await service.startDownload(NAME, {"acceptDownloadMethods": {"getUrl": True}})
        async with session.get(answer["url"]) as got:
            return await got.read(), dict(got.headers), answer["hashes"]


@pytest.mark.parametrize("size", [0, 8192, 8193, 3_000_000])
async def test_an_object_is_stored_under_its_digest_and_then_marked_present(
    store: HttpArtifactStore, objects: UploadRun, taskcluster: Running, sealed: Sealed, size: int
) -> None:
    artifact = sealed("public/a", os.urandom(size))

    await store.put(objects, (artifact,))

    content, headers, hashes = await download(taskcluster)
    assert len(content) == size
    assert hashes == {"sha256": artifact.sha256}
    assert headers["Content-Type"] == "application/octet-stream"
    assert objects.finished == [("public/a", "TyRoGA_OS3W2QMCEuF1icw")]
    assert objects.created == [StorageObject(artifact.name, artifact.content_type, artifact.expires)]


@pytest.mark.parametrize(("size", "inline"), [(8192, True), (8193, False)])
async def test_only_small_objects_travel_within_the_request(
    store: HttpArtifactStore, objects: UploadRun, faults: Faults, sealed: Sealed, size: int, *, inline: bool
) -> None:
    await store.put(objects, (sealed("public/a", bytes(size)),))

    call, asked = faults.asked[0]
    assert call == "upload"
    assert ("dataInline" in asked["proposedUploadMethods"]) is inline
    assert asked["proposedUploadMethods"]["putUrl"]["contentLength"] == size
    assert asked["expires"] == "2026-02-01T12:00:00.000Z"


async def test_objects_are_never_compressed_since_nothing_would_say_so(
    store: HttpArtifactStore, objects: UploadRun, taskcluster: Running, sealed: Sealed
) -> None:
    await store.put(objects, (sealed("public/a", b"a line\n" * 10_000, "text/plain"),))

    content, headers, _ = await download(taskcluster)
    assert content == b"a line\n" * 10_000
    assert "Content-Encoding" not in headers


async def test_signed_files_are_objects_too(store: HttpArtifactStore, objects: UploadRun, taskcluster: Running) -> None:
    await store.put_signed(objects, (SignedFile(ArtifactName("public/a"), b"signature", "application/octet-stream"),))

    assert (await download(taskcluster))[0] == b"signature"


@pytest.mark.parametrize("call", ["upload", "finish-upload"])
@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_service_that_is_busy_is_asked_again(
    store: HttpArtifactStore, objects: UploadRun, faults: Faults, sealed: Sealed, call: str, status: int
) -> None:
    faults.add(f"/api/object/v1/{call}/", *(web.json_response({}, status=status) for _ in range(2)))

    await store.put(objects, (sealed("public/a", b"content"),))

    assert [asked for asked, _ in faults.asked].count(call) == 3
    assert objects.finished == [("public/a", "TyRoGA_OS3W2QMCEuF1icw")]


async def test_a_lost_answer_to_finish_upload_does_not_upload_again(
    store: HttpArtifactStore, objects: UploadRun, faults: Faults, sealed: Sealed
) -> None:
    faults.add("/api/object/v1/finish-upload/", web.json_response({}, status=500))

    await store.put(objects, (sealed("public/a", b"content"),))

    assert [call for call, _ in faults.asked] == ["upload", "finish-upload", "finish-upload"]


async def test_a_put_url_that_has_expired_is_replaced(
    store: HttpArtifactStore, objects: UploadRun, taskcluster: Running, faults: Faults, sealed: Sealed
) -> None:
    content = os.urandom(100_000)
    faults.add(f"/{OBJECTS}/", web.Response(status=403))

    await store.put(objects, (sealed("public/a", content),))

    assert [call for call, _ in faults.asked] == ["upload", "upload", "finish-upload"]
    assert (await download(taskcluster))[0] == content


@pytest.mark.parametrize(
    ("credentials", "status"),
    [
        (Credentials("uploader", Secret("wrong" * 9)), 401),
        (Credentials("nobody", TOKEN), 401),
        (Credentials("uploader", TOKEN, Secret('{"version": 1}')), 401),
    ],
)
async def test_refused_credentials_are_an_error_at_once(
    store: HttpArtifactStore, objects: UploadRun, sealed: Sealed, credentials: Credentials, status: int
) -> None:
    objects.target = ObjectTarget(NAME, "TyRoGA_OS3W2QMCEuF1icw", "none", credentials)

    with pytest.raises(ServiceError, match=f"attempt 1 of 3: the object service answered {status} to createUpload"):
        await store.put(objects, (sealed("public/a", b"content"),))

    assert objects.finished == []


async def test_a_service_that_offers_no_known_way_is_an_error(
    store: HttpArtifactStore, objects: UploadRun, faults: Faults, sealed: Sealed
) -> None:
    faults.add("/api/object/v1/upload/", web.json_response({"uploadMethod": {}}))

    with pytest.raises(ServiceError, match="offers no way to upload"):
        await store.put(objects, (sealed("public/a", b"content"),))


async def test_a_service_that_cannot_be_reached_is_an_error_after_all_attempts(
    session: aiohttp.ClientSession, clock: HurriedClock, objects: UploadRun, sealed: Sealed
) -> None:
    settings = UploadSettings("http://127.0.0.1:1", Storage.OBJECT, attempts=2)

    with pytest.raises(ServiceError, match="attempt 2 of 2: the object service cannot be reached"):
        await HttpArtifactStore(session, clock, settings).put(objects, (sealed("public/a", b"content"),))


async def test_an_artifact_expires_at_the_millisecond_that_was_asked_for(
    store: HttpArtifactStore, objects: UploadRun, faults: Faults, sealed: Sealed
) -> None:
    artifact = sealed("public/a", b"content")
    await store.put(objects, (replace(artifact, expires=artifact.expires + timedelta(microseconds=123_000)),))

    assert faults.asked[0][1]["expires"] == "2026-02-01T12:00:00.123Z"


async def test_a_service_that_does_not_answer_is_left_and_asked_again(
    impatient: HttpArtifactStore, objects: UploadRun, faults: Faults, sealed: Sealed
) -> None:
    faults.silent = 1

    await impatient.put(objects, (sealed("public/a", b"content"),))

    assert [call for call, _ in faults.asked] == ["upload", "upload", "finish-upload"]


async def test_a_small_sealed_copy_that_is_gone_is_the_hosts_fault(
    store: HttpArtifactStore, objects: UploadRun, sealed: Sealed
) -> None:
    artifact = sealed("public/a", b"content")
    Path(artifact.path).unlink()

    with pytest.raises(HostError, match="a sealed output cannot be read: No such file"):
        await store.put(objects, (artifact,))
