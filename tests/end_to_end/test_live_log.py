"""A task's log, read while its script runs, in the way Taskcluster's own pages do."""

import hashlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.end_to_end.daemon import Here, Worker, a_queue, eventually
from tests.livelog.reading import Pair

pytestmark = pytest.mark.sandbox

LIVE = "public/logs/live.log"
SCRIPT = """\
#!/bin/sh
# Says a secret-like thing, waits for a file that never comes unless the task ends, and goes.
echo the script has begun
printf '\\033[31mred\\033]0;title\\007\\n'
sleep "$(sed -n 's/.*"seconds": \\([0-9.]*\\).*/\\1/p' task.json)"
echo the script ends
exit "$(sed -n 's/.*"code": \\([0-9]*\\).*/\\1/p' task.json)"
"""


@pytest.fixture
async def here(directory: Path) -> AsyncIterator[Here]:
    async with a_queue(directory) as running:
        script, policy = directory / "sleeper", directory / "policy.yml"
        before = hashlib.sha256(script.read_bytes()).hexdigest()
        script.write_text(SCRIPT)
        text = policy.read_text().replace(before, hashlib.sha256(SCRIPT.encode()).hexdigest())
        policy.write_text(text + "    live-log: true\n")
        yield running


@pytest.fixture
def pair(directory: Path) -> Pair:
    (directory / "tls").mkdir(mode=0o700)
    return Pair.make(directory / "tls")


def options(pair: Pair, port: int) -> tuple[str, ...]:
    return (
        *("--live-log-url", f"https://127.0.0.1:{port}", "--live-log-listen", f"127.0.0.1:{port}"),
        *("--live-log-certificate", str(pair.certificate), "--live-log-key", str(pair.key)),
    )


async def located(here: Here, task: str, run: int = 0) -> str:
    """Give what the Queue sends a reader of the live log to; empty while there is no such artifact."""
    url = f"{here.running.root_url}/api/queue/v1/task/{task}/runs/{run}/artifacts/{LIVE}"
    async with aiohttp.ClientSession() as session, session.get(url, allow_redirects=False) as answer:
        return answer.headers.get("Location", "") if answer.status == 303 else ""


async def artifacts(here: Here, task: str) -> dict[str, Any]:
    return {each["name"]: each for each in (await here.client.listArtifacts(task, 0))["artifacts"]}


def showing(worker: int) -> list[int]:
    """Give the processes that show logs of a worker."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if b"secureworker.livelog" in (place / "cmdline").read_bytes():
                parent = (place / "stat").read_text().rpartition(")")[2].split()[1]
                found += [int(place.name)] if int(parent) == worker else []
        except OSError:
            continue
    return found


async def test_a_log_is_read_while_the_script_runs_and_found_in_its_place_afterwards(
    here: Here, pair: Pair, unused_tcp_port: int
) -> None:
    worker = await here.start(*options(pair, unused_tcp_port))
    task = await here.create({"seconds": 600, "code": 0})
    url = await eventually(lambda: located(here, task), "the live log's artifact")
    assert urlsplit(url).port == unused_tcp_port
    assert url not in worker.log
    context = pair.authority.client()
    async with aiohttp.ClientSession() as session, session.get(url, ssl=context) as answer:
        assert answer.status == 200
        read = b""
        while b"red" not in read:
            read += await answer.content.readany()
        assert b"the policy admits this task" in read
        assert b"the script has begun" in read
        assert b"\x1b" not in read.replace(b"\x1b[31m", b""), "what a terminal would obey is not shown"
        assert b"the script ends" not in read
        await here.client.cancelTask(task)
        read += await answer.content.read()
    assert b"this run is not this worker's any more" in read

    async def uploaded() -> bool:
        return bool((await artifacts(here, task)).get(LIVE, {}).get("storageType") == "link")

    await eventually(uploaded, "the link to the log")
    assert (await here.log_of(task)).encode() == read
    assert worker.process.returncode is None


async def test_afterwards_the_artifact_is_a_link_to_the_log(here: Here, pair: Pair, unused_tcp_port: int) -> None:
    worker = await here.start(*options(pair, unused_tcp_port))
    task = await here.create()
    assert await here.resolved(task) == "completed"
    assert (await artifacts(here, task))[LIVE]["storageType"] == "link"
    url = f"{here.running.root_url}/api/queue/v1/task/{task}/runs/0/artifacts/{LIVE}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert await answer.text() == await here.log_of(task)
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log


async def test_a_task_whose_log_cannot_be_shown_ends_as_any_other(here: Here, pair: Pair, unused_tcp_port: int) -> None:
    worker = await here.start(*options(pair, unused_tcp_port))
    # The key is gone, and so is the process: it cannot be started again.
    pair.key.unlink()
    (shower,) = showing(worker.process.pid)
    os.kill(shower, signal.SIGKILL)
    await eventually(lambda: not showing(worker.process.pid), "its end")
    task = await here.create()
    assert await here.resolved(task) == "completed"
    assert "this log cannot be read while it is written" in await here.log_of(task)
    assert "its log is not shown live" in worker.log


async def test_a_policy_with_live_logs_needs_a_place_for_them(here: Here) -> None:
    worker = await Worker.start(here.arguments(), here.directory / "worker.log")
    assert await worker.exit_code() == 2
    assert "scripts.sleeper.live-log is true, and this worker has no place to show logs at" in worker.log


def ended(process: int) -> bool:
    """Say whether a process whose parent is gone has ended, also where nobody has asked for its end yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_a_killed_worker_takes_along_what_shows_its_logs_whoever_reads_there(
    here: Here, pair: Pair, unused_tcp_port: int
) -> None:
    worker = await here.start(*options(pair, unused_tcp_port))
    task = await here.create({"seconds": 600, "code": 0})
    url = await eventually(lambda: located(here, task), "the live log's artifact")
    await here.begun(worker, task)
    (shower,) = showing(worker.process.pid)
    # Nobody else holds the port, or the worker's end of the conversation.
    port = {os.readlink(place) for place in Path(f"/proc/{shower}/fd").iterdir()}
    for script in here.scripts():
        held = {os.readlink(place) for place in Path(f"/proc/{script}/fd").iterdir()}
        assert not {each for each in held & port if each.startswith("socket:")}
    context = pair.authority.client()
    async with aiohttp.ClientSession() as session, session.get(url, ssl=context) as answer:
        assert b"[taskcluster" in await answer.content.readany()
        worker.signal(signal.SIGKILL)
        await worker.exit_code()
        await eventually(lambda: ended(shower), "the end of what shows logs")
    await here.start(*options(pair, unused_tcp_port))


async def test_what_shows_logs_and_does_nothing_any_more_holds_up_no_run(
    here: Here, pair: Pair, unused_tcp_port: int
) -> None:
    worker = await here.start(*options(pair, unused_tcp_port))
    (shower,) = showing(worker.process.pid)
    os.kill(shower, signal.SIGSTOP)
    task = await here.create()
    assert await here.resolved(task) == "completed"
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log
    assert not Path(f"/proc/{shower}").exists()
