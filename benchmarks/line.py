"""How long the straight line takes: 20 trivial tasks, one by one, by a real worker against the embedded queue.

Run as root: `python -m benchmarks.line [--tasks N] [--runtime runc|crun]`. Prints medians; asserts nothing.

Every time is taken from a clock of this host: the claim's and the resolution's from the queue, the script's begin and
end from its own output.
"""

import argparse
import asyncio
import os
import re
import statistics
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import aiohttp

from benchmarks.deployment import Deployment, Process, a_deployment, status

SCRIPT = "#!/bin/sh\ndate +began=%s.%N\ndate +ended=%s.%N\n"


async def one_task(deployment: Deployment, worker: Process, session: aiohttp.ClientSession) -> dict[str, float]:
    (task_id,) = await deployment.create(1)
    await deployment.resolved(worker, [task_id])
    run = (await deployment.queue.status(task_id))["status"]["runs"][0]
    url = f"{deployment.root_url}/api/queue/v1/task/{task_id}/runs/0/artifacts/public/logs/live_backing.log"
    async with session.get(url) as answer:
        log = await answer.text()
    began, ended = (float(re.search(rf"{word}=([\d.]+)", log)[1]) for word in ("began", "ended"))  # type: ignore[index]
    claimed, resolved = (datetime.fromisoformat(run[name]).timestamp() for name in ("started", "resolved"))
    return {
        "claim to script start": began - claimed,
        "script start to script exit": ended - began,
        "script exit to resolved": resolved - ended,
        "claim to resolved": resolved - claimed,
    }


async def main(tasks: int, more: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory(prefix="secureworker-line-", dir="/var/tmp") as place:
        Path(place).chmod(0o711)  # noqa: ASYNC240 - before anything else runs in this loop
        async with a_deployment(Path(place)) as deployment:
            deployment.prepare(SCRIPT)
            async with deployment.running(deployment.ours(*more)) as worker, aiohttp.ClientSession() as session:
                started = deployment.claims[0][0] - worker.began
                idle, together = status(worker.process.pid, "VmRSS"), worker.rss()
                times = [await one_task(deployment, worker, session) for _ in range(tasks)]
                peak = status(worker.process.pid, "VmHWM")
    for name in times[0]:
        values = [1000 * sample[name] for sample in times]
        print(f"{name:<28} {statistics.median(values):7.1f} ms  (of {tasks}: {min(values):.1f} to {max(values):.1f})")
    print(f"{'start to first claim':<28} {1000 * started:7.1f} ms, the self-test included")
    print(f"{'idle RSS, then peak':<28} {idle:7.1f} MB, {peak:.1f} MB; with the signer {together:.1f} MB idle")


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("run it as root: it makes sandboxes")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--runtime")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.tasks, ("--runtime", arguments.runtime) if arguments.runtime else ()))
