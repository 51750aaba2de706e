"""Whether a worker stays as it was: 1,000 tasks, and what it holds at the start, at each hundred, and at the end.

Run as root: `python -m benchmarks.soak [--tasks N] [--capacity N] [--runtime runc|crun]`. Prints throughput,
descriptors, threads, memory, mounts, control groups, network namespaces and files; asserts nothing. The worker and its
signer are counted together.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.deployment import Deployment, Process, a_deployment

SCRIPT = "#!/bin/sh\nmkdir -p ../artifacts/public\necho built > ../artifacts/public/result.txt\n"
STEP = 100


def control_groups() -> int:
    """Count the control groups of all hierarchies of this host."""
    return sum(1 for place in Path("/sys/fs/cgroup").rglob("cgroup.procs"))


def row(worker: Process, deployment: Deployment, done: int, rate: float) -> tuple[float, ...]:
    state = deployment.directory / "state"
    return (
        done,
        rate,
        worker.count("fd"),
        worker.count("task"),
        worker.rss(),
        len(Path("/proc/mounts").read_text().splitlines()),
        control_groups(),
        len({str(place.readlink()) for place in Path("/proc").glob("[0-9]*/ns/net") if os.access(place, os.R_OK)}),
        # The audit log grows, as it must.
        sum(1 for place in state.rglob("*") if "audit" not in place.parts),
    )


async def main(tasks: int, more: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="secureworker-soak-", dir="/var/tmp") as place:
        Path(place).chmod(0o711)  # noqa: ASYNC240 - before anything else runs in this loop
        async with a_deployment(Path(place)) as deployment:
            deployment.prepare(SCRIPT, "max-capacity: 64\n" if "--capacity" in more else "")
            async with deployment.running(deployment.ours(*more)) as worker:
                heads = ("tasks", "tasks/s", "descriptors", "threads", "RSS MB", "mounts", "cgroups", "netns", "files")
                print("".join(f"{head:>12}" for head in heads))
                rows = []
                for done in range(0, tasks + 1, STEP):
                    began = time.monotonic()
                    if done:
                        await deployment.resolved(worker, await deployment.create(STEP))
                    # The last run's leftovers go after its report.
                    await asyncio.sleep(1)
                    rate = STEP / (time.monotonic() - began - 1) if done else 0.0
                    rows.append(row(worker, deployment, done, rate))
                    print(
                        "".join(f"{value:12.1f}" if value % 1 else f"{value:12.0f}" for value in rows[-1]), flush=True
                    )
    warm, last = rows[min(1, len(rows) - 1)], rows[-1]
    print(f"memory from the {warm[0]:.0f}th task to the last: {last[4] / warm[4]:.3f} of what it was")


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("run it as root: it makes sandboxes")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--capacity")
    parser.add_argument("--runtime")
    given = parser.parse_args()
    chosen = [(f"--{name}", getattr(given, name)) for name in ("capacity", "runtime") if getattr(given, name)]
    options = [word for pair in chosen for word in pair]
    asyncio.run(main(given.tasks, options))
