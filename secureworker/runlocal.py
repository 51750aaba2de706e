"""One task definition through the whole line, with an embedded Taskcluster in the same process.

For authors of scripts and policies. All of the worker is the real one; only the Taskcluster is not the policy's.
"""

import asyncio
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import arrow
import taskcluster
import taskcluster.aio
import taskcluster.exceptions

from secureworker import app
from secureworker.core.claim import Credentials, Json, Secret
from secureworker.core.errors import SecureworkerError, TaskError
from secureworker.core.ids import ArtifactName, WorkerIdentity
from secureworker.core.policy import Policy
from secureworker.host.http import HttpLimits, open_session
from secureworker.host.signals import Signals
from secureworker.localqueue.server import serve
from secureworker.localqueue.settings import ANONYMOUS_SCOPES, Role, Settings, StaticClient
from secureworker.signing.keys import create_signing_key

logger = logging.getLogger(__name__)

WORKER_GROUP, WORKER_ID = "local", "run-local"
TASK_LOG: Final = ArtifactName("public/logs/live_backing.log")
_LONG_POLL_SECONDS = 1.0
"""There is one task, and it is there before the worker asks: a longer poll would only delay the end."""
_CHUNK_BYTES = 1 << 18


class NotATask(TaskError):
    """The file holds nothing that could be a task."""


@dataclass(frozen=True, slots=True)
class Result:
    """How the task ended."""

    task_id: str
    state: str
    """The run's at the Queue: `completed`, `failed` or `exception`."""
    reason: str
    """`reasonResolved`."""
    artifacts: tuple[ArtifactName, ...]
    log: str
    """The task log."""


def complete(task: Mapping[str, Json], policy: Policy, now: datetime) -> tuple[dict[str, Json], tuple[str, ...]]:
    """Make a definition that the Queue takes of what an author wrote.

    Args:
        task: a definition; only `payload` must be there.
        policy: what it will be held against: gives the pool, scheduler and project that a bare payload lacks.
        now: what `created` becomes.

    Returns:
        the body of `createTask`, and a sentence for each thing that was filled in or replaced.

    Raises:
        NotATask: there is no payload, the task wants inputs, which nobody here could have signed for, or it is for
            another pool.
    """
    payload = task.get("payload")
    if not isinstance(payload, dict):
        raise NotATask('there is no "payload" object in it: a task definition is expected')
    if payload.get("upstreamArtifacts"):
        raise NotATask(
            "payload.upstreamArtifacts wants artifacts of other tasks, which count only where their own workers signed "
            "for them, and none has run here; leave it out, or try the task at a Taskcluster"
        )
    body = dict(task)
    named = body.pop("taskQueueId", None) or _old_pool(body)
    if named not in {None, str(policy.worker_pool)}:
        raise NotATask(f"the task is for the pool {named}, and the policy is one for {policy.worker_pool}")
    body["taskQueueId"] = str(policy.worker_pool)
    defaults: dict[str, Json] = {
        "schedulerId": policy.tasks.scheduler_ids[0],
        "projectId": policy.tasks.project_ids[0],
        "scopes": [],
        "metadata": {
            "name": "run-local",
            "description": "A task that is run locally.",
            "owner": "nobody@example.com",
            "source": "https://example.com/run-local",
        },
    }
    said = [f"{key} is not in the task: taken {value}" for key, value in defaults.items() if key not in body]
    body = defaults | body
    # The Queue takes no task from the past, and would wait for its dependencies, which are not there.
    created, end = arrow.get(now), arrow.get(now).shift(days=1)
    body |= {"created": created.for_json(), "deadline": end.for_json(), "expires": end.for_json()}
    meaningless = [key for key in ("dependencies", "taskGroupId", "routes") if body.pop(key, None)]
    said += [f"{key} is left out: there is nothing here that it could mean" for key in meaningless]
    return body, tuple(said)


def _old_pool(body: dict[str, Json]) -> str | None:
    parts = (body.pop("provisionerId", None), body.pop("workerType", None))
    return "/".join(str(part) for part in parts) if any(parts) else None


