"""How long a script's sandbox takes: `python benchmarks/sandbox.py [RUNTIME]`, as root.

Prints medians in milliseconds. Nothing is asserted: times say as much about the machine as about the code.
"""

import asyncio
import hashlib
import itertools
import statistics
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from secureworker.core.ids import RunId, ScriptName, Sha256, TaskId
from secureworker.core.plan import Limits, OutputRules, PinnedFile, Plan
from secureworker.host.workspace import DirectoryWorkspaces
from secureworker.sandbox.engine import OciSandbox, SandboxSettings, open_sandbox

RUNS = 10
TASK_ID = TaskId("fN1SbArXTPSVFUUvaOlinQ")


class Nowhere:
    """A task log that keeps nothing."""

    def note(self, text: str) -> None:
        """Nobody reads it."""

    def error(self, text: str) -> None:
        """Nobody reads it."""

    def output(self, chunk: bytes) -> None:
        """Nobody reads it."""


def a_plan(directory: Path, script: str) -> Plan:
    path = directory / hashlib.sha256(script.encode()).hexdigest()[:8]
    path.write_text(script)
    limits = Limits(timedelta(minutes=1), 1 << 28, 64, 2.0, 1 << 30, 200_000, 1 << 20, 1024)
    return Plan(
        task_id=TASK_ID,
        run_id=RunId(0),
        task_group_id=TASK_ID,
        root_url="https://tc.example.com",
        script=ScriptName("benchmark"),
        argv=(str(path),),
        pinned=(PinnedFile(str(path), Sha256(hashlib.sha256(script.encode()).hexdigest())),),
        environment=(),
        config=None,
        task={},
        mounts=(),
        limits=limits,
        outputs=OutputRules((), 0, 0, 0),
    )


async def measure(name: str, sandbox: OciSandbox, workspaces: DirectoryWorkspaces, plan: Plan) -> None:
    steps: dict[str, list[float]] = {"workspace": [], "start": [], "script": [], "end": [], "removal": []}
    for _ in range(RUNS):
        times = [time.time()]
        async with workspaces.open(plan) as workspace:
            times.append(time.time())
            execution = await sandbox.run(plan, workspace, Nowhere())
            times += [execution.started.timestamp(), execution.finished.timestamp(), time.time()]
        times.append(time.time())
        for step, (before, after) in zip(steps, itertools.pairwise(times), strict=True):
            steps[step].append((after - before) * 1000)
    medians = {step: statistics.median(values) for step, values in steps.items()}
    shown = "  ".join(f"{step} {value:6.1f}" for step, value in medians.items())
    print(f"{name:<24} {shown}  all {sum(medians.values()):6.1f}")


SCRIPTS = {
    "/bin/true": "#!/bin/true\n",
    "python3 -c pass": "#!/usr/bin/python3 -IS\npass\n",
    "256 MiB of output": "#!/bin/sh\nhead -c 268435456 /dev/zero\n",
    "10,000 files": "#!/usr/bin/python3 -IS\nfor n in range(10000): open(str(n), 'w').close()\n",
}


async def main(directory: Path, runtime: str | None) -> None:
    began = time.perf_counter()
    async with open_sandbox(SandboxSettings(str(directory), runtime=runtime)) as sandbox:
        workspaces = DirectoryWorkspaces(f"{directory}/tasks")
        await workspaces.sweep()
        print(f"{sandbox.runtime}: opened in {(time.perf_counter() - began) * 1000:.0f} ms")
        began = time.perf_counter()
        await sandbox.self_test()
        print(f"self-test: {(time.perf_counter() - began) * 1000:.0f} ms")
        print(f"medians of {RUNS} runs, ms:")
        for name, script in SCRIPTS.items():
            await measure(name, sandbox, workspaces, a_plan(directory, script))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="secureworker-benchmark-", dir="/var/tmp") as made:
        Path(made).chmod(0o711)
        asyncio.run(main(Path(made), sys.argv[1] if len(sys.argv) > 1 else None))
