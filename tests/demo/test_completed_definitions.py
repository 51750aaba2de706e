"""What `run-local` makes of what an author wrote."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from secureworker.core.claim import Json
from secureworker.core.policy import Policy
from secureworker.policyfile import load
from secureworker.runlocal import NotATask, complete

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load(str(Path(__file__).parent.parent.parent / "policies" / "minimal.yml"))


def test_a_bare_payload_becomes_a_task_that_the_policy_can_admit(policy: Policy) -> None:
    body, said = complete({"payload": {}}, policy, NOW)

    assert body["taskQueueId"] == "releng-hardened/hello"
    assert (body["schedulerId"], body["projectId"], body["scopes"]) == ("releng", "none", [])
    assert body["created"] == "2026-01-31T12:00:00+00:00"
    assert [sentence.split()[0] for sentence in said] == ["schedulerId", "projectId", "scopes", "metadata"]


def test_what_the_author_wrote_stays_but_for_what_the_embedded_queue_cannot_know(policy: Policy) -> None:
    task: dict[str, Json] = {
        "provisionerId": "releng-hardened",
        "workerType": "hello",
        "schedulerId": "somebody",
        "projectId": "else",
        "scopes": ["a"],
        "payload": {"b": 1},
        "metadata": {},
        "created": "2001-01-01T00:00:00Z",
        "dependencies": ["KTLKBP2AQUqN4vgojSa7cg"],
        "priority": "high",
    }

    body, said = complete(task, policy, NOW)

    assert "dependencies" not in body
    assert "workerType" not in body
    kept = ("schedulerId", "projectId", "scopes", "payload", "metadata", "priority")
    assert {key: body[key] for key in kept} == {key: task[key] for key in kept}
    assert body["created"] == "2026-01-31T12:00:00+00:00"
    assert said == ("dependencies is left out: there is nothing here that it could mean",)
    assert task["workerType"] == "hello"


def test_a_task_that_wants_inputs_is_told_that_nobody_signed_for_any_here(policy: Policy) -> None:
    entry: Json = {"taskId": "KTLKBP2AQUqN4vgojSa7cg", "taskType": "build", "paths": ["a"], "optional": True}
    with pytest.raises(NotATask, match="none has run here; leave it out, or try the task at a Taskcluster"):
        complete({"payload": {"upstreamArtifacts": [entry]}, "dependencies": ["KTLKBP2AQUqN4vgojSa7cg"]}, policy, NOW)
    assert complete({"payload": {"upstreamArtifacts": []}}, policy, NOW)


@pytest.mark.parametrize("task", [{}, {"payload": []}, {"payload": {}, "workerType": "hello"}])
def test_what_is_no_task_of_the_policy_is_refused(policy: Policy, task: dict[str, Json]) -> None:
    with pytest.raises(NotATask):
        complete(task, policy, NOW)
