"""Tasks held against what makes them: everything is compared, less what is listed."""

from typing import Any

import pytest

from secureworker.core.claim import Json
from secureworker.core.ids import TaskId
from secureworker.core.likeness import differences_of_entry, differences_of_rendering

DECISION = TaskId("ddVaxIRdRAaAAr5ryHnORA")
OTHER = "TyRoGA_OS3W2QMCEuF1icw"
FOUND: dict[str, Json] = {
    "taskQueueId": "p/w",
    "provisionerId": "p",
    "workerType": "w",
    "schedulerId": "s",
    "taskGroupId": str(DECISION),
    "projectId": "none",
    "dependencies": [str(DECISION)],
    "requires": "all-completed",
    "routes": [],
    "priority": "lowest",
    "retries": 5,
    "created": "2026-01-31T12:00:00.000Z",
    "deadline": "2026-01-31T13:00:00.000Z",
    "expires": "2026-02-28T13:00:00.000Z",
    "scopes": ["a:b"],
    "payload": {"command": ["x"], "n": 1, "artifacts": [{"expires": "2026-02-28T13:00:00.000Z"}]},
    "metadata": {"name": "n"},
    "tags": {},
    "extra": {},
}
WRITTEN: dict[str, Any] = {
    "provisionerId": "p",
    "workerType": "w",
    "scopes": ["a:b"],
    "deadline": {"relative-datestamp": "1 hour"},
    "payload": {"command": ["x"], "n": 1, "artifacts": [{"expires": {"relative-datestamp": "1 day"}}]},
    "metadata": {"name": "n"},
}


def of_entry(found: dict[str, Json], dependencies: Json = None, **written: Json) -> tuple[str, ...]:
    entry: dict[str, Json] = {"task": {**WRITTEN, **written}, "dependencies": dependencies or {}}
    return differences_of_entry({**FOUND, **found}, entry, DECISION, "s")


def test_what_a_decision_task_cannot_know_may_differ() -> None:
    assert of_entry({}) == ()
    assert of_entry({"created": "2026-01-31T12:00:00.5Z"}) == ()
    assert of_entry({"dependencies": [OTHER]}, {"build": OTHER}) == ()
    assert of_entry({"dependencies": [str(DECISION), OTHER]}, {"build": OTHER}) == ()
    assert of_entry({"dependencies": []}) == ()


@pytest.mark.parametrize(
    ("found", "key"),
    [
        ({"payload": {"command": ["y"]}}, "payload"),
        ({"payload": {**WRITTEN["payload"], "artifacts": [{"expires": "soon"}]}}, "payload"),
        ({"payload": {**WRITTEN["payload"], "n": True, "artifacts": [{"expires": "2026-02-28T13:00:00Z"}]}}, "payload"),
        ({"scopes": ["a:b", "c:d"]}, "scopes"),
        ({"routes": ["index.x"]}, "routes"),
        ({"dependencies": [OTHER]}, "dependencies"),
        ({"taskGroupId": OTHER}, "taskGroupId"),
        ({"schedulerId": "t"}, "schedulerId"),
        ({"taskQueueId": "p/v", "workerType": "v"}, "taskQueueId"),
        ({"created": "now"}, "created"),
        ({"priority": "high"}, "priority"),
        ({"retries": 6}, "retries"),
        ({"metadata": {"name": "n", "more": 1}}, "metadata"),
        ({"new": 1}, "new"),
    ],
)
def test_all_else_may_not_differ_from_the_graph(found: dict[str, Json], key: str) -> None:
    assert of_entry(found) == (key,)


def test_a_dependency_that_was_decided_may_not_be_missing() -> None:
    assert of_entry({"dependencies": [str(DECISION)]}, {"build": OTHER}) == ("dependencies",)
    assert of_entry({"dependencies": []}, dependencies={}, requires="all-resolved") == ("requires",)


def rendered(**changes: Json) -> dict[str, Json]:
    return {
        "taskId": str(DECISION),
        **{key: FOUND[key] for key in ("scopes", "payload", "metadata", "schedulerId", "provisionerId", "workerType")},
        **{key: str(FOUND[key]).replace(".000Z", "Z") for key in ("created", "deadline", "expires")},
        "dependencies": [str(DECISION)],
        **changes,
    }


def test_a_task_is_as_the_repository_makes_it_and_the_queue_completes_it() -> None:
    assert differences_of_rendering(FOUND, rendered(), DECISION) == ()
    assert differences_of_rendering({**FOUND, "routes": ["checks"]}, rendered(), DECISION) == ()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"taskId": OTHER}, "taskId"),
        ({"taskGroupId": OTHER}, "taskGroupId"),
        ({"created": "2026-01-31T12:00:01.000Z"}, "created"),
        ({"created": "2026-13-31T12:00:01.000Z"}, "created"),
        ({"routes": ["index.x"]}, "routes"),
        ({"payload": {}}, "payload"),
        ({"scopes": []}, "scopes"),
        ({"workerType": "v"}, "taskQueueId"),
    ],
)
def test_nothing_else_may_differ_from_the_repository(changes: dict[str, Json], key: str) -> None:
    assert differences_of_rendering(FOUND, rendered(**changes), DECISION) == (key,)


def test_a_route_that_does_something_is_a_difference() -> None:
    found: dict[str, Json] = {**FOUND, "routes": ["checks", "index.app.latest"]}
    assert differences_of_rendering(found, rendered(), DECISION) == ("routes",)


def test_what_is_nested_too_deep_is_no_likeness() -> None:
    deep: Json = []
    for _ in range(300):
        deep = [deep]
    assert differences_of_rendering({**FOUND, "payload": deep}, rendered(), DECISION) == ("nesting deeper than 200",)
