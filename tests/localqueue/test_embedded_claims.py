"""Claiming work from the embedded Queue: the long poll, order, quarantine, credentials."""

import asyncio
import json
import re
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from secureworker.localqueue import times
from secureworker.localqueue.server import serve
from secureworker.localqueue.settings import Settings
from tests.localqueue.harness import A_WORKER, POOL, ROOT, WORKER, Checked, Clock, World, a_world, stamp


async def test_an_empty_poll_waits_its_time_and_answers_no_tasks(checked: Checked | None) -> None:
    async with a_world(checked, long_poll=0.3) as world:
        loop = asyncio.get_running_loop()
        begin = loop.time()

        answer = await world.ask(A_WORKER, "claimWork", POOL, payload={**WORKER, "tasks": 1})

    assert answer.body == {"tasks": []}
    assert loop.time() - begin >= 0.3


async def test_a_hanging_poll_gets_the_task_that_is_created_meanwhile(checked: Checked | None) -> None:
    async with a_world(checked, long_poll=60) as world, asyncio.TaskGroup() as group:
        poll = group.create_task(world.claim())
        await _until_seen(world)

        task_id = await world.create()

        assert [claim["status"]["taskId"] for claim in await poll] == [task_id]


async def test_with_an_interval_a_hanging_poll_looks_again_by_itself(checked: Checked | None) -> None:
    async with a_world(checked, long_poll=60, hint_interval=0.02) as world, asyncio.TaskGroup() as group:
        poll = group.create_task(world.claim())
        await _until_seen(world)

        task_id = await world.create()

        assert [claim["status"]["taskId"] for claim in await poll] == [task_id]


async def test_a_task_wakes_no_poll_of_another_pool(checked: Checked | None) -> None:
    async with a_world(checked, long_poll=0.2) as world, asyncio.TaskGroup() as group:
        other = group.create_task(world.claim(pool="other/pool"))
        await _until_seen(world, "other/pool")
        task_id = await world.create()

        assert [claim["status"]["taskId"] for claim in await world.claim()] == [task_id]
        assert await other == []


async def test_the_first_task_ends_a_poll_for_many(world: World) -> None:
    await world.create()

    assert len(await world.claim(32)) == 1


async def test_two_polls_never_get_the_same_run(world: World) -> None:
    created = {await world.create() for _ in range(8)}

    async with asyncio.TaskGroup() as group:
        polls = [group.create_task(world.claim(3, workerId=f"w{number}")) for number in range(4)]

    claimed = [claim["status"]["taskId"] for poll in polls for claim in poll.result()]
    assert sorted(claimed) == sorted(created)


async def test_tasks_are_given_by_priority_and_then_in_their_order(world: World) -> None:
    order = [await world.create(priority=priority) for priority in ("low", "lowest", "highest", "low", "highest")]

    claimed = [claim["status"]["taskId"] for claim in await world.claim(5)]

    assert claimed == [order[2], order[4], order[0], order[3], order[1]]
    assert (await world.ask(None, "pendingTasks", POOL)).body["pendingTasks"] == 0


async def test_a_retried_task_goes_to_the_end_of_its_line(world: World) -> None:
    first, credentials = await world.claimed()
    second = await world.create()

    await world.ask(credentials, "reportException", first, 0, payload={"reason": "worker-shutdown"})

    assert [claim["status"]["taskId"] for claim in await world.claim(2)] == [second, first]


async def test_dropped_polls_take_no_task_and_another_gets_it(checked: Checked | None) -> None:
    async with a_world(checked, long_poll=60) as world:
        async with asyncio.TaskGroup() as group:
            polls = [group.create_task(world.claim(workerId=f"w{number}")) for number in range(20)]
            for number in range(20):
                await _until_seen(world, worker_id=f"w{number}")
            for poll in polls:
                poll.cancel()
        # The server has noticed by the time it answers on another connection.
        await world.ask(None, "ping")

        task_id = await world.create()

        assert [claim["status"]["taskId"] for claim in await world.claim()] == [task_id]


