"""The embedded Taskcluster as a whole: restarts, times that pass, the command, the official clients."""

import asyncio
import errno
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import taskcluster
import taskcluster.aio
from click.testing import CliRunner
from taskcluster import download as synchronous_download
from taskcluster import upload as synchronous_upload
from taskcluster.aio import download, upload
from taskcluster.exceptions import TaskclusterRestFailure

from secureworker.cli.local_queue import _explain, command
from secureworker.localqueue.database import UnusableData
from secureworker.localqueue.server import serve
from secureworker.localqueue.settings import Settings
from tests.localqueue.harness import POOL, ROOT, WORKER, Checked, World, a_world, stamp

COMMAND = (sys.executable, "-c", "from secureworker.cli.local_queue import command; command()")


async def test_everything_survives_a_restart(tmp_path: Path, checked: Checked | None) -> None:
    async with a_world(checked, data=str(tmp_path)) as world:
        task_id, credentials = await world.claimed()
        pending = await world.create()
        waiting = await world.create(dependencies=[task_id])
        created = await world.artifact(credentials, task_id, "public/a")
        await world.put(created.body["putUrl"], b"kept")
        until = stamp(world.clock() + timedelta(hours=1))
        await world.ask(ROOT, "set", "a", payload={"secret": {"b": 1}, "expires": until}, service="Secrets")
        path = created.body["putUrl"].removeprefix(world.root_url)
        before = (await world.ask(None, "task", task_id)).body

    async with a_world(checked, data=str(tmp_path)) as world:
        renewed = await world.ask(credentials, "reclaimTask", task_id, 0)
        completed = await world.ask(credentials, "reportCompleted", task_id, 0)
        world.running.resolvers.schedule_dependents()
        claims = await world.claim(5)
        redirect = await world.ask(None, "getArtifact", task_id, 0, "public/a")
        content = await world.get(redirect.headers["Location"])
        secret = await world.ask(ROOT, "get", "a", service="Secrets")
        after = (await world.ask(None, "task", task_id)).body
        moved = await world.put(world.root_url + path, b"changed")

    assert (renewed.status, completed.status) == (200, 200)
    assert [claim["status"]["taskId"] for claim in claims] == [pending, waiting]
    assert content[:2] == (200, b"kept")
    assert secret.body["secret"] == {"b": 1}
    assert after == before
    assert moved.status == 200


async def test_two_servers_do_not_share_a_directory(tmp_path: Path) -> None:
    async with a_world(None, data=str(tmp_path)):
        with pytest.raises(UnusableData, match="locked"):
            async with a_world(None, data=str(tmp_path)):
                pass


async def test_data_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    database = sqlite3.connect(tmp_path / "state.sqlite3")
    database.execute("PRAGMA user_version=99")
    database.close()

    with pytest.raises(UnusableData, match="format 99"):
        async with a_world(None, data=str(tmp_path)):
            pass


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite3").write_text("no database" * 100)

    with pytest.raises(UnusableData, match="not a database"):
        async with a_world(None, data=str(tmp_path)):
            pass


async def test_a_directory_in_the_databases_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite3").mkdir()

    with pytest.raises(UnusableData, match="unable to open"):
        async with a_world(None, data=str(tmp_path)):
            pass


async def test_without_a_directory_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with a_world(None) as world:
        task_id, credentials = await world.claimed()
        created = await world.artifact(credentials, task_id, "public/a")
        await world.put(created.body["putUrl"], b"x")
        assert list(tmp_path.iterdir())

    assert list(tmp_path.iterdir()) == []


async def test_an_error_of_who_uses_the_server_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with serve(Settings(clients=())):
            _ = 1 / 0


async def test_the_resolvers_act_by_themselves(checked: Checked | None) -> None:
    interval = 0.02
    async with a_world(
        checked,
        claim_timeout=0.05,
        claim_resolver_interval=interval,
        deadline_delay=0.01,
        deadline_resolver_interval=interval,
        dependency_resolver_interval=interval,
    ) as world:
        needed, _ = await world.claimed(taskQueueId="one/pool", retries=0)
        waiting = await world.create(dependencies=[needed], requires="all-resolved", taskQueueId="two/pool")
        late = await world.create(taskQueueId="three/pool", deadline=stamp(world.clock() + timedelta(seconds=60)))

        assert await _becomes(world, needed, "exception") == ["claim-expired"]
        assert await _becomes(world, waiting, "pending") == [None]
        world.clock.advance(61)
        assert await _becomes(world, late, "exception") == ["deadline-exceeded"]


