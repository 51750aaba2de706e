"""Reading what the Queue hands out: strictly, and without showing secrets."""

import copy
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from secureworker.core.claim import (
    MAX_NESTING,
    Credentials,
    Json,
    Secret,
    nesting,
    parse_claim,
    parse_credentials,
    parse_definition,
    parse_run,
    parse_time,
)
from secureworker.core.ids import WorkerIdentity, WorkerPool
from secureworker.testing import IDENTITY, TASK_ID, a_claim, a_claim_answer


@pytest.mark.parametrize(
    ("text", "seconds", "microseconds"),
    [
        ("2026-11-23T12:13:14.294+00:00", 14, 294_000),
        ("2026-11-23T12:13:14.29+00:00", 14, 290_000),
        ("2026-11-23T12:13:14.2+00:00", 14, 200_000),
        ("2026-11-23T12:13:14+00:00", 14, 0),
        ("2026-11-23T12:13:14.375Z", 14, 375_000),
        ("2026-11-23T12:13:14Z", 14, 0),
        ("2026-11-23T13:13:14+01", 14, 0),
        ("2026-11-23T11:43:14-0030", 14, 0),
        ("2026-11-23T12:13:14.123456789Z", 14, 123_456),
    ],
)
def test_a_time_is_read_in_every_form_the_queue_writes(text: str, seconds: int, microseconds: int) -> None:
    assert parse_time(text) == datetime(2026, 11, 23, 12, 13, seconds, microseconds, UTC)


@pytest.mark.parametrize(
    "value",
    [None, 7, "", "soon", "2026-11-23", "2026-11-23T12:13:14", "2026-13-23T12:13:14Z", "2026-W48-1T12:13:14Z",
     "20261123T121314Z", " 2026-11-23T12:13:14Z", "2026-11-23T12:13:14Z\n", "2026-11-23T12:13:14٣Z"],
)  # fmt: skip
def test_what_is_no_time_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"time|month"):
        parse_time(value)


@pytest.mark.parametrize(
    ("value", "levels"),
    [(1, 0), ("x", 0), ([], 1), ({}, 1), ([1, [2]], 2), ({"a": {"b": [1]}, "c": 1}, 3), ([{}, []], 2)],
)
def test_levels_are_counted(value: Any, levels: int) -> None:
    assert nesting(value) == levels


def test_levels_are_counted_however_many_there_are() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    assert nesting(value) == 100_001
    while value:
        value = value.pop()


def test_a_claim_is_read_with_all_its_facts() -> None:
    claim = a_claim(scopes=["a:b"], dependencies=["ddVaxIRdRAaAAr5ryHnORA"], payload={"x": [1, None]})
    assert str(claim) == f"{TASK_ID}/0"
    assert claim.worker == IDENTITY
    assert claim.task.scopes == ("a:b",)
    assert claim.task.dependencies == (TASK_ID,)
    assert claim.task.payload == {"x": [1, None]}
    assert claim.task.name == "a task"
    assert claim.task.defects == ()
    assert claim.credentials.client_id == f"task-client/{TASK_ID}/0"


def test_the_definition_is_kept_verbatim() -> None:
    answer = a_claim_answer(extra={"unknown": ["kept"]}, unknown="kept")
    assert parse_claim(answer, IDENTITY).task.verbatim == answer["task"]


def a_definition(**changes: Any) -> dict[str, Any]:
    definition = a_claim_answer()["task"]
    assert isinstance(definition, dict)
    return {**definition, **changes}


def test_absent_keys_get_the_queues_own_defaults() -> None:
    definition = a_definition()
    for key in ("schedulerId", "projectId", "taskGroupId", "dependencies", "scopes"):
        del definition[key]
    task = parse_definition(definition)
    assert (task.scheduler_id, task.project_id, task.task_group_id) == ("-", "none", "")
    assert (task.dependencies, task.scopes) == ((), ())


def test_a_pool_is_read_from_either_of_its_forms() -> None:
    without = a_definition()
    del without["taskQueueId"]
    assert parse_definition(without).pool == IDENTITY.pool
    only = a_definition()
    del only["provisionerId"], only["workerType"]
    assert parse_definition(only).pool == IDENTITY.pool


