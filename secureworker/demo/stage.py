"""The demonstration's places and processes: a directory of its own, keys and credentials in it, and a real worker."""

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from secureworker.core.claim import Secret
from secureworker.demo.scenes import PROJECT_ID, SCHEDULER_ID, WORKER_POOL
from secureworker.localqueue.settings import StaticClient
from secureworker.signing.keys import create_signing_key
from secureworker.signing.publickeys import PublicKey

WORKER_GROUP = "demo"
WORKER_ID = "demo-1"
POLICIES = Path(__file__).parent.parent / "_policies"
_ROOT_URL_LINE = re.compile(r"^root-url: .*$", re.MULTILINE)
_END_SECONDS = 20.0
"""How long a worker may take to end after SIGTERM: it has nothing left to do by then."""
_MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Stage:
    """What the worker is started with. Host paths."""

    directory: Path
    policy: Path
    key: Path
    credentials: Path
    public_key: PublicKey
    author: StaticClient
    """May create and cancel tasks of the pool."""
    worker: StaticClient
    """May claim for the pool as one worker, and nothing else."""


def build(directory: Path) -> Stage:
    """Make the directory's content, all but the policy: that one needs the root URL.

    Raises:
        OSError: it cannot be written.
    """
    private = directory / "private"
    private.mkdir(mode=0o700)
    key = create_signing_key(str(private / "signing.key"))
    worker = StaticClient(
        "demo/worker",
        Secret(secrets.token_urlsafe(32)),
        (f"queue:claim-work:{WORKER_POOL}", f"queue:worker-id:{WORKER_GROUP}/{WORKER_ID}"),
    )
    author = StaticClient(
        "demo/release-engineer",
        Secret(secrets.token_urlsafe(32)),
        (
            f"queue:create-task:highest:{WORKER_POOL}",
            f"queue:create-task:project:{PROJECT_ID}",
            f"queue:scheduler-id:{SCHEDULER_ID}",
            f"queue:cancel-task:{SCHEDULER_ID}/*",
            "project:demo:releng:*",
        ),
    )
    credentials = private / "taskcluster.json"
    content = json.dumps({"clientId": worker.client_id, "accessToken": worker.access_token.reveal()})
    with os.fdopen(os.open(credentials, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
    return Stage(
        directory=directory,
        policy=directory / "policies" / "demo.yml",
        key=private / "signing.key",
        credentials=credentials,
        public_key=key.public,
        author=author,
        worker=worker,
    )


def write_policy(stage: Stage, root_url: str) -> None:
    """Copy the policies that are shipped, and put `root_url` into the demonstration's.

    A copy, because a policy names its deployment, and this one's address is new each time.
    """
    shutil.copytree(POLICIES, stage.policy.parent, symlinks=False)
    for path in stage.policy.parent.rglob("*"):
        # Whatever the umask of the checkout was: nobody but the owner may write a policy or a script.
        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    text = stage.policy.read_text(encoding="utf-8")
    stage.policy.write_text(_ROOT_URL_LINE.sub(f"root-url: {root_url}", text, count=1), encoding="utf-8")


class WorkerEnded(Exception):
    """The worker's process is gone, and should not be."""


def command(stage: Stage) -> list[str]:
    """Give the argv that an operator would type; no secret is in it."""
    return [
        *(sys.executable, "-P", "-m", "secureworker", "run"),
        *("--policy", str(stage.policy)),
        *("--worker-group", WORKER_GROUP, "--worker-id", WORKER_ID),
        *("--credentials-file", str(stage.credentials)),
        *("--key", f"file:{stage.key}"),
        *("--state-dir", str(stage.directory / "state")),
        *("--drain-seconds", "5"),
    ]


class WorkerProcess:
    """The worker, seen from outside."""

    def __init__(self, process: asyncio.subprocess.Process, tell: Callable[[str], None]) -> None:
        self._process = process
        self._tell = tell

    async def follow(self) -> NoReturn:
        """Tell each line that it logs, until it ends.

        Raises:
            WorkerEnded: always.
        """
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self._tell(line.decode("utf-8", "replace").rstrip())
        code = await self._process.wait()
        raise WorkerEnded(f"the worker ended with exit code {code}; its last lines above say why")

    async def stop(self) -> None:
        """Tell it to stop and follow it to its end; kill it if it does not."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(WorkerEnded, TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self.follow()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def worker(stage: Stage, tell: Callable[[str], None]) -> AsyncIterator[WorkerProcess]:
    """Run the worker beside the body; it is over when this is left."""
    process = await asyncio.create_subprocess_exec(
        *command(stage),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        limit=_MAX_LINE_BYTES,
        env={name: value for name, value in os.environ.items() if not name.startswith("TASKCLUSTER_")},
    )
    running = WorkerProcess(process, tell)
    try:
        yield running
    finally:
        await running.stop()
