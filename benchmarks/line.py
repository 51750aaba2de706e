"""How long the straight line takes: 20 trivial tasks, one by one, by a real worker against the embedded queue.

Run as root: `python benchmarks/line.py [--tasks N] [--runtime runc|crun]`. Prints medians; asserts nothing.

Every time is taken from a clock of this host: the claim's and the resolution's from the queue, the script's begin and
end from its own output.
"""

import argparse
import asyncio
import hashlib
import json
import os
import re
import secrets
import signal
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import taskcluster
import taskcluster.aio
from aiohttp import web

from secureworker.core.claim import Secret
from secureworker.localqueue.server import serve
from secureworker.localqueue.settings import Settings, StaticClient
from secureworker.signing.keys import create_signing_key

POOL = "benchmark/line"
SCRIPT = "#!/bin/sh\ndate +began=%s.%N\ndate +ended=%s.%N\n"
POLICY = """\
version: 1
root-url: {root_url}
worker-pool: benchmark/line
tasks:
  scheduler-ids: ["-"]
  project-ids: [none]
  scopes: {{allow: ["project:benchmark:*"]}}
  max-run-time: 1m
scripts:
  trivial:
    description: Says when it began and when it ended.
    command: [{script}]
    pinned: {{{script}: {sha256}}}
    payload: {{type: object}}
    config: {{}}
    limits: {{run-time: 1m, memory: 64MiB, processes: 8, disk: 1MiB, files: 100}}
"""


def status(pid: int, field: str) -> float:
    """Give a size of a process in MB."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1000


def prepare(directory: Path, root_url: str, worker: StaticClient) -> list[str]:
    script = directory / "trivial"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    policy = directory / "policy.yml"
    sha256 = hashlib.sha256(SCRIPT.encode()).hexdigest()
    policy.write_text(POLICY.format(root_url=root_url, script=script, sha256=sha256))
    policy.chmod(0o644)
    create_signing_key(str(directory / "key"))
    credentials = directory / "credentials.json"
    credentials.touch(mode=0o600)
    credentials.write_text(json.dumps({"clientId": worker.client_id, "accessToken": worker.access_token.reveal()}))
    return [
        *(sys.executable, "-m", "secureworker", "run", "--policy", str(policy)),
        *("--worker-group", "bench", "--worker-id", "bench-1"),
        *("--credentials-file", str(credentials), "--key", f"file:{directory / 'key'}"),
        *("--state-dir", str(directory / "state"), "--log-format", "json"),
    ]


async def one_task(queue: Any, session: aiohttp.ClientSession, root_url: str) -> dict[str, float]:
    now = datetime.now(UTC)
    task_id = taskcluster.slugId()
    await queue.createTask(
        task_id,
        {
            "taskQueueId": POOL,
            "created": now.isoformat(),
            "deadline": (now + timedelta(hours=1)).isoformat(),
            "payload": {},
            "metadata": {
                "name": "trivial",
                "description": "trivial",
                "owner": "benchmark@example.com",
                "source": "https://example.com",
            },
        },
    )
    while (run := (await queue.status(task_id))["status"]["runs"][0])["state"] in ("pending", "running"):
        await asyncio.sleep(0.02)
    if run["state"] != "completed":
        raise SystemExit(f"a task ended {run['state']} {run.get('reasonResolved')}")
    url = f"{root_url}/api/queue/v1/task/{task_id}/runs/0/artifacts/public/logs/live_backing.log"
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


async def main(tasks: int, runtime: str | None) -> None:
    client = StaticClient(
        "worker", Secret(secrets.token_urlsafe()), (f"queue:claim-work:{POOL}", "queue:worker-id:bench/bench-1")
    )
    author = StaticClient("author", Secret(secrets.token_urlsafe()), ("*",))
    first_claim: list[float] = []

    @web.middleware
    async def watch(request: web.Request, handler: Any) -> web.StreamResponse:
        if "claim-work" in request.path and not first_claim:
            first_claim.append(time.monotonic())
        answer: web.StreamResponse = await handler(request)
        return answer

    with tempfile.TemporaryDirectory(prefix="secureworker-line-") as place:
        directory = Path(place)
        async with serve(Settings((client, author), hint_interval=0.0), middlewares=(watch,)) as running:
            argv = prepare(directory, running.root_url, client) + (["--runtime", runtime] if runtime else [])
            with (directory / "worker.log").open("wb") as log:
                began = time.monotonic()
                process = await asyncio.create_subprocess_exec(*argv, stderr=log, stdout=log)
            try:
                while not first_claim and process.returncode is None:
                    await asyncio.sleep(0.01)
                if process.returncode is not None:
                    raise SystemExit((directory / "worker.log").read_text())
                idle = status(process.pid, "VmRSS")
                options = {
                    "rootUrl": running.root_url,
                    "credentials": {"clientId": "author", "accessToken": author.access_token.reveal()},
                }
                async with aiohttp.ClientSession() as session:
                    queue = taskcluster.aio.Queue(options, session=session)
                    times = [await one_task(queue, session, running.root_url) for _ in range(tasks)]
                peak = status(process.pid, "VmHWM")
            finally:
                if process.returncode is None:
                    process.send_signal(signal.SIGTERM)
                await process.wait()
            log_lines = (directory / "worker.log").read_text().splitlines()
    for name in times[0]:
        values = [1000 * sample[name] for sample in times]
        print(f"{name:<28} {statistics.median(values):7.1f} ms  (of {tasks}: {min(values):.1f} to {max(values):.1f})")
    self_test = [line for line in log_lines if "self-test" in line]
    print(f"{'start to first claim':<28} {1000 * (first_claim[0] - began):7.1f} ms, the self-test included")
    print(f"{'idle RSS, then peak':<28} {idle:7.1f} MB, {peak:.1f} MB")
    print("self-test:", *self_test, sep="\n  ")


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("run it as root: it makes sandboxes")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--runtime")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.tasks, arguments.runtime))