async def test_a_quarantined_worker_gets_nothing_until_its_quarantine_ends(world: World) -> None:
    path = (*POOL.split("/"), WORKER["workerGroup"], WORKER["workerId"])
    until = stamp(world.clock() + timedelta(minutes=10))
    unseen = await world.ask(ROOT, "quarantineWorker", *path, payload={"quarantineUntil": until})
    await world.claim()
    quarantined = await world.ask(
        ROOT, "quarantineWorker", *path, payload={"quarantineUntil": until, "quarantineInfo": "smells"}
    )
    await world.create()

    during = await world.claim()
    world.clock.advance(601)
    after = await world.claim()

    assert unseen.status == 404
    assert quarantined.body["quarantineDetails"][0]["quarantineInfo"] == "smells"
    assert quarantined.body["quarantineDetails"][0]["clientId"] == ROOT.client_id
    assert (during, len(after)) == ([], 1)
    worker = (await world.ask(None, "getWorker", *path)).body
    assert worker["recentTasks"] == [{"taskId": after[0]["status"]["taskId"], "runId": 0}]
    assert "quarantineUntil" not in worker


class FixedClock(Clock):
    """Always the same moment."""

    def __call__(self) -> Any:
        return times.parse("2026-11-23T11:25:34.970Z")


async def test_the_end_of_a_claim_is_written_as_postgresql_does_and_the_rest_as_javascript(
    checked: Checked | None,
) -> None:
    async with a_world(checked, FixedClock()) as world:
        await world.create()
        (claim,) = await world.claim()
        renewed = await world.ask(claim["credentials"], "reclaimTask", claim["status"]["taskId"], 0)

    assert claim["takenUntil"] == "2026-11-23T11:45:34.97+00:00"
    assert claim["status"]["runs"][0]["takenUntil"] == "2026-11-23T11:45:34.970Z"
    assert renewed.body["takenUntil"] == "2026-11-23T11:45:34.970Z"
    assert claim["credentials"]["clientId"].endswith("/until/1795434334.97")


async def test_credentials_of_a_run_have_three_scopes_and_the_tasks(world: World) -> None:
    task_id, credentials = await world.claimed(scopes=["b:*", "a"])

    certificate = json.loads(credentials["certificate"])

    assert certificate["scopes"] == [
        f"queue:reclaim-task:{task_id}/0",
        f"queue:resolve-task:{task_id}/0",
        f"queue:create-artifact:{task_id}/0",
        "b:*",
        "a",
    ]
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", credentials["accessToken"])
    assert certificate["expiry"] - certificate["start"] == 1200 * 1000


async def test_a_renewal_gives_new_credentials_and_the_old_ones_go_on_working(world: World) -> None:
    task_id, old = await world.claimed()
    world.clock.advance(10)

    renewed = await world.ask(old, "reclaimTask", task_id, 0)
    by_old = await world.ask(old, "reclaimTask", task_id, 0)
    by_new = await world.ask(renewed.body["credentials"], "reclaimTask", task_id, 0)

    assert renewed.body["credentials"] != old
    assert (by_old.status, by_new.status) == (200, 200)


@pytest.mark.parametrize("name", ["reclaimTask", "reportCompleted", "reportFailed"])
async def test_the_workers_own_credentials_do_nothing_to_a_run(world: World, name: str) -> None:
    task_id, _ = await world.claimed()

    assert (await world.ask(A_WORKER, name, task_id, 0)).status == 403


@pytest.mark.parametrize("interval", [0.0, 30.0])
async def test_leaving_the_server_answers_hanging_polls_at_once(interval: float) -> None:
    loop = asyncio.get_running_loop()
    settings = Settings(clients=(ROOT,), long_poll=60, hint_interval=interval)

    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group, serve(settings) as running:
        world = World(running, Clock(), http)
        poll = group.create_task(world.claim())
        await _until_seen(world)
        begin = loop.time()

    assert poll.result() == []
    assert loop.time() - begin < 5


async def _until_seen(world: World, pool: str = POOL, worker_id: str = WORKER["workerId"]) -> None:
    """Return when the worker's poll has reached the server."""
    path = (*pool.split("/"), WORKER["workerGroup"], worker_id)
    async with asyncio.timeout(10):
        while (await world.ask(None, "getWorker", *path)).status != 200:
            pass