async def run_local(
    policy: Policy,
    definition: Mapping[str, Json],
    *,
    runtime: str | None = None,
    artifacts: Path | None = None,
    out_of_reach: tuple[str, ...] = (),
) -> Result:
    """Run one task.

    Args:
        policy: all of it holds, but its root URL.
        definition: the body of `createTask`.
        runtime: the OCI runtime; None takes the best one.
        artifacts: where they are written to, named as at the Queue; None: they are not.
        out_of_reach: files that the self-test shows a script cannot get at.

    Raises:
        HostError: this host cannot sandbox; nothing was run.
        ServiceError: the embedded Taskcluster does not take the definition.
        OSError: an artifact cannot be written.
    """
    worker = StaticClient(
        "local/worker",
        Secret(taskcluster.slugId()),
        (
            f"queue:claim-work:{policy.worker_pool}",
            f"queue:worker-id:{WORKER_GROUP}/{WORKER_ID}",
            *(extra.scope for extra in policy.worker_scopes),
        ),
    )
    author = StaticClient("local/author", Secret(taskcluster.slugId()), ("*",))
    settings = Settings(
        (worker, author),
        hint_interval=0.0,
        long_poll=_LONG_POLL_SECONDS,
        # Private artifacts too are fetched by their plain URL.
        roles=(Role("anonymous", (*ANONYMOUS_SCOPES, "queue:get-artifact:*")),),
    )
    with tempfile.TemporaryDirectory(prefix="secureworker-run-local-") as place:
        # Without root, containers' roots lie here: their ids have to pass.
        await asyncio.to_thread(Path(place).chmod, 0o711)
        key = Path(place) / "private" / "signing.key"
        key.parent.mkdir(mode=0o700)
        await asyncio.to_thread(create_signing_key, str(key))
        async with serve(settings) as queue, open_session(HttpLimits(answer_bytes=1 << 30)) as session:
            author_queue = taskcluster.aio.Queue(_options(queue.root_url, author), session=session)
            task_id = await _create(author_queue, definition)
            options = app.Settings(
                identity=WorkerIdentity(policy.worker_pool, WORKER_GROUP, WORKER_ID),
                credentials=Credentials(worker.client_id, worker.access_token),
                key=f"file:{key}",
                state_dir=f"{place}/state",
                runtime=runtime,
                tasks=1,
                out_of_reach=out_of_reach,
                credentials_directory=os.environ.get("CREDENTIALS_DIRECTORY"),
                # It is tried where it will not run for long: on a machine that may be smaller than its limits.
                disk_per_run=0,
                memory_per_run=0,
            )
            with Signals().caught() as signals:
                ended = await app.serve(replace(policy, root_url=queue.root_url), options, signals)
            if ended.fault is not None:
                raise ended.fault
            return await _result(author_queue, task_id, session, queue.root_url, artifacts)


def _options(root_url: str, client: StaticClient) -> dict[str, Any]:
    credentials = {"clientId": client.client_id, "accessToken": client.access_token.reveal()}
    return {"rootUrl": root_url, "credentials": credentials}


async def _create(queue: Any, definition: Mapping[str, Json]) -> str:
    task_id: str = taskcluster.slugId()
    try:
        await queue.createTask(task_id, dict(definition))
    except taskcluster.exceptions.TaskclusterRestFailure as error:
        raise NotATask(f"the Queue does not take the task: {error}") from error
    return task_id


async def _result(
    queue: Any, task_id: str, session: aiohttp.ClientSession, root_url: str, artifacts: Path | None
) -> Result:
    run = (await queue.status(task_id))["status"]["runs"][0]
    listed = (await queue.listArtifacts(task_id, 0))["artifacts"]
    names = tuple(ArtifactName(artifact["name"]) for artifact in listed if artifact["storageType"] != "error")
    base = f"{root_url}/api/queue/v1/task/{task_id}/runs/0/artifacts"
    log = ""
    if TASK_LOG in names:
        async with session.get(f"{base}/{TASK_LOG}") as answer:
            log = await answer.text(errors="replace")
    if artifacts is not None:
        for name in names:
            await _save(session, f"{base}/{name}", artifacts / name)
    return Result(task_id, run["state"], run.get("reasonResolved", ""), names, log)


async def _save(session: aiohttp.ClientSession, url: str, path: Path) -> None:
    """Write an artifact to a new file, a piece at a time."""
    async with session.get(url) as answer:
        answer.raise_for_status()
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        with await asyncio.to_thread(path.open, "xb") as file:
            async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                await asyncio.to_thread(file.write, chunk)


def describe(error: SecureworkerError) -> str:
    """Say what an error means to who runs a task locally."""
    return f"{error}" if isinstance(error, TaskError) else f"{error}; `secureworker doctor` says what this host lacks"
