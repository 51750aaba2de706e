"""Tasks of the embedded Queue: creation, runs, retries, deadlines, dependencies."""

from datetime import timedelta
from typing import Any

import pytest
import taskcluster

from secureworker.localqueue.settings import StaticClient
from tests.localqueue.harness import POOL, ROOT, World, a_client, a_world, stamp


def _runs(status: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    return [(run["state"], run["reasonCreated"], run.get("reasonResolved")) for run in status["runs"]]


async def test_a_task_is_created_claimed_and_completed(world: World) -> None:
    task_id, credentials = await world.claimed()

    answer = await world.ask(credentials, "reportCompleted", task_id, 0)

    assert answer.status == 200
    assert _runs(answer.body["status"]) == [("completed", "scheduled", "completed")]


async def test_the_same_definition_is_taken_again_and_another_is_a_conflict(world: World) -> None:
    task_id = taskcluster.slugId()
    definition = world.a_task()

    first = await world.ask(ROOT, "createTask", task_id, payload=definition)
    again = await world.ask(ROOT, "createTask", task_id, payload=definition)
    other = await world.ask(ROOT, "createTask", task_id, payload={**definition, "payload": {"other": 1}})

    assert [first.status, again.status, other.status] == [200, 200, 409]
    assert again.body == first.body


async def test_a_definition_is_completed_and_its_times_keep_milliseconds(world: World) -> None:
    deadline = world.clock() + timedelta(hours=1)
    task_id = await world.create(
        deadline=deadline.strftime("%Y-%m-%dT%H:%M:%S.123987+00:00"), expires=None, projectId=None, schedulerId=None
    )

    task = (await world.ask(None, "task", task_id)).body

    assert task["deadline"].endswith(".123Z")
    assert task["expires"] == (deadline + timedelta(days=365)).strftime("%Y-%m-%dT%H:%M:%S.123Z")
    assert (task["priority"], task["retries"], task["requires"]) == ("lowest", 5, "all-completed")
    assert (task["projectId"], task["schedulerId"], task["taskGroupId"]) == ("none", "-", task_id)
    assert (task["provisionerId"], task["workerType"]) == tuple(POOL.split("/"))


async def test_a_pool_may_be_given_as_its_two_parts(world: World) -> None:
    task_id = await world.create(taskQueueId=None, provisionerId="some", workerType="pool")

    assert (await world.ask(None, "task", task_id)).body["taskQueueId"] == "some/pool"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"created": -1200}, "Created timestamp"),
        ({"created": 1200}, "Created timestamp"),
        ({"created": 0, "deadline": -60}, "Deadline cannot be before created"),
        ({"created": -120, "deadline": -60}, "Deadline cannot be in the past"),
        ({"deadline": 6 * 24 * 3600}, "more than 5 days"),
        ({"expires": 60}, "Expires cannot be before"),
        ({"scopes": ["a**"]}, "must not end with"),
        ({"workerType": "other"}, "is not None/other"),
        ({"taskQueueId": None}, "taskQueueId must be provided"),
        ({"dependencies": ["Lt6zYny0R_y3P9NjWZUvLA"]}, "non-existing tasks"),
    ],
)
async def test_a_definition_that_makes_no_sense_is_refused(world: World, changes: dict[str, Any], message: str) -> None:
    now = world.clock()
    moved = {k: stamp(now + timedelta(seconds=v)) if isinstance(v, int) else v for k, v in changes.items()}
    definition = {k: v for k, v in world.a_task(**moved).items() if v is not None}

    answer = await world.ask(ROOT, "createTask", taskcluster.slugId(), payload=definition)

    assert (answer.status, answer.body["code"]) == (400, "InputError")
    assert message in answer.body["message"]


async def test_a_group_has_one_scheduler(world: World) -> None:
    group = taskcluster.slugId()
    await world.create(taskGroupId=group)

    answer = await world.ask(
        ROOT, "createTask", taskcluster.slugId(), payload=world.a_task(taskGroupId=group, schedulerId="other")
    )

    assert answer.status == 409


@pytest.mark.parametrize(
    ("reason", "created"), [("worker-shutdown", "retry"), ("intermittent-task", "task-retry"), ("internal-error", None)]
)
async def test_an_exception_is_retried_only_for_some_reasons(world: World, reason: str, created: str | None) -> None:
    task_id, credentials = await world.claimed(retries=1)

    answer = await world.ask(credentials, "reportException", task_id, 0, payload={"reason": reason})

    runs = _runs(answer.body["status"])
    assert runs[0] == ("exception", "scheduled", reason)
    assert runs[1:] == ([] if created is None else [("pending", created, None)])
    assert answer.body["status"]["retriesLeft"] == (1 if created is None else 0)


