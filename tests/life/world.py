"""A Queue behind a proxy that fails as it is told, workers that stop where they are told, and who watches them."""

import asyncio
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from taskcluster.aio import Queue as Client

from secureworker.audit.inspect import read_entries, verify_log
from secureworker.host.workspace import RUN_DIR
from secureworker.localqueue.journal import Entry
from secureworker.localqueue.server import serve
from secureworker.localqueue.settings import Settings
from secureworker.sandbox import runtime
from secureworker.sandbox.engine import instance_name
from secureworker.sandbox.selftest import TASK_ID as SELF_TEST
from secureworker.signer import _log_key
from secureworker.signing.keys import create_signing_key
from secureworker.signing.publickeys import read_public_key
from tests.end_to_end.daemon import MEASURED, OWNER, POOL, WORKER, Here, MovableTime, Wire, Worker, eventually, sweep
from tests.life.faults import Faults, between
from tests.life.invariants import violations
from tests.life.story import Sighting, Story

SCRIPT = """\
#!/bin/sh
# Says when it begins and ends; leaves as many outputs as the payload says; ends as it says.
field() { sed -n "s/.*\\"$1\\": \\([0-9.]*\\).*/\\1/p" task.json; }
stamp() { echo "stamp $1 $(date +%s.%N)"; }
trap 'stamp stopped; exit 143' TERM
mkdir -p ../artifacts/public/build
stamp begun
for number in $(seq "$(field files)"); do
    head -c 3000 /dev/zero | tr '\\0' "$number" > "../artifacts/public/build/result-$number.bin"
done
echo "built for $TASK_ID" > ../artifacts/public/build/result.txt
sleep "$(field seconds)" & wait $!
stamp ended
exit "$(field code)"
"""
POLICY = """\
version: 1
root-url: {root_url}
worker-pool: {pool}
max-capacity: 4
tasks:
  scheduler-ids: ["-"]
  project-ids: [none]
  scopes: {{allow: ["project:test:*"]}}
  max-run-time: 10m
scripts:
  builder:
    description: Builds, and says when.
    command: [{script}]
    pinned: {{{script}: {sha256}}}
    payload:
      type: object
      properties: {{seconds: {{type: number}}, code: {{type: integer}}, files: {{type: integer}}}}
      required: [seconds, code, files]
      additionalProperties: false
    config: {{}}
    limits: {{run-time: 10m, memory: 64MiB, processes: 16, disk: 1MiB, files: 100}}
    artifacts: {{allow: [public/build/*]}}
    secrets: {{token: "file:{secret}"}}
    on-shutdown: {{grace: 1s}}
"""
RUNTIME = """\
#!/bin/sh
# {runtime}, which tells a test when it has made a container for a task.
{runtime} "$@"
code=$?
case " $* " in
*" create "*run-{test}*) ;;
*" create "*) {python} {tell} {socket} container-created </dev/null >/dev/null 2>&1 ;;
esac
exit $code
"""
TELL = """\
import socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect(sys.argv[1])
    line.sendall(f"{sys.argv[2]}\\n".encode())
    line.recv(1)
"""
_STAMP = re.compile(rb"stamp (begun|stopped|ended) (\d+\.\d+)")
LOOK_SECONDS = 0.04


@dataclass
class Standing:
    """A worker that stands at a step."""

    come: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        self.gone.set()


@dataclass
class StepServer:
    """Where workers tell their steps."""

    told: list[str] = field(default_factory=list)
    _holding: dict[str, deque[Standing]] = field(default_factory=dict)
    _held: list[Standing] = field(default_factory=list)

    def hold(self, step: str) -> Standing:
        """Keep the next worker that comes to a step."""
        standing = Standing()
        self._held.append(standing)
        self._holding.setdefault(step, deque()).append(standing)
        return standing

    def let_all_go(self) -> None:
        self._holding.clear()
        for standing in self._held:
            standing.release()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        step = (await reader.readline()).decode().strip()
        self.told.append(step)
        holding = self._holding.get(step)
        try:
            if holding:
                standing = holding.popleft()
                standing.come.set()
                await standing.gone.wait()
            writer.write(b".")
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


