"""Uploads to something that behaves like S3. Edge cases 10 and 11."""

import asyncio
import gzip
import hashlib
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from secureworker.artifacts.store import MAX_MESSAGE, HttpArtifactStore, UploadSettings
from secureworker.core.errors import HostError, ServiceError, Stop, StopReason
from secureworker.core.ids import ArtifactName
from secureworker.core.uploads import NoTarget, PutTarget, StorageError, StorageS3, UploadTarget
from secureworker.ports import SignedFile
from secureworker.testing import EPOCH
from tests.artifacts.conftest import Sealed
from tests.artifacts.storage import EXPIRED, S3, TOO_SLOW, HurriedClock, UploadRun

MIB = 2**20


def quick_to_stall(session: aiohttp.ClientSession, clock: HurriedClock) -> HttpArtifactStore:
    return HttpArtifactStore(session, clock, UploadSettings("https://tc.example.com", stall_seconds=0.3))


async def test_what_is_stored_is_what_was_sealed(
    store: HttpArtifactStore, run: UploadRun, storage: S3, sealed: Sealed
) -> None:
    content = os.urandom(3 * MIB + 1)

    await store.put(run, (sealed("public/a b+c.bin", content), sealed("public/empty", b"")))

    assert storage.stored == {"public/a b+c.bin": content, "public/empty": b""}
    headers = storage.headers["public/a b+c.bin"]
    assert headers["Content-Length"] == str(len(content))
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["User-Agent"].startswith("secureworker/")
    assert "Content-Encoding" not in headers
    assert StorageS3(ArtifactName("public/empty"), "application/octet-stream", EPOCH + timedelta(days=1)) in run.created


async def test_nothing_is_uploaded_where_there_is_nothing(store: HttpArtifactStore, run: UploadRun) -> None:
    await store.put(run, ())

    assert run.created == []


async def test_text_is_stored_compressed_and_its_digest_is_that_of_the_decoded_content(
    store: HttpArtifactStore, run: UploadRun, storage: S3, sealed: Sealed
) -> None:
    artifact = sealed("a.txt", b"the same line again\n" * 1000, "text/plain; charset=utf-8")

    await store.put(run, (artifact,))

    headers = storage.headers["a.txt"]
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert int(headers["Content-Length"]) == len(storage.stored["a.txt"]) < artifact.size
    assert hashlib.sha256(storage.decoded("a.txt")).hexdigest() == artifact.sha256
    assert not Path(f"{artifact.path}.gz").exists()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (gzip.compress(b"x" * 100_000), "application/x-tar"),
        (os.urandom(100_000), "text/plain"),
        (b"short", "text/plain"),
        (b"", "text/plain"),
    ],
)
async def test_what_would_not_get_smaller_is_stored_as_it_is(
    store: HttpArtifactStore, run: UploadRun, storage: S3, sealed: Sealed, content: bytes, kind: str
) -> None:
    await store.put(run, (sealed("a", content, kind),))

    assert storage.stored["a"] == content
    assert "Content-Encoding" not in storage.headers["a"]


