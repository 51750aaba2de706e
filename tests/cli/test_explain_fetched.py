"""explain, of a task that lies at a Taskcluster: fetched as anybody may."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import taskcluster
import taskcluster.aio
from aiohttp import ClientSession
from click.testing import CliRunner

from secureworker.cli.main import cli
from secureworker.core.claim import Secret
from secureworker.localqueue.server import serve
from secureworker.localqueue.settings import Settings, StaticClient
from tests.policyfile.policies import TEXT, write

OWNER = StaticClient("owner", Secret("0" * 44), ("*",))


async def test_a_task_is_fetched_from_the_policys_taskcluster(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    metadata = {"name": "a task", "description": "", "owner": "a@example.com", "source": "https://example.com"}
    task = {
        "taskQueueId": "releng/signing",
        "schedulerId": "release",
        "projectId": "x",
        "created": now.isoformat(),
        "deadline": (now + timedelta(hours=1)).isoformat(),
        "scopes": ["project:x:action:sign"],
        "payload": {"maxRunTime": 0},
        "metadata": metadata,
    }
    async with serve(Settings((OWNER,))) as running, ClientSession() as session:
        credentials = {"clientId": "owner", "accessToken": OWNER.access_token.reveal()}
        queue = taskcluster.aio.Queue({"rootUrl": running.root_url, "credentials": credentials}, session=session)
        task_id = taskcluster.slugId()
        await queue.createTask(task_id, task)
        path = write(tmp_path, TEXT.replace("https://tc.example.com", running.root_url))
        arguments = ["explain", "--policy", path, task_id]
        result = await asyncio.to_thread(CliRunner().invoke, cli, arguments)
    assert result.exit_code == 1
    assert result.output == (
        "refused:\n  - scripts.sign.payload: payload.maxRunTime: found 0; "
        "expected a whole number of seconds, 1 or more\n"
    )