async def test_without_retries_left_the_task_ends_as_exception(world: World) -> None:
    task_id, credentials = await world.claimed(retries=0)

    answer = await world.ask(credentials, "reportException", task_id, 0, payload={"reason": "worker-shutdown"})

    assert answer.body["status"]["state"] == "exception"


async def test_an_exception_may_be_reported_again_with_the_same_reason(world: World) -> None:
    task_id, credentials = await world.claimed()
    await world.ask(credentials, "reportException", task_id, 0, payload={"reason": "worker-shutdown"})

    again = await world.ask(credentials, "reportException", task_id, 0, payload={"reason": "worker-shutdown"})
    other = await world.ask(credentials, "reportException", task_id, 0, payload={"reason": "internal-error"})

    assert (again.status, other.status) == (200, 409)


async def test_a_claim_that_is_not_renewed_expires_and_the_task_is_retried(world: World) -> None:
    task_id, credentials = await world.claimed()
    world.clock.advance(1201)

    before = await world.ask(credentials, "reportCompleted", taskcluster.slugId(), 0)
    world.running.resolvers.expire_claims()
    status = await world.status(task_id)
    late = await world.ask(credentials, "reportCompleted", task_id, 0)

    assert before.status == 403
    assert _runs(status) == [("exception", "scheduled", "claim-expired"), ("pending", "retry", None)]
    assert late.status == 409


async def test_until_the_resolver_looks_an_expired_claim_can_be_renewed_and_completed(world: World) -> None:
    task_id, credentials = await world.claimed()
    world.clock.advance(1201)

    renewed = await world.ask(credentials, "reclaimTask", task_id, 0)
    world.running.resolvers.expire_claims()
    completed = await world.ask(renewed.body["credentials"], "reportCompleted", task_id, 0)

    assert (renewed.status, completed.status) == (200, 200)


async def test_a_deadline_is_noticed_a_minute_late_and_nothing_can_be_renewed_meanwhile(world: World) -> None:
    deadline = stamp(world.clock() + timedelta(seconds=30))
    running, credentials = await world.claimed(deadline=deadline)
    pending = await world.create(deadline=deadline)
    needed = await world.create(taskQueueId="other/pool")
    unscheduled = await world.create(deadline=deadline, dependencies=[needed])

    world.clock.advance(31)
    world.running.resolvers.pass_deadlines()
    renewed = await world.ask(credentials, "reclaimTask", running, 0)
    cancelled = await world.ask(ROOT, "cancelTask", running)
    scheduled = await world.ask(ROOT, "scheduleTask", unscheduled)
    rerun = await world.ask(ROOT, "rerunTask", running)
    offered = await world.claim()
    states = [(await world.status(task_id))["state"] for task_id in (running, pending)]

    assert [renewed.status, cancelled.status, scheduled.status, rerun.status] == [409] * 4
    assert (states, offered) == (["running", "pending"], [])

    world.clock.advance(60)
    world.running.resolvers.pass_deadlines()
    resolved = [_runs(await world.status(task_id)) for task_id in (running, pending, unscheduled)]

    assert resolved == [
        [("exception", "scheduled", "deadline-exceeded")],
        [("exception", "scheduled", "deadline-exceeded")],
        [("exception", "exception", "deadline-exceeded")],
    ]


@pytest.mark.parametrize(
    ("requires", "report", "state"),
    [
        ("all-completed", "reportCompleted", "pending"),
        ("all-completed", "reportFailed", "unscheduled"),
        ("all-resolved", "reportFailed", "pending"),
    ],
)
async def test_a_task_waits_for_what_it_depends_on(world: World, requires: str, report: str, state: str) -> None:
    needed, credentials = await world.claimed(taskQueueId="other/pool")
    task_id = await world.create(dependencies=[needed], requires=requires)
    world.running.resolvers.schedule_dependents()
    before = (await world.status(task_id))["state"]

    await world.ask(credentials, report, needed, 0)
    world.running.resolvers.schedule_dependents()

    assert (before, (await world.status(task_id))["state"]) == ("unscheduled", state)
    dependents = await world.ask(None, "listDependentTasks", needed)
    assert [task["status"]["taskId"] for task in dependents.body["tasks"]] == [task_id]


