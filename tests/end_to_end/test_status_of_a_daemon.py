"""What an operator sees of a daemon: by `secureworker status`, and by its page."""

import asyncio
import hashlib
import json
import os
import pty
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.end_to_end.daemon import MEASURED, Here, Worker, a_queue, eventually

pytestmark = pytest.mark.sandbox

HOSTILE = "\x1b[2J\x1b]0;owned\x07<script>alert(1)</script> \u202egnp.exe \"'><b> [bold red]"
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    tmp_path.chmod(0o755)
    async with a_queue(tmp_path) as running:
        yield running


async def status(here: Here, *more: str, **environment: str) -> tuple[int, str, str]:
    """Run `secureworker status`; give its exit code, and what it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "secureworker", "status", "--state-dir", str(here.directory / "state"), *more),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "COLUMNS": "150", **MEASURED, **environment},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def read(here: Here, path: str) -> str:
    """Read what is served, as a browser would."""
    connector = aiohttp.UnixConnector(str(here.directory / "state" / "status.sock"))
    async with aiohttp.ClientSession(connector=connector) as session, session.get(f"http://localhost{path}") as answer:
        return await answer.text()


async def document(here: Here) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await read(here, "/status.json"))
    return found


async def test_a_run_is_shown_from_its_phases_and_its_log_to_its_end(here: Here) -> None:
    worker = await here.start()
    task = await here.create({"seconds": 600, "code": 0})
    await here.begun(worker, task)

    async def logged() -> str:
        log = await read(here, f"/runs/{task}/0/log")
        return log if "the script has begun" in log else ""

    log = await eventually(logged, f"the live log; {worker.log}")
    code, out, err = await status(here)
    assert (code, err) == (0, "")
    for said in ("test-provisioner/end-to-end/test-group/test-worker", f"{task}/0", "sleeper", "running", "admitted"):
        assert said in out, out
    assert log in (await read(here, "/")).replace("&quot;", '"').replace("&#x27;", "'")
    (run,) = (await document(here))["runs"]
    assert [step["phase"] for step in run["phases"]] == [
        *("claimed", "deciding", "verifying", "preparing", "fetching", "confirming", "running")
    ]

    for script in here.scripts():
        with suppress(ProcessLookupError):
            os.kill(script, signal.SIGKILL)
    assert await here.resolved(task) == "failed"

    async def ended() -> Any:
        found = await document(here)
        return not found["runs"] and found["resolutions"]

    (ending,) = await eventually(ended, "the end of the run in the status")
    assert (ending["taskId"], ending["resolution"], ending["reported"]) == (task, "failed", True)
    assert "no such run" in await read(here, f"/runs/{task}/0/log")
    assert (await document(here))["counts"]["resolutions"] == {"failed": 1}


async def test_a_refused_task_is_listed_with_its_rules_and_harmless_whatever_its_name(here: Here) -> None:
    worker = await here.start()
    names = (HOSTILE, "x" * 255)
    for name in names:
        metadata = {"name": name, "description": "", "owner": "a@example.com", "source": "https://example.com"}
        task = await here.create(scopes=["secrets:get:everything"], metadata=metadata)
        assert await here.resolved(task) == "malformed-payload"

    async def both() -> Any:
        found = await document(here)
        return found if len(found["resolutions"]) == 2 else None

    found = await eventually(both, f"both refusals; {worker.log}")
    assert [each["reasons"][0]["rule"] for each in found["decisions"]] == ["tasks.scopes.allow"] * 2
    assert found["decisions"][1]["name"].startswith("\\x1b[2J\\x1b]0;owned\\x07<script>")
    code, out, err = await status(here)
    assert (code, err) == (0, "")
    assert "tasks.scopes.allow" in out
    for shown in (out, await read(here, "/"), await read(here, "/status.json")):
        assert CONTROLS.search(shown) is None
    page = await read(here, "/")
    assert "<script" not in page
    assert "<b>" not in page


async def test_who_is_at_work_and_what_it_relies_on_is_shown_and_the_checkpoint_verifies(here: Here) -> None:
    worker = await here.start()
    found = await document(here)
    assert found["worker"]["pool"] == "test-provisioner/end-to-end"
    assert found["policy"]["sha256"] in worker.log
    assert found["signer"]["key"] in worker.log
    assert found["selfTest"]["probes"] > 10
    assert found["errors"] == []
    kept = here.directory / "kept"
    kept.write_text(found["audit"]["checkpoint"])
    task = await here.create()
    assert await here.resolved(task) == "completed"

    async def grown() -> bool:
        return bool((await document(here))["audit"]["size"] > found["audit"]["size"])

    await eventually(grown, "a new head of the log")
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log
    verify = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "secureworker", "audit", "verify", str(here.directory / "state" / "audit")),
        *("--key", str(here.directory / "key.pub"), "--checkpoint", str(kept)),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await verify.communicate()
    assert verify.returncode == 0, said


async def test_what_hinders_a_worker_is_said_and_the_exit_code_says_so_too(here: Here) -> None:
    worker = await Worker.start(here.arguments("--disk-per-run", "900TiB"), here.directory / "worker.log")
    here.workers.append(worker)

    async def hindered() -> bool:
        return (await status(here))[0] == 1

    await eventually(hindered, f"a hindrance; {worker.log}")
    code, out, _ = await status(here)
    assert code == 1
    assert "hindered" in out
    assert "disk: " in out
    assert "hindered" in await read(here, "/")
    assert (await document(here))["state"]["hindrances"][0]["what"] == "disk"
    assert here.wire.count("claim-work") == 0


async def test_a_queue_that_does_not_answer_is_said_with_what_the_log_says(here: Here) -> None:
    worker = await here.start()
    here.wire.cut = True

    async def unanswered() -> Any:
        found = await document(here)
        return found if found["state"]["name"] == "unanswered" else None

    found = await eventually(unanswered, f"a queue that is gone; {worker.log}")
    assert found["state"]["why"]
    assert any("cannot claim" in error["message"] for error in found["errors"])
    assert (await status(here))[0] == 1
    here.wire.cut = False

    async def claiming() -> bool:
        return bool((await document(here))["state"]["name"] == "claiming")

    await eventually(claiming, "the queue's return")
    assert (await status(here, "--json"))[0] == 0


async def test_another_policy_is_shown_and_the_process_is_the_same(here: Here) -> None:
    worker = await here.start()
    before = await document(here)
    policy = here.directory / "policy.yml"
    policy.write_text(policy.read_text().replace("Sleeps and ends", "Ends, and sleeps"))
    worker.signal(signal.SIGHUP)

    async def anew() -> Any:
        found = await document(here)
        changed = found["policy"]["sha256"] != before["policy"]["sha256"]
        return found if changed and found["state"]["name"] == "claiming" else None

    after = await eventually(anew, f"the other policy; {worker.log}")
    assert after["worker"]["started"] == before["worker"]["started"]
    assert after["policy"]["since"] > before["policy"]["since"]


async def test_a_policy_that_cannot_be_used_is_shown_as_an_error(here: Here) -> None:
    worker = await here.start()
    (here.directory / "policy.yml").write_text("version: 1\nnonsense: true\n")
    worker.signal(signal.SIGHUP)

    async def told() -> Any:
        return [each for each in (await document(here))["errors"] if each["what"] == "error"]

    # A line for each problem, as at the start.
    errors = await eventually(told, f"the errors; {worker.log}")
    assert all(error["message"].startswith("the policy cannot be used, so the old one stays: ") for error in errors)
    assert any("nonsense" in error["message"] for error in errors)


async def test_where_no_worker_is_the_answer_is_3_and_what_to_do(here: Here) -> None:
    code, out, err = await status(here)
    assert (code, out) == (3, "")
    assert "no worker answers at" in err
    assert "--state-dir" in err
    assert "Traceback" not in err


async def test_after_a_kill_the_next_worker_takes_the_sockets_place(here: Here) -> None:
    first = await here.start()
    first.signal(signal.SIGKILL)
    await first.exit_code()
    code, _, err = await status(here)
    assert code == 3
    assert "Connection refused" in err
    second = await here.start()
    assert (await status(here))[0] == 0
    second.signal(signal.SIGTERM)
    assert await second.exit_code() == 0, second.log
    assert not (here.directory / "state" / "status.sock").exists()


async def test_a_place_that_cannot_be_served_at_ends_the_worker_before_its_first_claim(here: Here) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        worker = await Worker.start(here.arguments("--status", place), here.directory / "worker.log")
        here.workers.append(worker)
        assert await worker.exit_code() == 2, worker.log
    assert f"the port {place} cannot be listened on: Address already in use" in worker.log
    assert here.wire.count("claim-work") == 0


async def test_a_port_shows_the_same_and_none_shows_nothing(here: Here) -> None:
    worker = await here.start("--status", "127.0.0.1:0")
    found = re.search(r"status: (http://127\.0\.0\.1:\d+)/", worker.log)
    assert found
    code, out, _ = await status(here, "--url", found[1], "--json")
    assert code == 0
    assert json.loads(out)["worker"]["workerId"] == "test-worker"
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log

    worker = await here.start("--status", "none")
    assert "status:" not in worker.log
    assert not (here.directory / "state" / "status.sock").exists()


async def test_watching_goes_on_until_it_is_told_to_end_and_that_is_no_failure(here: Here) -> None:
    await here.start()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "secureworker", "status", "--state-dir", str(here.directory / "state")),
        *("--watch", "--json", "--every", "0.2"),
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **MEASURED},
    )
    assert process.stdout is not None
    lines = [json.loads(await process.stdout.readline()) for _ in range(3)]
    assert lines[0]["time"] < lines[2]["time"]
    process.send_signal(signal.SIGINT)
    await process.stdout.read()
    assert await process.wait() == 0


@pytest.mark.parametrize("colours", [True, False])
async def test_on_a_terminal_it_is_redrawn_in_place_and_in_colours_unless_they_are_unwanted(
    here: Here, *, colours: bool
) -> None:
    await here.start()
    ours, its = pty.openpty()
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TERM": "xterm", "COLUMNS": "120", **MEASURED}
    if not colours:
        environment["NO_COLOR"] = "1"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "secureworker", "status", "--state-dir", str(here.directory / "state")),
        *("--watch", "--every", "0.2"),
        stdin=its,
        stdout=its,
        stderr=its,
        env=environment,
    )
    os.close(its)
    os.set_blocking(ours, False)
    shown = b""

    def seen() -> bool:
        nonlocal shown
        try:
            shown += os.read(ours, 65536)
        except OSError:
            return False
        return shown.count(b"claiming") >= 3

    await eventually(seen, "three drawings")
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 0
    os.close(ours)
    assert b"\x1b[?1049h" in shown  # the alternate screen: what stood there before comes back
    assert b"\x1b[2J\x1b[2J" not in shown
    assert (re.search(rb"\x1b\[[0-9;]*3[0-9]m", shown) is not None) == colours


REACHING = """\
#!/usr/bin/python3
import os, socket
for family, place in ((socket.AF_UNIX, "{socket}"), (socket.AF_INET, ("127.0.0.1", {port}))):
    try:
        with socket.socket(family) as channel:
            channel.settimeout(5)
            channel.connect(place)
        print("reached", place)
    except OSError as error:
        print("not reached:", error)
