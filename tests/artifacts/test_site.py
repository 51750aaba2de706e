"""A repository that is read over https: a TLS server of the tests' own, honest and hostile."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from secureworker.artifacts.inputs import HttpInputs, InputSettings
from secureworker.artifacts.mirror import MAX_FILE
from secureworker.artifacts.site import Found, Site, SiteSettings
from secureworker.core.chain import Upstream, UpstreamRun
from secureworker.core.claim import Json
from secureworker.core.errors import ServiceError
from secureworker.core.ids import ArtifactName, RunId, TaskId
from secureworker.core.inputs import NotThere, Source
from secureworker.core.origin import Origin, TracedRepository, TraceRule
from secureworker.core.trace import Ancestry, Tree
from secureworker.core.website import Question, Website
from secureworker.ports import ClaimedRun
from tests.artifacts.storage import S3, HurriedClock, UploadRun
from tests.core.upstreams import a_definition
from tests.proxy.harness import Authority, an_authority

REVISION = "ab" * 20
TASK = TaskId("ddVaxIRdRAaAAr5ryHnORA")
FILE = b"tasks: [{taskId: {$eval: as_slugid('a')}, rev: '${event.after}'}]\n"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
URL = "https://github.com/us/app"


@dataclass
class Host:
    """What a host says; any path can be answered otherwise."""

    status: str = "behind"
    sha: str = REVISION
    file: bytes = FILE
    hostile: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    headers: list[set[str]] = field(default_factory=list)
    port: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.raw_path)
        self.headers.append({name.lower() for name in request.headers})
        kind = request.path.split("/")[1]
        if self.hostile.get(kind):
            answers = self.hostile[kind]
            return await (answers.pop(0) if len(answers) > 1 else answers[0])(request)
        match kind:
            case "compare":
                return web.json_response({"status": self.status})
            case "tags":
                return web.json_response({"object": {"sha": self.sha}})
            case _:
                return web.Response(body=self.file)

    @property
    def website(self) -> Website:
        at = f"https://localhost:{self.port}"
        return Website(
            f"{at}/raw/{{revision}}/.taskcluster.yml",
            Question(f"{at}/compare/{{branch}}...{{revision}}", "status", ("identical", "behind")),
            Question(f"{at}/tags/{{tag}}", "object.sha", ("{revision}",)),
        )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return an_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def host(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    # What OpenSSL takes for the system's CAs.
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    host = Host()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", host.answer)
    server = TestServer(application, host="localhost")
    await server.start_server(ssl=authority.server("localhost"))
    host.port = server.port or 0
    yield host
    host.released.set()
    await server.close()


def an_origin(host: Host, kind: str = "github-push", ref: str = "refs/heads/main", **changes: Any) -> Origin:
    repository = TracedRepository(
        "https", "github.com", "us", "app", "", ("main", "rel/*", "next"), "APP", host.website
    )
    return Origin(replace(repository, **changes), REVISION, ref, kind, URL)


QUICK = SiteSettings(attempts=2, stall_seconds=0.5, seconds=1.0)


async def read(session: aiohttp.ClientSession, host: Host, origin: Origin | None = None) -> Found | Tree:
    origin = origin or an_origin(host)
    assert origin.repository.website is not None
    return await Site(session, HurriedClock(), origin.repository.website, QUICK).read(origin)


async def test_a_revision_on_its_branch_is_read(session: aiohttp.ClientSession, host: Host) -> None:
    assert await read(session, host) == Found(("refs/heads/main",), FILE)
    assert host.asked == [f"/compare/main...{REVISION}", f"/raw/{REVISION}/.taskcluster.yml"]
    assert not set().union(*host.headers) & {"authorization", "cookie"}


async def test_a_slash_in_a_branch_is_no_part_of_the_path(session: aiohttp.ClientSession, host: Host) -> None:
    await read(session, host, an_origin(host, ref="refs/heads/rel/1"))
    assert host.asked[0] == f"/compare/rel%2F1...{REVISION}"


@pytest.mark.parametrize("status", ["ahead", "diverged", ""])
async def test_of_a_revision_that_is_not_on_the_branch_not_even_the_file_is_fetched(
    session: aiohttp.ClientSession, host: Host, status: str
) -> None:
    # A fork's revision: it can be had by the address of the repository that it was forked from.
    host.status = status
    found = await read(session, host)
    assert isinstance(found, Tree)
    assert found.missing.startswith(f"the revision {REVISION} is not on main, by https://localhost")
    assert not any(path.startswith("/raw") for path in host.asked)


async def test_a_releases_tag_is_the_revision_and_that_is_on_a_branch_of_the_policy(
    session: aiohttp.ClientSession, host: Host
) -> None:
    async def ahead(_: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "ahead"})

    async def behind(_: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "behind"})

    host.hostile["compare"] = [ahead, behind]
    release = an_origin(host, "github-release", "refs/tags/v1")
    assert await read(session, host, release) == Found(("refs/tags/v1", "refs/heads/next"), FILE)
    assert [path.split("/")[1] for path in host.asked] == ["tags", "compare", "compare", "raw"]

    host.hostile["compare"] = [ahead]
    found = await read(session, host, release)
    assert isinstance(found, Tree)
    assert "is not on main, next" in found.missing

    host.sha = "cd" * 20
    found = await read(session, host, release)
    assert isinstance(found, Tree)
    assert "is not the tag v1" in found.missing

    host.sha = REVISION
    found = await read(session, host, an_origin(host, "github-release", "refs/tags/v1", branches=("rel/*",)))
    assert isinstance(found, Tree)
    assert "is not on any branch whose name the policy has in full" in found.missing


async def test_a_release_needs_a_question_about_tags(session: aiohttp.ClientSession, host: Host) -> None:
    without = replace(host.website, tag=None)
    found = await read(session, host, an_origin(host, "github-release", "refs/tags/v1", website=without))
    assert found == Tree(missing="the policy does not say how tags are asked for (https.tag); releases need that")
    assert host.asked == []


async def send(request: web.Request, total: int, *, length: int | None) -> web.StreamResponse:
    response = web.StreamResponse(headers={} if length is None else {"Content-Length": str(length)})
    await response.prepare(request)
    block = b"#" * 65536
    while total > 0:
        await response.write(block[:total])
        total -= len(block)
    return response


async def test_ten_gigabytes_are_not_read(session: aiohttp.ClientSession, host: Host) -> None:
    sent = 0

    async def announced(request: web.Request) -> web.StreamResponse:
        return await send(request, 65536, length=10 * 2**30)

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 10 * 2**30:
            await response.write(b"#" * 65536)
            sent += 65536
        return response

    for kind in (announced, endless):
        host.hostile["raw"] = [kind]
        found = await read(session, host)
        assert isinstance(found, Tree)
        assert found.unrendered == f"it has more than the {MAX_FILE} bytes that are read"
    assert sent < 64 * 2**20


async def test_a_redirect_is_not_followed(session: aiohttp.ClientSession, host: Host) -> None:
    async def elsewhere(_: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(f"https://localhost:{host.port}/evil")

    for kind, where in (("raw", "unrendered"), ("compare", "missing")):
        host.hostile = {kind: [elsewhere]}
        found = await read(session, host)
        assert isinstance(found, Tree)
        assert getattr(found, where)
    assert "/evil" not in host.asked


async def test_what_ends_early_is_asked_for_again_and_never_taken(session: aiohttp.ClientSession, host: Host) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(FILE))})
        await response.prepare(request)
        await response.write(FILE[:20])
        assert request.transport is not None
        request.transport.close()
        return response

    async def whole(_: web.Request) -> web.StreamResponse:
        return web.Response(body=FILE)

    host.hostile["raw"] = [cut, whole]
    assert await read(session, host) == Found(("refs/heads/main",), FILE)
    host.hostile["raw"] = [cut]
    with pytest.raises(ServiceError, match=r"\.taskcluster\.yml cannot be read, attempt 2: the connection failed"):
        await read(session, host)


@pytest.mark.parametrize("status", [500, 503, 429, 403])
async def test_a_host_that_does_not_answer_now_is_no_missing_revision(
    session: aiohttp.ClientSession, host: Host, status: int
) -> None:
    async def no(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status)

    host.hostile["compare"] = [no]
    with pytest.raises(ServiceError, match=f"cannot be read, attempt 2: the storage answered {status}"):
        await read(session, host)


@pytest.mark.parametrize("kind", ["compare", "raw"])
async def test_what_a_host_does_not_have_is_missing(session: aiohttp.ClientSession, host: Host, kind: str) -> None:
    async def no(_: web.Request) -> web.StreamResponse:
        return web.Response(status=404)

    host.hostile[kind] = [no]
    found = await read(session, host)
    assert isinstance(found, Tree)
    assert found.missing or "does not have it" in found.unrendered


async def test_a_host_that_stalls_or_drips_is_given_up(session: aiohttp.ClientSession, host: Host) -> None:
    async def stall(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await host.released.wait()
        return response

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while not host.released.is_set():
            await response.write(b"#")
            try:
                await asyncio.wait_for(host.released.wait(), 0.05)
            except TimeoutError:
                continue
        return response

    host.hostile["raw"] = [stall]
    with pytest.raises(ServiceError, match=r"nothing came for 0\.5 s"):
        await read(session, host)
    host.hostile["raw"] = [drip]
    with pytest.raises(ServiceError, match="nothing whole came within 1 s"):
        await read(session, host)


async def test_a_host_whose_certificate_nobody_vouches_for_is_not_believed(
    session: aiohttp.ClientSession, host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(an_authority(other).file))
    assert ssl.create_default_context().cert_store_stats()["x509_ca"] == 1
    with pytest.raises(ServiceError, match="TLS failed: no CA of this host vouches for it"):
        await read(session, host)
    assert host.asked == []


async def test_a_certificate_of_another_name_is_not_believed(session: aiohttp.ClientSession, host: Host) -> None:
    branch = replace(host.website.branch, url=host.website.branch.url.replace("localhost", "127.0.0.1"))
    website = replace(host.website, branch=branch)
    with pytest.raises(ServiceError, match="TLS failed: no CA of this host vouches for it"):
        await read(session, host, an_origin(host, website=website))


# Through `trace`.


@dataclass
class Queue:
    """Has a decision task, and its graph."""

    definition: dict[str, Json]
    url: str = ""

    async def facts(self, run: ClaimedRun, task_id: TaskId) -> Upstream:
        assert run.credentials.client_id
        return Upstream(task_id, self.definition, "completed", UpstreamRun(RunId(0), "completed", "g", "i"))

    async def locate(self, run: ClaimedRun, task_id: TaskId, run_id: RunId, name: ArtifactName) -> Source | NotThere:
        assert run.credentials.client_id
        assert (task_id, run_id, name.partition("/")[0]) == (TASK, 0, "public")
        return Source(f"{self.url}/graph")


async def trace(session: aiohttp.ClientSession, host: Host, **changes: Json) -> Ancestry:
    environment = {"APP_HEAD_REPOSITORY": URL, "APP_HEAD_REV": REVISION, "APP_HEAD_REF": "main"}
    definition = a_definition(
        extra={"tasks_for": "github-push"},
        payload={"env": {**environment, **changes}},
        metadata={"name": "n", "description": "", "owner": "a@example.com", "source": URL},
    )
    rule = TraceRule((str(definition["taskQueueId"]),), (an_origin(host).repository,), 5)

    async def graph(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b"{}")

    application = web.Application()
    application.router.add_get("/graph", graph)
    async with TestServer(application) as server:
        queue = Queue(definition, str(server.make_url("")).rstrip("/"))
        inputs = HttpInputs(session, queue, HurriedClock(), InputSettings(queue.url, site=QUICK))
        return await inputs.trace(UploadRun(S3()), (TASK,), rule)


async def test_what_is_read_is_rendered(session: aiohttp.ClientSession, host: Host) -> None:
    (decision,) = (await trace(session, host)).decisions
    assert decision.tree == Tree(refs=("refs/heads/main",), rendered={"tasks": [{"taskId": TASK, "rev": REVISION}]})


async def test_a_page_for_people_is_no_taskcluster_yml(session: aiohttp.ClientSession, host: Host) -> None:
    host.file = b"<!DOCTYPE html>\n<html><title>Sign in: you must</title></html>\n"
    (decision,) = (await trace(session, host)).decisions
    assert decision.tree.unrendered or not isinstance(decision.tree.rendered, dict)
    host.file = b"\xff\xfe"
    (decision,) = (await trace(session, host)).decisions
    assert "can't decode" in decision.tree.unrendered


@pytest.mark.parametrize("revision", ["ab" * 19, "main", "AB" * 20, f"{'ab' * 20}/../x", "ab" * 32])
async def test_only_a_full_revision_gets_into_an_address(
    session: aiohttp.ClientSession, host: Host, revision: str
) -> None:
    (decision,) = (await trace(session, host, APP_HEAD_REV=revision)).decisions
    assert "expected 40 hexadecimal digits" in decision.tree.missing
    assert host.asked == []


async def test_a_revision_that_is_elsewhere_is_missing(session: aiohttp.ClientSession, host: Host) -> None:
    host.status = "diverged"
    (decision,) = (await trace(session, host)).decisions
    assert "is not on main" in decision.tree.missing
    assert json.dumps(decision.tree.rendered) == "null"
