"""The recorded answers of a real Taskcluster, asked for again: same status, same body, same messages.

What differs by nature (ids, times, tokens, hosts) is replaced in both by its name before they are compared; the form of
a time is kept, for `takenUntil` has two.
"""

import json
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.localqueue.harness import (
    A_WORKER,
    CREATOR,
    POOL,
    REGISTERED,
    REGISTRATION_SECRET,
    ROOT,
    SAMPLES,
    WORKER,
    Answer,
    World,
    credentials_of,
    stamp,
)

pytestmark = pytest.mark.references

NOT_SERVED = {
    "purgeRequests": "purge-cache",
    "scriptworker-artifacts": "another worker's uploads, listed",
}
TASK: dict[str, Any] = {"routes": ["index.tc-real.smoke.latest"], "tags": {"kind": "smoke"}, "retries": 3}
UNKNOWN = "Lt6zYny0R_y3P9NjWZUvLA"

_SLUG = r"[A-Za-z0-9_-]{8}[Q-T][A-Za-z0-9_-][CGKOSWaeimquy26-][A-Za-z0-9_-]{10}[AQgw]"
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
_REPLACED = (
    (r"\?X-Amz-[^\"\\]*", "?SIGNED"),
    (r"http://(localhost|127\.0\.0\.1):\d+", "ROOT"),
    (r'(accessToken\\*": ?\\*")[A-Za-z0-9_-]{43}', r"\1TOKEN"),
    (r'(secret": ?")[A-Za-z0-9_-]{44}', r"\1SECRET"),
    (r'(seed\\*": ?\\*")[A-Za-z0-9_-]{44}', r"\1SEED"),
    (r'(signature\\*": ?\\*")[A-Za-z0-9+/]{43}=', r"\1SIGNATURE"),
    (r'((start|expiry)\\*": ?)\d{13}', r"\g<1>0"),
    (r"until/\d+(\.\d+)?", "until/EPOCH"),
    (r"\{\{hash\}\}", "HASH"),  # the real one forgets to fill its message in
    (r"[A-Za-z0-9+/]{43}=", "HASH"),
    (rf"(?<![A-Za-z0-9_-]){_SLUG}(?![A-Za-z0-9_-])", "SLUG"),
    (rf"{_TIME}\.\d{{6}}Z", "PYTHON-TIME"),
    (rf"{_TIME}\.\d{{3}}Z", "JAVASCRIPT-TIME"),
    (rf"{_TIME}(\.\d{{0,2}}[1-9])?\+00:00", "POSTGRESQL-TIME"),
)


def _plain(value: Any) -> Any:
    text = json.dumps(value)
    for pattern, name in _REPLACED:
        text = re.sub(pattern, name, text)
    return json.loads(text)


def _sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


# Situations: what to do so that the last answer is the recorded one.


async def _running(world: World) -> tuple[str, dict[str, str]]:
    return await world.claimed(**TASK)


def _on_run(name: str, before: str | None = None, who: Any = None, run_id: int = 0, **body: Any) -> Any:
    """Ask something of a run, after another thing was done to it."""

    async def situation(world: World) -> Answer:
        task_id, credentials = await _running(world)
        if before == "cancelTask":
            await world.ask(ROOT, before, task_id)
        elif before:
            await world.ask(credentials, before, task_id, 0)
        return await world.ask(who or credentials, name, task_id, run_id, payload=body or None)

    return situation


def _reports(reason: str) -> Any:
    async def situation(world: World) -> Answer:
        task_id, credentials = await world.claimed()
        return await world.ask(credentials, "reportException", task_id, 0, payload={"reason": reason})

    return situation


def _artifact(name: str, before: dict[str, Any] | None = None, who: Any = None, **changes: Any) -> Any:
    """Create an artifact, perhaps over another."""

    async def situation(world: World) -> Answer:
        task_id, credentials = await _running(world)
        if before is not None:
            await world.artifact(credentials, task_id, name, **before)
        return await world.artifact(who or credentials, task_id, name, **changes)

    return situation


async def _after_completed(world: World) -> Answer:
    task_id, credentials = await _running(world)
    await world.ask(credentials, "reportCompleted", task_id, 0)
    return await world.artifact(credentials, task_id, "public/late.txt")


def _claims(who: Any, pool: str = POOL, **body: Any) -> Any:
    async def situation(world: World) -> Answer:
        return await world.ask(who, "claimWork", pool, payload=body)

    return situation


async def _claim_work(world: World) -> Answer:
    await world.create(**TASK)
    return await world.ask(A_WORKER, "claimWork", POOL, payload={**WORKER, "tasks": 1})


