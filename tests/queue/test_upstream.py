"""Other tasks and their artifacts, as the Queue answers about them. Edge cases 13."""

from typing import Any

import pytest

from secureworker.core.chain import Upstream, UpstreamRun
from secureworker.core.errors import AccessDenied, BadPayload, ServiceError
from secureworker.core.ids import ArtifactName, RunId, TaskId
from secureworker.core.inputs import NotThere, Source
from secureworker.queue.claimed import TaskclusterRun
from secureworker.queue.upstream import UpstreamTasks
from secureworker.testing import TASK_ID, a_claim
from tests.queue.scripted import Scripted, error

BUILD = TaskId("TyRoGA_OS3W2QMCEuF1icw")
NAME = ArtifactName("public/build/a b.zip")
LAST = {"runId": 1, "state": "completed", "workerGroup": "g", "workerId": "w"}
DEFINITION = {"taskQueueId": "a/b"}
LENT = {"clientId": "lent", "accessToken": "l" * 44, "certificate": "{}"}


def status(runs: Any, state: str = "completed", task_id: str = BUILD) -> dict[str, Any]:
    return {"status": {"taskId": task_id, "state": state, "runs": runs}}


async def facts(server: Scripted) -> Upstream:
    return await UpstreamTasks(server.calls).facts(TaskclusterRun(a_claim(), server.calls), BUILD)


async def locate(server: Scripted) -> Source | NotThere:
    run = TaskclusterRun(a_claim(), server.calls)
    return await UpstreamTasks(server.calls).locate(run, BUILD, RunId(1), NAME)


async def test_a_task_and_its_last_run_are_asked_for_with_the_runs_own_credentials(server: Scripted) -> None:
    server.then(DEFINITION, status([{"runId": 0, "state": "exception"}, LAST]))

    assert await facts(server) == Upstream(BUILD, DEFINITION, "completed", UpstreamRun(RunId(1), "completed", "g", "w"))
    assert [path for _, path, _ in server.asked] == [
        f"/api/queue/v1/task/{BUILD}",
        f"/api/queue/v1/task/{BUILD}/status",
    ]
    assert server.clients == [f"task-client/{TASK_ID}/0"] * 2


async def test_a_task_that_has_no_run_yet_has_none(server: Scripted) -> None:
    server.then(DEFINITION, status([], "unscheduled"))
    assert await facts(server) == Upstream(BUILD, DEFINITION, "unscheduled", None)


async def test_a_task_that_there_is_not_is_a_fact_too(server: Scripted) -> None:
    server.then(error(404))
    assert await facts(server) == Upstream(BUILD, None)


async def test_a_task_that_may_not_be_read_is_for_the_author_to_solve(server: Scripted) -> None:
    server.then(error(403))
    with pytest.raises(BadPayload, match=f"give it queue:get-task:{BUILD}"):
        await facts(server)


@pytest.mark.parametrize(("code", "kind"), [(401, AccessDenied), (500, ServiceError)])
async def test_a_queue_that_does_not_answer_is_no_fact(server: Scripted, code: int, kind: type[Exception]) -> None:
    server.then(error(code))
    with pytest.raises(kind):
        await facts(server)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        status([LAST], task_id=TASK_ID),
        status(None),
        status([LAST]),
        status([1]),
        status([{"runId": 0}]),
    ],
)
async def test_an_answer_about_something_else_is_no_fact(server: Scripted, answer: Any) -> None:
    server.then(DEFINITION, answer)
    with pytest.raises(ServiceError):
        await facts(server)


async def test_an_artifact_is_where_the_queue_says(server: Scripted) -> None:
    server.then({"storageType": "s3", "url": "https://s3.example.com/secret"})

    found = await locate(server)

    assert found == Source("https://s3.example.com/secret")
    assert "secret" not in repr(found)
    assert server.asked[0][1] == f"/api/queue/v1/task/{BUILD}/runs/1/artifact-content/public%2Fbuild%2Fa%20b.zip"


async def test_an_object_is_asked_for_at_its_service_with_credentials_that_the_queue_lends(
    server: Scripted,
) -> None:
    server.then(
        {"storageType": "object", "name": "t/BUILD/1/a", "credentials": LENT},
        {"method": "getUrl", "url": "https://objects.example.com/a", "expires": "2026-01-31T12:40:00.375Z"},
    )

    assert await locate(server) == Source("https://objects.example.com/a")
    assert server.clients[-1] == "lent"
    assert server.asked[-1][2] == {"acceptDownloadMethods": {"getUrl": True}}


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([error(404)], "it is not there, or not any more"),
        ([error(403)], f"give it queue:get-artifact:{NAME}"),
        ([{"storageType": "error", "reason": "x", "message": "no\nspace"}], r"could not upload it: 'no\nspace'"),
        ([{"storageType": "reference", "url": "http://169.254.169.254/"}], "it is stored as 'reference'"),
        ([{"storageType": "object", "name": "n", "credentials": LENT}, error(404)], "its object is not there"),
    ],
)
async def test_what_cannot_be_had_is_said(server: Scripted, answers: list[Any], why: str) -> None:
    server.then(*answers)
    found = await locate(server)
    assert isinstance(found, NotThere)
    assert why in found.why


@pytest.mark.parametrize(
    "answers",
    [
        [error(401)],
        [{"storageType": "s3"}],
        [{"storageType": "object", "name": "n"}],
        [{"storageType": "object", "credentials": LENT}],
        [{"storageType": "object", "name": "n", "credentials": LENT}, error(401)],
        [{"storageType": "object", "name": "n", "credentials": LENT}, {"method": "simple", "url": "https://a"}],
        [{"storageType": "object", "name": "n", "credentials": LENT}, {"method": "getUrl"}],
    ],
)
async def test_an_answer_that_leads_nowhere_is_the_services_fault(server: Scripted, answers: list[Any]) -> None:
    server.then(*answers)
    with pytest.raises(ServiceError):
        await locate(server)
