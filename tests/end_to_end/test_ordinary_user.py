"""The whole line, by a worker that an ordinary user has started: control groups cannot be had, so without limits."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.end_to_end.daemon import Here, Worker, a_queue, eventually
from tests.end_to_end.test_live_log import ended, located, options, showing
from tests.livelog.reading import Pair
from tests.sandbox import ordinary

pytestmark = pytest.mark.sandbox

SCRIPT = """\
#!/bin/sh
id -u
cd /run/secrets && sha256sum token | cut -c-64 && stat -c '%a %u' token && stat -f -c %T . && ls -A && cat token
touch more || chmod 600 token || echo anything > token || rm -f token || echo "nothing can be done to it"
cd "$OLDPWD"
echo hi > ../artifacts/public/a
chmod 600 ../artifacts/public/a
"""
SECRET = "s3cret-of-the-host\n"
POLICY = """\
version: 1
root-url: https://tc.example.com
worker-pool: test-provisioner/ordinary
tasks:
  scheduler-ids: ["-"]
  project-ids: [none]
  scopes: {allow: []}
  max-run-time: 10m
scripts:
  publish:
    description: Says a secret, and publishes a file that only itself may read.
    command: [SCRIPT]
    pinned: {SCRIPT: SHA256}
    payload: {type: object, additionalProperties: false}
    config: {}
    secrets: {token: "file:SECRET"}
    limits: LIMITS
    artifacts: {allow: [public/a]}
