"""Inputs, from what the Queue says to files that a script finds. Edge cases 13."""

import asyncio
import hashlib
import os
import stat
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from secureworker.artifacts.inputs import HttpInputs, InputSettings
from secureworker.core.chain import MAX_STATEMENT_BYTES, Statements, Upstream, UpstreamRun
from secureworker.core.errors import BadPayload, HostError, ServiceError, Stop, StopReason
from secureworker.core.ids import ArtifactName, RunId, Sha256, TaskId
from secureworker.core.inputs import Input, NotThere, Received, Source
from secureworker.ports import ClaimedRun, Workspace
from tests.artifacts.storage import S3, HurriedClock, UploadRun

BUILD = TaskId("TyRoGA_OS3W2QMCEuF1icw")
OTHER = TaskId("ddVaxIRdRAaAAr5ryHnORA")
MIB = 2**20
COMPLETED = UpstreamRun(RunId(1), "completed", "g", "w")
CHAIN = "public/chain-of-trust.json"


@dataclass
class Deployment:
    """What the Queue knows, and a storage with what it points to."""

    contents: dict[str, bytes] = field(default_factory=dict)
    tasks: dict[TaskId, Upstream] = field(default_factory=dict)
    located: list[tuple[str, int, str]] = field(default_factory=list)
    next: deque[Callable[[web.Request], Awaitable[web.StreamResponse]]] = field(default_factory=deque)
    failures: deque[Exception] = field(default_factory=deque)
    busy: int = 0
    most_busy: int = 0
    url: str = ""

    async def facts(self, run: ClaimedRun, task_id: TaskId) -> Upstream:
        assert run.credentials.client_id
        return self.tasks.get(task_id, Upstream(task_id, None))

    async def locate(self, run: ClaimedRun, task_id: TaskId, run_id: RunId, name: ArtifactName) -> Source | NotThere:
        assert run.credentials.client_id
        self.located.append((task_id, int(run_id), name))
        if self.failures:
            raise self.failures.popleft()
        if name not in self.contents:
            return NotThere("it is not there, or not any more")
        return Source(f"{self.url}/{name}?n={len(self.located)}")

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            if self.next:
                return await self.next.popleft()(request)
            await asyncio.sleep(0)
            return web.Response(body=self.contents[request.match_info["name"]])
        finally:
            self.busy -= 1

    def fails(self, status: int, times: int = 1) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(status=status)

        self.next.extend([answer] * times)


@pytest.fixture
async def deployment() -> AsyncIterator[Deployment]:
    deployment = Deployment()
    application = web.Application()
    application.router.add_get("/{name:.*}", deployment.answer)
    async with TestServer(application) as server:
        deployment.url = str(server.make_url("")).rstrip("/")
        yield deployment


@pytest.fixture
def inputs(session: aiohttp.ClientSession, deployment: Deployment, clock: HurriedClock) -> HttpInputs:
    return HttpInputs(session, deployment, clock, InputSettings(deployment.url))


@pytest.fixture
def place(workspace: Workspace) -> Workspace:
    (Path(workspace.task) / "work").mkdir()
    return replace(workspace, uid=os.getuid())


@pytest.fixture
async def run() -> UploadRun:
    return UploadRun(S3())


def an_input(name: str, content: bytes, *, optional: bool = False) -> Input:
    digest = Sha256(hashlib.sha256(content).hexdigest())
    return Input(BUILD, RunId(1), ArtifactName(name), digest, optional)


def found(place: Workspace) -> dict[str, bytes]:
    top = Path(place.task, "work", "cot")
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


async def test_inputs_lie_where_scripts_expect_them_as_plain_files_of_their_user(
    inputs: HttpInputs, deployment: Deployment, place: Workspace, run: UploadRun
) -> None:
    deployment.contents = {"public/build/a.zip": os.urandom(3 * MIB + 1), "public/b": b""}
    wanted = tuple(an_input(name, content) for name, content in deployment.contents.items())

    received = await inputs.fetch(run, wanted, 4 * MIB, place)

    assert received == Received(wanted, (), 3 * MIB + 1)
    assert found(place) == {f"{BUILD}/{name}": content for name, content in deployment.contents.items()}
    for path in Path(place.task, "work", "cot").rglob("*"):
        status = path.lstat()
        assert status.st_uid == place.uid
        assert stat.S_IMODE(status.st_mode) == (0o755 if path.is_dir() else 0o644)
        assert path.is_dir() or stat.S_ISREG(status.st_mode)
    assert list(Path(place.spool).iterdir()) == []
    assert all(run_id == 1 for _, run_id, _ in deployment.located)


