"""What fetching inputs costs: `python benchmarks/inputs.py [DIRECTORY]`. Prints figures; asserts none.

100 inputs of 10 MB are fetched from a storage that is a process of its own, 8 at a time, hashed, and put into their
places; beside it, the same bytes are hashed alone, which is the speed that cannot be exceeded on one core. Give a
directory on a disk to measure that too: by default files lie in memory.

Then an input is followed to the tree: over a chain of 20 tasks, each the next one's dependency, with 100 artifacts in
each statement, to a decision task with a graph of 1,000 tasks and a mirror. Beside it, the same downloads are made with
nothing else, 8 tasks at a time. Each answer about a task takes 20 ms, as over a network.

On two cores that others used too: 1 GB fetched at 511 MB/s where one core alone hashed 1700 MB/s; 2.1 s of processor
time, of which hashing is 0.6 to 1.3; 26 MB of memory beyond what the process had before. The chain: 850 ms for
facts, of which 420 pass while it is found out which tasks there are, one after the other, and 420 are the downloads, as
they take alone; git and rendering need 150 beside them; judged in 50 to 75.
"""

import asyncio
import functools
import hashlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import Process
from pathlib import Path

import aiohttp
from aiohttp import web

from secureworker.artifacts.abreast import each
from secureworker.artifacts.download import Allowance, download
from secureworker.artifacts.inputs import HttpInputs, InputSettings
from secureworker.core.chain import Upstream, UpstreamRun
from secureworker.core.claim import Json
from secureworker.core.ids import ArtifactName, RunId, ScriptName, Sha256, TaskId, WorkerPool
from secureworker.core.inputs import Input, InputPlan, NotThere, Source
from secureworker.core.origin import TracedRepository, TraceRule
from secureworker.core.provenance import PROVENANCE
from secureworker.core.trace import TASK_GRAPH, judge_trace
from secureworker.core.trust import Implementation, Trust, TrustKey, TrustPool
from secureworker.host.clock import SystemClock
from secureworker.host.http import open_session
from secureworker.ports import ClaimedRun, Workspace
from secureworker.signing.keys import create_signing_key
from secureworker.signing.verify import checks
from secureworker.testing import FakeClock, FakeRun, a_claim

COUNT = 100
SIZE = 10_000_000
ROUNDS = 3
BUILD = TaskId("TyRoGA_OS3W2QMCEuF1icw")
LENGTH = 20
DELAY = 0.02
"""Of each answer about the chain."""
GRAPH = 1000
URL = "https://github.com/us/app"
TREE = """\
tasks:
  - taskId: {$eval: as_slugid('decision')}
    taskGroupId: {$eval: as_slugid('decision')}
    taskQueueId: bench/decision
    schedulerId: SCHEDULER
    projectId: PROJECT
    created: {$fromNow: ''}
    deadline: DEADLINE
    expires: EXPIRES
    metadata: METADATA
    extra: {tasks_for: '${tasks_for}'}
    payload:
      env: {APP_HEAD_REPOSITORY: '${event.repository.html_url}', APP_HEAD_REV: '${event.after}', APP_HEAD_REF: main}
"""


def serve(listener: socket.socket, content: str) -> None:
    """Give the file of that name below a directory, or else the same one for all, until killed."""

    async def give(request: web.Request) -> web.FileResponse:
        own = Path(content).parent / "tasks" / request.match_info["name"]
        if own.exists():
            await asyncio.sleep(DELAY)
        return web.FileResponse(own if own.exists() else content)

    application = web.Application()
    application.router.add_get("/{name:.*}", give)
    web.run_app(application, sock=listener, print=None, access_log=None)


class Queue:
    """Points to the storage."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.tasks: dict[TaskId, dict[str, Json]] = {}

    async def facts(self, run: ClaimedRun, task_id: TaskId) -> Upstream:  # noqa: ARG002 - the port's
        """Know the tasks of the chain."""
        await asyncio.sleep(DELAY)
        last = UpstreamRun(RunId(0), "completed", "group", "worker")
        return Upstream(task_id, self.tasks.get(task_id), "completed", last)

    async def locate(
        self,
        run: ClaimedRun,  # noqa: ARG002 - the port's
        task_id: TaskId,
        run_id: RunId,  # noqa: ARG002 - the port's
        name: ArtifactName,
    ) -> Source | NotThere:
        """Point. Other workers' tasks have no provenance."""
        await asyncio.sleep(DELAY if task_id in self.tasks else 0)
        if name == PROVENANCE:
            return NotThere("it is not there")
        return Source(f"{self._url}/{task_id}/{name}")