async def _becomes(world: World, task_id: str, state: str) -> list[str | None]:
    """Give why the runs ended, once the task has the state."""
    async with asyncio.timeout(20):
        while (status := await world.status(task_id))["state"] != state:
            pass
    return [run.get("reasonResolved") for run in status["runs"]]


async def test_an_error_of_the_server_itself_is_a_500_that_tells_nothing(
    tmp_path: Path, checked: Checked | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_world(checked, data=str(tmp_path)) as world:
        task_id, _ = await world.claimed()
        (tmp_path / "blobs").rename(tmp_path / "away")
        created = await world.artifact(ROOT, task_id, "public/a", storageType="object")
        target = created.body
        inline = {"dataInline": {"contentType": "a/b", "objectData": "AAAA"}}
        payload = {key: target[key] for key in ("projectId", "uploadId", "expires")}
        answer = await world.ask(
            ROOT, "createUpload", target["name"], payload={**payload, "proposedUploadMethods": inline}, service="Object"
        )

    assert (answer.status, answer.body["code"]) == (500, "InternalServerError")
    assert str(tmp_path) not in str(answer.body)
    assert "object.createUpload failed" in caplog.text


# The command


@contextmanager
def _local_queue(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Run the command; give what it announced."""
    argv = [*COMMAND, *arguments, "--json"]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def _options(announced: dict[str, str]) -> dict[str, Any]:
    credentials = {"clientId": announced["clientId"], "accessToken": announced["accessToken"]}
    return {"rootUrl": announced["rootUrl"], "credentials": credentials, "maxRetries": 0}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_end(number: signal.Signals) -> None:
    with _local_queue() as (process, announced):
        assert taskcluster.Queue(_options(announced)).ping()["alive"] is True
        process.send_signal(number)

        assert process.wait(20) == 0


def test_the_command_keeps_its_data(tmp_path: Path) -> None:
    task_id = taskcluster.slugId()
    for index in range(2):
        with _local_queue("--data", str(tmp_path / "data")) as (process, announced):
            queue = taskcluster.Queue(_options(announced))
            if index == 0:
                queue.createTask(task_id, _definition())
            assert queue.status(task_id)["status"]["state"] == "pending"
            process.terminate()
            assert process.wait(20) == 0


def test_the_command_takes_its_token_from_the_environment() -> None:
    token = "t" * 44
    with _local_queue("--client-id", "me", SECUREWORKER_LOCAL_QUEUE_TOKEN=token) as (_, announced):
        assert (announced["clientId"], announced["accessToken"]) == ("me", token)
        assert "*" in taskcluster.Auth(_options(announced)).currentScopes()["scopes"]


def test_a_taken_port_is_said_clearly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        result = CliRunner().invoke(command, ["--port", str(port)])

    assert result.exit_code == 1
    assert f"port {port} of 127.0.0.1 is taken; give another --port" in result.output


def test_a_port_that_is_not_ours_to_take_is_said_clearly() -> None:
    # Root may take any port, so this is not provoked.
    assert "give a --port of 1024 or more" in _explain(PermissionError(errno.EACCES, "Permission denied"), 80, None)


def test_a_directory_that_cannot_be_made_is_said_clearly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    result = CliRunner().invoke(command, ["--data", str(tmp_path / "file" / "data")])

    assert result.exit_code == 1
    assert "give another --data directory" in result.output


def test_data_that_is_no_database_is_said_clearly(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite3").write_text("no database" * 100)

    result = CliRunner().invoke(command, ["--data", str(tmp_path)])

    assert result.exit_code == 1
    assert "not a database" in result.output


def test_the_command_announces_shell_variables_that_a_shell_reads_back() -> None:
    argv = [*COMMAND, "--client-id", "it's me"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = "".join(process.stdout.readline() for _ in range(3))
        process.terminate()
        assert process.stderr is not None
        said = process.stderr.read()

    shell = subprocess.run(
        ["sh", "-c", lines + 'printf "%s" "$TASKCLUSTER_CLIENT_ID"'], check=True, capture_output=True, text=True
    )
    assert shell.stdout == "it's me"
    assert "export TASKCLUSTER_ROOT_URL=http://127.0.0.1:" in lines
    assert "press Ctrl-C to end" in said


def test_the_help_shows_examples_and_loads_no_server() -> None:
    script = "import sys; from secureworker.cli import local_queue; print([m for m in sys.modules if m == 'aiohttp'])"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert "local-queue --port 8090" in CliRunner().invoke(command, ["--help"]).output
    assert loaded.stdout == "[]\n"


# The official clients


def _definition() -> dict[str, Any]:
    return {
        "taskQueueId": POOL,
        "created": taskcluster.fromNowJSON("0 seconds"),
        "deadline": taskcluster.fromNowJSON("1 hour"),
        "expires": taskcluster.fromNowJSON("1 day"),
        "payload": {},
        "metadata": {"name": "n", "description": "d", "owner": "o@localhost.test", "source": "http://localhost/"},
    }


def test_the_official_synchronous_client_works_unmodified() -> None:
    with _local_queue() as (_, announced):
        options = _options(announced)
        queue = taskcluster.Queue(options)
        task_id = taskcluster.slugId()
        queue.createTask(task_id, _definition())
        claim = queue.claimWork(POOL, {**WORKER, "tasks": 1})["tasks"][0]
        run = taskcluster.Queue({**options, "credentials": dict(claim["credentials"])})
        renewed = run.reclaimTask(task_id, 0)
        run = taskcluster.Queue({**options, "credentials": dict(renewed["credentials"])})
        for name, content in (("public/small", b"small"), ("private/large", b"large" * 10_000)):
            asked = {"storageType": "object", "contentType": "a/b", "expires": claim["task"]["expires"]}
            target = run.createArtifact(task_id, 0, name, asked)
            synchronous_upload.uploadFromBuf(
                projectId=target["projectId"],
                name=target["name"],
                uploadId=target["uploadId"],
                contentType="a/b",
                contentLength=len(content),
                expires=target["expires"],
                data=content,
                objectService=taskcluster.Object({**options, "credentials": target["credentials"]}),
            )
            run.finishArtifact(task_id, 0, name, {"uploadId": target["uploadId"]})
            got, kind = synchronous_download.downloadArtifactToBuf(taskId=task_id, name=name, queueService=queue)
            assert (bytes(got), kind) == (content, "a/b")
        run.reportCompleted(task_id, 0)
        with pytest.raises(TaskclusterRestFailure, match="is resolved or not running") as refusal:
            run.reclaimTask(task_id, 0)

    assert refusal.value.status_code == 409


async def test_the_official_asynchronous_client_works_unmodified(checked: Checked | None) -> None:
    async with a_world(checked) as world:
        queue = world.official(ROOT)
        task_id = taskcluster.slugId()
        await queue.createTask(task_id, _definition())
        claim = (await queue.claimWork(POOL, {**WORKER, "tasks": 1}))["tasks"][0]
        run = world.official(claim["credentials"])
        renewed = await run.reclaimTask(task_id, 0)
        run = world.official(renewed["credentials"])
        for name, content in (("public/small", b"small"), ("private/large", b"large" * 10_000)):
            target = await run.createArtifact(
                task_id, 0, name, {"storageType": "object", "contentType": "a/b", "expires": claim["task"]["expires"]}
            )
            await upload.uploadFromBuf(
                projectId=target["projectId"],
                name=target["name"],
                uploadId=target["uploadId"],
                contentType="a/b",
                contentLength=len(content),
                expires=target["expires"],
                data=content,
                objectService=world.official(target["credentials"], "Object"),
            )
            await run.finishArtifact(task_id, 0, name, {"uploadId": target["uploadId"]})
            got, kind = await download.downloadArtifactToBuf(taskId=task_id, name=name, queueService=queue)
            assert (bytes(got), kind) == (content, "a/b")
        url = queue.buildSignedUrl("getLatestArtifact", task_id, "private/large")
        assert (await world.get(url))[1] == b"large" * 10_000
        await run.reportCompleted(task_id, 0)
        with pytest.raises(TaskclusterRestFailure, match="is resolved or not running"):
            await run.reclaimTask(task_id, 0)
