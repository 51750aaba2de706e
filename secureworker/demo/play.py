"""The demonstration in its order: queue, worker, tasks, what became of them, and the proof."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import taskcluster
import taskcluster.aio
from aiohttp import web

from secureworker.app import AUDIT_LOG
from secureworker.core.ids import ArtifactName, RunId, TaskId, WorkerPool
from secureworker.core.keylists import new_trust_file
from secureworker.core.statement import CHAIN_OF_TRUST
from secureworker.core.trust import Implementation, Trust, TrustKey, TrustPool
from secureworker.demo.account import Account
from secureworker.demo.ledger import show_log
from secureworker.demo.scenes import WORKER_POOL, Scene, definition, scenes
from secureworker.demo.stage import Stage, build, worker, write_policy
from secureworker.host.http import open_session
from secureworker.localqueue.server import serve
from secureworker.localqueue.settings import Settings
from secureworker.policyfile import load
from secureworker.signing.verify import Expected, verify_directory
from secureworker.worker.supervise import supervise

LOG = ArtifactName("public/logs/live_backing.log")
PUBLIC_KEY = "signing-key.pem"
TRUST_FILE = "trust.yml"
_SCENE_SECONDS = 90.0
_LOOK_SECONDS = 0.1
_LONG_POLL_SECONDS = 2.0
"""The worker waits for the answer to its last poll before it ends; the real Queue's 20 s would be long to watch."""
_ENDED = ("completed", "failed", "exception")


@dataclass(frozen=True, slots=True)
class Ending:
    """How one task ended."""

    scene: Scene
    task_id: str
    state: str
    reason: str
    why: str
    as_it_should: bool


