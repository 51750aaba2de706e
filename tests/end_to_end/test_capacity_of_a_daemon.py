"""A worker with several places: real scripts side by side, and what one of them does never touches another."""

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from secureworker.sandbox.engine import instance_name
from tests.end_to_end.daemon import POOL, Here, a_queue, eventually
from tests.sandbox.cage import a_directory

pytestmark = pytest.mark.sandbox

SCRIPT = """\
#!/usr/bin/python3 -I
import json, os, sys, urllib.request
task = json.load(open("task.json"))
kind, address = task["payload"]["kind"], task["payload"]["address"]
me = os.environ["TASK_ID"]
# localhost is in it; a host of another name needs no such line.
for name in ("no_proxy", "NO_PROXY"):
    os.environ.pop(name, None)
egress = urllib.request.build_opener(urllib.request.ProxyHandler({"http": os.environ["http_proxy"]}))
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

def ask(path):
    return egress.open(f"{address}/{path}/{me}").read().decode()

print(f"this is {kind} {me}", flush=True)
os.makedirs("../artifacts/public/build", exist_ok=True)
with open(f"../artifacts/public/build/{kind}.txt", "w") as file:
    file.write(f"{kind} {me}")
# All are alive at once, or nobody goes on.
ask("meet")
if kind == "fails":
    sys.exit(1)
if kind == "hungry":
    hoard = [bytearray(os.urandom(1024 * 1024)) for _ in range(1000)]
if kind == "floods":
    for _ in range(300):
        print("x" * 9999)
# Others have come to their ends, whichever they are.
ask("stay")
scopes = direct.open(os.environ["TASKCLUSTER_PROXY_URL"] + "/api/auth/v1/scopes/current").read().decode()
print("my scopes:", scopes)
print("seen at the end:", sorted(os.listdir(".")), sorted(os.listdir("../artifacts/public/build")))
print("processes:", sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))
"""
POLICY = """\
version: 1
root-url: {root_url}
worker-pool: {pool}
max-capacity: 5
tasks:
  scheduler-ids: ["-"]
  project-ids: [none]
  scopes: {{allow: ["project:test:*"]}}
  max-run-time: 10m
scripts:
  ordinary:
    when: {{payload-field: do, equals: ordinary}}
    description: Meets the others.
    command: [{script}]
    pinned: {{{script}: {sha256}}}
    payload: &payload {{type: object}}
    limits: &limits {{run-time: 2m, memory: 64MiB, processes: 16, disk: 1MiB, files: 100, log: 1MiB}}
    artifacts: {{allow: [public/build/*]}}
    taskcluster: {{routes: ["GET /api/auth/v1/scopes/current"], scopes: ["project:test:*"]}}
    network: &network {{allow: [{{destination: "http://localhost:{port}", internal: true}}]}}
  alone:
    when: {{payload-field: do, equals: alone}}
    exclusive: true
    description: Is alone.
    command: [{script}]
    pinned: {{{script}: {sha256}}}
    payload: *payload
    limits: *limits
    artifacts: {{allow: [public/build/*]}}
    taskcluster: {{routes: ["GET /api/auth/v1/scopes/current"], scopes: ["project:test:*"]}}
    network: *network
"""


@dataclass
class Meeting:
    """Where scripts wait for each other, and for the test."""

    wanted: int = 1
    came: set[str] = field(default_factory=set)
    here: set[str] = field(default_factory=set)
    all_came: asyncio.Event = field(default_factory=asyncio.Event)
    staying: set[str] = field(default_factory=set)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    async def meet(self, request: web.Request) -> web.Response:
        self.came.add(request.match_info["task"])
        if len(self.came) >= self.wanted:
            self.all_came.set()
        await self.all_came.wait()
        return web.Response(text="all are here")

    async def stay(self, request: web.Request) -> web.Response:
        task = request.match_info["task"]
        self.staying.add(task)
        self.here.add(task)
        await self.over.wait()
        self.here.discard(task)
        return web.Response(text="go")


@pytest.fixture
async def meeting() -> AsyncIterator[Meeting]:
    made = Meeting()
    application = web.Application()
    application.router.add_get("/meet/{task}", made.meet)
    application.router.add_get("/stay/{task}", made.stay)
    async with TestServer(application, host="127.0.0.1") as server:
        assert server.port is not None
        made.port = server.port
        yield made
        made.over.set()
        made.all_came.set()