async def test_what_is_resolved_already_does_not_hold_a_task_up(world: World) -> None:
    needed, credentials = await world.claimed()
    await world.ask(credentials, "reportCompleted", needed, 0)

    task_id = await world.create(dependencies=[needed])

    assert (await world.status(task_id))["state"] == "pending"


async def test_a_task_that_depends_on_itself_waits_until_it_is_scheduled(world: World) -> None:
    task_id = taskcluster.slugId()
    await world.create(task_id, dependencies=[task_id])
    world.running.resolvers.schedule_dependents()
    before = (await world.status(task_id))["state"]

    answers = [await world.ask(ROOT, "scheduleTask", task_id) for _ in range(2)]

    assert before == "unscheduled"
    assert [_runs(answer.body["status"]) for answer in answers] == [[("pending", "scheduled", None)]] * 2


async def test_a_rerun_starts_over_with_all_retries(world: World) -> None:
    task_id, credentials = await world.claimed(retries=2)
    await world.ask(credentials, "reportException", task_id, 0, payload={"reason": "worker-shutdown"})
    (claim,) = await world.claim()
    await world.ask(claim["credentials"], "reportFailed", task_id, 1)

    answers = [await world.ask(ROOT, "rerunTask", task_id) for _ in range(2)]

    assert [len(answer.body["status"]["runs"]) for answer in answers] == [3, 3]
    assert _runs(answers[0].body["status"])[2] == ("pending", "rerun", None)
    assert answers[0].body["status"]["retriesLeft"] == 2


async def test_a_task_has_fifty_runs_at_most(world: World) -> None:
    task_id = await world.create()
    for _ in range(49):
        await world.ask(ROOT, "cancelTask", task_id)
        assert (await world.ask(ROOT, "rerunTask", task_id)).status == 200
    await world.ask(ROOT, "cancelTask", task_id)

    answer = await world.ask(ROOT, "rerunTask", task_id)

    assert answer.status == 409
    assert "(50)" in answer.body["message"]


async def test_cancelling_ends_any_task_once(world: World) -> None:
    other = await world.create(taskQueueId="other/pool")
    unscheduled = await world.create(dependencies=[other])
    running, credentials = await world.claimed()

    first = await world.ask(ROOT, "cancelTask", unscheduled)
    second = await world.ask(ROOT, "cancelTask", running)
    again = await world.ask(ROOT, "cancelTask", running)
    lost = await world.ask(credentials, "reclaimTask", running, 0)

    assert _runs(first.body["status"]) == [("exception", "exception", "canceled")]
    assert _runs(second.body["status"]) == [("exception", "scheduled", "canceled")]
    assert again.body == second.body
    assert lost.status == 409


async def test_a_group_lists_its_tasks_in_pages(world: World) -> None:
    group = taskcluster.slugId()
    created = {await world.create(taskGroupId=group) for _ in range(3)}

    first = await world.ask(None, "listTaskGroup", group, query={"limit": "2"})
    token = first.body["continuationToken"]
    rest = await world.ask(None, "listTaskGroup", group, query={"limit": "2", "continuationToken": token})
    described = await world.ask(None, "getTaskGroup", group)
    unknown = await world.ask(None, "getTaskGroup", taskcluster.slugId())

    listed = [task["status"]["taskId"] for task in first.body["tasks"] + rest.body["tasks"]]
    assert sorted(listed) == sorted(created)
    assert "continuationToken" not in rest.body
    assert described.body["schedulerId"] == "tc-real"
    assert unknown.status == 404


async def test_what_does_not_exist_is_not_found(world: World) -> None:
    unknown = taskcluster.slugId()
    asked = ("task", "status", "cancelTask", "rerunTask", "scheduleTask", "listDependentTasks")

    statuses = {name: (await world.ask(ROOT, name, unknown)).status for name in asked}

    assert set(statuses.values()) == {404}


@pytest.mark.parametrize(
    ("scopes", "status"),
    [
        (("queue:cancel-task:tc-real/*",), 200),
        (("queue:cancel-task-in-project:tc-real",), 200),
        (("queue:cancel-task", "assume:scheduler-id:tc-real/*"), 200),
        (("queue:cancel-task",), 403),
        (("queue:cancel-task:other/*",), 403),
        ((), 403),
    ],
)
async def test_cancelling_takes_one_of_three_scopes(scopes: tuple[str, ...], status: int, checked: Any) -> None:
    who: StaticClient = a_client("someone", *scopes)
    async with a_world(checked, clients=(ROOT, who)) as world:
        task_id = await world.create()

        answer = await world.ask(who, "cancelTask", task_id)

    assert answer.status == status
