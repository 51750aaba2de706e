"""The facts about all that inputs come from: as many as the bounds allow, within the time that there is."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from secureworker.artifacts.inputs import HttpInputs, InputSettings
from secureworker.core.chain import Upstream, UpstreamRun
from secureworker.core.claim import Json
from secureworker.core.errors import BadPayload, HostError, ServiceError
from secureworker.core.ids import ArtifactName, RunId, TaskId, WorkerPool
from secureworker.core.inputs import NotThere, Source
from secureworker.core.origin import TracedRepository, TraceRule
from secureworker.core.trace import MAX_TRACED, Ancestry, follow
from secureworker.ports import ClaimedRun
from tests.artifacts.storage import S3, HurriedClock, UploadRun
from tests.core.upstreams import a_definition

DECISIONS = WorkerPool("release-3", "decision")
URL = "https://github.com/us/app"
GRAPH = "public/task-graph.json"


def an_id(number: int) -> TaskId:
    return TaskId(f"{number:08d}Q0C0000000000A")


DECISION = an_id(0)


@dataclass
class Deployment:
    """A chain of tasks, each the next one's dependency, and the decision task that made them."""

    url: str = ""
    tasks: dict[TaskId, dict[str, Json]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    state: str = "completed"
    runs: bool = True
    stalls: bool = False
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def facts(self, run: ClaimedRun, task_id: TaskId) -> Upstream:
        assert run.credentials.client_id
        self.asked.append(task_id)
        if task_id not in self.tasks:
            return Upstream(task_id, None)
        last = UpstreamRun(RunId(0), self.state, "g", "i") if self.runs else None
        return Upstream(task_id, self.tasks[task_id], self.state, last)

    async def locate(self, run: ClaimedRun, task_id: TaskId, run_id: RunId, name: ArtifactName) -> Source | NotThere:
        assert (run.credentials.client_id, run_id)[1] == 0
        if name not in self.contents:
            return NotThere("it is not there, or not any more")
        return Source(f"{self.url}/{task_id}/{name}")

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.stalls:
            await self.released.wait()
        return web.Response(body=self.contents[request.match_info["name"]])

    def chain(self, length: int) -> TaskId:
        """Make so many builds after the decision task; give the last."""
        for number in range(1, length + 1):
            before: list[Json] = [str(an_id(number - 1))]
            self.tasks[an_id(number)] = a_definition(taskGroupId=str(DECISION), dependencies=before)
        return an_id(length)


@pytest.fixture
async def deployment() -> AsyncIterator[Deployment]:
    deployment = Deployment()
    application = web.Application()
    application.router.add_get("/{task}/{name:.*}", deployment.answer)
    async with TestServer(application) as server:
        deployment.url = str(server.make_url("")).rstrip("/")
        deployment.contents = {"public/chain-of-trust.json": b"{}", "public/chain-of-trust.json.sig": bytes(64)}
        yield deployment
        deployment.released.set()


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    (tmp_path / ".taskcluster.yml").write_text("tasks: [{taskId: {$eval: as_slugid('a')}}]\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def revision_of(mirror: Path) -> str:
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=mirror, check=True, capture_output=True, text=True
    ).stdout.strip()


def a_rule(mirror: Path, max_depth: int = 5) -> TraceRule:
    place = str(mirror / ".git")
    return TraceRule(
        (str(DECISIONS),), (TracedRepository("https", "github.com", "us", "app", place, ("main",), "APP"),), max_depth
    )


def decide(deployment: Deployment, mirror: Path, **environment: str) -> None:
    env: Json = {
        "APP_HEAD_REPOSITORY": URL,
        "APP_HEAD_REV": revision_of(mirror),
        "APP_HEAD_REF": "main",
        **environment,
    }
    metadata: Json = {"name": "n", "description": "", "owner": "a@example.com", "source": URL}
    deployment.tasks[DECISION] = a_definition(
        DECISIONS,
        taskGroupId=str(DECISION),
        dependencies=[],
        extra={"tasks_for": "github-push"},
        payload={"env": env},
        metadata=metadata,
    )
    deployment.contents[GRAPH] = b'{"a": 1}'


async def trace(
    session: aiohttp.ClientSession, deployment: Deployment, task_id: TaskId, rule: TraceRule, **settings: float
) -> Ancestry:
    given = InputSettings(deployment.url, attempts=2, **settings)  # type: ignore[arg-type] # seconds and bytes alike
    inputs = HttpInputs(session, deployment, HurriedClock(), given)
    return await inputs.trace(UploadRun(S3()), (task_id,), rule)


async def test_all_tasks_up_to_the_decision_task_are_known_with_its_graph_and_tree(
    session: aiohttp.ClientSession, deployment: Deployment, mirror: Path
) -> None:
    decide(deployment, mirror)

    found = await trace(session, deployment, deployment.chain(3), a_rule(mirror))

    assert {each.task_id for each in found.tasks} == set(map(an_id, range(4)))
    assert len(deployment.asked) == 4
    (decision,) = found.decisions
    assert (decision.task_id, decision.graph, decision.missing) == (DECISION, b'{"a": 1}', "")
    assert decision.tree.refs == ("refs/heads/main",)
    assert decision.tree.rendered == {"tasks": [{"taskId": DECISION}]}


async def test_a_decision_task_without_a_graph_or_without_a_run_says_so(
    session: aiohttp.ClientSession, deployment: Deployment, mirror: Path
) -> None:
    decide(deployment, mirror)
    del deployment.contents[GRAPH]
    (decision,) = (await trace(session, deployment, DECISION, a_rule(mirror))).decisions
    assert decision.missing == f"{GRAPH}: it is not there, or not any more"

    deployment.runs = False
    (decision,) = (await trace(session, deployment, DECISION, a_rule(mirror))).decisions
    assert decision.missing == f"{GRAPH}: there is no run"


async def test_a_decision_task_that_names_no_origin_has_no_tree(
    session: aiohttp.ClientSession, deployment: Deployment, mirror: Path
) -> None:
    decide(deployment, mirror, APP_HEAD_REPOSITORY="https://github.com/them/app")
    (decision,) = (await trace(session, deployment, DECISION, a_rule(mirror))).decisions
    assert "its environment names no repository of the policy" in decision.tree.missing


async def test_a_mirror_that_is_gone_is_the_operators_to_bring_back(
    session: aiohttp.ClientSession, deployment: Deployment, mirror: Path, tmp_path: Path
) -> None:
    decide(deployment, mirror)
    with pytest.raises(HostError, match="cannot be read by git"):
        await trace(session, deployment, DECISION, a_rule(tmp_path / "gone"))


async def test_no_more_is_asked_than_the_bounds_allow(
    session: aiohttp.ClientSession, deployment: Deployment, mirror: Path
) -> None:
    decide(deployment, mirror)
    found = await trace(session, deployment, deployment.chain(30), a_rule(mirror, max_depth=4))
    assert len(deployment.asked) <= 6
    assert (
        "more than 4 steps away"
        in follow((an_id(30),), {t.task_id: t for t in found.tasks}, a_rule(mirror, 4)).too_many
    )

    deployment.asked.clear()
    many: list[Json] = [str(an_id(number)) for number in range(1000, 1000 + MAX_TRACED + 50)]
    deployment.tasks[an_id(1)] = a_definition(taskGroupId=str(DECISION), dependencies=many)
    found = await trace(session, deployment, an_id(1), a_rule(mirror))
    assert deployment.asked == [an_id(1)]
    assert "more than 100 tasks" in follow((an_id(1),), {t.task_id: t for t in found.tasks}, a_rule(mirror)).too_many


async def test_tasks_in_a_ring_are_asked_for_once(
    session: aiohttp.ClientSession, deployment: Deployment, mirror: Path
) -> None:
    for one, other in ((1, 2), (2, 1), (3, 3)):
        image: Json = {"type": "task-image", "taskId": str(an_id(other)), "path": "p"}
        deployment.tasks[an_id(one)] = a_definition(
            taskGroupId=str(an_id(one)), dependencies=[str(an_id(other)), str(an_id(3))], payload={"image": image}
        )
    found = await trace(session, deployment, an_id(1), a_rule(mirror))
    assert sorted(deployment.asked) == [an_id(1), an_id(2), an_id(3)]
    assert found.decisions == ()


async def test_what_takes_too_long_to_follow_may_be_had_later(
    session: aiohttp.ClientSession, deployment: Deployment, mirror: Path
) -> None:
    decide(deployment, mirror)
    deployment.stalls = True
    with pytest.raises(ServiceError, match=r"could not be followed to the tree within 0\.2 s"):
        await trace(session, deployment, deployment.chain(2), a_rule(mirror), trace_seconds=0.2)


async def test_graphs_and_statements_share_one_limit(
    session: aiohttp.ClientSession, deployment: Deployment, mirror: Path
) -> None:
    decide(deployment, mirror)
    deployment.contents[GRAPH] = json.dumps({"x": "y" * 10_000}).encode()
    assert (await trace(session, deployment, DECISION, a_rule(mirror), statements_bytes=11_000)).decisions
    with pytest.raises(BadPayload, match="have more than 10000 bytes"):
        await trace(session, deployment, DECISION, a_rule(mirror), statements_bytes=10_000)