async def _certificate(world: World) -> Answer:
    claim = (await _claim_work(world)).body["tasks"][0]
    return Answer(200, json.loads(claim["credentials"]["certificate"]), {})


async def _create_task(world: World) -> Answer:
    body = world.a_task(**TASK)
    answer = await world.ask(ROOT, "createTask", UNKNOWN, payload=body)
    return Answer(answer.status, {"request": body, "response": answer.body}, answer.headers)


def _creates(who: Any, once: bool = False, **changes: Any) -> Any:  # noqa: FBT001, FBT002 read as a keyword
    async def situation(world: World) -> Answer:
        if once:
            await world.create(UNKNOWN, **TASK)
        return await world.ask(who, "createTask", UNKNOWN, payload=world.a_task(**changes))

    return situation


async def _authorized(world: World) -> Answer:
    task_id, credentials = await world.claimed(
        taskQueueId="x/y", scopes=["queue:create-task:lowest:x/y", "secrets:get:project/tc-real/*"]
    )
    return await world.ask(credentials, "reclaimTask", task_id, 0, ext={"authorizedScopes": ["assume:everything"]})


def _expired(minutes: float) -> Any:
    """Use credentials that long after they expired; the claim is lost by then."""

    async def situation(world: World) -> Answer:
        task_id, credentials = await world.claimed()
        world.clock.advance(1201)
        world.running.resolvers.expire_claims()
        world.clock.advance(minutes * 60)
        return await world.ask(credentials, "reclaimTask", task_id, 0)

    return situation


async def _old_run(world: World) -> Answer:
    task_id, credentials = await world.claimed()
    await world.ask(credentials, "reportException", task_id, 0, payload={"reason": "worker-shutdown"})
    return await world.ask(ROOT, "reclaimTask", task_id, 0)


def _late(name: str, seconds: float) -> Any:
    async def situation(world: World) -> Answer:
        task_id, credentials = await world.claimed(deadline=stamp(world.clock() + timedelta(seconds=10)))
        world.clock.advance(10 + seconds)
        world.running.resolvers.pass_deadlines()
        return await world.ask(credentials, name, task_id, 0)

    return situation


async def _claim_expired(world: World) -> Answer:
    task_id, _ = await world.claimed(retries=2)
    world.clock.advance(1201)
    world.running.resolvers.expire_claims()
    return Answer(200, await world.status(task_id), {})


async def _failed(world: World) -> Answer:
    status = (await _claim_expired(world)).body
    (claim,) = await world.claim(workerId="w2")
    return await world.ask(claim["credentials"], "reportFailed", status["taskId"], 1)


async def _cancelled(world: World) -> Answer:
    task_id, _ = await world.claimed()
    return await world.ask(ROOT, "cancelTask", task_id)


def _of_task_credentials(name: str, *params: str, service: str) -> Any:
    async def situation(world: World) -> Answer:
        _, credentials = await _running(world)
        return await world.ask(credentials, name, *params, service=service)

    return situation


async def _artifacts(world: World) -> str:
    """Make the artifacts that the recording has."""
    task_id, credentials = await _running(world)
    for name in ("private/hello.txt", "public/a b+c~(1).txt", "public/hello.txt"):
        await world.artifact(credentials, task_id, name)
    await world.artifact(credentials, task_id, "public/with-length.txt", contentLength=5)
    await world.artifact(credentials, task_id, "public/logs/live.log", storageType="link", artifact="public/hello.txt")
    kind: dict[str, Any] = {"storageType": "object", "contentType": "application/octet-stream"}
    for name in ("never-finished", "obj-large", "obj-small"):
        await world.artifact(credentials, task_id, f"public/{name}.bin", **kind)
    await world.artifact(credentials, task_id, "public/obj-length.bin", contentLength=100, **kind)
    reason: dict[str, Any] = {"storageType": "error", "reason": "file-missing-on-worker", "message": "no such file"}
    await world.artifact(credentials, task_id, "public/oops", contentType=None, **reason)
    url = f"{world.root_url}/api/auth/v1/ping"
    await world.artifact(
        credentials, task_id, "public/ref", storageType="reference", url=url, contentType="application/json"
    )
    return task_id


def _reads(name: str, *params: str) -> Any:
    async def situation(world: World) -> Answer:
        task_id = await _artifacts(world)
        return await world.ask(None, name, task_id, 0, *params)

    return situation


def _finishes(name: str, upload_id: str | None = None) -> Any:
    async def situation(world: World) -> Answer:
        task_id, credentials = await _running(world)
        kind = "object" if "finished" in name else "s3"
        created = await world.artifact(credentials, task_id, name, storageType=kind)
        body = {"uploadId": upload_id or created.body["uploadId"]}
        return await world.ask(credentials, "finishArtifact", task_id, 0, name, payload=body)

    return situation


