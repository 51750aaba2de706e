"""Artifacts of the embedded Queue, and the presigned URLs behind them."""

import asyncio
import gzip
import hashlib
import os
import socket
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from yarl import URL

from secureworker.localqueue import times
from secureworker.localqueue.blobs import _written
from tests.localqueue.harness import A_WORKER, ROOT, Checked, World, a_world


def _key(url: str) -> str:
    return urlsplit(url).path


async def test_a_public_artifact_is_uploaded_and_downloaded_by_anybody(world: World) -> None:
    task_id, credentials = await world.claimed()
    created = await world.artifact(credentials, task_id, "public/a b+c~(1).txt")
    put = await world.put(created.body["putUrl"], b"hello", Content_Type="text/plain")

    redirect = await world.ask(None, "getArtifact", task_id, 0, "public/a b+c~(1).txt")
    latest = await world.ask(None, "getLatestArtifact", task_id, "public/a b+c~(1).txt")
    status, content, headers = await world.get(redirect.headers["Location"])

    assert (put.status, redirect.status) == (200, 303)
    assert redirect.headers["Location"] == f"{world.root_url}/public-bucket/{task_id}/0/public/a%20b+c~(1).txt"
    assert redirect.headers["x-taskcluster-artifact-storage-type"] == "s3"
    assert redirect.body == latest.body == {"storageType": "s3", "url": redirect.headers["Location"]}
    assert (status, content, headers["Content-Type"]) == (200, b"hello", "text/plain")


async def test_a_name_with_a_percent_sign_is_escaped(world: World) -> None:
    task_id, credentials = await world.claimed()
    created = await world.artifact(credentials, task_id, "public/100%25.txt")
    await world.put(created.body["putUrl"], b"all")

    redirect = await world.ask(None, "getArtifact", task_id, 0, "public/100%25.txt")

    assert (await world.get(redirect.headers["Location"]))[:2] == (200, b"all")


async def test_a_private_artifact_takes_a_scope_and_its_url_expires(world: World) -> None:
    task_id, credentials = await world.claimed()
    created = await world.artifact(credentials, task_id, "private/hello.txt")
    await world.put(created.body["putUrl"], b"hello")

    nobody = await world.ask(None, "getArtifact", task_id, 0, "private/hello.txt")
    allowed = await world.ask(credentials, "getArtifact", task_id, 0, "private/hello.txt")
    url = allowed.headers["Location"]
    good = await world.get(url)
    unsigned = await world.get(url.partition("?")[0])
    other = await world.get(url.replace("hello.txt", "other.txt"))
    world.clock.advance(1801)
    late = await world.get(url)

    assert (nobody.status, allowed.status) == (403, 303)
    assert good[:2] == (200, b"hello")
    assert [unsigned[0], other[0], late[0]] == [403, 403, 403]
    assert b"AccessDenied" in unsigned[1]
    assert b"SignatureDoesNotMatch" in other[1]
    assert b"Request has expired" in late[1]


async def test_an_upload_url_is_for_one_method_and_one_name_and_expires(world: World) -> None:
    task_id, credentials = await world.claimed()
    created = await world.artifact(credentials, task_id, "public/a.txt")
    url = created.body["putUrl"]

    got = await world.get(url)
    elsewhere = await world.put(url.replace("a.txt", "b.txt"), b"x")
    longer = await world.put(url.replace("X-Amz-Expires=2700", "X-Amz-Expires=99999"), b"x")
    async with world.http.post(url, data=b"x") as posted:
        pass
    world.clock.advance(2701)
    late = await world.put(url, b"x")

    assert times.parse(created.body["expires"]) - world.clock() < timedelta(minutes=45)
    assert [got[0], elsewhere.status, longer.status, posted.status, late.status] == [403, 403, 403, 405, 403]
    again = await world.artifact(ROOT, task_id, "public/a.txt")
    assert (await world.put(again.body["putUrl"], b"x")).status == 200


