"""Tasks per second at capacity 1, 2, 4 and 8: scripts of 0 s and of 0.5 s, by a real worker.

Run as root: `python -m benchmarks.capacity [--tasks N] [--capacities 1,4] [--seconds 0,0.5] [--runtime runc|crun]`.
Prints a line for each; asserts nothing. The embedded queue is a process of its own. All tasks are pending before the
worker starts; what is measured is from the first claim to the last resolution, both by the queue's clock.

The overhead is what a place is busy for a task beyond its script. The processor time of a task is that of the worker,
its signer, its containers' runtimes and the scripts; beside it that of the queue.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import taskcluster.aio

from benchmarks.deployment import POOL, Deployment
from secureworker.core.claim import Secret
from secureworker.localqueue.server import serve
from secureworker.localqueue.settings import Settings, StaticClient

WORKER = StaticClient("worker", Secret("w" * 44), (f"queue:claim-work:{POOL}", "queue:worker-id:bench/bench-1"))
AUTHOR = StaticClient("author", Secret("a" * 44), ("*",))
SCRIPT = """\
#!/bin/sh
seconds=$(sed -n 's/.*"seconds": \\([0-9.]*\\).*/\\1/p' task.json)
[ "$seconds" = 0 ] || sleep "$seconds"
"""


async def serve_queue() -> None:
    """Serve until this process is told to end."""
    # A worker that is told to end waits for its poll: of 20 s each, most of the time would be spent so.
    async with serve(Settings((WORKER, AUTHOR), hint_interval=0.0, long_poll=1.0)) as running:
        print(running.root_url, flush=True)
        told = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
        await told.wait()


def processor_ms(pid: int) -> float:
    """Give what a process has used, and all that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # utime, stime, cutime, cstime are fields 14 to 17 (proc(5)); the first here is the third.
    return 1000 * sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """Give a process, and its children that are alive: any of its threads may have started one."""
    listed = [place.read_text().split() for place in Path(f"/proc/{pid}/task").glob("*/children")]
    return [pid, *(int(child) for children in listed for child in children)]


def worker_ms(pid: int) -> float:
    """Give what the worker and its signer have used; scripts and runtimes count once they have ended."""
    return sum(
        processor_ms(each) for each in family(pid) if b"secureworker" in Path(f"/proc/{each}/cmdline").read_bytes()
    )


async def measure(
    deployment: Deployment, queue_pid: int, argv: list[str], *, tasks: int, seconds: float
) -> dict[str, float]:
    """Run a worker until it has done all tasks."""
    queue = deployment.queue
    created = await deployment.create(tasks, seconds=seconds)
    queue_before = processor_ms(queue_pid)
    place = deployment.directory / "worker.log"
    with place.open("wb") as log:
        process = await asyncio.create_subprocess_exec(*argv, stderr=log, stdout=log)
        before = 0.0
        try:
            while any(run["state"] in ("pending", "running") for run in [await last_run(queue, created[-1])]):
                if process.returncode is not None:
                    raise SystemExit(place.read_text())
                if not before and (await last_run(queue, created[0]))["state"] != "pending":
                    before = worker_ms(process.pid)
                await asyncio.sleep(0.1)
            runs = [await ended_run(queue, task_id) for task_id in created]
            used = worker_ms(process.pid) - before
            served = processor_ms(queue_pid) - queue_before
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await process.wait()
    ends = [run.get("reasonResolved") for run in runs]
    if set(ends) != {"completed"}:
        raise SystemExit(f"tasks ended as {sorted(set(map(str, ends)))}")
    began = min(datetime.fromisoformat(run["started"]) for run in runs)
    over = max(datetime.fromisoformat(run["resolved"]) for run in runs)
    whole = (over - began).total_seconds()
    return {"seconds": whole, "worker": used / tasks, "queue": served / tasks}


async def burst(deployment: Deployment, argv: list[str]) -> list[float]:
    """Let four tasks come while a long poll for one place is on its way and the other three have become free.

    Returns:
        milliseconds from the creation of each to its claim.
    """
    queue = deployment.queue
    three = await deployment.create(3, seconds=1.0)
    process = await asyncio.create_subprocess_exec(*argv, "--capacity", "4", stderr=asyncio.subprocess.DEVNULL)
    try:
        for task_id in three:
            await ended_run(queue, task_id)
        four = await deployment.create(4, seconds=0)
        runs = [await ended_run(queue, task_id) for task_id in four]
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()
    waits = [datetime.fromisoformat(run["started"]) - datetime.fromisoformat(run["scheduled"]) for run in runs]
    return sorted(1000 * wait.total_seconds() for wait in waits)


async def last_run(queue: Any, task_id: str) -> dict[str, Any]:
    run: dict[str, Any] = (await queue.status(task_id))["status"]["runs"][-1]
    return run


async def ended_run(queue: Any, task_id: str) -> dict[str, Any]:
    while (run := await last_run(queue, task_id))["state"] in ("pending", "running"):
        await asyncio.sleep(0.05)
    return run


async def main(arguments: argparse.Namespace) -> None:
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.capacity", "--serve"), stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    root_url = (await server.stdout.readline()).decode().strip()
    options = {"rootUrl": root_url, "credentials": {"clientId": "author", "accessToken": AUTHOR.access_token.reveal()}}
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors, {arguments.tasks} tasks for each line")
    try:
        with tempfile.TemporaryDirectory(prefix="secureworker-capacity-", dir="/var/tmp") as place:
            Path(place).chmod(0o711)  # noqa: ASYNC240 - before anything else runs in this loop
            async with aiohttp.ClientSession() as session:
                queue = taskcluster.aio.Queue(options, session=session)
                deployment = Deployment(Path(place), root_url, WORKER, queue)
                deployment.prepare(SCRIPT, "max-capacity: 32\n")
                argv = deployment.ours(*(("--runtime", arguments.runtime) if arguments.runtime else ()))
                waits = ", ".join(f"{wait:.0f}" for wait in await burst(deployment, argv))
                print(f"four tasks come, a poll for one of four places is on its way: claimed after {waits} ms")
                print("capacity  script   tasks/s   overhead/task   processor time/task: worker    queue")
                for seconds in map(float, arguments.seconds.split(",")):
                    for capacity in map(int, arguments.capacities.split(",")):
                        more = [*argv, "--capacity", str(capacity)]
                        found = await measure(deployment, server.pid, more, tasks=arguments.tasks, seconds=seconds)
                        overhead = 1000 * (found["seconds"] * capacity / arguments.tasks - seconds)
                        rate = arguments.tasks / found["seconds"]
                        used = f"{found['worker']:23.0f} ms  {found['queue']:4.0f} ms"
                        print(f"{capacity:8}  {seconds:4g} s  {rate:8.2f}  {overhead:10.0f} ms  {used}", flush=True)
    finally:
        server.terminate()
        await server.wait()


if __name__ == "__main__":
    if "--serve" in sys.argv:
        asyncio.run(serve_queue())
        sys.exit()
    if os.geteuid() != 0:
        sys.exit("run it as root: it makes sandboxes")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=24)
    parser.add_argument("--capacities", default="1,2,4,8")
    parser.add_argument("--seconds", default="0,0.5")
    parser.add_argument("--runtime")
    asyncio.run(main(parser.parse_args()))
