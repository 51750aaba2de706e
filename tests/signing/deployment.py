"""A run of this worker's at the embedded Taskcluster: claimed, signed, uploaded and resolved, without a sandbox."""

from datetime import UTC, datetime
from typing import Any

from secureworker.core.claim import parse_claim
from secureworker.core.ids import WorkerIdentity, WorkerPool
from secureworker.core.outcome import ExitCode
from secureworker.ports import SignedFile, Statement
from secureworker.signing.keys import SigningKey
from secureworker.signing.signer import InProcessSigner
from secureworker.testing import SHA256, an_artifact, an_execution
from tests.localqueue.harness import A_WORKER, POOL, WORKER, World

WORKER_POOL = WorkerPool.parse(POOL)
HOLDER = WorkerIdentity(WORKER_POOL, WORKER["workerGroup"], WORKER["workerId"])
LOG = "public/logs/live_backing.log"


async def upload(world: World, credentials: Any, task_id: str, name: str, content: bytes, run_id: int = 0) -> None:
    """Store one artifact."""
    created = await world.artifact(credentials, task_id, name, run_id, contentType="application/octet-stream")
    assert created.status == 200, created.body
    put = await world.put(created.body["putUrl"], content, Content_Type="application/octet-stream")
    assert put.status == 200, put.body


async def sign(world: World, key: SigningKey, claim: dict[str, Any], contents: dict[str, bytes]) -> list[SignedFile]:
    """Give the statements of a claimed run."""
    root_url, now = world.root_url, datetime.now(UTC)
    artifacts = tuple(an_artifact(name, content) for name, content in sorted(contents.items()))
    request = Statement(
        parse_claim(claim, HOLDER),
        an_execution(ExitCode(0), now, now),
        artifacts,
        SHA256,
        "build",
        SHA256,
        root_url,
    )
    return list(await InProcessSigner(key, HOLDER, SHA256, root_url=root_url).sign(request))


async def publish(
    world: World,
    key: SigningKey,
    contents: dict[str, bytes],
    *,
    stored: dict[str, bytes] | None = None,
    completed: bool = True,
) -> str:
    """Carry a task through its run; give its id. What is `stored` takes the place of what was signed."""
    task_id = await world.create()
    (claim,) = await world.claim(who=A_WORKER)
    credentials = claim["credentials"]
    for name, content in {**contents, **(stored or {}), LOG: b"log"}.items():
        await upload(world, credentials, task_id, name, content)
    for file in await sign(world, key, claim, contents):
        await upload(world, credentials, task_id, file.name, file.content)
    call = "reportCompleted" if completed else "reportFailed"
    resolved = await world.ask(credentials, call, task_id, 0)
    assert resolved.status == 200, resolved.body
    return task_id