async def test_a_client_may_escape_the_name_in_its_own_way(world: World) -> None:
    task_id, credentials = await world.claimed()
    created = await world.artifact(credentials, task_id, "public/a:b@c,d;e=f&g$h[i]%41.txt")
    url = created.body["putUrl"]

    async with world.http.put(url, data=b"x") as normalized:
        pass
    async with world.http.put(URL(url.replace("a%3Ab", "a:b"), encoded=True), data=b"x") as decoded:
        pass

    assert (normalized.status, decoded.status) == (200, 200)
    assert (await world.get(url.partition("?")[0]))[:2] == (200, b"x")


async def test_an_upload_without_a_length_is_refused(world: World) -> None:
    task_id, credentials = await world.claimed()
    created = await world.artifact(credentials, task_id, "public/a.txt")

    async def pieces() -> Any:
        yield b"a"

    async with world.http.put(created.body["putUrl"], data=pieces()) as response:
        assert (response.status, "MissingContentLength" in await response.text()) == (411, True)


async def test_a_packed_artifact_is_stored_as_it_came_and_says_so(world: World) -> None:
    task_id, credentials = await world.claimed()
    created = await world.artifact(credentials, task_id, "public/log")
    packed = gzip.compress(b"line\n" * 1000)
    await world.put(created.body["putUrl"], packed, Content_Type="text/plain", Content_Encoding="gzip")

    redirect = await world.ask(None, "getArtifact", task_id, 0, "public/log")
    status, content, headers = await world.get(redirect.headers["Location"])

    assert (status, content) == (200, b"line\n" * 1000)
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Content-Length"] == str(len(packed))


async def test_the_last_upload_to_a_name_wins_and_leaves_no_file_behind(
    tmp_path: Path, checked: Checked | None
) -> None:
    async with a_world(checked, data=str(tmp_path)) as world:
        task_id, credentials = await world.claimed()
        created = await world.artifact(credentials, task_id, "public/a")
        for content in (b"first", b"second" * 700_000):
            await world.put(created.body["putUrl"], content)

        got = await world.get(created.body["putUrl"].partition("?")[0])

    assert got[1] == b"second" * 700_000
    assert got[2]["Content-Type"] == "binary/octet-stream"
    assert len(list((tmp_path / "blobs").iterdir())) == 1


async def test_part_of_a_file_can_be_read(world: World) -> None:
    task_id, credentials = await world.claimed()
    created = await world.artifact(credentials, task_id, "public/a")
    await world.put(created.body["putUrl"], b"0123456789")

    status, content, _ = await world.get(created.body["putUrl"].partition("?")[0], Range="bytes=2-4")

    assert (status, content) == (206, b"234")


async def test_an_upload_that_is_broken_off_leaves_nothing(tmp_path: Path, checked: Checked | None) -> None:
    async with a_world(checked, data=str(tmp_path)) as world:
        task_id, credentials = await world.claimed()
        created = await world.artifact(credentials, task_id, "public/a")
        url = urlsplit(created.body["putUrl"])
        with socket.create_connection((str(url.hostname), int(url.port or 0))) as connection:
            head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: 100\r\n\r\nabc"
            connection.sendall(head.encode())
        redirect = await world.ask(None, "getArtifact", task_id, 0, "public/a")
        status, content, _ = await world.get(redirect.headers["Location"])

    assert (status, b"NoSuchKey" in content) == (404, True)
    assert list((tmp_path / "blobs").iterdir()) == []


async def test_parts_left_by_a_crash_are_removed_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "abc.part").write_bytes(b"x")

    async with a_world(None, data=str(tmp_path)):
        pass

    assert list((tmp_path / "blobs").iterdir()) == []


