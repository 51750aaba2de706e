"""A daemon as those see it who operate it: the service manager, Prometheus, a log collector."""

import asyncio
import hashlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from tests.end_to_end.daemon import SCRIPT, Here, Worker, a_queue, eventually

pytestmark = pytest.mark.sandbox


@pytest.fixture
async def here(directory: Path) -> AsyncIterator[Here]:
    async with a_queue(directory, 60) as running:
        yield running


class Manager:
    """A service manager: hears what comes, in its order, and knows what the Queue had been asked by then."""

    def __init__(self, here: Here, address: str) -> None:
        self.address = address
        self.told: list[str] = []
        self.claims_before_ready = -1
        self._here = here
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._channel.setblocking(False)  # noqa: FBT003 - the socket's own signature
        self._channel.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self._hear)

    def _hear(self) -> None:
        notice = self._channel.recv(8192).decode()
        if notice == "READY=1" and notice not in self.told:
            self.claims_before_ready = self._here.wire.count("claim-work")
        self.told.append(notice)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._channel.close()


async def started(here: Here, *more: str, **environment: str) -> Worker:
    claims = here.wire.count("claim-work")
    worker = await Worker.start(here.arguments(*more), here.directory / "worker.log", **environment)
    here.workers.append(worker)
    await eventually(lambda: worker.ended or here.wire.count("claim-work") > claims, "the first claim")
    assert not worker.ended, worker.log
    return worker


def change_script(here: Here, script: str) -> None:
    """Have the policy pin another script."""
    (here.directory / "sleeper").write_text(script)
    policy = here.directory / "policy.yml"
    old, new = (hashlib.sha256(text.encode()).hexdigest() for text in (SCRIPT, script))
    policy.write_text(policy.read_text().replace(old, new))


@pytest.mark.parametrize("abstract", [False, True])
async def test_the_service_manager_is_told_and_scripts_cannot_tell_it_anything(here: Here, *, abstract: bool) -> None:
    address = f"@secureworker-e2e-{os.getpid()}" if abstract else str(here.directory / "notify")
    looks = f"env; tr '\\0' '\\n' < /proc/self/environ; cat /proc/net/unix; ls {here.directory}/notify; "
    looks += "ls -l /proc/self/fd"
    change_script(here, SCRIPT.replace("echo the script has begun", looks))
    manager = Manager(here, address)
    try:
        worker = await started(here, NOTIFY_SOCKET=address, WATCHDOG_USEC="1000000")
        assert manager.claims_before_ready == 0
        assert manager.told[0] == "STATUS=starting"
        assert "STATUS=claiming, 0 runs" in manager.told

        task = await here.create()
        assert await here.resolved(task) == "completed", worker.log
        log = await here.log_of(task)
        assert "the script ends" in log
        # The `ls` of the socket's place fails, and names it; nothing else does.
        seen = [line for line in log.splitlines() if "notify" in line.lower() or address in line]
        assert [line for line in seen if "cannot access" not in line] == []
        assert "WATCHDOG" not in log
        assert {"STATUS=claiming, 1 run", "STATUS=full, 1 run"} & set(manager.told)

        await eventually(lambda: manager.told.count("WATCHDOG=1") >= 3, "signs of life")
        ready = manager.told.count("READY=1")
        worker.signal(signal.SIGHUP)
        await eventually(lambda: manager.told.count("READY=1") > ready, "the end of a reload that changes nothing")
        (reloading,) = [notice for notice in manager.told if notice.startswith("RELOADING=1\nMONOTONIC_USEC=")]
        with (here.directory / "policy.yml").open("a") as policy:
            policy.write("# reviewed\n")
        worker.signal(signal.SIGHUP)
        await eventually(lambda: manager.told.count("READY=1") > ready + 1, f"a new beginning; {worker.log}")
        assert manager.told.count("STOPPING=1") == 0
        assert manager.told.index(reloading) < len(manager.told) - 1

        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0, worker.log
        await eventually(lambda: manager.told[-1] == "STOPPING=1", "the last notice")
        assert manager.told.count("STOPPING=1") == 1
    finally:
        manager.close()


async def asked(here: Here, path: str) -> tuple[int, str]:
    connector = aiohttp.UnixConnector(str(here.directory / "state" / "status.sock"))
    async with aiohttp.ClientSession(connector=connector) as session, session.get(f"http://localhost{path}") as answer:
        return answer.status, await answer.text()