def peak() -> float:
    """Give the most memory that this process had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def measure(url: str, digest: Sha256, directory: Path) -> None:
    """Fetch, several times, and say how fast the fastest was."""
    inputs = tuple(Input(BUILD, RunId(0), ArtifactName(f"public/{number}"), digest) for number in range(COUNT))
    best, busy, before = float("inf"), float("inf"), peak()
    async with open_session() as session:
        fetching = HttpInputs(session, Queue(url), SystemClock(), InputSettings(url))
        run = FakeRun(a_claim(), FakeClock())
        for number in range(ROUNDS):
            place = directory / str(number)
            (place / "task" / "work").mkdir(parents=True)
            (place / "spool").mkdir()
            workspace = Workspace(str(place / "task"), "", str(place / "spool"), "", os.getuid())
            begun, idle = time.perf_counter(), time.process_time()
            await fetching.fetch(run, inputs, COUNT * SIZE, workspace)
            best, busy = min(best, time.perf_counter() - begun), min(busy, time.process_time() - idle)
            await asyncio.to_thread(shutil.rmtree, place)
    print(f"fetched  {COUNT} x {SIZE / 1e6:.0f} MB: {best:.2f} s, {COUNT * SIZE / best / 1e6:.0f} MB/s")
    print(f"         {busy:.2f} s of processor time in this process, all threads together")
    print(f"memory   {before:.0f} MB before, {peak():.0f} MB at most")


def an_id(number: int) -> TaskId:
    """Give a task id."""
    return TaskId(f"{number:08d}Q0C0000000000A")


def a_definition(worker_type: str, **changes: Json) -> dict[str, Json]:
    """Give a task's definition; all are in one group."""
    return {
        **a_claim().task.verbatim,
        "created": "2026-01-31T12:00:00.000Z",
        "provisionerId": "bench",
        "workerType": worker_type,
        "taskQueueId": f"bench/{worker_type}",
        "taskGroupId": str(an_id(0)),
        **changes,
    }


@dataclass(frozen=True)
class Chain:
    """What is followed, and by which rules."""

    queue: Queue
    plan: InputPlan
    trust: Trust
    last: TaskId


def make_chain(directory: Path, queue: Queue) -> Chain:
    """Make a repository, a decision task, its graph and a chain of tasks; write down what their workers publish."""
    tree = directory / "tree"
    tree.mkdir()
    task = a_claim().task.verbatim
    text = TREE
    for key in ("schedulerId", "projectId", "deadline", "expires", "metadata"):
        text = text.replace(key.upper().replace("ID", ""), json.dumps(task[key]))
    (tree / ".taskcluster.yml").write_text(text)
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"], ["rev-parse", "HEAD"]):
        done = subprocess.run(["/usr/bin/git", *identity, *words], cwd=tree, check=True, capture_output=True, text=True)
    environment: Json = {"APP_HEAD_REPOSITORY": URL, "APP_HEAD_REV": done.stdout.strip(), "APP_HEAD_REF": "main"}
    keys = {name: create_signing_key(str(directory / name)) for name in ("build", "decision")}
    queue.tasks[an_id(0)] = a_definition(
        "decision", dependencies=[], extra={"tasks_for": "github-push"}, payload={"env": environment}
    )
    for number in range(1, LENGTH + 1):
        queue.tasks[an_id(number)] = a_definition("build", dependencies=[str(an_id(number - 1))], payload={})
    entries = {an_id(number): queue.tasks[an_id(min(number, LENGTH))] for number in range(1, GRAPH + 1)}
    graph = json.dumps({task_id: {"task": task, "dependencies": {}} for task_id, task in entries.items()}).encode()
    for task_id, task in queue.tasks.items():
        artifacts = {f"public/build/{number}.zip": {"sha256": "ab" * 32} for number in range(100)}
        if task_id == an_id(0):
            artifacts[TASK_GRAPH] = {"sha256": hashlib.sha256(graph).hexdigest()}
        body = {"artifacts": artifacts, "chainOfTrustVersion": 1, "environment": {}, "runId": 0, "task": task}
        body |= {"taskId": task_id, "workerGroup": "group", "workerId": "worker", "workerType": task["workerType"]}
        signed = json.dumps(body, indent=2, sort_keys=True).encode()
        place = directory / "tasks" / task_id / "public"
        place.mkdir(parents=True)
        (place / "chain-of-trust.json").write_bytes(signed)
        (place / "chain-of-trust.json.sig").write_bytes(keys[str(task["workerType"])].sign(signed))
        (place / "task-graph.json").write_bytes(graph)
    repository = TracedRepository("https", "github.com", "us", "app", str(tree / ".git"), ("main",), "APP")
    plan = InputPlan(worker_pools=("bench/*",), trace=TraceRule(("bench/decision",), (repository,), LENGTH))
    pools = tuple(
        TrustPool(WorkerPool("bench", name), Implementation.GENERIC_WORKER, (TrustKey(key.public.raw),))
        for name, key in keys.items()
    )
    return Chain(queue, plan, Trust(pools), an_id(LENGTH))


