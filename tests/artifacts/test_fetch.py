"""Fetching what a run published, from the embedded Taskcluster and from worse ones."""

import gzip
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from secureworker.artifacts.fetch import FetchLimits, RunFetcher
from secureworker.core.errors import ServiceError
from secureworker.core.ids import RunId, TaskId
from secureworker.testing import TASK_ID
from tests.artifacts.storage import HurriedClock
from tests.localqueue.harness import A_WORKER, WORKER, World, a_world

ID = TaskId(TASK_ID)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world(None) as world:
        yield world


async def a_run(world: World, contents: dict[str, bytes]) -> TaskId:
    """Carry a task through a run that publishes `contents`."""
    task_id = await world.create()
    (claim,) = await world.claim(who=A_WORKER)
    for name, content in contents.items():
        created = await world.artifact(claim["credentials"], task_id, name)
        assert (await world.put(created.body["putUrl"], content, Content_Type="text/plain")).status == 200
    assert (await world.ask(claim["credentials"], "reportCompleted", task_id, 0)).status == 200
    return TaskId(task_id)


async def test_a_run_is_fetched_with_what_the_queue_says_of_it(
    world: World, session: aiohttp.ClientSession, clock: HurriedClock, tmp_path: Path
) -> None:
    contents = {"public/a b(1).txt": b"content", "public/deep/er/b.bin": bytes(3_000_000)}
    task_id = await a_run(world, contents)

    fetched = await RunFetcher(session, clock, f"{world.root_url}/").fetch(task_id, None, str(tmp_path))

    assert {name: (tmp_path / name).read_bytes() for name in contents} == contents
    assert (fetched.task_id, fetched.run_id, fetched.state, fetched.missing) == (task_id, 0, "completed", ())
    assert fetched.worker is not None
    assert fetched.worker.worker_id == WORKER["workerId"]
    assert fetched.definition["payload"] == {"command": ["true"]}


async def test_what_is_stored_compressed_is_written_decoded(
    world: World, session: aiohttp.ClientSession, clock: HurriedClock, tmp_path: Path
) -> None:
    task_id = await world.create()
    (claim,) = await world.claim(who=A_WORKER)
    created = await world.artifact(claim["credentials"], task_id, "public/a.txt")
    packed = {"Content_Type": "text/plain", "Content_Encoding": "gzip"}
    assert (await world.put(created.body["putUrl"], gzip.compress(b"content"), **packed)).status == 200

    fetched = await RunFetcher(session, clock, world.root_url).fetch(TaskId(task_id), RunId(0), str(tmp_path))

    assert (tmp_path / "public" / "a.txt").read_bytes() == b"content"
    assert fetched.state == "running"


async def test_what_cannot_be_had_is_named_and_the_rest_is_fetched(
    world: World, session: aiohttp.ClientSession, clock: HurriedClock, tmp_path: Path
) -> None:
    task_id = await world.create()
    (claim,) = await world.claim(who=A_WORKER)
    who = claim["credentials"]
    public = await world.artifact(who, task_id, "public/a.txt")
    await world.put(public.body["putUrl"], b"content", Content_Type="text/plain")
    private = await world.artifact(who, task_id, "private/b.txt")
    await world.put(private.body["putUrl"], b"content", Content_Type="text/plain")
    why = "file-missing-on-worker"
    await world.artifact(who, task_id, "public/c.txt", storageType="error", reason=why, message="", contentType=None)
    await world.artifact(who, task_id, "public/never-put.txt")

    fetched = await RunFetcher(session, clock, world.root_url).fetch(TaskId(task_id), None, str(tmp_path))

    assert fetched.missing == (
        "private/b.txt: the answer is 403",
        "public/c.txt: the answer is 424",
        "public/never-put.txt: the answer is 404",
    )
    assert [path.name for path in tmp_path.rglob("*.txt")] == ["a.txt"]


async def test_a_task_or_run_that_is_not_there_is_an_error(
    world: World, session: aiohttp.ClientSession, clock: HurriedClock, tmp_path: Path
) -> None:
    fetcher = RunFetcher(session, clock, world.root_url)

    with pytest.raises(ServiceError, match=f"answers 404 to GET /task/{ID}/status"):
        await fetcher.fetch(ID, None, str(tmp_path))
    task_id = await a_run(world, {})
    with pytest.raises(ServiceError, match="knows no run 7"):
        await fetcher.fetch(task_id, RunId(7), str(tmp_path))


async def test_a_run_that_nobody_claimed_has_no_worker(
    world: World, session: aiohttp.ClientSession, clock: HurriedClock, tmp_path: Path
) -> None:
    task_id = await world.create()

    fetched = await RunFetcher(session, clock, world.root_url).fetch(TaskId(task_id), None, str(tmp_path))

    assert (fetched.state, fetched.worker) == ("pending", None)


async def test_more_than_the_limits_is_not_taken(
    world: World, session: aiohttp.ClientSession, clock: HurriedClock, tmp_path: Path
) -> None:
    task_id = await a_run(world, {"public/a": bytes(600_000), "public/b": bytes(600_000)})

    with pytest.raises(ServiceError, match="more than 1000000 bytes"):
        await RunFetcher(session, clock, world.root_url, FetchLimits(total_bytes=1_000_000)).fetch(
            task_id, None, str(tmp_path)
        )
    with pytest.raises(ServiceError, match="more than 1 artifacts"):
        await RunFetcher(session, clock, world.root_url, FetchLimits(artifacts=1)).fetch(task_id, None, str(tmp_path))


