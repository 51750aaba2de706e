"""A canary in every secret and credential, and everything that the worker writes anywhere is searched for them."""

import base64
import hashlib
import json
import os
import signal
import urllib.parse
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import taskcluster.aio

from secureworker.core.claim import Secret
from secureworker.host.mounts import unmount_all
from secureworker.localqueue.settings import StaticClient
from tests.end_to_end.daemon import OWNER, WORKER, Here, Worker, a_queue, eventually

pytestmark = pytest.mark.sandbox

TOKEN = "canary+token/7f1e0a=" + "t" * 24
"""The worker's own."""
FILE = "canary+file/3b9d\nsecond-canary-line-5e"
CREDENTIAL = 'canary-credential "4c\\8e"'
REMOTE = "canary/remote%6a1f"
CANARIES = {"token": TOKEN, "file": FILE, "credential": CREDENTIAL, "remote": REMOTE}
TELLING = """\
#!/bin/sh
# Tells its secrets in every way it can, but to files: those are its outputs, and its author's to keep clean.
cd /run/secrets || exit 1
for name in *; do
    printf '%s: ' "$name"; cat "$name"; echo
    base64 -w0 "$name"; echo
    printf 'x'; cat "$name" | base64; echo
    cat "$name" >&2
    od -c "$name" >/dev/null
    sed 's/./&/g' "$name"
done
python3 - <<'PYTHON'
import json, os, sys, time, urllib.parse
for name in os.listdir("."):
    text = open(name).read()
    print(json.dumps({name: text}), urllib.parse.quote(text), urllib.parse.quote_plus(text), text.splitlines()[-1])
    for letter in text:
        sys.stdout.write(letter)
        sys.stdout.flush()
    print()
PYTHON
mkdir -p /task/artifacts/public/build
env > /task/artifacts/public/build/environment.txt
cat /proc/*/cmdline > /task/artifacts/public/build/arguments.txt
echo the script has told everything
sleep 3
"""
SECRETS = """\
    secrets:
      file: "file:{directory}/secret"
      credential: "credential:autograph"
      remote: "taskcluster:project/test/secret#password"
"""


@pytest.fixture
async def here(directory: Path) -> AsyncIterator[Here]:
    worker = StaticClient(WORKER.client_id, Secret(TOKEN), WORKER.scopes)
    try:
        async with a_queue(directory, clients=(worker, OWNER)) as running:
            yield running
    finally:
        unmount_all(str(directory / "state" / "secrets"))  # left by a worker that was killed


def private(path: Path, content: str) -> None:
    path.touch(mode=0o600)
    path.write_text(content)


async def prepare(here: Here) -> dict[str, str]:
    """Put the canaries where they belong; give the variables that the worker is started with."""
    directory = here.directory
    private(directory / "secret", FILE)
    (directory / "systemd").mkdir(mode=0o700)
    private(directory / "systemd" / "autograph", CREDENTIAL)
    private(directory / "credentials.json", json.dumps({"clientId": "worker", "accessToken": TOKEN}))
    credentials = {"clientId": "owner", "accessToken": OWNER.access_token.reveal()}
    async with aiohttp.ClientSession() as session:
        secrets = taskcluster.aio.Secrets({"rootUrl": here.running.root_url, "credentials": credentials}, session)
        until = here.time().replace(year=here.time().year + 1).isoformat()
        await secrets.set("project/test/secret", {"secret": {"password": REMOTE}, "expires": until})
    script, policy = directory / "sleeper", directory / "policy.yml"
    before = hashlib.sha256(script.read_bytes()).hexdigest()
    script.write_text(TELLING)
    text = policy.read_text().replace(before, hashlib.sha256(TELLING.encode()).hexdigest())
    text = text.replace('allow: ["project:test:*"]', 'allow: ["project:test:*", "secrets:get:project/test/*"]')
    policy.write_text(text + SECRETS.format(directory=directory))
    return {"CREDENTIALS_DIRECTORY": str(directory / "systemd")}


def forms(canary: str) -> Iterator[bytes]:
    """Give what a canary may look like where it must not be."""
    for part in {canary, *canary.splitlines()}:
        raw = part.encode()
        yield raw
        yield urllib.parse.quote(part, safe="").encode()
        yield urllib.parse.quote_plus(part).encode()
        yield json.dumps(part)[1:-1].encode()
        for before in range(3):
            # What of base64 does not depend on what stands before and after.
            encoded = base64.b64encode(b"x" * before + raw).rstrip(b"=")
            yield encoded[4 if before else 0 : -4]


def found(content: bytes) -> list[str]:
    return [name for name, canary in CANARIES.items() if any(form in content for form in forms(canary))]


@dataclass
class Searched:
    """What was searched, and what was found where."""

    places: list[str] = field(default_factory=list)
    hits: list[str] = field(default_factory=list)

    def look(self, place: str, content: bytes) -> None:
        self.places.append(place)
        self.hits += [f"{name} in {place}" for name in found(content)]

    def look_below(self, directory: Path, *but: Path) -> None:
        for path in sorted(directory.rglob("*")):
            if path.is_file() and not path.is_symlink() and not any(path.is_relative_to(other) for other in but):
                self.look(str(path), path.read_bytes())
            self.look(f"the name of {path}", os.fsencode(path))


def family(pid: int) -> set[int]:
    """Give a process and all that descend from it."""
    parents: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    members = {pid}
    while more := {child for child, parent in parents.items() if parent in members} - members:
        members |= more
    return members


