"""A host that begins with what `secureworker init` wrote, and with nothing else."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.daemon import POOL, WORKER, Worker, a_queue, eventually

pytestmark = pytest.mark.sandbox

_COMMAND = (sys.executable, "-m", "secureworker", "init")


def settings(path: Path) -> dict[str, str]:
    """Read variables as a shell and as systemd do."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {name: shlex.split(value)[0] for name, _, value in (line.partition("=") for line in lines)}


async def test_a_worker_with_exactly_the_written_settings_completes_a_task(directory: Path) -> None:
    place = directory / "etc"
    async with a_queue(directory) as here:
        who = ("--worker-pool", POOL, "--worker-group", "test-group", "--worker-id", "test-worker")
        where = ("--directory", str(place), "--state-dir", str(directory / "state"))
        told = subprocess.run(
            [*_COMMAND, "--root-url", here.running.root_url, *who, *where, "--no-units", "--json"],
            capture_output=True,
            text=True,
            check=True,
        )
        next_steps = json.loads(told.stdout)
        assert sorted(next_steps["scopes"]) == sorted(WORKER.scopes)
        credentials = Path(next_steps["credentials"])
        credentials.touch(mode=0o600)
        credentials.write_text(json.dumps({"clientId": "worker", "accessToken": WORKER.access_token.reveal()}))

        worker = await Worker.start((), directory / "worker.log", **settings(place / "worker.env"))
        here.workers.append(worker)
        task = await here.create({})
        await eventually(lambda: worker.ended or "claiming tasks" in worker.log, "the first claim")
        assert not worker.ended, worker.log

        assert await here.resolved(task) == "completed", worker.log
        assert "hello from task" in await here.log_of(task)