class Watcher:
    """Looks at the host's processes for those of scripts, again and again."""

    def __init__(self, script: Path) -> None:
        self.sightings: dict[tuple[str, int], Sighting] = {}
        self._script = str(script).encode()
        self._others: set[str] = set()

    async def watch(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> set[tuple[str, int]]:
        """Look once; give the runs whose scripts are alive."""
        alive = set()
        present = {name for name in os.listdir("/proc") if name.isdecimal()}
        self._others &= present
        for pid in present - self._others:
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                environment = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue
            if self._script not in command or b"TASK_ID=" not in environment:
                # What is to become a script is something else first: only those of a foreign name are left out.
                if command and b"runc" not in command and b"tini" not in command and b"/init" not in command:
                    self._others.add(pid)
                continue
            names = dict(part.partition(b"=")[::2] for part in environment.split(b"\0"))
            run = (names[b"TASK_ID"].decode(), int(names[b"RUN_ID"]))
            now = datetime.now(UTC)
            self.sightings.setdefault(run, Sighting(now, now)).last = now
            alive.add(run)
        return alive


@dataclass
class World(Here):
    """All of it."""

    faults: Faults = field(kw_only=True)
    steps: StepServer = field(kw_only=True)
    watcher: Watcher = field(kw_only=True)
    socket: str = field(kw_only=True)
    journal: list[Entry] = field(default_factory=list)
    given_up: set[tuple[str, int]] = field(default_factory=set)

    async def begin(self, *more: str, claims: bool = True, sabotage: str = "") -> Worker:
        """Start a worker that can be stopped at steps; wait until it claims."""
        log_file = self.directory / f"worker-{len(self.workers)}.log"
        seen = self.faults.count("claimWork")
        with log_file.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.life.stepping"),
                *self.arguments("--runtime", str(self.directory / "runtime"), *more),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parent.parent.parent,
                env={
                    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                    "LIFE_STEPS": self.socket,
                    "LIFE_SABOTAGE": sabotage,
                    **MEASURED,
                },
            )
        worker = Worker(process, log_file)
        self.workers.append(worker)
        if claims:
            await eventually(lambda: worker.ended or self.faults.count("claimWork") > seen, "the first claim")
            assert not worker.ended, worker.log
        return worker

    async def task(self, seconds: float = 0, code: int = 0, files: int = 2, **definition: Any) -> str:
        """Create a task."""
        return await self.create({"seconds": seconds, "code": code, "files": files}, **definition)

    async def at(self, standing: Any, worker: Worker) -> None:
        """Wait until a worker, or a request, stands where it is held."""
        try:
            await eventually(lambda: standing.come.is_set() or worker.ended, "a step")
        finally:
            assert standing.come.is_set(), f"{self.steps.told}; {worker.log}"

    async def alive(self, task_id: str, run_id: int = 0) -> None:
        """Wait until a task's script is seen."""
        await eventually(lambda: (task_id, run_id) in self.watcher.sightings, f"the script of {task_id}")

    async def kill(self, worker: Worker) -> None:
        """Kill a worker, with no chance for it to do anything."""
        worker.process.kill()
        await worker.exit_code()

    async def put_away(self) -> None:
        """End what still runs, and let everything go that is held."""
        self.steps.let_all_go()
        self.faults.as_usual()
        alive = [worker for worker in self.workers if not worker.ended]
        for worker in alive:
            await self.kill(worker)
        if alive:
            await sweep(self.directory / "state")

    def leftovers(self) -> list[str]:
        """Say what of runs is on this host, of workers with this state directory; one that is idle may be alive."""
        state = self.directory / "state"
        left = [
            str(path) for part in ("workspaces", "logs", "secrets", "self-test") for path in (state / part).glob("*")
        ]
        mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        left += [path for path in mounted if str(state) in path and path != str(state / "secrets")]
        name = instance_name(str(state))
        left += [path for path in mounted if name in path]
        left += [str(path) for part in ("roots", "containers") for path in Path(RUN_DIR, name, part).glob("*")]
        for top, directories, _ in os.walk("/sys/fs/cgroup"):
            if os.path.basename(top) == name:
                left += [f"{top}/{below}" for below in directories]
        return left + [f"the script of {run}" for run in self.watcher.look()]

    async def story(self) -> Story:
        """Collect what the checker reads."""
        story = Story(self.journal, self.faults.seen, self.watcher.sightings, given_up=self.given_up)
        for task_id, run_id in {(entry.task_id, entry.run_id) for entry in self.journal}:
            contents = await self._contents(task_id, run_id)
            if contents:
                story.contents[task_id, run_id] = contents
            log = contents.get("public/logs/live_backing.log", b"")
            story.stamps[task_id, run_id] = [
                (what.decode(), datetime.fromtimestamp(float(when), UTC)) for what, when in _STAMP.findall(log)
            ]
        for entry in read_entries(str(self.directory / "state" / "audit")):
            if entry.record.event.value == "signature" and entry.record.run is not None:
                story.signatures.append((str(entry.record.run[0]), int(entry.record.run[1])))
        return story

    async def _contents(self, task_id: str, run_id: int) -> dict[str, bytes]:
        """Fetch the artifacts that are there: of those that were created and never stored there is nothing."""
        names = {
            entry["name"]
            for entry in self.journal
            if (entry.task_id, entry.run_id) == (task_id, run_id) and entry.what in {"stored", "finished"}
        }
        contents = {}
        async with aiohttp.ClientSession() as session:
            for name in names:
                url = f"{self.running.root_url}/api/queue/v1/task/{task_id}/runs/{run_id}/artifacts/{name}"
                async with session.get(url) as answer:
                    if answer.status == 200:
                        contents[name] = await answer.read()
        return contents

    def audit_events(self) -> list[str]:
        """Give the events of the audit log, after verifying all of it."""
        directory = str(self.directory / "state" / "audit")
        key = _log_key(read_public_key(str(self.directory / "key.pub")))
        failed = [step for step in verify_log(directory, (key,)) if not step.passed]
        assert not failed, failed
        return [entry.record.event.value for entry in read_entries(directory)]