async def load(session: aiohttp.ClientSession, url: str, number: int) -> None:
    """Do what is done for a task's statements, and for the graph, but look at nothing."""
    await asyncio.sleep(2 * DELAY)
    names = ["chain-of-trust.json", "chain-of-trust.json.sig", *(["task-graph.json"] if not number else [])]
    for name in names:
        source = Source(f"{url}/{an_id(number)}/public/{name}")
        await asyncio.sleep(DELAY)
        await download(session, source, bytearray().extend, Allowance(1 << 30), plain=True, stall_seconds=60)


async def measure_chain(url: str, chain: Chain) -> None:
    """Follow it, several times, and say how long the shortest took; then the downloads alone."""
    assert chain.plan.trace is not None
    run, best = (
        FakeRun(a_claim(), FakeClock()),
        {"gathered": float("inf"), "judged": float("inf"), "alone": float("inf")},
    )
    async with open_session() as session:
        inputs = HttpInputs(session, chain.queue, SystemClock(), InputSettings(url))
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            facts = await inputs.trace(run, (chain.last,), chain.plan.trace)
            gathered = time.perf_counter()
            script, now = ScriptName("x"), datetime.now(UTC)
            traced = judge_trace(chain.plan, script, (chain.last,), facts, chain.trust, now, checks())
            judged = time.perf_counter()
            assert not traced.reasons, traced.reasons[0]
            await each(range(LENGTH + 1), functools.partial(load, session, url), at_a_time=8)
            alone = time.perf_counter()
            for what, seconds in (
                ("gathered", gathered - begun),
                ("judged", judged - gathered),
                ("alone", alone - judged),
            ):
                best[what] = min(best[what], seconds)
    print(f"followed {LENGTH} tasks: facts {best['gathered'] * 1000:.0f} ms, of which git and rendering are a part;")
    print(f"         judged in {best['judged'] * 1000:.0f} ms; the same downloads alone {best['alone'] * 1000:.0f} ms")


def main() -> None:
    """Measure."""
    base = sys.argv[1] if len(sys.argv) > 1 else "/dev/shm"
    with tempfile.TemporaryDirectory(dir=base) as name:
        directory = Path(name)
        content = os.urandom(SIZE)
        (directory / "content").write_bytes(content)
        begun = time.perf_counter()
        for _ in range(COUNT):
            digest = hashlib.sha256(content).hexdigest()
        alone = time.perf_counter() - begun
        print(f"hashed   {COUNT} x {SIZE / 1e6:.0f} MB: {alone:.2f} s, {COUNT * SIZE / alone / 1e6:.0f} MB/s, alone")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            storage = Process(target=serve, args=(listener, str(directory / "content")), daemon=True)
            storage.start()
            try:
                url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                asyncio.run(measure(url, Sha256(digest), directory))
                asyncio.run(measure_chain(url, make_chain(directory, Queue(url))))
            finally:
                storage.kill()
                storage.join()


if __name__ == "__main__":
    main()