async def _wrong_hash(world: World) -> Answer:
    body = {"workerGroup": "g", "workerId": "w", "tasks": 1}
    return await world.ask(ROOT, "claimWork", "tc-real/probe-429aa", payload=body, signed={"content": b"other"})


async def _no_json(world: World) -> Answer:
    return await world.ask(ROOT, "claimWork", "tc-real/probe-429aa", raw=b"{nope")


async def _bad_token(world: World) -> Answer:
    wrong = credentials_of(A_WORKER) | {"accessToken": "x" * 44}
    return await world.ask(wrong, "claimWork", POOL, payload={**WORKER, "tasks": 1})


def _reclaims(task_id: str, who: Any = ROOT) -> Any:
    async def situation(world: World) -> Answer:
        return await world.ask(who, "reclaimTask", task_id, 0)

    return situation


async def _registered(world: World) -> Answer:
    proof = {"staticSecret": REGISTRATION_SECRET}
    body = {**REGISTERED, "providerId": "static", "workerIdentityProof": proof}
    return await world.ask(None, "registerWorker", payload=body, service="WorkerManager")


async def _registered_scopes(world: World) -> Answer:
    credentials = (await _registered(world)).body["credentials"]
    return await world.ask(credentials, "currentScopes", service="Auth")


PROBE: dict[str, Any] = {"taskQueueId": "tc-real/probe-429aa"}
GET_ARTIFACT = "getArtifact-anonymous-public_"
SITUATIONS: dict[str, Callable[[World], Awaitable[Answer]]] = {
    "artifactInfo": _reads("artifactInfo", "public/hello.txt"),
    "cancelTask": _cancelled,
    "claimWork": _claim_work,
    "claimWork-certificate": _certificate,
    "claimWork-empty": _claims(A_WORKER, **WORKER, tasks=1),
    "claimWork-raw-headers": _claim_work,
    "createArtifact-object": _artifact("public/obj-large.bin", storageType="object"),
    "createArtifact-s3-private": _artifact("private/hello.txt"),
    "createArtifact-s3-public": _artifact("public/hello.txt"),
    "createTask": _create_task,
    "error-authorizedScopes": _authorized,
    "error-claimWork-malformed-400": _claims(A_WORKER, **WORKER, tasks=0),
    "error-claimWork-malformed2-400": _claims(A_WORKER, workerGroup="tc-real-group", tasks=1, zzz=2),
    "error-claimWork-other-group-403": _claims(A_WORKER, workerGroup="other", workerId="w1", tasks=1),
    "error-claimWork-other-pool-403": _claims(A_WORKER, "tc-real/other", **WORKER, tasks=1),
    "error-createArtifact-after-completed-409": _after_completed,
    "error-createArtifact-conflict-contentType-409": _artifact("public/hello.txt", {}, contentType="text/html"),
    "error-createArtifact-conflict-shorter-expires-409": _artifact("public/hello.txt", {}, hours=1),
    "error-createArtifact-conflict-storageType-409": _artifact(
        "public/hello.txt", {}, storageType="reference", url="http://localhost/"
    ),
    "error-createArtifact-expires-after-task-400": _artifact("public/bad", hours=30 * 24),
    "error-createArtifact-expires-past-400": _artifact("public/bad", hours=-1),
    "error-createArtifact-malformed-400": _artifact("public/bad", contentType=None),
    "error-createArtifact-non-ascii-name-400": _artifact("public/ü.txt"),
    "error-createArtifact-worker-credentials-403": _artifact("public/bad", who=A_WORKER),
    "error-createTask-malformed-400": _creates(ROOT, **(TASK | {"retries": "many", "priority": "urgent"})),
    "error-createTask-same-id-different": _creates(ROOT, once=True, **TASK, payload={"other": 1}),
    "error-createTask-scopes-a_b": _creates(CREATOR, **PROBE, scopes=["secrets:get:a/b"], payload={}),
    "error-createTask-scopes-z": _creates(CREATOR, **PROBE, scopes=["secrets:get:z"], payload={}),
    "error-finishArtifact-not-uploaded-400": _finishes("public/never-finished.bin"),
    "error-finishArtifact-s3-400": _finishes("public/hello.txt", UNKNOWN),
    "error-finishArtifact-wrong-uploadId-400": _finishes("public/never-finished.bin", UNKNOWN),
    "error-hawk-payload-hash": _wrong_hash,
    "error-malformed-json": _no_json,
    "error-no-credentials-403": _claims(None, **WORKER, tasks=1),
    "error-reclaim-after-cancel-409": _on_run("reclaimTask", "cancelTask"),
    "error-reclaim-after-completed-409": _on_run("reclaimTask", "reportCompleted"),
    "error-reclaim-after-deadline-409": _late("reclaimTask", 1),
    "error-reclaim-bad-taskid-400": _reclaims("not-a-slug"),
    "error-reclaim-root-credentials-old-run-409": _old_run,
    "error-reclaim-unknown-task-root-404": _reclaims(UNKNOWN),
    "error-reclaim-with-credentials-expired-4-minutes-ago-409": _expired(4),
    "error-reclaim-with-credentials-expired-6-minutes-ago-401": _expired(6),
    "error-reclaim-with-just-expired-credentials-409": _expired(0),
    "error-reclaim-with-worker-credentials-403": _on_run("reclaimTask", who=A_WORKER),
    "error-reclaim-wrong-run-root-404": _on_run("reclaimTask", who=ROOT, run_id=1),
    "error-reclaim-wrong-run-task-credentials-403": _on_run("reclaimTask", run_id=1),
    "error-reportCompleted-after-cancel-409": _on_run("reportCompleted", "cancelTask"),
    "error-reportCompleted-after-deadline-409": _late("reportCompleted", 61),
    "error-reportException-after-cancel-409": _on_run("reportException", "cancelTask", reason="worker-shutdown"),
    "error-reportException-after-completed-409": _on_run("reportException", "reportCompleted", reason="internal-error"),
    "error-reportException-bad-reason-400": _on_run("reportException", reason="because"),
    "error-reportFailed-after-completed-409": _on_run("reportFailed", "reportCompleted"),
    "error-task-credentials-lack-a-scope-403": _of_task_credentials("get", "project/other/one", service="Secrets"),
    "error-unauthenticated-bad-token-401": _bad_token,
    "getArtifact-anonymous-private_hello.txt": _reads("getArtifact", "private/hello.txt"),
    f"{GET_ARTIFACT}a%20b%2Bc~(1).txt": _reads("getArtifact", "public/a b+c~(1).txt"),
    f"{GET_ARTIFACT}hello.txt": _reads("getArtifact", "public/hello.txt"),
    f"{GET_ARTIFACT}logs_live.log": _reads("getArtifact", "public/logs/live.log"),
    f"{GET_ARTIFACT}oops": _reads("getArtifact", "public/oops"),
    f"{GET_ARTIFACT}ref": _reads("getArtifact", "public/ref"),
    "listArtifacts": _reads("listArtifacts"),
    "reclaimTask": _on_run("reclaimTask"),
    "registerWorker": _registered,
    "registered-worker-currentScopes": _registered_scopes,
    "reportCompleted": _on_run("reportCompleted"),
    "reportException-intermittent-task": _reports("intermittent-task"),
    "reportException-internal-error": _reports("internal-error"),
    "reportException-malformed-payload": _reports("malformed-payload"),
    "reportException-resource-unavailable": _reports("resource-unavailable"),
    "reportException-worker-shutdown": _reports("worker-shutdown"),
    "reportFailed": _failed,
    "status-after-claim-expired": _claim_expired,
    "task-credentials-currentScopes": _of_task_credentials("currentScopes", service="Auth"),
}


@pytest.mark.parametrize("name", sorted(SITUATIONS))
async def test_a_recorded_situation_gives_the_recorded_answer(world: World, name: str) -> None:
    recorded = _sample(name)
    enveloped = isinstance(recorded, dict) and "status" in recorded and isinstance(recorded["status"], int)
    status, body = (recorded["status"], recorded.get("body")) if enveloped else (200, recorded)

    answer = await SITUATIONS[name](world)

    assert answer.status == status
    if name == "claimWork-raw-headers":
        compared = ("Content-Type", "Content-Encoding", "Cache-Control", "X-Content-Type-Options", "Vary")
        assert {key: answer.headers[key] for key in compared} == {key: recorded["headers"][key] for key in compared}
        return
    if isinstance(body, str):
        kept = ("Content-Type", "Location", "x-taskcluster-artifact-storage-type")
        for key in set(kept) & set(recorded["headers"]):
            assert _plain(answer.headers[key]) == _plain(recorded["headers"][key])
        body = json.loads(body)
    assert _plain(answer.body) == _plain(body)


async def test_every_sample_is_replayed_or_of_a_service_that_is_not_served() -> None:
    assert {path.stem for path in SAMPLES.glob("*.json")} == set(SITUATIONS) | set(NOT_SERVED)
