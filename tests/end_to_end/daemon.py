"""The worker as a process, started as an operator would, against the embedded Taskcluster."""

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import aiohttp
import taskcluster
from aiohttp import web
from taskcluster.aio import Queue as Client

from secureworker.app import MEMORY
from secureworker.core.claim import Secret
from secureworker.host.lending import sweep_memory
from secureworker.localqueue.server import Running, serve
from secureworker.localqueue.settings import Settings, StaticClient
from secureworker.sandbox.engine import SandboxSettings, open_sandbox
from secureworker.signing.keys import create_signing_key

POOL = "test-provisioner/end-to-end"
DEADLINE_SECONDS = 40.0
"""No condition here takes longer, on a machine that is busy with other tests."""
SCRIPT = """\
#!/bin/sh
# Sleeps as long as the payload says, ends as it says; leaves an output. With the code 99, does not mind TERM.
field() { sed -n "s/.*\\"$1\\": \\([0-9.]*\\).*/\\1/p" task.json; }
mkdir -p ../artifacts/public/build
echo built > ../artifacts/public/build/result.txt
[ "$(field code)" = 99 ] && trap "" TERM
echo the script has begun
sleep "$(field seconds)"
echo the script ends
exit "$(field code)"
"""
POLICY = """\
version: 1
root-url: {root_url}
worker-pool: {pool}
tasks:
  scheduler-ids: ["-"]
  project-ids: [none]
  scopes: {{allow: ["project:test:*"]}}
  max-run-time: 10m
scripts:
  sleeper:
    description: Sleeps and ends as it is told.
    command: [{script}]
    pinned: {{{script}: {sha256}}}
    payload:
      type: object
      properties: {{seconds: {{type: number}}, code: {{type: integer}}}}
      required: [seconds, code]
      additionalProperties: false
    config: {{}}
    limits: {{run-time: 10m, memory: 64MiB, processes: 16, disk: 1MiB, files: 100}}
    artifacts: {{allow: [public/build/*]}}
"""
MEASURED = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
"""What makes coverage measure child processes too."""
WORKER = StaticClient(
    "worker", Secret("w" * 44), (f"queue:claim-work:{POOL}", "queue:worker-id:test-group/test-worker")
)
OWNER = StaticClient("owner", Secret("o" * 44), ("*",))


class MovableTime:
    """The Queue's clock."""

    def __init__(self) -> None:
        self.moved = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.moved