@pytest.fixture
async def here(meeting: Meeting) -> AsyncIterator[Here]:
    with a_directory() as directory:
        async with a_queue(directory) as running:
            script = directory / "sleeper"
            script.write_text(SCRIPT)
            sha256 = hashlib.sha256(SCRIPT.encode()).hexdigest()
            text = POLICY.format(
                root_url=running.running.root_url, pool=POOL, script=script, sha256=sha256, port=meeting.port
            )
            (directory / "policy.yml").write_text(text)
            yield running
            assert running.wire.most_reports() <= 1


async def create(here: Here, meeting: Meeting, kind: str, do: str = "ordinary") -> str:
    payload = {"kind": kind, "address": f"http://localhost:{meeting.port}", "do": do}
    return await here.create(payload, scopes=[f"project:test:{kind}"])


async def artifact(here: Here, task_id: str, name: str) -> str:
    url = f"{here.running.root_url}/api/queue/v1/task/{task_id}/runs/0/artifacts/{name}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 200, (task_id, name)
        return await answer.text()


async def names_of(here: Here, task_id: str) -> set[str]:
    listed = await here.client.listArtifacts(task_id, "0")
    return {each["name"] for each in listed["artifacts"] if each["name"].startswith("public/build/")}


def traits(pid: int) -> dict[str, str]:
    """Give by what the host tells a process from another's: its user, its groups, its namespaces."""
    place = Path(f"/proc/{pid}")
    uid = next(line for line in (place / "status").read_text().splitlines() if line.startswith("Uid:"))
    groups = "".join(sorted((place / "cgroup").read_text().splitlines()))
    spaces = {kind: str((place / "ns" / kind).readlink()) for kind in ("net", "pid", "mnt", "ipc", "user")}
    return {"uid": uid, "groups": groups, **spaces}


def assert_nothing_left(here: Here) -> None:
    state = here.directory / "state"
    assert here.scripts() == []
    for place in ("workspaces", "logs"):
        assert list((state / place).iterdir()) == []
    name = instance_name(str(state))
    assert list(Path("/sys/fs/cgroup").rglob(name)) == []
    assert not (Path("/run/secureworker") / name).exists()
    assert str(state) not in Path("/proc/self/mountinfo").read_text()


async def test_five_scripts_at_once_and_the_end_of_each_is_its_own(here: Here, meeting: Meeting) -> None:
    kinds = ("good", "fails", "hungry", "floods", "cancelled")
    meeting.wanted = len(kinds)
    tasks = {kind: await create(here, meeting, kind) for kind in kinds}
    worker = await here.start("--capacity", "5", "--tasks", "5")

    # 1. All five are alive at once: nobody passes before all have come. On the host, each is by itself in everything.
    await eventually(lambda: worker.ended or meeting.all_came.is_set(), f"all five scripts; {worker.log}")
    assert len(meeting.came) == 5, await here.log_of(tasks["good"])

    # 2. Three end in their ways, one is cancelled, and the good one is there all the while.
    await here.client.cancelTask(tasks["cancelled"])
    ends = {kind: await here.resolved(tasks[kind]) for kind in ("fails", "hungry", "cancelled")}
    assert ends == {"fails": "failed", "hungry": "failed", "cancelled": "canceled"}
    await eventually(lambda: {tasks["good"], tasks["floods"]} <= meeting.staying, "the two that go on")
    # An init and its script, of each.
    await eventually(lambda: len(here.scripts()) == 4, "the end of the other three")
    apart = [traits(pid) for pid in here.scripts()]
    for trait in apart[0]:
        assert len({each[trait] for each in apart}) == 2, trait
    meeting.over.set()
    assert await here.resolved(tasks["good"]) == "completed"
    assert await here.resolved(tasks["floods"]) == "completed"
    assert await worker.exit_code() == 0, worker.log

    # 3. Each has its own files, scopes, limits and log, and nothing of another's.
    logs = {kind: await here.log_of(task) for kind, task in tasks.items()}
    for kind, task in tasks.items():
        assert f"this is {kind} {task}" in logs[kind]
        for other in tasks.keys() - {kind}:
            assert tasks[other] not in logs[kind]
            assert f"this is {other}" not in logs[kind]
    assert "used more memory than its limit" in logs["hungry"]
    assert not any("memory than its limit" in log for kind, log in logs.items() if kind != "hungry")
    assert "output beyond 1048576 bytes is dropped" in logs["floods"]
    assert not any("is dropped" in log for kind, log in logs.items() if kind != "floods")
    assert json.dumps(["project:test:good"]).strip("[]") in logs["good"]
    assert "project:test:floods" not in logs["good"]
    assert "seen at the end: ['current_task_info.json', 'task.json'] ['good.txt']" in logs["good"]
    for kind in ("good", "floods", "fails"):
        assert await names_of(here, tasks[kind]) == {f"public/build/{kind}.txt"}
        assert await artifact(here, tasks[kind], f"public/build/{kind}.txt") == f"{kind} {tasks[kind]}"
    assert_nothing_left(here)