# A Queue that misbehaves: the answers below, by the end of the path.

RUN = {"runId": 0, "state": "completed", "workerGroup": "g", "workerId": "w"}
TIMES = {"created": "2026-01-01T00:00:00Z", "deadline": "2026-01-01T00:00:00Z", "expires": "2026-01-01T00:00:00Z"}
TASK = {"taskQueueId": "a/b", "payload": {}, "metadata": {"name": "n", "source": "s"}, **TIMES}
Answers = dict[str, list[web.Response | Exception]]


@asynccontextmanager
async def a_bad_queue(answers: Answers) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.Response:
        end = request.raw_path.partition(f"/task/{TASK_ID}")[2]
        given = answers[end]
        answer = given.pop(0) if len(given) > 1 else given[0]
        if isinstance(answer, Exception):
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        fresh = web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        fresh.headers.pop("Content-Length", None)
        return fresh

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await web.SockSite(runner, listener).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            await runner.cleanup()


def good(**changes: list[web.Response | Exception]) -> Answers:
    listed = web.json_response({"artifacts": [{"name": "public/a"}]})
    answers: Answers = {
        "/status": [web.json_response({"status": {"runs": [RUN]}})],
        "": [web.json_response(TASK)],
        "/runs/0/artifacts": [listed],
        "/runs/0/artifacts/public/a": [web.Response(body=b"content")],
    }
    names = {"status": "/status", "task": "", "listed": "/runs/0/artifacts", "artifact": "/runs/0/artifacts/public/a"}
    return answers | {names[name]: given for name, given in changes.items()}


async def test_what_fails_for_a_moment_is_asked_for_again(
    session: aiohttp.ClientSession, clock: HurriedClock, tmp_path: Path
) -> None:
    answers = good(
        status=[web.Response(status=503), OSError(), good()["/status"][0]],
        artifact=[web.Response(status=500), OSError(), OSError(), web.Response(body=b"content")],
    )
    async with a_bad_queue(answers) as root_url:
        await RunFetcher(session, clock, root_url).fetch(ID, None, str(tmp_path))

    assert (tmp_path / "public" / "a").read_bytes() == b"content"


async def test_a_long_list_is_read_to_its_end(
    session: aiohttp.ClientSession, clock: HurriedClock, tmp_path: Path
) -> None:
    first = web.json_response({"artifacts": [], "continuationToken": "a/b"})
    answers = good(listed=[first])
    answers["/runs/0/artifacts?continuationToken=a%2Fb"] = good()["/runs/0/artifacts"]
    async with a_bad_queue(answers) as root_url:
        await RunFetcher(session, clock, root_url).fetch(ID, None, str(tmp_path))

    assert (tmp_path / "public" / "a").exists()


BAD: dict[str, tuple[Answers, str]] = {
    "down": (good(status=[web.Response(status=502)]), "cannot be reached: 502"),
    "hanging up": (good(status=[OSError()]), "cannot be reached: ServerDisconnectedError"),
    "no JSON": (good(status=[web.Response(body=b"<html>")]), "no JSON"),
    "no object": (good(status=[web.json_response([])]), "something else than an object"),
    "no runs": (good(status=[web.json_response({"status": {"runs": []}})]), "cannot be read"),
    "no status": (good(status=[web.json_response({})]), "cannot be read"),
    "no definition": (good(task=[web.json_response({})]), "cannot be read"),
    "elsewhere": (good(status=[web.Response(status=303, headers={"Location": "/"})]), "no JSON"),
    "a list of another kind": (good(listed=[web.json_response({"artifacts": [{}]})]), "cannot be read"),
    "a name that leads out": (
        good(listed=[web.json_response({"artifacts": [{"name": "../../a"}]})]),
        "list of artifacts cannot be read",
    ),
    "an artifact that fails": (good(artifact=[web.Response(status=500)]), "public/a: cannot be fetched: 500"),
    "an artifact that is refused": (good(artifact=[web.Response(status=400)]), "public/a: the answer is 400"),
    "an artifact behind a circle": (
        good(artifact=[web.Response(status=303, headers={"Location": f"/task/{TASK_ID}/runs/0/artifacts/public/a"})]),
        "more than 5 redirects",
    ),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_answer_is_an_error_that_says_so(
    session: aiohttp.ClientSession, clock: HurriedClock, tmp_path: Path, what: str
) -> None:
    answers, says = BAD[what]
    async with a_bad_queue(answers) as root_url:
        with pytest.raises(ServiceError, match=says):
            await RunFetcher(session, clock, root_url).fetch(ID, None, str(tmp_path))


async def test_two_artifacts_that_no_directory_can_hold_both_are_an_error(
    session: aiohttp.ClientSession, clock: HurriedClock, tmp_path: Path
) -> None:
    answers = good(listed=[web.json_response({"artifacts": [{"name": "public/a"}, {"name": "public/a/b"}]})])
    answers["/runs/0/artifacts/public/a/b"] = [web.Response(body=b"content")]
    async with a_bad_queue(answers) as root_url:
        with pytest.raises(OSError, match="public/a"):
            await RunFetcher(session, clock, root_url).fetch(ID, None, str(tmp_path))
