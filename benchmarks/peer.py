"""This worker beside Mozilla's scriptworker: the same tasks, the same Taskcluster, in turns, printed as ratios.

Run as root: `python -m benchmarks.peer --scriptworker PATH [--tasks N] [--rounds N] [--capacity N] [--cancellation]`.
PATH is the `scriptworker` program of an environment of its own (`pip install scriptworker`). Both sign chain of trust;
only ours confines the script, keeps the key apart, writes an audit log and makes provenance. Asserts nothing.

`--cancellation` adds one cancelled task for each: scriptworker notices at its next reclaim, after 300 s by default.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.deployment import POOL, Deployment, Process, a_deployment, status

SCRIPT = """\
#!/bin/sh
out="${PEER_ARTIFACTS:-../artifacts}/public"
mkdir -p "$out"
echo built > "$out/result.txt"
"""
SLOW = '#!/bin/sh\nmkdir -p "${PEER_ARTIFACTS:-../artifacts}/public"\nsleep 1200\n'


def theirs(program: str, deployment: Deployment) -> list[str]:
    """Write scriptworker's settings, and give the command that starts it."""
    place = deployment.directory / "theirs"
    for name in ("work", "logs", "artifacts"):
        (place / name).mkdir(parents=True, exist_ok=True)
    provisioner, worker_type = POOL.split("/")
    settings = {
        "taskcluster_root_url": deployment.root_url,
        "provisioner_id": provisioner,
        "worker_type": worker_type,
        "worker_group": "bench",
        "worker_id": "bench-1",
        "credentials": json.loads((deployment.directory / "credentials.json").read_text()),
        "work_dir": str(place / "work"),
        "log_dir": str(place / "logs"),
        "artifact_dir": str(place / "artifacts"),
        "task_log_dir": str(place / "artifacts/public/logs"),
        "task_script": [str(deployment.directory / "script")],
        "ed25519_private_key_path": str(deployment.directory / "key"),
        "sign_chain_of_trust": True,
        "verify_chain_of_trust": False,
    }
    # YAML is a superset of JSON.
    (place / "scriptworker.yaml").write_text(json.dumps(settings))
    return [program, str(place / "scriptworker.yaml")]


async def one_round(deployment: Deployment, argv: list[str], tasks: int, **environment: str) -> dict[str, float]:
    """Start a worker, let it idle, give it tasks, end it."""
    async with deployment.running(argv, **environment) as worker:
        started = deployment.claims[-1][0] - worker.began
        idle, whole = await _idle(worker)
        began = time.monotonic()
        seconds = await deployment.resolved(worker, await deployment.create(tasks))
        throughput = tasks / (time.monotonic() - began)
    return {
        "start to first claim, s": started,
        "claim to resolved, median s": statistics.median(seconds),
        "tasks per second": throughput,
        "idle RSS of the worker, MB": idle,
        "idle RSS, its processes together, MB": whole,
    }


async def _idle(worker: Process) -> tuple[float, float]:
    await asyncio.sleep(2)
    return status(worker.process.pid, "VmRSS"), worker.rss()


async def cancellation(deployment: Deployment, argv: list[str], **environment: str) -> float:
    """Cancel a running task, and give the seconds until the worker asks for another."""
    async with deployment.running(argv, **environment) as worker:
        (task_id,) = await deployment.create(1)
        while (await deployment.queue.status(task_id))["status"]["runs"][0]["state"] != "running":
            worker.check()
            await asyncio.sleep(0.05)
        # So that the script runs, and both are asleep.
        await asyncio.sleep(3)
        claims = len(deployment.claims)
        began = time.monotonic()
        await deployment.queue.cancelTask(task_id)
        while len(deployment.claims) == claims:
            worker.check()
            await asyncio.sleep(0.05)
        return deployment.claims[-1][0] - began


async def main(program: str, tasks: int, rounds: int, capacity: int, *, cancel: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="secureworker-peer-", dir="/var/tmp") as place:
        Path(place).chmod(0o711)  # noqa: ASYNC240 - before anything else runs in this loop
        async with a_deployment(Path(place)) as deployment:
            deployment.prepare(SCRIPT, f"max-capacity: {capacity}\n" if capacity > 1 else "")
            environment = {"PEER_ARTIFACTS": f"{place}/theirs/artifacts"}
            more = ("--capacity", str(capacity)) if capacity > 1 else ()
            found: dict[str, list[tuple[float, float]]] = {}
            for _ in range(rounds):
                ours = await one_round(deployment, deployment.ours(*more), tasks)
                peers = await one_round(deployment, theirs(program, deployment), tasks, **environment)
                for name, value in ours.items():
                    found.setdefault(name, []).append((value, peers[name]))
            if cancel:
                deployment.prepare(SLOW)
                ours_noticed = await cancellation(deployment, deployment.ours())
                theirs_noticed = await cancellation(deployment, theirs(program, deployment), **environment)
                found["cancellation to next claim, s"] = [(ours_noticed, theirs_noticed)]
    print(f"{tasks} tasks, {rounds} rounds, our capacity {capacity}; medians of the rounds")
    print(f"{'':<40}{'ours':>10}{'theirs':>10}{'ours/theirs':>14}")
    for name, pairs in found.items():
        mine, other = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
        print(f"{name:<40}{mine:>10.3f}{other:>10.3f}{mine / other:>14.2f}")


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("run it as root: it makes sandboxes")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scriptworker", required=True, metavar="PATH")
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--capacity", type=int, default=1)
    parser.add_argument("--cancellation", action="store_true")
    given = parser.parse_args()
    asyncio.run(main(given.scriptworker, given.tasks, given.rounds, given.capacity, cancel=given.cancellation))