async def test_links_lead_to_their_target_and_ask_for_both_scopes(world: World) -> None:
    task_id, credentials = await world.claimed()
    await world.artifact(credentials, task_id, "private/target")
    for name, target in (("public/one", "public/two"), ("public/two", "private/target")):
        await world.artifact(credentials, task_id, name, storageType="link", artifact=target)

    nobody = await world.ask(None, "getArtifact", task_id, 0, "public/one")
    allowed = await world.ask(credentials, "getArtifact", task_id, 0, "public/one")

    assert nobody.status == 403
    assert "queue:get-artifact:private/target" in nobody.body["message"]
    assert allowed.headers["x-taskcluster-artifact-storage-type"] == "s3"
    assert _key(allowed.headers["Location"]).endswith("/private/target")


async def test_links_in_a_circle_and_links_to_nothing_are_errors(world: World) -> None:
    task_id, credentials = await world.claimed()
    for name, target in (("public/one", "public/two"), ("public/two", "public/one"), ("public/to", "public/nothing")):
        await world.artifact(credentials, task_id, name, storageType="link", artifact=target, contentType=None)

    circle = await world.ask(None, "getArtifact", task_id, 0, "public/one")
    nothing = await world.ask(None, "getArtifact", task_id, 0, "public/to")

    assert (circle.status, nothing.status) == (400, 404)


async def test_an_error_artifact_says_why_there_is_nothing(world: World) -> None:
    task_id, credentials = await world.claimed()
    reason: dict[str, Any] = {"reason": "file-missing-on-worker", "message": "no such file"}
    await world.artifact(credentials, task_id, "public/oops", storageType="error", contentType=None, **reason)

    got = await world.ask(None, "getArtifact", task_id, 0, "public/oops")
    described = await world.ask(None, "latestArtifact", task_id, "public/oops")

    assert (got.status, got.body) == (424, reason)
    assert described.body == {"storageType": "error", **reason}


async def test_a_reference_may_be_moved_and_become_a_link(world: World) -> None:
    task_id, credentials = await world.claimed()

    async def create(**changes: Any) -> int:
        return (await world.artifact(credentials, task_id, "public/ref", **changes)).status

    first = await create(storageType="reference", url="http://localhost/one")
    second = await create(storageType="reference", url="http://localhost/two")
    moved = await world.ask(None, "artifact", task_id, 0, "public/ref")
    link = await create(storageType="link", artifact="public/x")
    back = await create(storageType="reference", url="http://localhost/one")

    assert [first, second, link, back] == [200, 200, 200, 409]
    assert moved.body == {"storageType": "reference", "url": "http://localhost/two"}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 200),
        ({"hours": 30}, 200),
        ({"hours": 1}, 409),
        ({"contentType": "text/html"}, 409),
        ({"storageType": "object"}, 409),
        ({"storageType": "reference", "url": "http://localhost/"}, 409),
    ],
)
async def test_an_artifact_may_only_be_created_again_as_it_is_or_for_longer(
    world: World, changes: dict[str, Any], status: int
) -> None:
    task_id, credentials = await world.claimed()
    await world.artifact(credentials, task_id, "public/a", expires=_day(world, 24))

    hours = changes.pop("hours", 24)
    answer = await world.artifact(credentials, task_id, "public/a", **{**changes, "expires": _day(world, hours)})

    assert answer.status == status


def _day(world: World, hours: float) -> str:
    day: datetime = world.clock().replace(minute=0, second=0, microsecond=0)
    return times.javascript(day + timedelta(hours=hours))


@pytest.mark.parametrize("report", [("reportCompleted", None), ("reportFailed", None)])
async def test_a_run_that_is_completed_or_failed_takes_no_artifacts(world: World, report: tuple[str, None]) -> None:
    task_id, credentials = await world.claimed()
    await world.ask(credentials, report[0], task_id, 0)

    assert (await world.artifact(credentials, task_id, "public/late")).status == 409


async def test_a_run_that_is_an_exception_takes_artifacts_for_25_minutes(world: World) -> None:
    task_id, _ = await world.claimed()
    await world.ask(ROOT, "cancelTask", task_id)
    world.clock.advance(24 * 60)
    in_time = await world.artifact(ROOT, task_id, "public/late")
    world.clock.advance(61)
    late = await world.artifact(ROOT, task_id, "public/later")

    assert (in_time.status, late.status) == (200, 409)