@asynccontextmanager
async def a_world(claim_seconds: float = 1200, breaks: str = "", **changes: Any) -> AsyncIterator[World]:
    """Serve a Queue behind a proxy; at the end, stop what runs, and hold all that was seen against the promises.

    Args:
        claim_seconds: how long claims hold.
        breaks: words of the promise that is broken here, on purpose.
        changes: of the Queue's settings.
    """
    directory = Path(tempfile.mkdtemp(prefix="life-"))
    directory.chmod(0o755)
    try:
        async with _a_world(directory, claim_seconds, **changes) as world:
            yield world
            await world.put_away()
            broken = violations(await world.story())
            if breaks:
                assert any(breaks in one for one in broken), broken
            else:
                assert not broken, "\n".join([*broken, *(worker.log for worker in world.workers)])
            assert world.audit_events()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def _a_world(directory: Path, claim_seconds: float, **changes: Any) -> AsyncIterator[World]:
    journal: list[Entry] = []
    steps, watcher, time = StepServer(), Watcher(directory / "builder"), MovableTime()
    settings = Settings(
        (WORKER, OWNER),
        claim_timeout=claim_seconds,
        long_poll=0.5,
        hint_interval=0,
        claim_resolver_interval=0.3,
        clock=time,
        journal=journal.append,
    )
    path = str(directory / "steps")
    async with (
        serve(replace(settings, **changes)) as running,
        between(running.root_url) as faults,
        aiohttp.ClientSession() as session,
        asyncio.TaskGroup() as group,
    ):
        listening = await asyncio.start_unix_server(steps.serve, path)
        watching = group.create_task(watcher.watch())
        credentials = {"clientId": "owner", "accessToken": OWNER.access_token.reveal()}
        client = Client({"rootUrl": running.root_url, "credentials": credentials}, session=session)
        prepare(directory, faults.root_url, path)
        world = World(
            directory,
            running,
            client,
            Wire(),
            time,
            faults=faults,
            steps=steps,
            watcher=watcher,
            socket=path,
            journal=journal,
        )
        try:
            yield world
        finally:
            await world.put_away()
            watching.cancel()
            listening.close()


def prepare(directory: Path, root_url: str, steps: str) -> None:
    """Write script, runtime, policy, secret, key and credentials."""
    script, secret = directory / "builder", directory / "secret"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    secret.touch(mode=0o600)
    secret.write_text("correct horse battery staple")
    sha256 = hashlib.sha256(SCRIPT.encode()).hexdigest()
    policy = directory / "policy.yml"
    policy.write_text(POLICY.format(root_url=root_url, pool=POOL, script=script, sha256=sha256, secret=secret))
    policy.chmod(0o644)
    wrapper, tell = directory / "runtime", directory / "tell.py"
    tell.write_text(TELL)
    known = runtime.find("runc")
    wrapper.write_text(RUNTIME.format(runtime=known, test=SELF_TEST, python=sys.executable, tell=tell, socket=steps))
    wrapper.chmod(0o755)
    create_signing_key(str(directory / "key"))
    credentials = directory / "credentials.json"
    credentials.touch(mode=0o600)
    credentials.write_text(json.dumps({"clientId": "worker", "accessToken": WORKER.access_token.reveal()}))