async def test_a_retry_sends_identical_bytes_with_the_same_parameters_to_a_fresh_url(
    store: HttpArtifactStore, run: UploadRun, storage: S3, sealed: Sealed
) -> None:
    bodies = []

    async def take_and_fail(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response(status=500)

    storage.next.append(take_and_fail)

    await store.put(run, (sealed("a.json", b'{"a": 1}' * 1000, "application/json"),))

    assert bodies == [storage.stored["a.json"]]
    assert len(run.created) == 2
    assert run.created[0] == run.created[1]
    assert len(set(storage.requests)) == 2


@pytest.mark.parametrize(
    "refusal", [(400, TOO_SLOW), (403, EXPIRED), (429, ""), (500, ""), (502, ""), (503, "SlowDown")]
)
async def test_what_may_pass_is_tried_again_with_growing_waits(
    store: HttpArtifactStore,
    run: UploadRun,
    storage: S3,
    sealed: Sealed,
    clock: HurriedClock,
    refusal: tuple[int, str],
) -> None:
    storage.refuse(*refusal, times=3)

    await store.put(run, (sealed("a", b"content"),))

    assert storage.stored == {"a": b"content"}
    assert len(clock.slept) == 3
    for slept, longest in zip(clock.slept, (1, 2, 4), strict=True):
        assert longest / 2 <= slept < longest


@pytest.mark.parametrize(("status", "text"), [(400, "<Code>InvalidArgument</Code>"), (404, ""), (409, ""), (301, "")])
async def test_what_will_not_pass_is_an_error_at_once(
    store: HttpArtifactStore, run: UploadRun, storage: S3, sealed: Sealed, status: int, text: str
) -> None:
    storage.refuse(status, text)

    with pytest.raises(ServiceError, match=rf"the artifact a could not be stored, attempt 1 of 9: .* {status}$"):
        await store.put(run, (sealed("a", b"content"),))


@pytest.mark.parametrize("status", [200, 201, 204])
async def test_every_answer_that_says_stored_is_taken(
    store: HttpArtifactStore, run: UploadRun, storage: S3, sealed: Sealed, status: int
) -> None:
    storage.refuse(status)

    await store.put(run, (sealed("a", b"content"),))

    assert len(run.created) == 1


async def test_attempts_end(store: HttpArtifactStore, run: UploadRun, storage: S3, sealed: Sealed) -> None:
    storage.refuse(503, times=100)

    with pytest.raises(ServiceError, match="attempt 9 of 9: the storage answered 503"):
        await store.put(run, (sealed("a", b"content"),))


async def test_a_connection_reset_in_the_middle_of_a_body_is_tried_again(
    store: HttpArtifactStore, run: UploadRun, storage: S3, sealed: Sealed
) -> None:
    content = os.urandom(16 * MIB)
    storage.next.extend([storage.reset, storage.reset])

    await store.put(run, (sealed("a", content),))

    assert storage.stored["a"] == content


@pytest.mark.parametrize("size", [100, 64 * MIB])
async def test_a_server_that_stalls_is_left_and_tried_again(
    session: aiohttp.ClientSession, clock: HurriedClock, run: UploadRun, storage: S3, sealed: Sealed, size: int
) -> None:
    storage.next.append(storage.stall)

    # Longer than a busy machine itself may stall in the second attempt.
    store = HttpArtifactStore(session, clock, UploadSettings("https://tc.example.com", stall_seconds=3))

    await store.put(run, (sealed("a", bytes(size)),))

    assert len(storage.stored["a"]) == size
    assert len(run.created) == 2


async def test_a_slow_server_is_waited_for_as_long_as_something_moves(
    session: aiohttp.ClientSession, clock: HurriedClock, run: UploadRun, storage: S3, sealed: Sealed
) -> None:
    began = asyncio.get_running_loop().time()

    async def slowly(request: web.Request) -> web.StreamResponse:
        # Paced by what has arrived, over more than twice the stall timeout in all.
        taken = 0
        while piece := await request.content.read(4 * MIB):
            taken += len(piece)
            due = began + 0.8 * taken / (64 * MIB)
            await asyncio.sleep(due - asyncio.get_running_loop().time())
        return web.Response()

    storage.next.append(slowly)

    await quick_to_stall(session, clock).put(run, (sealed("a", bytes(64 * MIB)),))

    assert len(run.created) == 1
    assert asyncio.get_running_loop().time() - began > 0.7


async def test_nobody_there_is_an_error_that_shows_no_url(
    session: aiohttp.ClientSession, clock: HurriedClock, run: UploadRun, sealed: Sealed
) -> None:
    run.target = PutTarget("http://127.0.0.1:1/a?X-Amz-Signature=secret")
    store = HttpArtifactStore(session, clock, UploadSettings("https://tc.example.com", attempts=2))

    with pytest.raises(ServiceError, match="attempt 2 of 2: the connection failed: Connection refused") as caught:
        await store.put(run, (sealed("a", b"content"),))

    assert "secret" not in str(caught.value)
    assert "secret" not in str(caught.value.__cause__)


@pytest.mark.parametrize(
    "target", [PutTarget("ftp://secret/"), PutTarget("http://[secret"), PutTarget("secret"), NoTarget()]
)
async def test_no_usable_place_to_upload_to_is_an_error_at_once(
    store: HttpArtifactStore, run: UploadRun, sealed: Sealed, target: UploadTarget
) -> None:
    run.target = target

    with pytest.raises(ServiceError, match="attempt 1 of 9") as caught:
        await store.put(run, (sealed("a", b"content"),))

    assert "secret" not in str(caught.value)


async def test_several_are_uploaded_at_a_time_but_not_all(
    store: HttpArtifactStore, run: UploadRun, storage: S3, sealed: Sealed
) -> None:
    four_are_there = asyncio.Event()

    async def together(request: web.Request) -> web.StreamResponse:
        if storage.busy == 4:
            four_are_there.set()
        await four_are_there.wait()
        return await storage.store(request)

    storage.next.extend([together] * 4)

    await store.put(run, tuple(sealed(f"{number}", b"content") for number in range(50)))

    assert len(storage.stored) == 50
    assert storage.most_busy == 4


async def test_one_that_fails_for_good_ends_the_others(
    store: HttpArtifactStore, run: UploadRun, storage: S3, sealed: Sealed
) -> None:
    storage.refuse(409)
    storage.next.extend([storage.stall] * 3)

    with pytest.raises(ServiceError, match="409"):
        await store.put(run, tuple(sealed(f"{number}", b"content") for number in range(10)))

    assert storage.stored == {}


async def test_a_run_that_is_not_ours_any_more_stops_uploading(
    store: HttpArtifactStore, run: UploadRun, sealed: Sealed
) -> None:
    run.failure = Stop(StopReason.CANCELED, "the task was cancelled")

    with pytest.raises(Stop):
        await store.put(run, (sealed("a", b""), sealed("b", b"")))


@pytest.mark.parametrize("kind", ["application/octet-stream", "text/plain"])
async def test_a_sealed_copy_that_is_gone_is_the_hosts_fault(
    store: HttpArtifactStore, run: UploadRun, sealed: Sealed, kind: str
) -> None:
    artifact = sealed("a", b"content" * 1000, kind)
    Path(artifact.path).unlink()

    with pytest.raises(HostError, match="No such file"):
        await store.put(run, (artifact,))


async def test_a_sealed_copy_that_is_shorter_is_the_hosts_fault_and_is_not_stored(
    store: HttpArtifactStore, run: UploadRun, storage: S3, sealed: Sealed
) -> None:
    artifact = sealed("a", b"content")

    with pytest.raises(HostError, match="shorter than when it was sealed"):
        await store.put(run, (replace(artifact, size=8),))

    assert storage.stored == {}


async def test_a_disk_that_cannot_be_read_is_the_hosts_fault(
    store: HttpArtifactStore, run: UploadRun, sealed: Sealed
) -> None:
    # Nothing is mapped at address 0, where reading this file begins: EIO, as of a broken disk.
    broken = replace(sealed("a", b""), size=10, path="/proc/self/mem")

    with pytest.raises(HostError, match="Input/output error"):
        await store.put(run, (broken,))


async def test_cancelling_an_upload_leaves_no_compressed_copy(
    store: HttpArtifactStore, run: UploadRun, storage: S3, sealed: Sealed, tmp_path: Path
) -> None:
    arrived = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        arrived.set()
        return await storage.stall(request)

    storage.next.append(hang)
    artifact = sealed("a.txt", b"a line\n" * 1000, "text/plain")
    async with asyncio.TaskGroup() as group:
        uploading = group.create_task(store.put(run, (artifact,)))
        await arrived.wait()
        assert Path(f"{artifact.path}.gz").exists()
        uploading.cancel()

    assert uploading.cancelled()
    assert not Path(f"{artifact.path}.gz").exists()


async def test_signed_files_are_stored_exactly_as_they_are(
    store: HttpArtifactStore, run: UploadRun, storage: S3
) -> None:
    body = b'{"a": 1}' * 1000

    await store.put_signed(run, (SignedFile(ArtifactName("public/chain-of-trust.json"), body, "application/json"),))

    assert storage.stored == {"public/chain-of-trust.json": body}
    assert "Content-Encoding" not in storage.headers["public/chain-of-trust.json"]
    (created,) = run.created
    assert created.expires == run.claim.task.expires


async def test_an_error_artifact_says_why_within_the_queues_limit(store: HttpArtifactStore, run: UploadRun) -> None:
    name = ArtifactName("public/a")

    await store.put_error(run, name, "too-large-file-on-worker", "x" * 10_000)

    expires = run.claim.task.expires
    assert run.created == [StorageError(name, "too-large-file-on-worker", "x" * MAX_MESSAGE, expires)]
