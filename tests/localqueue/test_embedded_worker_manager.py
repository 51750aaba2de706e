"""Registering a static worker at the embedded worker-manager."""

from pathlib import Path
from typing import Any

import pytest

from secureworker.localqueue.settings import StaticPool
from tests.localqueue.harness import REGISTERED, REGISTRATION_SECRET, ROOT, STATIC_POOL, Answer, Checked, World, a_world

OTHER_SECRET = "x" * 44
PATH = (REGISTERED["workerPoolId"], REGISTERED["workerGroup"], REGISTERED["workerId"])


async def register(world: World, **changes: Any) -> Answer:
    body = {
        **REGISTERED,
        "providerId": "static",
        "workerIdentityProof": {"staticSecret": REGISTRATION_SECRET},
        **changes,
    }
    return await world.ask(None, "registerWorker", payload=body, service="WorkerManager")


async def reregister(world: World, who: Any, secret: str, **changes: str) -> Answer:
    body = {**REGISTERED, "secret": secret, **changes}
    return await world.ask(who, "reregisterWorker", payload=body, service="WorkerManager")


def said(answer: Answer) -> str:
    text: str = answer.body["message"]
    return text.partition("\n\n---")[0]


async def test_a_registered_worker_may_claim_in_its_pool_and_as_itself_only(world: World) -> None:
    credentials = (await register(world)).body["credentials"]
    await world.create(taskQueueId=REGISTERED["workerPoolId"])
    worker = {key: REGISTERED[key] for key in ("workerGroup", "workerId")}

    (claim,) = await world.claim(pool=PATH[0], who=credentials, workerGroup=PATH[1], workerId=PATH[2])
    elsewhere = await world.ask(credentials, "claimWork", "tc-real/other", payload={**worker, "tasks": 1})
    as_other = {**worker, "workerId": "static-2", "tasks": 1}
    other = await world.ask(credentials, "claimWork", REGISTERED["workerPoolId"], payload=as_other)

    assert claim["workerId"] == REGISTERED["workerId"]
    assert (elsewhere.status, other.status) == (403, 403)


async def test_registering_again_takes_the_newest_secret_and_gives_the_next(world: World) -> None:
    first = (await register(world)).body
    second = await reregister(world, first["credentials"], first["secret"])
    used = await reregister(world, first["credentials"], first["secret"])
    third = await reregister(world, second.body["credentials"], second.body["secret"])

    assert (second.status, third.status) == (200, 200)
    assert len({first["secret"], second.body["secret"], third.body["secret"]}) == 3
    assert "workerConfig" not in second.body
    assert (used.status, said(used)) == (400, "Could not generate credentials for this secret")


async def test_credentials_end_after_the_pools_time_and_new_ones_last_as_long(world: World) -> None:
    first = (await register(world)).body
    world.clock.advance(3000)
    second = (await reregister(world, first["credentials"], first["secret"])).body
    world.clock.advance(1000)
    assert (await world.ask(first["credentials"], "currentScopes", service="Auth")).status == 401
    assert (await world.ask(second["credentials"], "currentScopes", service="Auth")).status == 200


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"workerPoolId": "tc-real/none"}, 404, "Worker pool tc-real/none does not exist"),
        ({"providerId": "google"}, 404, "Provider google does not exist"),
        ({"workerId": "w9"}, 404, "Worker tc-real-group/w9 in worker pool tc-real/static does not exist"),
        ({"workerIdentityProof": {"staticSecret": OTHER_SECRET}}, 400, "bad staticSecret"),
        ({"workerIdentityProof": {"token": "a"}}, 400, "bad staticSecret"),
    ],
)
async def test_who_is_not_known_or_proves_nothing_gets_no_credentials(
    world: World, changes: dict[str, Any], status: int, message: str
) -> None:
    answer = await register(world, **changes)
    assert (answer.status, said(answer)) == (status, message)
    assert REGISTRATION_SECRET not in str(answer.body)
    assert OTHER_SECRET not in str(answer.body)


async def test_a_pool_of_another_provider_is_refused(checked: Checked | None) -> None:
    other = StaticPool("tc-real/elsewhere", (), provider_id="other")
    async with a_world(checked, worker_pools=(STATIC_POOL, other)) as world:
        answer = await register(world, providerId="other")
    assert (answer.status, said(answer)) == (400, "Worker pool tc-real/static not associated with provider other")


@pytest.mark.parametrize("changes", [{"workerId": "w9"}, {"workerPoolId": "tc-real/none"}])
async def test_registering_again_as_somebody_else_takes_their_scope(world: World, changes: dict[str, str]) -> None:
    first = (await register(world)).body
    refused = await reregister(world, first["credentials"], first["secret"], **changes)
    unknown = await reregister(world, ROOT, first["secret"], **changes)
    assert (refused.status, unknown.status) == (403, 400)


async def test_registering_again_before_the_first_time_is_refused(world: World) -> None:
    assert (await reregister(world, ROOT, OTHER_SECRET)).status == 400


async def test_a_worker_reports_an_error_about_itself(world: World) -> None:
    credentials = (await register(world)).body["credentials"]
    report = {"kind": "worker-error", "title": "t", "description": "d", "extra": {"a": 1}}
    who = {key: REGISTERED[key] for key in ("workerGroup", "workerId")}

    async def send(pool: str, sender: Any, **changes: str) -> Answer:
        body = {**report, **who, **changes}
        return await world.ask(sender, "reportWorkerError", pool, payload=body, service="WorkerManager")

    answer = await send(REGISTERED["workerPoolId"], credentials)
    assert answer.status == 200
    assert answer.body["extra"] == {"a": 1, **who}
    assert (await send(REGISTERED["workerPoolId"], credentials, workerId="w9")).status == 403
    assert (await send("tc-real/none", ROOT)).status == 404


async def test_a_worker_that_was_removed_is_told_to_end_and_does_not_come_back(world: World) -> None:
    first = (await register(world)).body

    async def ask(name: str) -> Answer:
        return await world.ask(first["credentials"], name, *PATH, service="WorkerManager")

    assert (await ask("shouldWorkerTerminate")).body["terminate"] is False
    assert (await ask("removeWorker")).status == 200
    assert (await ask("shouldWorkerTerminate")).body["terminate"] is True
    assert (await ask("removeWorker")).status == 404
    assert (await reregister(world, first["credentials"], first["secret"])).status == 400
    assert (await register(world)).status == 404


async def test_the_next_secret_survives_a_restart(checked: Checked | None, tmp_path: Path) -> None:
    async with a_world(checked, data=str(tmp_path)) as world:
        first = (await register(world)).body
    async with a_world(checked, data=str(tmp_path)) as world:
        answer = await reregister(world, first["credentials"], first["secret"])
    assert answer.status == 200


async def test_the_official_client_registers(world: World) -> None:
    proof = {"staticSecret": REGISTRATION_SECRET}
    client = world.official(None, "WorkerManager")
    first = await client.registerWorker({**REGISTERED, "providerId": "static", "workerIdentityProof": proof})
    again = world.official(first["credentials"], "WorkerManager")
    second = await again.reregisterWorker({**REGISTERED, "secret": first["secret"]})
    assert second["credentials"]["clientId"] == first["credentials"]["clientId"]
    assert (await again.shouldWorkerTerminate(*PATH))["terminate"] is False
    assert (await again.ping())["alive"] is True
