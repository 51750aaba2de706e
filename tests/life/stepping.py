"""The worker as `secureworker run` starts it, but that it tells a test each step, and waits to be let on.

`python -m tests.life.stepping --policy ...`, with the path of a UNIX socket in LIFE_STEPS. The program knows nothing of
it: the ports that it works with are wrapped from outside (`app.serve`, `wrap`).
"""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from secureworker.cli.run import command
from secureworker.core.audit import AuditRecord
from secureworker.core.outcome import Execution, Resolution
from secureworker.core.plan import Plan
from secureworker.core.uploads import ArtifactRequest, UploadTarget
from secureworker.ports import ClaimedRun, Network, Queue, Workspace
from secureworker.worker.tools import Tools

BEFORE_SCRIPT = (
    "to-claim",
    "claimed",
    "decision-written",
    "workspace-open",
    "inputs-fetched",
    "to-confirm",
    "confirmed",
    "secrets-lent",
    "namespace-up",
    "doors-open",
    "to-spawn",
    "container-created",
)
"""Steps up to the start of the script, in order; `container-created` is told by the runtime of the tests."""
AFTER_SCRIPT = (
    "running",
    "exited",
    "sealed",
    "signed",
    "artifact-created",
    "uploaded",
    "statements-uploaded",
    "log-finished",
    "log-uploaded",
    "to-report",
    "reported",
)
STEPS = (*BEFORE_SCRIPT, *AFTER_SCRIPT)


def tell(path: str, step: str) -> None:
    """Tell the test, and wait until it answers."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        line.sendall(f"{step}\n".encode())
        line.recv(1)


@dataclass(frozen=True)
class Steps:
    """Where steps are told."""

    path: str

    async def step(self, name: str) -> None:
        """Tell one, without keeping others from going on."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            writer.write(f"{name}\n".encode())
            await writer.drain()
            await reader.read(1)
        finally:
            writer.close()


@dataclass
class _Around:
    """Another object, but for what a class below does otherwise."""

    inner: Any
    steps: Steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _Run(_Around):
    @property
    def taken_until(self) -> Any:
        return self.inner.taken_until

    async def confirm(self) -> None:
        await self.steps.step("to-confirm")
        await self.inner.confirm()
        await self.steps.step("confirmed")

    async def create_artifact(self, request: ArtifactRequest) -> UploadTarget:
        target: UploadTarget = await self.inner.create_artifact(request)
        await self.steps.step("artifact-created")
        return target

    async def report(self, resolution: Resolution) -> None:
        await self.steps.step("to-report")
        await self.inner.report(resolution)
        await self.steps.step("reported")


@dataclass
class _Queue(_Around):
    run: Any = _Run

    async def claim(self, count: int) -> tuple[ClaimedRun, ...]:
        await self.steps.step("to-claim")
        runs = tuple(self.run(run, self.steps) for run in await self.inner.claim(count))
        if runs:
            await self.steps.step("claimed")
        return runs


class _Audit(_Around):
    """Also the signer: the two are one process."""

    async def append(self, record: AuditRecord) -> None:
        await self.inner.append(record)
        if record.event.value == "decision":
            await self.steps.step("decision-written")

    async def sign(self, statement: Any) -> Any:
        signed = await self.inner.sign(statement)
        await self.steps.step("signed")
        return signed


class _Opens(_Around):
    """Something that is open for a while."""

    def __init__(self, inner: Any, steps: Steps, step: str) -> None:
        super().__init__(inner, steps)
        self._step = step

    def open(self, *arguments: Any) -> AbstractAsyncContextManager[Any]:
        return self._opened(self.inner.open(*arguments))

    def lend(self, *arguments: Any) -> AbstractAsyncContextManager[Any]:
        return self._opened(self.inner.lend(*arguments))

    @asynccontextmanager
    async def _opened(self, inner: AbstractAsyncContextManager[Any]) -> AsyncIterator[Any]:
        async with inner as opened:
            await self.steps.step(self._step)
            yield opened


