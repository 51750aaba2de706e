"""The embedded Queue's journal: every change of a run and of an artifact, by whom."""

import gzip
import hashlib
from typing import Any

from secureworker.localqueue.journal import Entry
from tests.localqueue.harness import Checked, a_world

CONTENT = b"what a script has built"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def told(kept: list[Entry]) -> list[tuple[str, int, str]]:
    return [(entry.what, entry.run_id, entry.by.partition("/")[0]) for entry in kept]


async def test_a_runs_life_is_told_in_order_and_by_whom(checked: Checked | None) -> None:
    kept: list[Entry] = []
    async with a_world(checked, journal=kept.append) as world:
        task_id, credentials = await world.claimed()
        await world.ask(credentials, "reclaimTask", task_id, 0)
        await world.ask(credentials, "reportException", task_id, 0, payload={"reason": "worker-shutdown"})
    assert told(kept) == [
        ("pending", 0, "static"),
        ("claimed", 0, "static"),
        ("reclaimed", 0, "task-client"),
        ("resolved", 0, "task-client"),
        ("pending", 1, "task-client"),
    ]
    assert kept[3]["reason"] == "worker-shutdown"
    assert kept[3]["worker"] == kept[1]["worker"] != ""
    assert kept[1]["takenUntil"] < kept[2]["takenUntil"]
    assert kept[4]["created"] == "retry"
    assert kept[0]["takenUntil"] == ""


async def test_what_nobody_asked_for_is_told_too(checked: Checked | None) -> None:
    kept: list[Entry] = []
    async with a_world(checked, journal=kept.append) as world:
        task_id, _ = await world.claimed(retries=0)
        world.clock.advance(1300)
        world.running.resolvers.expire_claims()
        other, _ = await world.claimed()
        world.clock.advance(8000)
        world.running.resolvers.pass_deadlines()
    ends = {entry.task_id: (entry.by, entry["reason"]) for entry in kept if entry.what == "resolved"}
    assert ends == {
        task_id: ("claim-resolver", "claim-expired"),
        other: ("deadline-resolver", "deadline-exceeded"),
    }


async def test_what_is_stored_is_told_with_the_digest_of_what_it_holds(checked: Checked | None) -> None:
    kept: list[Entry] = []
    async with a_world(checked, journal=kept.append) as world:
        task_id, credentials = await world.claimed()
        for name, body, headers in (
            ("public/plain", CONTENT, {}),
            ("public/packed", gzip.compress(CONTENT), {"Content_Encoding": "gzip"}),
            ("private/torn", CONTENT, {"Content_Encoding": "gzip"}),
        ):
            created: Any = await world.artifact(credentials, task_id, name)
            await world.put(created.body["putUrl"], body, **headers)
    assert [(entry["name"], entry["sha256"]) for entry in kept if entry.what == "stored"] == [
        ("public/plain", SHA256),
        ("public/packed", SHA256),
        ("private/torn", "unreadable: BadGzipFile"),
    ]
    assert [entry["storageType"] for entry in kept if entry.what == "artifact"] == ["s3", "s3", "s3"]


async def test_an_artifact_that_is_put_twice_is_told_twice_and_only_the_last_stays(checked: Checked | None) -> None:
    kept: list[Entry] = []
    async with a_world(checked, journal=kept.append) as world:
        task_id, credentials = await world.claimed()
        created: Any = await world.artifact(credentials, task_id, "public/a")
        for body in (b"first", CONTENT):
            await world.put(created.body["putUrl"], body)
        url = f"{world.root_url}/api/queue/v1/task/{task_id}/runs/0/artifacts/public/a"
        assert (await world.get(url))[1] == CONTENT
    assert [entry["sha256"] for entry in kept if entry.what == "stored"][1] == SHA256
    assert len([entry for entry in kept if entry.what == "stored"]) == 2
