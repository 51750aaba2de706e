"""What benchmarks of whole workers share: an embedded Taskcluster, workers as processes, tasks, and what they take."""

import asyncio
import hashlib
import json
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
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

POOL = "benchmark/workers"
POLICY = """\
version: 1
root-url: {root_url}
worker-pool: {pool}
{worker}tasks:
  scheduler-ids: ["-"]
  project-ids: [none]
  scopes: {{allow: ["project:benchmark:*"]}}
  max-run-time: 20m
scripts:
  build:
    description: Does as little as can be done.
    command: [{script}]
    pinned: {{{script}: {sha256}}}
    payload: {{type: object}}
    config: {{}}
    limits: {{run-time: 20m, memory: 64MiB, processes: 8, disk: 16MiB, files: 100}}
    artifacts: {{allow: [public/*]}}
"""


@dataclass
class Process:
    """A worker at work."""

    process: asyncio.subprocess.Process
    began: float
    log: Path

    def check(self) -> None:
        """Say what went wrong where it has ended."""
        if self.process.returncode is not None:
            raise SystemExit(f"the worker ended with {self.process.returncode}:\n{self.log.read_text()[-4000:]}")

    def tree(self) -> list[int]:
        """Give the process and its descendants."""
        parents: dict[int, list[int]] = {}
        for place in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(place.name))
        found = [self.process.pid]
        for pid in found:
            found += parents.get(pid, [])
        return found

    def rss(self) -> float:
        """Give the resident memory of all of them in MB: shared pages count once for each."""
        return sum(status(pid, "VmRSS") for pid in self.tree())

    def count(self, what: str) -> int:
        """Count entries of /proc/<pid>/<what> over all of them: `fd`, `task`."""
        return sum(len(list(Path(f"/proc/{pid}/{what}").iterdir())) for pid in self.tree())


def status(pid: int, key: str) -> float:
    """Give a size of a process in MB; 0 where it has ended."""
    try:
        found = re.search(rf"^{key}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except OSError:
        return 0.0
    return int(found[1]) / 1000 if found else 0.0


@dataclass
class Deployment:
    """A Taskcluster, and a directory for workers."""

    directory: Path
    root_url: str
    worker: StaticClient
    queue: Any
    claims: list[tuple[float, str]] = field(default_factory=list)
    """When a worker asked for work, and which."""

    def prepare(self, script: str, worker: str = "") -> None:
        """Write script, policy, key and credentials; `worker`: more lines of the policy."""
        path, policy, credentials = (self.directory / name for name in ("script", "policy.yml", "credentials.json"))
        path.write_text(script)
        path.chmod(0o755)
        sha256 = hashlib.sha256(script.encode()).hexdigest()
        given = {"root_url": self.root_url, "pool": POOL, "script": path, "sha256": sha256, "worker": worker}
        policy.write_text(POLICY.format(**given))
        policy.chmod(0o644)
        if not (self.directory / "key").exists():
            create_signing_key(str(self.directory / "key"))
        credentials.touch(mode=0o600)
        pair = {"clientId": self.worker.client_id, "accessToken": self.worker.access_token.reveal()}
        credentials.write_text(json.dumps(pair))

    def ours(self, *more: str, state: str = "state") -> list[str]:
        """Give the command that starts our worker."""
        return [
            *(sys.executable, "-m", "secureworker", "run", "--policy", str(self.directory / "policy.yml")),
            *("--worker-group", "bench", "--worker-id", "bench-1"),
            *("--credentials-file", str(self.directory / "credentials.json")),
            *("--key", f"file:{self.directory / 'key'}", "--state-dir", str(self.directory / state)),
            *more,
        ]

    @asynccontextmanager
    async def running(self, argv: Sequence[str], **environment: str) -> AsyncIterator[Process]:
        """Start a worker and wait for its first claim; end it by SIGTERM."""
        log, claims = self.directory / "worker.log", len(self.claims)
        with log.open("wb") as file:
            began = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                *argv, stdout=file, stderr=file, env={**os.environ, **environment}
            )
        worker = Process(process, began, log)
        try:
            while len(self.claims) == claims:
                worker.check()
                await asyncio.sleep(0.005)
            yield worker
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await process.wait()

    async def create(self, count: int, **payload: float) -> list[str]:
        """Make tasks pending."""
        now = datetime.now(UTC)
        metadata = {"name": "a task", "description": "-", "owner": "a@example.com", "source": "https://example.com"}
        task = {
            "taskQueueId": POOL,
            "created": now.isoformat(),
            "deadline": (now + timedelta(hours=1)).isoformat(),
            "payload": payload,
            "metadata": metadata,
        }
        task_ids = [taskcluster.slugId() for _ in range(count)]
        for task_id in task_ids:
            await self.queue.createTask(task_id, task)
        return task_ids

    async def resolved(self, worker: Process, task_ids: Sequence[str], expected: str = "completed") -> list[float]:
        """Wait until tasks are resolved; give the seconds from claim to resolution of each."""
        seconds = []
        for task_id in task_ids:
            while (run := (await self.queue.status(task_id))["status"]["runs"][0])["state"] in ("pending", "running"):
                worker.check()
                await asyncio.sleep(0.05)
            if run["state"] != expected:
                raise SystemExit(f"a task ended {run['state']} {run.get('reasonResolved')}")
            claimed, ended = (datetime.fromisoformat(run[name]).timestamp() for name in ("started", "resolved"))
            seconds.append(ended - claimed)
        return seconds


@asynccontextmanager
async def a_deployment(directory: Path, **settings: Any) -> AsyncIterator[Deployment]:
    """Serve a Taskcluster for one worker of the pool."""
    worker = StaticClient(
        "worker", Secret(secrets.token_urlsafe()), (f"queue:claim-work:{POOL}", "queue:worker-id:bench/bench-1")
    )
    author = StaticClient("author", Secret(secrets.token_urlsafe()), ("*",))
    claims: list[tuple[float, str]] = []

    @web.middleware
    async def watch(request: web.Request, handler: Any) -> web.StreamResponse:
        if "claim-work" in request.path:
            claims.append((time.monotonic(), request.headers.get("User-Agent", "")))
        answer: web.StreamResponse = await handler(request)
        return answer

    async with (
        serve(Settings((worker, author), hint_interval=0.0, **settings), middlewares=(watch,)) as running,
        aiohttp.ClientSession() as session,
    ):
        credentials = {"clientId": "author", "accessToken": author.access_token.reveal()}
        queue = taskcluster.aio.Queue({"rootUrl": running.root_url, "credentials": credentials}, session=session)
        yield Deployment(directory, running.root_url, worker, queue, claims)
