"""A sandbox for tests: plans from a few words, and what came of running them."""

import asyncio
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from secureworker.core.ids import RunId, ScriptName, Sha256, TaskId
from secureworker.core.outcome import Execution
from secureworker.core.plan import Limits, OutputRules, PinnedFile, Plan
from secureworker.host import userns
from secureworker.host.workspace import DirectoryWorkspaces
from secureworker.ports import Workspace
from secureworker.sandbox.engine import OciSandbox, SandboxSettings, instance_name, open_sandbox

TASK_ID = TaskId("fN1SbArXTPSVFUUvaOlinQ")
MIB = 1024 * 1024

CRUN_ON_A_HYBRID_HOST = """#!/bin/sh
# crun refuses hosts whose control groups are not all of version 2. Here it sees such a host, and nothing else changes:
# the limits are the worker's own doing.
exec unshare --mount{more} --propagation private /bin/sh -c \
    'mount -t cgroup2 none /sys/fs/cgroup && exec {crun} "$@"' crun "$@"
"""


def some_limits(**changes: Any) -> Limits:
    limits = Limits(
        run_time=timedelta(minutes=1),
        memory_bytes=128 * MIB,
        processes=64,
        cpus=2.0,
        disk_bytes=32 * MIB,
        files=1000,
        log_bytes=MIB,
        open_files=256,
    )
    return replace(limits, **changes)


def a_plan(path: str = "/opt/scripts/sign", content: bytes = b"", **changes: Any) -> Plan:
    plan = Plan(
        task_id=TASK_ID,
        run_id=RunId(0),
        task_group_id=TASK_ID,
        root_url="https://tc.example.com",
        script=ScriptName("sign"),
        argv=(path,),
        pinned=(PinnedFile(path, Sha256(hashlib.sha256(content).hexdigest())),),
        environment=(),
        config=None,
        task={"payload": {"b": 1, "a": 2}},
        mounts=(),
        limits=some_limits(),
        outputs=OutputRules(allow=("**",), max_size=MIB, max_total=MIB, max_count=10),
        grace=timedelta(seconds=10),
    )
    return replace(plan, **changes)


@dataclass
class Heard:
    """A task log that keeps what it is told, and lets a test wait for words."""

    content: bytearray = field(default_factory=bytearray)

    def note(self, text: str) -> None: ...

    def error(self, text: str) -> None: ...

    def output(self, chunk: bytes) -> None:
        self.content += chunk

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")


@dataclass(frozen=True)
class Ran:
    """One run."""

    execution: Execution
    output: str
    files: Mapping[str, bytes]
    """What was in the task's `work` and `artifacts`, by path."""


@dataclass(frozen=True)
class Cage:
    """A sandbox, and places for scripts and workspaces."""

    sandbox: OciSandbox
    workspaces: DirectoryWorkspaces
    directory: Path

    def plan(self, script: str, **changes: Any) -> Plan:
        """Write an executable, and give the plan that runs it."""
        path = self.directory / "scripts" / hashlib.sha256(script.encode()).hexdigest()[:16]
        path.parent.mkdir(exist_ok=True)
        path.write_text(script)
        return a_plan(str(path), script.encode(), **changes)

    async def run(self, script: str, **changes: Any) -> Ran:
        log = Heard()
        plan = self.plan(script, **changes)
        async with self.workspaces.open(plan) as workspace:
            # In place of the worker's guard: a script that hangs fails its test.
            async with asyncio.timeout(60):
                execution = await self.sandbox.run(plan, workspace, log)
            return Ran(execution, log.text, _files(workspace))

    async def shell(self, commands: str, **changes: Any) -> Ran:
        return await self.run(f"#!/bin/sh\n{commands}\n", **changes)

    async def python(self, program: str, **changes: Any) -> Ran:
        """Run with Debian's interpreter, which lies in `/usr`."""
        return await self.run(f"#!/usr/bin/python3 -I\n{program}\n", **changes)


def _files(workspace: Workspace) -> dict[str, bytes]:
    task = Path(workspace.task)
    found = [path for top in ("work", "artifacts") for path in (task / top).iterdir()]
    return {
        str(path.relative_to(task)): path.read_bytes() for path in found if path.is_file() and not path.is_symlink()
    }


@contextmanager
def a_directory() -> Iterator[Path]:
    """Give a directory outside of /tmp, which is another one in the sandbox, that lets others pass."""
    directory = Path(tempfile.mkdtemp(prefix="secureworker-test-", dir="/var/tmp"))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        _remove(directory)


def _remove(directory: Path) -> None:
    # The signer of a worker that was killed writes its last record meanwhile, and ends then.
    deadline = time.monotonic() + 10
    while directory.exists():
        try:
            shutil.rmtree(directory)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def runtime_for(name: str, directory: Path) -> str:
    """Give the path of a runtime that works on this host; skip the test where there is none, but not in CI."""
    if name.startswith("/"):
        return name
    found = shutil.which(name, path="/usr/bin:/usr/sbin:/usr/local/bin")
    if found is None:
        if "CI" in os.environ:
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    if name == "runc" or Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return found
    wrapper = directory / "crun"
    # Whoever is root of a user namespace only may mount the groups of a namespace that belongs to it.
    more = "" if userns.entered() is None else " --cgroup"
    wrapper.write_text(CRUN_ON_A_HYBRID_HOST.format(crun=found, more=more))
    wrapper.chmod(0o755)
    return str(wrapper)


def groups_of(directory: Path) -> list[str]:
    """Give the control groups of the worker with this state directory, in all hierarchies."""
    name = instance_name(str(directory))
    # os.walk, as it does not mind that other tests' groups vanish meanwhile.
    return sorted(path for path, _, _ in os.walk("/sys/fs/cgroup") if name in path)


def own_mounts(directory: Path) -> list[str]:
    """Give the mounts of the worker with this state directory: other tests mount and unmount meanwhile."""
    names = (str(directory), instance_name(str(directory)))
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return sorted(line for line in lines if any(name in line for name in names))


@asynccontextmanager
async def a_cage(directory: Path, runtime: str, **settings: Any) -> AsyncIterator[Cage]:
    chosen = SandboxSettings(state_dir=str(directory), runtime=runtime_for(runtime, directory), **settings)
    async with open_sandbox(chosen) as sandbox:
        workspaces = DirectoryWorkspaces(str(directory / "tasks"))
        await workspaces.sweep()
        yield Cage(sandbox, workspaces, directory)
        assert list((directory / "tasks").iterdir()) == []
