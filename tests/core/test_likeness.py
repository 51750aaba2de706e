"""Tasks held against what makes them: everything is compared, less what is listed."""

import json
from pathlib import Path
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
    "payload": {"command": ["x"], "n": 1, "artifacts": [{"expires": "2026-02-01T12:00:00.000Z"}]},
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
    assert of_entry({"deadline": "2026-01-31T13:00:00.001Z"}) == ()
    assert of_entry({"priority": "high"}) == ()
    assert of_entry({"retries": 5}, retries=5.0) == ()
    assert of_entry({"dependencies": [OTHER]}, {"build": OTHER}) == ()
    assert of_entry({"dependencies": [str(DECISION), OTHER]}, {"build": OTHER}) == ()
    assert of_entry({"dependencies": []}) == ()


@pytest.mark.parametrize(
    ("found", "key"),
    [
        ({"payload": {"command": ["y"]}}, "payload"),
        ({"payload": {**WRITTEN["payload"], "artifacts": [{"expires": "soon"}]}}, "payload"),
        ({"payload": {**WRITTEN["payload"], "n": True, "artifacts": [{"expires": "2026-02-01T12:00:00Z"}]}}, "payload"),
        ({"scopes": ["a:b", "c:d"]}, "scopes"),
        ({"routes": ["index.x"]}, "routes"),
        ({"dependencies": [OTHER]}, "dependencies"),
        ({"taskGroupId": OTHER}, "taskGroupId"),
        ({"schedulerId": "t"}, "schedulerId"),
        ({"taskQueueId": "p/v", "workerType": "v"}, "taskQueueId"),
        ({"deadline": "2026-01-31T13:00:00.002Z"}, "deadline"),
        ({"deadline": "2026-02-31T13:00:00.000Z"}, "deadline"),
        ({"expires": None}, "expires"),
        ({"retries": 6}, "retries"),
        ({"retries": "5"}, "retries"),
        ({"retries": None}, "retries"),
        ({"extra": []}, "extra"),
        ({"extra": None}, "extra"),
        ({"routes": {}}, "routes"),
        ({"routes": ["index.x", "index.x"]}, "routes"),
        ({"metadata": {"name": "n", "more": 1}}, "metadata"),
        ({"new": 1}, "new"),
    ],
)
def test_all_else_may_not_differ_from_the_graph(found: dict[str, Json], key: str) -> None:
    assert of_entry(found) == (key,)


def test_a_dependency_that_was_decided_may_not_be_missing() -> None:
    assert of_entry({"dependencies": [str(DECISION)]}, {"build": OTHER}) == ("dependencies",)
    assert of_entry({"dependencies": []}, dependencies={}, requires="all-resolved") == ("requires",)


def test_a_time_that_is_counted_from_creation_moves_with_it() -> None:
    later: dict[str, Json] = {"created": "2026-01-31T13:00:00Z", "deadline": "2026-01-31T14:00:00Z"}
    payload: Json = {**WRITTEN["payload"], "artifacts": [{"expires": "2026-02-01T13:00:00.000Z"}]}
    assert of_entry({**later, "payload": payload}) == ()
    assert of_entry(later) == ("payload",)
    assert of_entry({"created": "now", "payload": payload}) == ("created",)


@pytest.mark.parametrize(
    ("span", "time"),
    [
        ("0 seconds", "2026-01-31T12:00:00.000Z"),
        ("90 minutes", "2026-01-31T13:30:00.000Z"),
        ("36h", "2026-02-02T00:00:00.000Z"),
        ("1 mo", "2026-03-02T12:00:00.000Z"),
        ("1 year", "2027-01-31T12:00:00.000Z"),
    ],
)
def test_spans_are_those_of_taskgraph(span: str, time: str) -> None:
    assert of_entry({"expires": time}, expires={"relative-datestamp": span}) == ()
    assert of_entry({"expires": "2026-02-03T04:05:06Z"}, expires={"relative-datestamp": span}) == ("expires",)


@pytest.mark.parametrize("span", ["soon", "1 fortnight", "-1 day", "1 day and more", "999999999 years", 5, None])
def test_a_span_that_nobody_can_count_is_a_difference(span: Json) -> None:
    assert of_entry({}, expires={"relative-datestamp": span}) == ("expires",)


SAMPLE = json.loads((Path(__file__).parent / "samples" / "taskgraph.json").read_text())
"""A graph and the definitions of its tasks, both written by taskgraph 24.5.1 itself: `morphed_task_graph`, and
`create_tasks`. One dependency was made by an earlier push, one is soft, one task runs docker-worker."""


def as_the_queue_has_it(task_id: str) -> dict[str, Json]:
    made = SAMPLE["created"][task_id]
    pool = f"{made['provisionerId']}/{made['workerType']}"
    return {"projectId": "none", "requires": "all-completed", "retries": 5, **made, "taskQueueId": pool}


@pytest.mark.parametrize("task_id", sorted(SAMPLE["graph"]))
def test_what_taskgraph_makes_of_its_graph_is_as_the_graph_says(task_id: str) -> None:
    entry, made, decision = SAMPLE["graph"][task_id], as_the_queue_has_it(task_id), TaskId(SAMPLE["decision"])
    assert differences_of_entry(made, entry, decision, "app-level-3") == ()
    for key in sorted(made.keys() - {"created", "priority", "workerType", "provisionerId"}):
        assert differences_of_entry({**made, key: ["other"]}, entry, decision, "app-level-3") == (key,)
        less = {name: value for name, value in made.items() if name != key}
        # What the Queue completes may be left out by whoever writes its answers down.
        assert differences_of_entry(less, entry, decision, "app-level-3") in ((key,), ())
    every = made["payload"]
    assert isinstance(every, dict)
    for key in every:
        assert differences_of_entry({**made, "payload": {**every, key: "other"}}, entry, decision, "app-level-3")


def test_names_of_dependencies_count_only_where_the_definition_has_none() -> None:
    def of_task(found: str, written: str) -> tuple[str, ...]:
        entry: dict[str, Json] = {"task": {**WRITTEN, "dependencies": [written]}, "dependencies": {"a": "a label"}}
        return differences_of_entry({**FOUND, "dependencies": [found]}, entry, DECISION, "s")

    assert of_task(OTHER, OTHER) == ()
    assert of_task(OTHER, "a label") == ("dependencies",)


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
    assert differences_of_rendering({**FOUND, "priority": "high"}, rendered(), DECISION) == ()


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