class _Inputs(_Around):
    async def fetch(self, *arguments: Any) -> Any:
        received = await self.inner.fetch(*arguments)
        await self.steps.step("inputs-fetched")
        return received


class _Outputs(_Around):
    async def seal(self, *arguments: Any) -> Any:
        artifacts = await self.inner.seal(*arguments)
        await self.steps.step("sealed")
        return artifacts


class _Store(_Around):
    async def put(self, run: Any, artifacts: Any) -> None:
        of_log = bool(artifacts) and artifacts[0].name.startswith("public/logs/")
        if of_log:
            await self.steps.step("log-finished")
        await self.inner.put(run, artifacts)
        await self.steps.step("log-uploaded" if of_log else "uploaded")

    async def put_signed(self, run: Any, files: Any) -> None:
        await self.inner.put_signed(run, files)
        await self.steps.step("statements-uploaded")


class _Log(_Around):
    """A task log that tells when the script has said something. Called in the sandbox's thread."""

    told = False

    def output(self, chunk: bytes) -> None:
        self.inner.output(chunk)
        if not self.told:
            self.told = True
            tell(self.steps.path, "running")


class _Sandbox(_Around):
    async def run(self, plan: Plan, workspace: Workspace, log: Any, network: Network | None = None) -> Execution:
        await self.steps.step("to-spawn")
        execution: Execution = await self.inner.run(plan, workspace, _Log(log, self.steps), network)
        await self.steps.step("exited")
        return execution


class _ReportsTwice(_Run):
    """A worker that changes its mind."""

    async def report(self, resolution: Resolution) -> None:
        await super().report(resolution)
        await self.inner.report(Resolution.FAILED)


class _NeverRenews(_Run):
    """A worker that believes that what it has is its own for a day."""

    async def reclaim(self) -> Any:
        return self.inner.taken_until + timedelta(days=1)


class _Altering(_Store):
    """A worker whose artifacts change between signing and storing."""

    async def put(self, run: Any, artifacts: Any) -> None:
        if artifacts and not artifacts[0].name.startswith("public/logs/"):
            Path(artifacts[0].path).chmod(0o600)
            with open(artifacts[0].path, "r+b") as file:
                file.write(b"?")
        await super().put(run, artifacts)


SABOTAGE: dict[str, Any] = {"reports-twice": _ReportsTwice, "never-renews": _NeverRenews, "alters": _Altering}
"""Broken workers, to see that the checker sees."""


def wrapping(path: str, sabotage: str = "") -> Any:
    """Give what wraps the ports."""
    steps = Steps(path)
    broken = SABOTAGE.get(sabotage)

    def wrap(tools: Tools, queue: Queue) -> tuple[Tools, Queue]:
        audit = _Audit(tools.audit, steps)
        stepped = replace(
            tools,
            workspaces=_Opens(tools.workspaces, steps, "workspace-open"),
            secrets=_Opens(tools.secrets, steps, "secrets-lent"),
            networks=_Opens(tools.networks, steps, "namespace-up"),
            doors=_Opens(tools.doors, steps, "doors-open"),
            inputs=_Inputs(tools.inputs, steps),
            sandbox=_Sandbox(tools.sandbox, steps),
            outputs=_Outputs(tools.outputs, steps),
            signer=_Audit(tools.signer, steps),
            store=(broken if broken is _Altering else _Store)(tools.store, steps),
            audit=audit,
        )
        return stepped, _Queue(queue, steps, broken if broken in (_ReportsTwice, _NeverRenews) else _Run)

    return wrap


def main() -> None:
    """Be the worker."""
    wrap = wrapping(os.environ["LIFE_STEPS"], os.environ.get("LIFE_SABOTAGE", ""))
    command.main(args=sys.argv[1:], prog_name="secureworker run", obj=wrap)


if __name__ == "__main__":
    main()
