"""The port `Inputs`: what fetches nothing keeps the promises of what asks a Taskcluster, with a run's credentials."""

import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from taskcluster.aio import Queue as Client

from secureworker.artifacts.inputs import HttpInputs, InputSettings
from secureworker.core.chain import Statements, Upstream, UpstreamRun
from secureworker.core.claim import Claim, Secret, parse_claim
from secureworker.core.errors import BadPayload
from secureworker.core.ids import ArtifactName, RunId, Sha256, TaskId
from secureworker.core.inputs import Input
from secureworker.host.clock import SystemClock
from secureworker.localqueue.server import serve
from secureworker.localqueue.settings import Settings, StaticClient
from secureworker.ports import Inputs, Workspace
from secureworker.queue.claimed import TaskclusterRun
from secureworker.queue.claiming import open_calls
from secureworker.queue.upstream import UpstreamTasks
from secureworker.signing.keys import create_signing_key
from secureworker.testing import IDENTITY, FakeClock, FakeInputs, FakeRun, a_claim
from tests.artifacts.other_worker import OtherWorker

NOBODYS = TaskId("ddVaxIRdRAaAAr5ryHnORA")
FILES = {"public/a.zip": b"a zip" * 1000, "private/b.txt": b"text\n" * 1000}


@dataclass
class Deployment:
    """What inputs are fetched from, for a run, into a workspace."""

    inputs: Inputs
    run: Any
    workspace: Workspace
    build: TaskId

    def input(self, name: str, content: bytes | None = None, *, optional: bool = False) -> Input:
        digest = Sha256(hashlib.sha256(FILES[name] if content is None else content).hexdigest())
        return Input(self.build, RunId(0), ArtifactName(name), digest, optional)


def a_workspace(directory: Path) -> Workspace:
    (directory / "task" / "work").mkdir(parents=True)
    (directory / "spool").mkdir()
    return Workspace(str(directory / "task"), "", str(directory / "spool"), "", os.getuid())


async def claimed(client: Any, worker: OtherWorker) -> Claim:
    """Create and claim the task whose inputs are fetched; it may read what is private."""
    pool = {"taskQueueId": str(IDENTITY.pool), "scopes": ["queue:get-artifact:private/*"]}
    await worker.create(**pool)
    body = {"workerGroup": IDENTITY.worker_group, "workerId": IDENTITY.worker_id, "tasks": 1}
    answer = await client.claimWork(str(IDENTITY.pool), body)
    return parse_claim(answer["tasks"][0], IDENTITY)


@pytest.fixture(params=["fake", "real"])
async def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Deployment]:
    workspace = a_workspace(tmp_path / "workspace")
    if request.param == "fake":
        clock, build = FakeClock(), TaskId("TyRoGA_OS3W2QMCEuF1icw")
        run = UpstreamRun(RunId(0), "completed", "us", "i-1")
        facts = {build: Upstream(build, {}, "completed", run, Statements(b"{}", bytes(64)))}
        fake = FakeInputs(clock, facts, {f"{build}/{name}": content for name, content in FILES.items()}, 0)
        yield Deployment(fake, FakeRun(a_claim(clock), clock), workspace, build)
        return
    owner = StaticClient("owner", Secret("o" * 44), ("*",))
    async with (
        serve(Settings((owner,), long_poll=0.5)) as running,
        aiohttp.ClientSession() as session,
        open_calls(running.root_url, SystemClock()) as calls,
    ):
        credentials = {"clientId": "owner", "accessToken": owner.access_token.reveal()}
        client = Client({"rootUrl": running.root_url, "credentials": credentials}, session=session)
        worker = OtherWorker(client, session, create_signing_key(str(tmp_path / "key")))
        build = TaskId(await worker.build(FILES))
        real = HttpInputs(session, UpstreamTasks(calls), SystemClock(), InputSettings(running.root_url))
        yield Deployment(real, TaskclusterRun(await claimed(client, worker), calls), workspace, build)


async def test_the_facts_about_tasks_come_in_the_order_in_which_they_were_asked_for(deployment: Deployment) -> None:
    nobodys, build = await deployment.inputs.gather(deployment.run, (NOBODYS, deployment.build))

    assert nobodys == Upstream(NOBODYS, None)
    assert (build.task_id, build.state, build.last) == (
        deployment.build,
        "completed",
        UpstreamRun(RunId(0), "completed", "us", "i-1"),
    )
    assert build.statements.signed
    assert len(build.statements.signature) == 64
    assert build.statements.missing == ""


async def test_inputs_with_their_signed_digests_are_received_private_ones_too(deployment: Deployment) -> None:
    wanted = (deployment.input("public/a.zip"), deployment.input("private/b.txt"))

    received = await deployment.inputs.fetch(deployment.run, wanted, 10_000, deployment.workspace)

    assert (received.inputs, received.absent, received.size) == (wanted, (), 10_000)


async def test_inputs_with_other_digests_are_refused_and_optional_ones_left_out(deployment: Deployment) -> None:
    with pytest.raises(BadPayload, match="it has the sha256"):
        await deployment.inputs.fetch(
            deployment.run, (deployment.input("public/a.zip", b"x"),), 10_000, deployment.workspace
        )

    optional = deployment.input("private/b.txt", b"x", optional=True)
    received = await deployment.inputs.fetch(deployment.run, (optional,), 10_000, deployment.workspace)
    assert received.inputs == ()
    ((absent, why),) = received.absent
    assert absent == optional
    assert why.startswith("it has the sha256")


async def test_inputs_that_are_not_there_are_refused_and_optional_ones_left_out(deployment: Deployment) -> None:
    gone = deployment.input("public/gone", b"")
    with pytest.raises(BadPayload, match="not there"):
        await deployment.inputs.fetch(deployment.run, (gone,), 10_000, deployment.workspace)

    optional = deployment.input("public/gone", b"", optional=True)
    received = await deployment.inputs.fetch(deployment.run, (optional,), 10_000, deployment.workspace)
    assert received.inputs == ()


@pytest.mark.parametrize("optional", [False, True])
async def test_inputs_that_are_too_large_are_refused(deployment: Deployment, *, optional: bool) -> None:
    wanted = (deployment.input("public/a.zip"), deployment.input("private/b.txt", optional=optional))
    with pytest.raises(BadPayload, match="too large"):
        await deployment.inputs.fetch(deployment.run, wanted, 9_999, deployment.workspace)
