"""Claiming: what the Queue hands out is understood, or resolved and not forgotten."""

import json
from typing import Any

import pytest

from secureworker.core.errors import AccessDenied, ServiceError, SettingsError
from secureworker.queue.answers import read_json
from secureworker.queue.claiming import TaskclusterQueue, check_queue
from secureworker.testing import IDENTITY, TASK_ID, a_claim_answer
from tests.queue.scripted import CREDENTIALS, Scripted, error, text


def queue_at(server: Scripted) -> TaskclusterQueue:
    return TaskclusterQueue(IDENTITY, lambda: CREDENTIALS, server.calls)


async def test_claiming_asks_for_the_pool_as_this_worker(server: Scripted) -> None:
    server.then({"tasks": []})
    assert await queue_at(server).claim(3) == ()
    ((method, path, body),) = server.asked
    assert (method, path) == ("POST", "/api/queue/v1/claim-work/test-provisioner%2Ftest-pool")
    assert body == {"workerGroup": "test-group", "workerId": "test-worker", "tasks": 3}


async def test_several_claims_are_given(server: Scripted) -> None:
    server.then({"tasks": [a_claim_answer(), a_claim_answer(task_id="E7EkKCA1QkKhoeTPmmDOoQ")]})
    first, second = await queue_at(server).claim(2)
    assert first.claim.task_id == TASK_ID
    assert second.claim.task_id == "E7EkKCA1QkKhoeTPmmDOoQ"


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_are_said_to_be_refused(server: Scripted, status: int) -> None:
    server.then(error(status, "missing scopes"))
    with pytest.raises(AccessDenied, match="missing scopes"):
        await queue_at(server).claim(1)


async def test_a_request_the_queue_calls_malformed_is_an_error_of_the_settings(server: Scripted) -> None:
    server.then(error(400, "workerId must match"))
    with pytest.raises(SettingsError, match="workerId must match"):
        await queue_at(server).claim(1)


@pytest.mark.parametrize("answer", [{}, {"tasks": {}}, {"tasks": None}, error(500), text("<html>")])
async def test_an_answer_without_tasks_is_an_error_of_the_service(server: Scripted, answer: Any) -> None:
    server.then(answer)
    with pytest.raises(ServiceError):
        await queue_at(server).claim(1)


def broken(**changes: Any) -> dict[str, Any]:
    return {**a_claim_answer(), **changes}


@pytest.mark.parametrize(
    "task",
    [
        broken(takenUntil="tomorrow"),
        broken(takenUntil=None),
        broken(task={}),
        broken(task=a_claim_answer(scopes=[1])["task"]),
        broken(task=a_claim_answer(payload=[])["task"]),
        broken(task=a_claim_answer(taskQueueId="another/pool")["task"]),
        broken(workerId="another-worker"),
        broken(workerGroup=None),
    ],
)
async def test_a_claim_that_cannot_be_understood_is_resolved_and_not_given(server: Scripted, task: Any) -> None:
    server.then({"tasks": [task, a_claim_answer(task_id="E7EkKCA1QkKhoeTPmmDOoQ")]}, {})
    (run,) = await queue_at(server).claim(2)
    assert run.claim.task_id == "E7EkKCA1QkKhoeTPmmDOoQ"
    _, path, body = server.asked[1]
    assert path == f"/api/queue/v1/task/{TASK_ID}/runs/0/exception"
    assert body == {"reason": "internal-error"}
    assert server.clients[1] == f"task-client/{TASK_ID}/0"


@pytest.mark.parametrize(
    "task",
    [
        7,
        broken(task={}, status={}),
        broken(task={}, status={"taskId": "../../x"}),
        broken(task={}, runId="0"),
        broken(credentials={}),
        broken(credentials=None),
        broken(credentials={"clientId": "x", "accessToken": "y", "certificate": {}}),
    ],
)
async def test_a_claim_of_which_nothing_is_understood_ends_nothing(
    server: Scripted, task: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server.then({"tasks": [task]}, {})
    assert await queue_at(server).claim(1) == ()
    assert len(server.asked) == 1
    assert "it will expire" in caplog.text


@pytest.mark.parametrize("answer", [error(409), error(403), error(500)])
async def test_a_claim_that_can_be_neither_understood_nor_resolved_ends_nothing(
    server: Scripted, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server.then({"tasks": [broken(task={})]}, answer)
    assert await queue_at(server).claim(1) == ()
    assert "it will expire" in caplog.text


def nested(levels: int) -> str:
    return '{"a":' * (levels // 2) + "[" * (levels // 2) + "]" * (levels // 2) + "}" * (levels // 2)


@pytest.mark.parametrize("levels", [1_000, 10_000, 1_000_000])
async def test_a_payload_nested_too_deep_to_be_read_is_a_claim_all_the_same(server: Scripted, levels: int) -> None:
    answer = json.dumps({"tasks": [a_claim_answer(payload={"deep": "HERE", "after": 'a "[{" string'})]})
    server.then(text(answer.replace('"HERE"', nested(levels)), "application/json"))
    (run,) = await queue_at(server).claim(1)
    assert run.claim.task_id == TASK_ID
    (defect,) = run.claim.task.defects
    assert "levels deep" in defect
    assert run.claim.task.payload["after"] == 'a "[{" string'


def test_what_is_cut_is_only_what_is_too_deep() -> None:
    shallow = '{"b": [1, {"c": "}]\\"["}], "d": null}'
    text = f'{{"deep": {nested(3000)}, "shallow": {shallow}, "more": [{nested(3000)}, 1]}}'
    read = read_json(text)
    assert read["shallow"] == {"b": [1, {"c": '}]"['}], "d": None}
    assert read["more"][1] == 1


async def test_a_queue_that_is_there_is_found(server: Scripted) -> None:
    server.then({"alive": True, "uptime": 1})
    await check_queue(server.calls)


@pytest.mark.parametrize("answer", [{}, {"alive": "yes"}, error(404, "Not found")])
async def test_something_else_at_the_root_url_is_an_error_of_the_settings(server: Scripted, answer: Any) -> None:
    server.then(answer)
    with pytest.raises(SettingsError, match="no Taskcluster at the policy's root URL"):
        await check_queue(server.calls)


async def test_nobody_at_the_root_url_is_said_with_what_to_do(server: Scripted) -> None:
    server.then(*(error(502, "Bad Gateway") for _ in range(5)))
    with pytest.raises(ServiceError, match=r"root URL does not answer \(ping: 502.*start the worker when it does"):
        await check_queue(server.calls)


async def test_a_web_page_at_the_root_url_is_an_error(server: Scripted) -> None:
    server.then(text("<h1>It works!"))
    with pytest.raises(ServiceError, match="is the root URL a Taskcluster's"):
        await check_queue(server.calls)