@pytest.mark.parametrize(
    "changes",
    [
        {"taskQueueId": "another/pool"},
        {"taskQueueId": 7},
        {"taskQueueId": "no-slash"},
        {"provisionerId": 7},
        {"schedulerId": None},
        {"projectId": []},
        {"scopes": "a:b"},
        {"scopes": [1]},
        {"dependencies": {}},
        {"payload": None},
        {"payload": [1]},
        {"created": None},
        {"deadline": "soon"},
        {"expires": 7},
        {"metadata": None},
        {"metadata": {"name": 1, "source": "x"}},
        {"metadata": {"name": "x"}},
    ],
)
def test_a_definition_of_another_shape_is_refused_with_its_key(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_definition(a_definition(**changes))


@pytest.mark.parametrize("levels", [MAX_NESTING - 3, MAX_NESTING, MAX_NESTING + 1])
def test_a_definition_nested_too_deep_has_a_defect_and_is_read_all_the_same(levels: int) -> None:
    value: Any = 1
    for _ in range(levels - 2):
        value = [value]
    task = parse_definition(a_definition(payload={"deep": value}))
    assert bool(task.defects) == (levels > MAX_NESTING)


@pytest.mark.parametrize("run_id", ["0", None, True, -1, 1001, 0.0])
def test_a_run_id_that_is_none_is_refused(run_id: Any) -> None:
    with pytest.raises(ValueError, match="run"):
        parse_run({"runId": run_id, "status": {"taskId": TASK_ID}})


@pytest.mark.parametrize(
    "identity",
    [
        WorkerIdentity(WorkerPool("test-provisioner", "other"), "test-group", "test-worker"),
        WorkerIdentity(IDENTITY.pool, "other", "test-worker"),
        WorkerIdentity(IDENTITY.pool, "test-group", "other"),
    ],
)
def test_a_claim_for_another_worker_is_refused(identity: WorkerIdentity) -> None:
    with pytest.raises(ValueError, match="this worker is"):
        parse_claim(a_claim_answer(), identity)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"clientId": "x"},
        {"clientId": "x", "accessToken": 7},
        {"clientId": "x", "accessToken": "SECRET", "certificate": {"SECRET": 1}},
    ],
)
def test_credentials_of_another_shape_are_refused_without_being_shown(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"certificate|clientId|accessToken") as caught:
        parse_credentials(document)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("certificate", [None, ""])
def test_permanent_credentials_have_no_certificate(certificate: str | None) -> None:
    document: dict[str, Any] = {"clientId": "x", "accessToken": "y", "certificate": certificate}
    assert parse_credentials(document) == Credentials("x", Secret("y"))


def test_a_secret_shows_itself_nowhere() -> None:
    claim = a_claim()
    assert "a-secret" not in repr(claim) + str(claim) + f"{claim.credentials}"
    assert repr(Secret("x")) == "<hidden>"
    with pytest.raises(TypeError):
        pickle.dumps(Secret("x"))
    with pytest.raises(TypeError):
        copy.copy(Secret("x"))


def test_secrets_are_compared_by_value() -> None:
    assert Secret("x") == Secret("x") != Secret("y")
    assert Secret("x") != "x"
    assert len({Secret("x"), Secret("x")}) == 1
    assert Secret("x").reveal() == "x"


@pytest.mark.parametrize(
    ("runs", "seconds"),
    [
        ([{"started": "2026-01-31T11:59:59.000Z"}], 1201),
        ([{"started": "2026-01-31T13:59:59.000Z"}], None),
        ([{"started": "yesterday"}], None),
        ([{"started": 7}], None),
        ([{}], None),
        ([], None),
        ("none", None),
        (None, None),
    ],
)
def test_how_long_a_claim_is_bounds_nothing_where_the_queue_does_not_say_it(runs: Json, seconds: int | None) -> None:
    answer = a_claim_answer()
    answer["status"] = {"taskId": TASK_ID, "runs": runs}
    length = parse_claim(answer, IDENTITY).length
    assert length == (None if seconds is None else timedelta(seconds=seconds))