async def test_what_has_another_digest_never_gets_its_name(
    inputs: HttpInputs, deployment: Deployment, place: Workspace, run: UploadRun
) -> None:
    deployment.contents = {"public/a": b"<!DOCTYPE html><title>please log in</title>"}

    with pytest.raises(BadPayload, match="it has the sha256"):
        await inputs.fetch(run, (an_input("public/a", b"the artifact"),), MIB, place)

    assert found(place) == {}
    assert list(Path(place.spool).iterdir()) == []
    assert len(deployment.located) == 1


async def test_an_optional_input_that_is_missing_or_bad_is_left_out(
    inputs: HttpInputs, deployment: Deployment, place: Workspace, run: UploadRun
) -> None:
    deployment.contents = {"a": bytes(MIB), "bad": b"changed", "z": bytes(MIB)}
    wanted = (
        an_input("bad", b"as signed", optional=True),
        an_input("gone", b"", optional=True),
        an_input("a", bytes(MIB)),
        an_input("z", bytes(MIB), optional=True),
    )

    received = await inputs.fetch(run, wanted, 2 * MIB + 7, place)

    assert received.size == 2 * MIB
    assert [each.name for each in received.inputs] == ["a", "z"]
    assert [(each.name, why.partition(",")[0]) for each, why in received.absent] == [
        ("bad", f"it has the sha256 {hashlib.sha256(b'changed').hexdigest()}"),
        ("gone", "it is not there"),
    ]
    assert sorted(found(place)) == [f"{BUILD}/a", f"{BUILD}/z"]


@pytest.mark.parametrize(("size", "limit"), [(MIB + 1, MIB), (1, 0)])
@pytest.mark.parametrize("optional", [False, True])
async def test_inputs_larger_than_the_rule_allows_are_refused(  # noqa: PLR0913 - fixtures
    inputs: HttpInputs,
    deployment: Deployment,
    place: Workspace,
    run: UploadRun,
    size: int,
    limit: int,
    *,
    optional: bool,
) -> None:
    deployment.contents = {"a": bytes(size)}
    with pytest.raises(BadPayload, match="are left for inputs"):
        await inputs.fetch(run, (an_input("a", bytes(size), optional=optional),), limit, place)
    assert found(place) == {}


async def test_inputs_share_one_limit(
    inputs: HttpInputs, deployment: Deployment, place: Workspace, run: UploadRun
) -> None:
    deployment.contents = {"a": bytes(MIB), "b": bytes(MIB)}
    wanted = (an_input("a", bytes(MIB)), an_input("b", bytes(MIB)))
    with pytest.raises(BadPayload, match="are left for inputs"):
        await inputs.fetch(run, wanted, 2 * MIB - 1, place)


async def test_an_artifact_that_is_gone_is_for_the_author_to_solve(
    inputs: HttpInputs, place: Workspace, run: UploadRun
) -> None:
    with pytest.raises(BadPayload, match="not there, or not any more"):
        await inputs.fetch(run, (an_input("a", b""),), MIB, place)


@pytest.mark.parametrize("optional", [False, True])
async def test_an_input_that_its_storage_has_elsewhere_is_not_fetched_from_there(
    inputs: HttpInputs, deployment: Deployment, place: Workspace, run: UploadRun, *, optional: bool
) -> None:
    deployment.contents = {"a": b"a"}
    visited: list[str] = []

    async def visit(request: web.Request) -> web.StreamResponse:
        visited.append(request.path)
        return web.Response(body=b"a")

    elsewhere = web.Application()
    elsewhere.router.add_get("/{name:.*}", visit)
    async with TestServer(elsewhere) as other:

        async def redirect(_: web.Request) -> web.StreamResponse:
            raise web.HTTPFound(str(other.make_url("/a")))

        deployment.next.append(redirect)
        wanted = an_input("a", b"a", optional=optional)
        if optional:
            received = await inputs.fetch(run, (wanted,), MIB, place)
            assert [why for _, why in received.absent] == [
                "the storage redirects to somewhere else (302), which is not followed"
            ]
        else:
            with pytest.raises(BadPayload, match="redirects to somewhere else"):
                await inputs.fetch(run, (wanted,), MIB, place)
    assert visited == []
    assert found(place) == {}
    assert list(Path(place.spool).iterdir()) == []