async def test_artifacts_of_what_does_not_exist_are_bad_input(world: World) -> None:
    pending = await world.create()

    unknown = await world.artifact(ROOT, "Lt6zYny0R_y3P9NjWZUvLA", "public/a")
    no_run = await world.artifact(ROOT, pending, "public/a", run_id=1)
    unclaimed = await world.artifact(ROOT, pending, "public/a")

    listed = await world.ask(None, "listArtifacts", "Lt6zYny0R_y3P9NjWZUvLA", 0)

    assert listed.status == 404
    answers = [(answer.status, answer.body["code"]) for answer in (unknown, no_run, unclaimed)]
    assert answers == [(400, "InputError")] * 3


async def test_artifacts_are_listed_by_name_in_pages(world: World) -> None:
    task_id, credentials = await world.claimed()
    for name in ("public/c", "public/a", "public/b"):
        await world.artifact(credentials, task_id, name, contentLength=3)

    first = await world.ask(None, "listArtifacts", task_id, 0, query={"limit": "2"})
    rest = await world.ask(
        None, "listLatestArtifacts", task_id, query={"continuationToken": first.body["continuationToken"]}
    )
    info = await world.ask(None, "artifactInfo", task_id, 0, "public/b")
    latest = await world.ask(None, "latestArtifactInfo", task_id, "public/b")
    unknown = await world.ask(None, "artifactInfo", task_id, 0, "public/z")
    wrong = await world.ask(None, "listArtifacts", task_id, 0, query={"limit": "many"})

    listed = first.body["artifacts"] + rest.body["artifacts"]
    assert [artifact["name"] for artifact in listed] == ["public/a", "public/b", "public/c"]
    assert info.body == latest.body == listed[1]
    assert info.body["contentLength"] == 3
    assert (unknown.status, wrong.status) == (404, 400)


async def test_the_latest_artifacts_are_those_of_the_last_run(world: World) -> None:
    task_id, credentials = await world.claimed()
    await world.artifact(credentials, task_id, "public/a")
    await world.ask(credentials, "reportException", task_id, 0, payload={"reason": "worker-shutdown"})

    latest = await world.ask(None, "latestArtifact", task_id, "public/a")
    first = await world.ask(None, "artifact", task_id, 0, "public/a")
    never = await world.ask(None, "latestArtifact", await world.create(dependencies=[task_id]), "public/a")

    assert (latest.status, first.status, never.status) == (404, 200, 404)


async def test_an_artifact_that_expired_is_gone(world: World) -> None:
    task_id, credentials = await world.claimed()
    await world.artifact(credentials, task_id, "public/a", hours=0.1)

    world.clock.advance(361)

    assert (await world.ask(None, "getArtifact", task_id, 0, "public/a")).status == 404


async def test_the_workers_own_credentials_create_no_artifacts(world: World) -> None:
    task_id, _ = await world.claimed()

    assert (await world.artifact(A_WORKER, task_id, "public/a")).status == 403


async def test_a_large_artifact_passes_through_unchanged(world: World) -> None:
    task_id, credentials = await world.claimed()
    created = await world.artifact(credentials, task_id, "public/large")
    content = hashlib.shake_256(b"large").digest(12_000_001)

    await world.put(created.body["putUrl"], content)
    _, got, _ = await world.get(created.body["putUrl"].partition("?")[0])

    assert got == content


async def test_an_upload_that_is_cancelled_closes_no_file_that_is_still_written_to() -> None:
    reader, writer = os.pipe()
    size = 1 << 20  # more than a pipe holds: writing it blocks until somebody reads
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(_written(writer, [b"x" * size]))
        left = size - len(await asyncio.to_thread(os.read, reader, 1))
        writing.cancel()
        await asyncio.sleep(0)
        assert not writing.done()
        while left:
            left -= len(await asyncio.to_thread(os.read, reader, left))

    assert writing.cancelled()
    os.close(reader)
    os.close(writer)