async def test_five_scripts_have_users_groups_and_namespaces_of_their_own(here: Here, meeting: Meeting) -> None:
    meeting.wanted = 5
    tasks = [await create(here, meeting, f"good-{number}") for number in range(5)]
    worker = await here.start("--capacity", "5", "--tasks", "5")
    await eventually(lambda: worker.ended or len(meeting.staying) == 5, f"all five; {worker.log}")
    # An init and its script, of each.
    apart = [traits(pid) for pid in here.scripts()]
    for trait in apart[0]:
        assert len({each[trait] for each in apart}) == 5, trait
    assert len({place.name for place in (here.directory / "state" / "workspaces").iterdir()}) == 5
    meeting.over.set()
    assert [await here.resolved(task) for task in tasks] == ["completed"] * 5
    assert await worker.exit_code() == 0, worker.log
    assert_nothing_left(here)


async def test_a_script_that_must_be_alone_is(here: Here, meeting: Meeting) -> None:
    meeting.wanted = 2
    tasks = [await create(here, meeting, kind) for kind in ("first", "second")]
    worker = await here.start("--capacity", "4")
    await eventually(lambda: worker.ended or len(meeting.staying) == 2, f"the two; {worker.log}")
    alone = await create(here, meeting, "only", do="alone")
    await eventually(lambda: f"{alone}/0: admitted" in worker.log, "that it is admitted")
    behind = await create(here, meeting, "behind")
    assert meeting.here == set(tasks)
    assert len({traits(pid)["uid"] for pid in here.scripts()}) == 2
    assert (await here.runs(behind))[0]["state"] == "pending"
    meeting.over.set()
    assert [await here.resolved(task) for task in (*tasks, alone, behind)] == ["completed"] * 4
    assert "waiting: the script alone runs alone on this worker; other runs: 2 at work" in await here.log_of(alone)
    started = [(await here.runs(task))[0] for task in (alone, behind)]
    assert started[1]["started"] >= started[0]["resolved"]
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log
    assert_nothing_left(here)


async def test_what_waits_is_given_back_when_the_worker_is_told_to_end(here: Here, meeting: Meeting) -> None:
    task = await create(here, meeting, "first")
    worker = await here.start("--capacity", "2", "--drain-seconds", "0.5")
    await eventually(lambda: worker.ended or task in meeting.staying, f"the first; {worker.log}")
    alone = await create(here, meeting, "only", do="alone")
    await eventually(lambda: f"{alone}/0: admitted" in worker.log, "that it is admitted")
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log
    for given_back in (task, alone):
        first, second = await here.runs(given_back)
        assert (first["reasonResolved"], second["state"]) == ("worker-shutdown", "pending")
    assert_nothing_left(here)


async def test_a_worker_that_is_to_run_more_at_once_than_its_policy_allows_does_not_start(here: Here) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "secureworker", "run", *here.arguments("--capacity", "6")),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ},
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"the capacity is set to 6, and" in said
    assert b"allows 5 at once" in said
    assert here.wire.count("claim-work") == 0


async def test_a_new_policy_that_allows_fewer_at_once_is_not_taken(here: Here) -> None:
    worker = await here.start("--capacity", "5")
    policy = here.directory / "policy.yml"
    policy.write_text(policy.read_text().replace("max-capacity: 5", "max-capacity: 4"))
    worker.signal(signal.SIGHUP)
    await eventually(lambda: "so the old one stays" in worker.log, "what becomes of the new policy")
    assert "the capacity is set to 5, and" in worker.log
    assert not worker.ended
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log