async def test_every_attempt_asks_for_a_fresh_address(
    inputs: HttpInputs, deployment: Deployment, place: Workspace, run: UploadRun, clock: HurriedClock
) -> None:
    deployment.contents = {"a": bytes(MIB)}

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(MIB)})
        await response.prepare(request)
        await response.write(bytes(MIB // 2))
        assert request.transport is not None
        request.transport.close()
        return response

    deployment.fails(503)
    deployment.next.append(cut)
    deployment.fails(403)

    received = await inputs.fetch(run, (an_input("a", bytes(MIB)),), MIB, place)

    assert received.size == MIB
    assert len(deployment.located) == 4
    assert len(clock.slept) == 3
    assert found(place) == {f"{BUILD}/a": bytes(MIB)}


@pytest.mark.parametrize("optional", [False, True])
async def test_an_outage_leaves_out_no_input(
    inputs: HttpInputs, deployment: Deployment, place: Workspace, run: UploadRun, *, optional: bool
) -> None:
    deployment.contents = {"a": b"a"}
    deployment.fails(503, times=100)
    with pytest.raises(ServiceError, match="attempt 6: the storage answered 503"):
        await inputs.fetch(run, (an_input("a", b"a", optional=optional),), MIB, place)
    assert found(place) == {}


async def test_several_are_fetched_at_a_time_and_not_too_many(
    inputs: HttpInputs, deployment: Deployment, place: Workspace, run: UploadRun
) -> None:
    deployment.contents = {f"public/{number}": bytes([number]) for number in range(40)}
    together = asyncio.Event()

    async def wait(request: web.Request) -> web.StreamResponse:
        if deployment.busy == 8:
            together.set()
        await together.wait()
        return web.Response(body=deployment.contents[request.match_info["name"]])

    deployment.next.extend([wait] * 8)
    wanted = tuple(an_input(name, content) for name, content in deployment.contents.items())

    received = await inputs.fetch(run, wanted, MIB, place)

    assert received.inputs == wanted
    assert deployment.most_busy == 8


async def test_a_lost_claim_explains_all_other_failures(
    inputs: HttpInputs, deployment: Deployment, place: Workspace, run: UploadRun
) -> None:
    deployment.contents = {"a": b"a"}
    deployment.failures.append(Stop(StopReason.CLAIM_LOST, "409"))
    with pytest.raises(Stop):
        await inputs.fetch(run, (an_input("a", b"a"), an_input("b", b"b")), MIB, place)


async def test_a_spool_that_cannot_be_written_is_the_operators_to_repair(
    inputs: HttpInputs, deployment: Deployment, place: Workspace, run: UploadRun
) -> None:
    deployment.contents = {"a": b"a"}
    Path(place.spool).rmdir()
    with pytest.raises(HostError, match="an input cannot be written"):
        await inputs.fetch(run, (an_input("a", b"a"),), MIB, place)


async def test_a_disk_that_takes_no_more_is_the_operators_to_empty(
    inputs: HttpInputs, deployment: Deployment, place: Workspace, run: UploadRun
) -> None:
    deployment.contents = {"a": bytes(MIB)}
    # Something that can be opened, and then takes nothing: as write(2) says of a full disk, but by another number.
    os.mkfifo(Path(place.spool, "input-0"))
    reader = os.open(Path(place.spool, "input-0"), os.O_RDONLY | os.O_NONBLOCK)

    async def answer(_: web.Request) -> web.StreamResponse:
        os.close(reader)
        return web.Response(body=bytes(MIB))

    deployment.next.append(answer)
    with pytest.raises(HostError, match="an input cannot be written: Broken pipe; is the disk full"):
        await inputs.fetch(run, (an_input("a", bytes(MIB)),), MIB, place)
    assert found(place) == {}


async def test_a_place_that_cannot_be_made_is_the_operators_to_repair(
    inputs: HttpInputs, deployment: Deployment, place: Workspace, run: UploadRun
) -> None:
    deployment.contents = {"a": b"a"}
    Path(place.task, "work").rmdir()
    with pytest.raises(HostError, match="an input cannot be put into its place"):
        await inputs.fetch(run, (an_input("a", b"a"),), MIB, place)


# Facts.


def a_task(task_id: TaskId = BUILD, last: UpstreamRun | None = COMPLETED) -> Upstream:
    return Upstream(task_id, {}, "completed", last)


async def test_the_facts_are_what_the_last_run_published(
    inputs: HttpInputs, deployment: Deployment, run: UploadRun
) -> None:
    deployment.tasks = {BUILD: a_task(), OTHER: a_task(OTHER)}
    deployment.contents = {CHAIN: b"{}", f"{CHAIN}.sig": bytes(64)}

    first, second = await inputs.gather(run, (OTHER, BUILD))

    assert (first.task_id, second.task_id) == (OTHER, BUILD)
    assert first.statements == Statements(b"{}", bytes(64), None)
    assert all(run_id == 1 for _, run_id, _ in deployment.located)

    deployment.contents["public/provenance.sigstore.json"] = b"[]"
    (third,) = await inputs.gather(run, (BUILD,))
    assert third.statements.bundle == b"[]"


@pytest.mark.parametrize("name", [CHAIN, f"{CHAIN}.sig"])
async def test_a_statement_that_is_not_there_is_a_fact_too(
    inputs: HttpInputs, deployment: Deployment, run: UploadRun, name: str
) -> None:
    deployment.tasks = {BUILD: a_task()}
    deployment.contents = {CHAIN: b"{}", f"{CHAIN}.sig": bytes(64)}
    del deployment.contents[name]

    (facts,) = await inputs.gather(run, (BUILD,))

    assert facts.statements == Statements(missing=f"{name}: it is not there, or not any more")


@pytest.mark.parametrize(
    ("name", "size"),
    [
        (CHAIN, MAX_STATEMENT_BYTES + 1),
        (f"{CHAIN}.sig", 65),
        ("public/provenance.sigstore.json", 2 * MAX_STATEMENT_BYTES + 1),
    ],
)
async def test_a_statement_that_is_too_large_is_not_read(
    inputs: HttpInputs, deployment: Deployment, run: UploadRun, name: str, size: int
) -> None:
    deployment.tasks = {BUILD: a_task()}
    deployment.contents = {CHAIN: b"{}", f"{CHAIN}.sig": bytes(64), name: bytes(size)}

    (facts,) = await inputs.gather(run, (BUILD,))

    assert facts.statements.missing.startswith(f"{name}: it has {size} bytes")


async def test_statements_that_are_too_large_together_are_refused(
    session: aiohttp.ClientSession, deployment: Deployment, run: UploadRun, clock: HurriedClock
) -> None:
    ids = tuple(TaskId(f"{number:08d}Q0C0000000000A") for number in range(20))
    deployment.tasks = {task_id: a_task(task_id) for task_id in ids}
    deployment.contents = {CHAIN: bytes(1000), f"{CHAIN}.sig": bytes(64)}
    deployment.fails(503)

    def settings(most: int) -> InputSettings:
        return InputSettings(deployment.url, statements_bytes=most)

    assert len(await HttpInputs(session, deployment, clock, settings(20 * 1064)).gather(run, ids)) == 20
    with pytest.raises(BadPayload, match="the statements of all wanted tasks have more than 21279 bytes"):
        await HttpInputs(session, deployment, clock, settings(20 * 1064 - 1)).gather(run, ids)


@pytest.mark.parametrize("last", [None, replace(COMPLETED, state="failed")])
async def test_statements_of_a_run_that_is_not_completed_are_not_asked_for(
    inputs: HttpInputs, deployment: Deployment, run: UploadRun, last: UpstreamRun | None
) -> None:
    deployment.tasks = {BUILD: a_task(last=last)}

    assert await inputs.gather(run, (BUILD, OTHER)) == (a_task(last=last), Upstream(OTHER, None))
    assert deployment.located == []