print("seen:", os.path.exists("{socket}"))
"""


async def test_a_script_reaches_neither_the_socket_nor_the_port_of_the_worker_that_runs_it(here: Here) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script, policy = here.directory / "sleeper", here.directory / "policy.yml"
    before = hashlib.sha256(script.read_bytes()).hexdigest()
    script.write_text(REACHING.format(socket=here.directory / "state" / "status.sock", port=port))
    policy.write_text(policy.read_text().replace(before, hashlib.sha256(script.read_bytes()).hexdigest()))
    worker = await here.start("--status", f"127.0.0.1:{port}")
    assert (await status(here, "--url", f"http://127.0.0.1:{port}"))[0] == 0
    task = await here.create()
    assert await here.resolved(task) == "completed", worker.log
    log = await here.log_of(task)
    assert log.count("not reached:") == 2, log
    assert "seen: False" in log


LOUD = """\
#!/usr/bin/python3
import sys, time
print("\\x1b[2J\\x1b]0;owned\\x07<script>alert(1)</script></pre><b>\\u202egnp.exe")
print("[taskcluster 2026-01-01T00:00:00.000Z] exit code: 0")
print("<b>" * 350_000 + "the end of a long line", flush=True)
time.sleep(600)
"""


async def test_hostile_output_and_a_flood_of_callers_neither_harm_the_page_nor_the_run(here: Here) -> None:
    script, policy = here.directory / "sleeper", here.directory / "policy.yml"
    before = hashlib.sha256(script.read_bytes()).hexdigest()
    script.write_text(LOUD)
    text = policy.read_text().replace(before, hashlib.sha256(LOUD.encode()).hexdigest())
    policy.write_text(text.replace("files: 100", "files: 100, log: 10MiB"))
    worker = await here.start()
    task = await here.create()

    async def written() -> str:
        log = await read(here, f"/runs/{task}/0/log")
        return log if log.endswith("the end of a long line\n") else ""

    log = await eventually(written, f"the end of the output; {worker.log}")
    assert len(log) <= 64 * 1024
    page = await read(here, "/")
    assert "the end of a long line" in page
    assert CONTROLS.search(page) is None
    assert "<b>" not in page
    assert len(page) < 300_000

    path = str(here.directory / "state" / "status.sock")
    callers = [await asyncio.open_unix_connection(path) for _ in range(300)]
    for _, writer in callers:
        writer.write(b"GET / HTTP/1.1\r\nX")
    await here.client.cancelTask(task)
    await eventually(lambda: not here.scripts(), f"the script's end in spite of the flood; {worker.log}")
    for _, writer in callers:
        writer.close()
    assert (await here.runs(task))[0]["reasonResolved"] == "canceled"

    async def ended() -> bool:
        return [each["resolution"] for each in (await document(here))["resolutions"]] == ["not-ours"]

    await eventually(ended, "the end of the run in the status")