async def test_metrics_health_and_files_say_how_it_is(here: Here) -> None:
    textfile, beat = here.directory / "secureworker.prom", here.directory / "heartbeat"
    worker = await started(
        here, "--metrics-textfile", str(textfile), "--heartbeat-file", str(beat), "--worker-metrics", "--region", "dc1"
    )
    assert await here.resolved(await here.create()) == "completed", worker.log
    refused = await here.create({"seconds": "many", "code": 0})
    assert await here.resolved(refused) == "malformed-payload"

    async def counted() -> str:
        status, text = await asked(here, "/metrics")
        assert status == 200
        return text if 'secureworker_resolutions_total{resolution="malformed-payload"} 1.0' in text else ""

    metrics = await eventually(counted, "both runs")
    for line in (
        "secureworker_claims_total 2.0",
        'secureworker_decisions_total{decision="admitted"} 1.0',
        'secureworker_refusals_total{rule="scripts.sleeper.payload"} 1.0',
        'secureworker_resolutions_total{resolution="completed"} 1.0',
        "secureworker_script_memory_peak_bytes_count 1.0",
        'secureworker_signer_seconds_count{request="sign"} 1.0',
    ):
        assert line in metrics.splitlines(), metrics
    assert "process_resident_memory_bytes" in metrics
    assert "a task" not in metrics
    status, health = await asked(here, "/health")
    assert (status, json.loads(health)["state"]) == (200, "claiming")
    assert json.loads(beat.read_text())["alive"] is True
    # Written at once, and then every 15 s.
    assert "secureworker_claims_total " in textfile.read_text()

    here.wire.says = timedelta(hours=-1)

    async def hindered() -> bool:
        status, text = await asked(here, "/health")
        return status == 503 and [each["what"] for each in json.loads(text)["hindrances"]] == ["clock"]

    await eventually(hindered, "a health that is none")
    assert 'secureworker_hindrance{what="clock"} 1.0' in (await asked(here, "/metrics"))[1]
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log
    lines = [line.partition("WORKER_METRICS ")[2] for line in worker.log.splitlines() if "WORKER_METRICS " in line]
    told = [json.loads(line) for line in lines]
    events = ["instanceBoot", "workerReady", *("taskQueued", "taskStart", "taskFinish") * 2]
    assert [each["eventType"] for each in told] == events
    assert {each["region"] for each in told} == {"dc1"}


async def test_every_line_of_a_json_log_is_json(here: Here) -> None:
    """The signer's lines too, warnings, errors, and what nobody thought of."""
    worker = await started(here, "--log-format", "json", "--verbose", "--worker-metrics")
    assert await here.resolved(await here.create()) == "completed", worker.log
    assert await here.resolved(await here.create({"seconds": 0, "code": "\nforged"})) == "malformed-payload"
    (here.directory / "policy.yml").write_text("no policy\n")
    worker.signal(signal.SIGHUP)
    await eventually(lambda: "the old one stays" in worker.log, "a refused reload")
    lines = [json.loads(line) for line in worker.log.splitlines()]
    (signer,) = [line["message"].split()[4].rstrip(",") for line in lines if "the signer is process" in line["message"]]
    os.kill(int(signer), signal.SIGKILL)
    assert await worker.exit_code() == 1, worker.log
    lines = [json.loads(line) for line in worker.log.splitlines()]
    assert {"time", "level", "logger", "message"} <= set.intersection(*(set(line) for line in lines))
    assert {"debug", "info", "error"} <= {line["level"] for line in lines}


async def test_the_lines_of_a_workers_signer_are_json_too(here: Here) -> None:
    worker = await started(here)
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log
    (log,) = (here.directory / "state" / "audit").glob("*.jsonl")
    with log.open("ab") as file:
        file.write(b'{"half a rec')
    worker = await started(here, "--log-format", "json")
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log
    lines = [json.loads(line) for line in worker.log.splitlines()]
    (from_signer,) = [line for line in lines if line["logger"] == "secureworker.audit.log"]
    assert from_signer["message"] == "audit log: the last stop left 12 bytes of an unfinished record"


async def test_a_json_log_of_a_start_that_fails_is_json_too(here: Here) -> None:
    (here.directory / "key").chmod(0o644)
    worker = await Worker.start(here.arguments("--log-format", "json"), here.directory / "worker.log")
    here.workers.append(worker)
    assert await worker.exit_code() in {1, 2}
    lines = [json.loads(line) for line in worker.log.splitlines()]
    assert lines[-1]["level"] == "error"
