"""The ports `Workspaces`, `Sandbox` and `Outputs`: what runs nothing keeps the promises of what runs containers.

The real ones are tried together, as each is of use only with the others; they need root.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from secureworker.artifacts.seal import SealedOutputs
from secureworker.core.errors import BadArtifact
from secureworker.core.outcome import ExitCode
from secureworker.core.plan import Plan
from secureworker.host.clock import SystemClock
from secureworker.ports import Outputs, Sandbox, Workspaces
from secureworker.testing import FakeClock, FakeOutputs, FakeSandbox, FakeTaskLog, FakeWorkspaces, an_artifact
from secureworker.testing.time import Failures
from tests.sandbox.cage import a_cage, a_directory, a_plan

SCRIPT = "#!/bin/sh\necho said\necho b > ../artifacts/b.txt\necho a > ../artifacts/a.txt\n"
WITH_A_LINK = f"{SCRIPT}ln -s /etc/passwd ../artifacts/c.txt\n"
WITHOUT_END = "#!/bin/sh\necho said\nexec sleep 600\n"


@dataclass
class Host:
    """What runs scripts, as one."""

    workspaces: Workspaces
    sandbox: Sandbox
    outputs: Outputs
    directory: Path | None = None

    def plan(self, script: str) -> Plan:
        """Give a plan that runs `script`; a fake is told what it would do."""
        if self.directory is None:
            assert isinstance(self.sandbox, FakeSandbox)
            assert isinstance(self.outputs, FakeOutputs)
            self.sandbox.seconds = 600 if "sleep" in script else 0.01
            self.outputs.artifacts = (an_artifact("b.txt", b"b\n"), an_artifact("a.txt", b"a\n"))
            if script is WITH_A_LINK:
                self.outputs.failures.add("seal", BadArtifact("c.txt is a link", ("c.txt",)))
            return a_plan(grace=timedelta(seconds=1))
        path = self.directory / "script"
        path.write_text(script)
        path.chmod(0o755)
        return a_plan(str(path), script.encode(), grace=timedelta(seconds=1))


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.sandbox)])
async def host(request: pytest.FixtureRequest) -> AsyncIterator[Host]:
    if request.param == "fake":
        clock = FakeClock()
        yield Host(FakeWorkspaces(clock), FakeSandbox(clock), FakeOutputs(clock))
        return
    with a_directory() as directory:
        async with a_cage(directory, "runc") as cage:
            yield Host(cage.workspaces, cage.sandbox, SealedOutputs(SystemClock()), directory)


class Heard(FakeTaskLog):
    """A log that can be waited for."""

    def __init__(self) -> None:
        super().__init__(Failures())
        self.said = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def output(self, chunk: bytes) -> None:
        super().output(chunk)
        self._loop.call_soon_threadsafe(self.said.set)


async def test_a_script_that_ends_has_a_status_times_and_output(host: Host) -> None:
    log = Heard()
    plan = host.plan(SCRIPT)
    async with host.workspaces.open(plan) as workspace:
        execution = await host.sandbox.run(plan, workspace, log)
    assert execution.status == ExitCode(0)
    assert execution.started <= execution.finished
    assert execution.runtime
    assert log.text


async def test_a_cancelled_script_ends_within_its_grace(host: Host) -> None:
    log = Heard()
    plan = host.plan(WITHOUT_END)
    loop = asyncio.get_running_loop()
    async with host.workspaces.open(plan) as workspace, asyncio.TaskGroup() as group:
        running: asyncio.Task[Any] = group.create_task(host.sandbox.run(plan, workspace, log))
        await log.said.wait()
        asked = loop.time()
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        assert loop.time() - asked < 10


async def test_outputs_are_sealed_in_the_order_of_their_names(host: Host) -> None:
    plan = host.plan(SCRIPT)
    async with host.workspaces.open(plan) as workspace:
        await host.sandbox.run(plan, workspace, Heard())
        expires = datetime.now(UTC) + timedelta(days=1)
        artifacts = await host.outputs.seal(plan.outputs, workspace, expires)
    assert [(artifact.name, artifact.size) for artifact in artifacts] == [("a.txt", 2), ("b.txt", 2)]
    assert artifacts[0].sha256 == an_artifact("a.txt", b"a\n").sha256


async def test_a_bad_output_is_named(host: Host) -> None:
    plan = host.plan(WITH_A_LINK)
    async with host.workspaces.open(plan) as workspace:
        await host.sandbox.run(plan, workspace, Heard())
        with pytest.raises(BadArtifact, match=r"c\.txt") as caught:
            await host.outputs.seal(plan.outputs, workspace, datetime.now(UTC) + timedelta(days=1))
    assert caught.value.names == ("c.txt",)


async def test_a_workspace_can_be_opened_again_when_it_was_left(host: Host) -> None:
    plan = host.plan(SCRIPT)
    for _ in range(2):
        async with host.workspaces.open(plan) as workspace:
            assert workspace.uid != 0
            places = {workspace.task, workspace.scripts, workspace.spool, workspace.bundle}
            assert len(places) == 4


async def test_the_sandbox_attacks_itself_and_names_what_held(host: Host) -> None:
    assert await host.sandbox.self_test()