@dataclass
class Wire:
    """What goes between the worker and the Queue; can be cut for the worker."""

    cut: bool = False
    says: timedelta | None = None
    """By how much the time is wrong that the Queue's answers say; None: as its web server says."""
    asked: list[str] = field(default_factory=list)
    claimed_by: list[str] = field(default_factory=list)
    """Client ids."""
    refuses: int = 0
    """Status that claims are answered with; 0: as the Queue does."""

    def count(self, part: str) -> int:
        return sum(part in path for path in self.asked)

    def most_reports(self) -> int:
        """Give how often the run that was reported most often was reported."""
        ends = ("/completed", "/failed", "/exception")
        runs = [path.rpartition("/")[0] for path in self.asked if path.endswith(ends)]
        return max((runs.count(run) for run in runs), default=0)

    def middleware(self) -> Any:
        @web.middleware
        async def watch(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            of_owner = 'id="owner"' in request.headers.get("Authorization", "")
            if self.cut and not of_owner:
                assert request.transport is not None
                request.transport.abort()
            self.asked.append(request.path)
            if "/claim-work/" in request.path:
                self.claimed_by.append(request.headers["Authorization"].partition('id="')[2].partition('"')[0])
            if self.refuses and "/claim-work/" in request.path:
                error = {"code": "AuthenticationFailed", "message": "no such client", "requestInfo": {}}
                return web.json_response(error, status=self.refuses)
            answer = await handler(request)
            if self.says is not None:
                answer.headers["Date"] = format_datetime(datetime.now(UTC) + self.says, usegmt=True)
            return answer

        return watch


async def eventually(
    condition: Callable[[], Awaitable[Any] | Any], what: str, seconds: float = DEADLINE_SECONDS
) -> Any:
    """Wait for another process; give what the condition gives once it holds."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(0.03)
    except TimeoutError:
        raise AssertionError(f"in vain waited for: {what}") from None


@dataclass
class Here:
    """A Queue, and places for workers."""

    directory: Path
    running: Running
    client: Any
    wire: Wire
    time: MovableTime
    workers: list["Worker"] = field(default_factory=list)

    def arguments(self, *more: str) -> list[str]:
        return [
            *("--policy", str(self.directory / "policy.yml")),
            *("--worker-group", "test-group", "--worker-id", "test-worker"),
            *("--credentials-file", str(self.directory / "credentials.json")),
            *("--key", f"file:{self.directory / 'key'}"),
            *("--state-dir", str(self.directory / "state")),
            *more,
        ]

    async def start(self, *more: str, **environment: str) -> "Worker":
        """Start a worker, and wait until it claims."""
        log = self.directory / f"worker-{len(self.workers)}.log"
        worker = await Worker.start(self.arguments(*more), log, **environment)
        self.workers.append(worker)
        claims = self.wire.count("claim-work")
        await eventually(lambda: worker.ended or self.wire.count("claim-work") > claims, "the first claim")
        assert not worker.ended, worker.log
        return worker

    async def create(self, payload: dict[str, Any] | None = None, **definition: Any) -> str:
        """Create a task."""
        task_id = taskcluster.slugId()
        now = self.time()
        metadata = {"name": "a task", "description": "", "owner": "a@example.com", "source": "https://example.com"}
        task = {
            "taskQueueId": POOL,
            "created": now.isoformat(),
            "deadline": (now + timedelta(hours=1)).isoformat(),
            "payload": {"seconds": 0, "code": 0} if payload is None else payload,
            "metadata": metadata,
        }
        await self.client.createTask(task_id, {**task, **definition})
        return str(task_id)

    async def runs(self, task_id: str) -> list[dict[str, Any]]:
        status: dict[str, Any] = (await self.client.status(task_id))["status"]
        return list(status["runs"])

    async def resolved(self, task_id: str, run_id: int = 0, seconds: float = DEADLINE_SECONDS) -> str:
        """Wait for a run's end, and say how it ended."""

        async def reason() -> Any:
            runs = await self.runs(task_id)
            return len(runs) > run_id and runs[run_id].get("reasonResolved")

        return str(await eventually(reason, f"the end of {task_id}/{run_id}", seconds))

    async def begun(self, worker: "Worker", task_id: str) -> None:
        """Wait until the script of a task runs."""
        await eventually(self.scripts, f"the script of {task_id}; {worker.log}")

    def scripts(self) -> list[int]:
        """Give the scripts of these workers that are alive: processes of the host that sleep below our runtime."""
        script = str(self.directory / "sleeper").encode()
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if script in (place / "cmdline").read_bytes():
                    found.append(int(place.name))
            except OSError:
                continue
        return found

    async def log_of(self, task_id: str, run_id: int = 0) -> str:
        """Give the published log."""
        url = (
            f"{self.running.root_url}/api/queue/v1/task/{task_id}/runs/{run_id}/artifacts/public/logs/live_backing.log"
        )
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return await answer.text()


@dataclass
class Worker:
    """A worker's process."""

    process: asyncio.subprocess.Process
    log_file: Path

    @classmethod
    async def start(cls, arguments: Sequence[str], log_file: Path, **environment: str) -> "Worker":
        with log_file.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "secureworker", "run", *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **MEASURED, **environment},
            )
        return cls(process, log_file)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def ended(self) -> bool:
        return self.process.returncode is not None

    def signal(self, number: signal.Signals, times: int = 1) -> None:
        for _ in range(times):
            self.process.send_signal(number)

    async def exit_code(self) -> int:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def a_queue(directory: Path, claim_seconds: float = 1200, **changes: Any) -> AsyncIterator[Here]:
    """Serve a Queue, and prepare what a worker is started with."""
    wire, time = Wire(), MovableTime()
    settings = Settings((WORKER, OWNER), claim_timeout=claim_seconds, long_poll=0.5, hint_interval=0, clock=time)
    settings = replace(settings, **changes)
    async with serve(settings, middlewares=[wire.middleware()]) as running, aiohttp.ClientSession() as session:
        credentials = {"clientId": "owner", "accessToken": OWNER.access_token.reveal()}
        client = Client({"rootUrl": running.root_url, "credentials": credentials}, session=session)
        here = Here(directory, running, client, wire, time)
        prepare(directory, running.root_url)
        try:
            yield here
        finally:
            alive = [worker for worker in here.workers if not worker.ended]
            for worker in alive:
                worker.process.kill()
                await worker.process.wait()
            if alive:
                await sweep(directory / "state")


async def sweep(state: Path) -> None:
    """Remove what a killed worker left on this host, as the next worker with the same directory would."""
    async with open_sandbox(SandboxSettings(str(state))):
        await asyncio.to_thread(sweep_memory, str(state / MEMORY))


def prepare(directory: Path, root_url: str) -> None:
    """Write script, policy, key and credentials."""
    script = directory / "sleeper"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    sha256 = hashlib.sha256(SCRIPT.encode()).hexdigest()
    policy = directory / "policy.yml"
    policy.write_text(POLICY.format(root_url=root_url, pool=POOL, script=script, sha256=sha256))
    policy.chmod(0o644)
    create_signing_key(str(directory / "key"))
    credentials = directory / "credentials.json"
    credentials.touch(mode=0o600)
    credentials.write_text(json.dumps({"clientId": "worker", "accessToken": WORKER.access_token.reveal()}))