async def play(account: Account, directory: Path, output: Path) -> bool:
    """Run the whole demonstration.

    Args:
        account: where it is told.
        directory: an empty private directory; the caller removes it.
        output: where the signed artifacts go; a directory per task. Existing files are not overwritten.

    Returns:
        Whether every task ended as it should, and every signature verified.

    Raises:
        WorkerEnded: the worker could not be started, or did not stay.
        OSError: a directory cannot be written.
    """
    stage = build(directory)
    settings = Settings((stage.worker, stage.author), hint_interval=0.0, long_poll=_LONG_POLL_SECONDS)
    asked = asyncio.Event()

    @web.middleware
    async def watch(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
        if "/claim-work/" in request.path:
            asked.set()
        return await handler(request)

    async with serve(settings, middlewares=(watch,)) as queue:
        _introduce(account, stage, queue.root_url)
        account.chapter("The worker starts, as a process of its own; what it says is shown beside a bar")
        async with worker(stage, account.worker) as process, open_session() as session:
            await supervise(asked.wait(), process.follow())
            account.verdict("it asks the Queue for work", good=True)
            endings = await supervise(_tasks(account, stage, queue.root_url, session), process.follow())
            account.chapter("The worker is told to stop")
        account.chapter("The artifacts are fetched and verified with the public key alone")
        await asyncio.to_thread(_write_new, output / PUBLIC_KEY, stage.public_key.pem.encode())
        account.line(f"{output / PUBLIC_KEY} is the public half of the worker's key")
        pool = TrustPool(WorkerPool.parse(WORKER_POOL), Implementation.SECUREWORKER, (TrustKey(stage.public_key.raw),))
        trust = new_trust_file(Trust((pool,), queue.root_url))
        await asyncio.to_thread(_write_new, output / TRUST_FILE, trust.encode())
        account.line(f"{output / TRUST_FILE} says for which pool and deployment it counts")
        async with open_session() as session:
            verified = [
                await _verify(account, stage, ending, _Artifacts(session, queue.root_url, ending.task_id), output)
                for ending in endings
                if ending.scene.signed
            ]
    account.chapter("The audit log, which the worker's signer kept, is verified in the same way")
    names = tuple(ending.scene.name for ending in endings if ending.scene.signed)
    log = stage.directory / "state" / AUDIT_LOG
    verified.append(await asyncio.to_thread(show_log, account, log, stage.public_key, output, names))
    account.table(
        [
            (ending.scene.name, ending.task_id, f"{ending.state} / {ending.reason}", ending.why, ending.as_it_should)
            for ending in endings
        ]
    )
    return all(verified) and all(ending.as_it_should for ending in endings)


def _introduce(account: Account, stage: Stage, root_url: str) -> None:
    account.chapter("An embedded Taskcluster, two clients, a key, and a reviewed policy")
    account.line(f"Queue, Auth, Object and Secrets answer at {root_url}")
    for client in (stage.author, stage.worker):
        account.line(f"client {client.client_id} may: {', '.join(client.scopes)}")
    account.line(f"the worker's signing key is {stage.public_key.fingerprint}")
    write_policy(stage, root_url)
    policy = load(str(stage.policy))
    account.line(f"policy {stage.policy.name} (sha256 {policy.sha256[:12]}…) allows {len(policy.scripts)} scripts:")
    for script in policy.scripts:
        account.line(f"  {script.name}: {script.description}")


async def _tasks(account: Account, stage: Stage, root_url: str, session: aiohttp.ClientSession) -> list[Ending]:
    options = {
        "rootUrl": root_url,
        "credentials": {"clientId": stage.author.client_id, "accessToken": stage.author.access_token.reveal()},
    }
    queue = taskcluster.aio.Queue(options, session=session)
    group_id = taskcluster.slugId()
    private = (str(stage.key), str(stage.credentials), str(stage.policy))
    endings = []
    for scene in scenes(private, (root_url.removeprefix("http://"),)):
        account.chapter(f"Task {scene.name}: {scene.story}")
        endings.append(await _task(account, queue, scene, group_id, session))
    return endings


async def _task(account: Account, queue: Any, scene: Scene, group_id: str, session: aiohttp.ClientSession) -> Ending:
    loop = asyncio.get_running_loop()
    task_id = taskcluster.slugId()
    begun = loop.time()
    await queue.createTask(task_id, definition(scene, group_id, datetime.now(UTC)))
    account.event(0, f"created {task_id}, with the scopes {', '.join(scene.scopes)}")
    state, reason, canceled = "", "", False
    async with asyncio.timeout(_SCENE_SECONDS):
        while state not in _ENDED:
            await asyncio.sleep(_LOOK_SECONDS)
            run = (await queue.status(task_id))["status"]["runs"][0]
            if run["state"] != state:
                state, reason = run["state"], run.get("reasonResolved", "")
                account.event(loop.time() - begun, f"{state} {reason}".rstrip())
            if scene.cancel and state == "running" and not canceled:
                canceled = True
                await asyncio.sleep(1)
                await queue.cancelTask(task_id)
                account.event(loop.time() - begun, "its author has cancelled it; the worker finds out by itself")
        # After a cancellation the worker still has to notice; the log is the last thing that it stores.
        log = await _Artifacts(session, queue.options["rootUrl"], task_id).text(LOG)
    account.event(loop.time() - begun, "its log is there; it ends:")
    for line in log.splitlines()[-scene.log_lines :]:
        account.worker(line)
    missing = [text for text in scene.log_says if text not in log]
    good = (state, reason) == (scene.state, scene.reason) and not missing
    account.verdict(f"{state} / {reason}" + (f", but its log lacks {missing}" if missing else ""), good=good)
    return Ending(scene, task_id, state, reason, _why(log), good)


def _why(log: str) -> str:
    """Give the line of the log that says why the task ended as it did."""
    lines = [line.partition("] ")[2] for line in log.splitlines() if line.startswith("[taskcluster")]
    errors = [line.partition("] ")[2] for line in log.splitlines() if line.startswith("[taskcluster:error]")]
    codes = [line for line in lines if line.startswith("exit code: ")]
    return (errors or codes or lines[-1:] or [""])[0]


class _Artifacts:
    """The published artifacts of run 0 of a task, fetched as anybody would."""

    def __init__(self, session: aiohttp.ClientSession, root_url: str, task_id: str) -> None:
        self._session = session
        self._url = f"{root_url}/api/queue/v1/task/{task_id}/runs/0/artifacts"

    async def names(self) -> list[ArtifactName]:
        async with self._session.get(self._url) as answer:
            answer.raise_for_status()
            return [ArtifactName(artifact["name"]) for artifact in (await answer.json())["artifacts"]]

    async def content(self, name: ArtifactName) -> bytes:
        async with self._session.get(f"{self._url}/{name}") as answer:
            answer.raise_for_status()
            return await answer.read()

    async def text(self, name: ArtifactName) -> str:
        """Wait for an artifact that is still to come; the caller bounds the time."""
        while True:
            try:
                return (await self.content(name)).decode()
            except aiohttp.ClientResponseError:
                # Not created yet; or created, and its bytes are still on their way: S3 answers 404 as well.
                await asyncio.sleep(_LOOK_SECONDS)


async def _verify(account: Account, stage: Stage, ending: Ending, artifacts: _Artifacts, output: Path) -> bool:
    directory = output / ending.scene.name
    names = await artifacts.names()
    for name, content in zip(names, await asyncio.gather(*map(artifacts.content, names)), strict=True):
        await asyncio.to_thread(_write_new, directory / name, content)
    expected = Expected(TaskId(ending.task_id), RunId(0), WorkerPool.parse(WORKER_POOL))
    verdict = await asyncio.to_thread(verify_directory, str(directory), stage.public_key, expected)
    account.line(f"{ending.scene.name}: {len(names)} artifacts are in {directory}")
    for step in verdict.steps:
        account.verdict(f"{step.number}. {step.name}: {'; '.join(step.details)}", good=step.passed)
    if not verdict.verified:
        return False
    signed = json.loads((directory / CHAIN_OF_TRUST).read_bytes())["artifacts"]
    missing = [name for name in ending.scene.signed if name not in signed]
    if missing:
        account.verdict(f"not signed: {', '.join(missing)}", good=False)
    return not missing


def _write_new(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