def look_at_processes(searched: Searched, worker: Worker) -> None:
    for pid in family(worker.process.pid):
        for name in ("cmdline", "environ"):
            try:
                searched.look(f"/proc/{pid}/{name}", Path(f"/proc/{pid}/{name}").read_bytes())
            except OSError:
                continue


STATUS = ("/", "/status.json", "/health", "/metrics")


async def read_status(state: Path, path: str) -> bytes:
    connector = aiohttp.UnixConnector(str(state / "status.sock"))
    async with aiohttp.ClientSession(connector=connector) as session, session.get(f"http://localhost{path}") as answer:
        assert answer.status == 200, path
        return await answer.read()


async def published(here: Here, task: str) -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    listed: dict[str, Any] = await here.client.listArtifacts(task, 0)
    async with aiohttp.ClientSession() as session:
        for artifact in listed["artifacts"]:
            url = f"{here.running.root_url}/api/queue/v1/task/{task}/runs/0/artifacts/{artifact['name']}"
            async with session.get(url) as answer:
                found[artifact["name"]] = await answer.read()
    return found


async def test_no_secret_is_in_anything_that_the_worker_writes_anywhere(here: Here) -> None:
    variables = await prepare(here)
    searched = Searched()
    worker = await Worker.start([*here.arguments(), "--verbose"], here.directory / "worker.log", **variables)
    here.workers.append(worker)
    task = await here.create(scopes=["secrets:get:project/test/secret"])
    state = here.directory / "state"
    lent = state / "secrets"
    await eventually(lambda: lent.is_dir() and list(lent.glob("*/remote")), f"the lent secrets; {worker.log}")
    assert sorted(path.name for path in lent.glob("*/*")) == ["credential", "file", "remote"]
    last = "workspaces/*/task/artifacts/public/build/arguments.txt"
    await eventually(lambda: any(path.stat().st_size for path in state.glob(last)), f"the script's end; {worker.log}")

    look_at_processes(searched, worker)
    # While the script has them, and has told them: what is shown of its log is the log that is masked.
    shown = {path: await read_status(state, path) for path in (*STATUS, f"/runs/{task}/0/log")}
    for path, content in shown.items():
        searched.look(f"the status page's {path}", content)
    assert b"[masked]" in shown["/"]
    assert b"[masked]" in shown[f"/runs/{task}/0/log"]
    searched.look_below(state, lent)
    assert await here.resolved(task) == "completed", worker.log
    for path in STATUS:
        searched.look(f"the status page's {path} afterwards", await read_status(state, path))
    assert list(lent.iterdir()) == []
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log

    searched.look_below(state)
    searched.look("standard error", worker.log.encode())
    artifacts = await published(here, task)
    for name, content in artifacts.items():
        searched.look(f"the artifact {name}", content)
    assert {"public/logs/live_backing.log", "public/chain-of-trust.json", "public/build/environment.txt"} <= set(
        artifacts
    )
    log = artifacts["public/logs/live_backing.log"].decode()
    assert log.count("[masked]") > 20
    assert "file: [masked]" in log
    assert searched.hits == []
    assert len(searched.places) > 40
    assert not lent.exists()
    assert str(state) not in Path("/proc/self/mountinfo").read_text()


def test_the_search_would_find_each_canary_in_each_form() -> None:
    for name, canary in CANARIES.items():
        for form in (canary.encode(), json.dumps(canary).encode(), base64.b64encode(b"ab" + canary.encode() + b"cde")):
            assert found(b"before " + form + b" after") == [name]


async def test_a_task_without_the_scope_of_a_secret_is_refused_and_nothing_is_lent(here: Here) -> None:
    variables = await prepare(here)
    worker = await Worker.start(here.arguments(), here.directory / "worker.log", **variables)
    here.workers.append(worker)
    task = await here.create()
    assert await here.resolved(task) == "malformed-payload"
    log = await here.log_of(task)
    assert "scripts.sleeper.secrets.remote" in log
    assert '"secrets:get:project/test/secret"' in log
    assert found(log.encode()) == []


async def test_a_worker_that_was_killed_leaves_no_secret_to_the_next(here: Here) -> None:
    variables = await prepare(here)
    worker = await Worker.start(here.arguments(), here.directory / "worker.log", **variables)
    here.workers.append(worker)
    await here.create(scopes=["secrets:get:project/test/secret"], retries=0)
    lent = here.directory / "state" / "secrets"
    await eventually(lambda: lent.is_dir() and list(lent.glob("*/remote")), f"the lent secrets; {worker.log}")
    worker.signal(signal.SIGKILL)
    await worker.exit_code()
    assert list(lent.glob("*/remote"))
    await eventually(lambda: not here.scripts(), "the end of the script")

    claims = here.wire.count("claim-work")
    again = await Worker.start(here.arguments(), here.directory / "again.log", **variables)
    here.workers.append(again)
    await eventually(lambda: here.wire.count("claim-work") > claims, f"the next worker; {again.log}")
    assert "took away the secrets that an earlier worker left in memory" in again.log
    assert list(lent.iterdir()) == []
    again.signal(signal.SIGTERM)
    assert await again.exit_code() == 0, again.log
    assert str(lent) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("missing", ["secret", "systemd/autograph"])
async def test_a_worker_whose_secrets_cannot_be_had_does_not_start(here: Here, missing: str) -> None:
    variables = await prepare(here)
    (here.directory / missing).unlink()
    worker = await Worker.start(here.arguments(), here.directory / "worker.log", **variables)
    here.workers.append(worker)
    assert await worker.exit_code() == 2, worker.log
    assert "cannot be read: No such file" in worker.log
    assert here.wire.count("claim-work") == 0
