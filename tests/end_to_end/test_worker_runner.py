"""The worker as a child of worker-runner: started as it starts generic-worker, and talked to over two pipes."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from secureworker.core.claim import Secret
from secureworker.localqueue.settings import StaticClient
from tests.end_to_end.daemon import DEADLINE_SECONDS, MEASURED, OWNER, POOL, WORKER, Here, a_queue, eventually, sweep

pytestmark = pytest.mark.sandbox

CAPABILITIES = ["error-report", "graceful-termination", "log", "new-credentials", "shutdown"]
SECOND = StaticClient("worker-2", Secret("v" * 44), WORKER.scopes)


@pytest.fixture
async def here(directory: Path) -> AsyncIterator[Here]:
    async with a_queue(directory, clients=(WORKER, SECOND, OWNER)) as running:
        yield running


@dataclass
class Runner:
    """A worker-runner."""

    process: asyncio.subprocess.Process
    log_file: Path
    heard: list[dict[str, Any]] = field(default_factory=list)
    other: list[bytes] = field(default_factory=list)

    async def listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if line.startswith(b"~{"):
                self.heard.append(json.loads(line[1:]))
            else:
                self.other.append(line)

    def say(self, kind: str, **properties: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"~" + json.dumps({"type": kind, **properties}).encode() + b"\n")

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.heard if message["type"] == kind]

    def logged(self, text: str) -> bool:
        return any(text in message["body"]["textPayload"] for message in self.of("log"))

    async def exit_code(self) -> int:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.process.wait()

    @property
    def log(self) -> str:
        return self.log_file.read_text()


def write_config(here: Here, client: StaticClient = WORKER, changes: Mapping[str, str] | None = None) -> Path:
    """Write what worker-runner writes for generic-worker, with much that is not for this worker."""
    provisioner_id, worker_type = POOL.split("/")
    config = here.directory / "generic-worker.json"
    config.touch(mode=0o600)
    config.write_text(
        json.dumps(
            {
                "rootURL": here.running.root_url,
                "clientId": client.client_id,
                "accessToken": client.access_token.reveal(),
                "provisionerId": provisioner_id,
                "workerType": worker_type,
                "workerGroup": "test-group",
                "workerId": "test-worker",
                "workerLocation": '{"cloud":"static"}',
                "workerTypeMetadata": {"instance-id": "i-1"},
                "idleTimeoutSecs": 7,
                "policy": "/etc/shadow",
                **(changes or {}),
            },
            indent=2,
        )
    )
    return config


@asynccontextmanager
async def a_runner(here: Here, config: Path, *more: str) -> AsyncIterator[Runner]:
    arguments = ["run", "--config", str(config), "--with-worker-runner", *more]
    settings = {
        "SECUREWORKER_POLICY": str(here.directory / "policy.yml"),
        "SECUREWORKER_KEY": f"file:{here.directory / 'key'}",
        "SECUREWORKER_STATE_DIR": str(here.directory / "state"),
    }
    log_file = here.directory / "worker.log"
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "secureworker", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **MEASURED, **settings},
        )
    runner = Runner(process, log_file)
    async with asyncio.TaskGroup() as group:
        listening = group.create_task(runner.listen())
        try:
            yield runner
        finally:
            killed = process.returncode is None
            if killed:
                process.kill()
            await process.wait()
            await listening
            if killed:
                await sweep(here.directory / "state")


async def test_it_greets_works_takes_new_credentials_and_ends_when_its_tasks_have(here: Here) -> None:
    async with a_runner(here, write_config(here)) as runner:
        runner.say("welcome", capabilities=CAPABILITIES)
        assert await here.resolved(await here.create()) == "completed"
        assert runner.of("hello") == [{"type": "hello", "capabilities": CAPABILITIES}]

        runner.say(
            "new-credentials",
            **{"client-id": SECOND.client_id, "access-token": SECOND.access_token.reveal(), "certificate": ""},
        )
        await eventually(lambda: runner.logged("using the new credentials of worker-2"), "new credentials")
        task = await here.create({"seconds": 1, "code": 0})
        await eventually(here.scripts, "the script")
        runner.say("graceful-termination", **{"finish-tasks": True})
        assert await runner.exit_code() == 0, runner.log
        assert await here.resolved(task) == "completed"
    assert runner.logged("worker-runner asked to end when running tasks have")
    assert runner.of("shutdown") == []
    assert runner.other == []
    everything = json.dumps(runner.heard) + runner.log
    assert WORKER.access_token.reveal() not in everything
    assert SECOND.access_token.reveal() not in everything


async def test_told_to_end_at_once_it_gives_its_run_back(here: Here) -> None:
    async with a_runner(here, write_config(here), "--remove-at-end") as runner:
        runner.say("welcome", capabilities=CAPABILITIES)
        task = await here.create({"seconds": 600, "code": 0})
        await eventually(here.scripts, "the script")
        runner.say("graceful-termination", **{"finish-tasks": False})
        assert await runner.exit_code() == 0, runner.log
        assert (await here.runs(task))[0]["reasonResolved"] == "worker-shutdown"
    assert runner.of("shutdown") == [{"type": "shutdown"}]


async def test_when_worker_runner_is_gone_it_finishes_and_ends(here: Here) -> None:
    async with a_runner(here, write_config(here)) as runner:
        runner.say("welcome", capabilities=[])
        assert await here.resolved(await here.create()) == "completed"
        assert runner.process.stdin is not None
        runner.process.stdin.close()
        assert await runner.exit_code() == 0, runner.log
    assert [message["type"] for message in runner.heard] == ["hello"]
    assert "worker-runner is gone" in runner.log


async def test_what_keeps_it_from_working_is_reported_without_details(here: Here) -> None:
    async with a_runner(here, write_config(here, OWNER)) as runner:
        runner.say("welcome", capabilities=CAPABILITIES)
        assert await runner.exit_code() == 1, runner.log
    (report,) = runner.of("error-report")
    assert (report["kind"], report["title"]) == ("worker-error", "secureworker ended")
    assert str(here.directory) not in json.dumps(report)
    assert "can do more than its work: *" in runner.log
    assert here.wire.count("claim-work") == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"workerType": "other"}, "worker-runner started this worker for test-provisioner/other at"),
        ({"rootURL": "https://other.example.com"}, "at https://other.example.com, and the policy is for"),
        ({"accessToken": ""}, "accessToken"),
        ({"workerId": ""}, "workerId is missing"),
    ],
)
async def test_a_configuration_for_something_else_starts_nothing(
    here: Here, changes: dict[str, str], says: str
) -> None:
    async with a_runner(here, write_config(here, changes=changes)) as runner:
        runner.say("welcome", capabilities=CAPABILITIES)
        assert await runner.exit_code() in (1, 2)
    assert says in runner.log
    assert here.wire.count("claim-work") == 0