"""


def give(path: Path, content: str, mode: int) -> None:
    path.write_text(content)
    path.chmod(mode)
    os.chown(path, ordinary.UID, ordinary.UID)


def run_local(directory: Path, limits: str = "none") -> subprocess.CompletedProcess[str]:
    user = directory / "user"
    user.mkdir(mode=0o711)
    give(user / "script", SCRIPT, 0o755)
    give(user / "token", SECRET, 0o600)
    policy = POLICY.replace("SHA256", hashlib.sha256(SCRIPT.encode()).hexdigest()).replace("LIMITS", limits)
    give(user / "policy.yml", policy.replace("SCRIPT", f"{user}/script").replace("SECRET", f"{user}/token"), 0o644)
    give(user / "task.json", '{"payload": {}}', 0o644)
    arguments = ["run-local", "--json", "--runtime", "runc", "--policy", "policy.yml", "--artifacts", "out"]
    return subprocess.run(
        ordinary.command(directory, "-m", "secureworker", *arguments, "task.json"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=ordinary.environment(),
    )


def test_an_ordinary_user_runs_a_task_with_secrets_and_its_outputs_are_signed(directory: Path) -> None:
    told = run_local(directory)
    assert told.returncode == 0, told.stderr
    result: dict[str, Any] = json.loads(told.stdout)
    assert result["reason"] == "completed"
    assert "\n1000\n" in result["log"]
    # As it is for a worker of root: in memory, for the script's user, to be read.
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    assert f"\n{digest}\n400 1000\ntmpfs\ntoken\n" in result["log"]
    assert "\nnothing can be done to it\n" in result["log"]
    # And the script did print it.
    assert SECRET.strip() not in result["log"]
    assert "\n[masked]" in result["log"]
    everything = [path for path in directory.rglob("*") if path.is_file() and path.name != "token"]
    assert [path for path in everything if SECRET.strip().encode() in path.read_bytes()] == []
    out = directory / "user" / "out" / "public"
    assert (out / "a").read_text() == "hi\n"
    chain = json.loads((out / "chain-of-trust.json").read_text())
    assert chain["environment"]["secureworker"]["sandbox"]["limits"] == "none"


def test_an_ordinary_user_without_control_groups_runs_nothing_that_has_limits(directory: Path) -> None:
    told = run_local(directory, limits="{memory: 1GiB}")
    assert told.returncode == 1
    assert "this host cannot limit what scripts use, and the policy does not say `limits: none`" in told.stderr


async def start(here: Here, *more: str) -> Worker:
    log_file = here.directory / f"worker-{len(here.workers)}.log"
    command = ordinary.command(here.directory, "-m", "secureworker", "run", "--runtime", "runc", *here.arguments(*more))
    with log_file.open("wb") as log:
        # unshare, sh and setpriv each become the next: the process is the worker itself.
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=ordinary.environment()
        )
    worker = Worker(process, log_file)
    here.workers.append(worker)
    return worker


async def test_a_killed_worker_of_an_ordinary_user_takes_its_scripts_along(directory: Path) -> None:
    async with a_queue(directory) as here:
        policy = directory / "policy.yml"
        limits = "{run-time: 10m, memory: 64MiB, processes: 16, disk: 1MiB, files: 100}"
        assert limits in policy.read_text()
        policy.write_text(policy.read_text().replace(limits, "none"))
        (directory / "state").mkdir(mode=0o711)
        for path in ("policy.yml", "key", "credentials.json", "sleeper", "state", "."):
            os.chown(directory / path, ordinary.UID, ordinary.UID)
        first = await start(here)
        task = await here.create({"seconds": 600, "code": 0})
        await here.begun(first, task)
        first.signal(signal.SIGKILL)
        await first.exit_code()
        await eventually(lambda: here.scripts() == [], "the end of the killed worker's script")
        after = await here.create()
        second = await start(here, "--once")
        assert await here.resolved(after) == "completed", second.log
        assert await second.exit_code() == 0, second.log
        assert list((directory / "state" / "workspaces").iterdir()) == []
        assert list((directory / "state" / "run").iterdir()) == []
        # The log is the signer's, whose id is a subordinate one: only in a namespace can its user read it.
        assert (directory / "state" / "audit").stat().st_uid == ordinary.FIRST + ordinary.COUNT - 1
        log = str(directory / "state" / "audit")
        shown = ordinary.run(directory, "from secureworker.cli.main import cli; cli()", "audit", "show", log)
        assert f"{after}/0" in shown.stdout, shown.stderr


async def test_a_secret_lent_by_an_ordinary_users_worker_is_gone_with_the_worker_however_it_ends(
    directory: Path,
) -> None:
    """Also while the script runs nobody but it finds the secret: the memory it lies in is the worker's namespace's."""
    async with a_queue(directory) as here:
        policy = directory / "policy.yml"
        limits = "{run-time: 10m, memory: 64MiB, processes: 16, disk: 1MiB, files: 100}"
        lent = f'config: {{}}\n    secrets: {{token: "file:{directory / "token"}"}}'
        policy.write_text(policy.read_text().replace(limits, "none").replace("config: {}", lent))
        give(directory / "token", SECRET, 0o600)
        (directory / "state").mkdir(mode=0o711)
        for path in ("policy.yml", "key", "credentials.json", "sleeper", "state", "."):
            os.chown(directory / path, ordinary.UID, ordinary.UID)
        worker = await start(here)
        task = await here.create({"seconds": 600, "code": 0})
        await here.begun(worker, task)
        assert found_in(directory / "state", SECRET) == []
        (script, *_) = [each for each in here.scripts() if Path(f"/proc/{each}/root/run/secrets/token").exists()]
        assert Path(f"/proc/{script}/root/run/secrets/token").read_text() == SECRET
        worker.signal(signal.SIGKILL)
        await worker.exit_code()
        await eventually(lambda: here.scripts() == [], "the end of the killed worker's script")
        assert found_in(directory / "state", SECRET) == []
        after = await here.create()
        second = await start(here, "--once")
        assert await here.resolved(after) == "completed", second.log
        assert await second.exit_code() == 0, second.log
        assert found_in(directory / "state", SECRET) == []
        assert SECRET.strip() not in worker.log + second.log


def found_in(directory: Path, text: str) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and text.strip().encode() in path.read_bytes()]


async def test_what_shows_the_logs_of_an_ordinary_users_worker_is_another_user_and_cannot_read_the_key(
    directory: Path, unused_tcp_port: int
) -> None:
    async with a_queue(directory) as here:
        (directory / "tls").mkdir(mode=0o700)
        pair = Pair.make(directory / "tls")
        policy = directory / "policy.yml"
        limits = "{run-time: 10m, memory: 64MiB, processes: 16, disk: 1MiB, files: 100}"
        policy.write_text(policy.read_text().replace(limits, "none") + "    live-log: true\n")
        (directory / "state").mkdir(mode=0o711)
        owned = ("policy.yml", "key", "credentials.json", "sleeper", "state", ".", "tls", pair.certificate, pair.key)
        for path in owned:
            os.chown(directory / path, ordinary.UID, ordinary.UID)
        worker = await start(here, *options(pair, unused_tcp_port))
        task = await here.create({"seconds": 600, "code": 0})
        url = await eventually(lambda: located(here, task), f"the live log's artifact; {worker.log}")
        await here.begun(worker, task)
        (shower,) = showing(worker.process.pid)
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{shower}/status").read_text().splitlines())
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(ordinary.FIRST + ordinary.COUNT - 2)}
        assert (status["Groups"].strip(), int(status["CapPrm"], 16), status["Threads"]) == ("", 0, "1")
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert pair.key.stat().st_mode & 0o077 == 0
        async with aiohttp.ClientSession() as session, session.get(url, ssl=pair.authority.client()) as answer:
            assert b"[taskcluster" in await answer.content.readany()
        worker.signal(signal.SIGKILL)
        await worker.exit_code()
        await eventually(lambda: ended(shower), "the end of what shows logs")
