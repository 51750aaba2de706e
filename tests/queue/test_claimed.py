"""A claimed run, where the Queue answers what the embedded one never would. Edge cases 2 and 4."""

from datetime import UTC, datetime
from typing import Any

import pytest

from secureworker.core.errors import AccessDenied, Defect, ServiceError, Stop, StopReason
from secureworker.core.ids import ArtifactName
from secureworker.core.outcome import Resolution
from secureworker.core.uploads import (
    NoTarget,
    ObjectTarget,
    PutTarget,
    StorageError,
    StorageLink,
    StorageObject,
    StorageReference,
    StorageS3,
)
from secureworker.queue.claimed import TaskclusterRun
from secureworker.testing import EPOCH, IDENTITY, TASK_ID, a_claim
from tests.queue.scripted import Scripted, error, no_content


def run_at(server: Scripted) -> TaskclusterRun:
    return TaskclusterRun(a_claim(), server.calls)


def status(state: str = "running", reason: str | None = None, worker_id: str = IDENTITY.worker_id) -> dict[str, Any]:
    run = {"runId": 0, "state": state, "workerGroup": IDENTITY.worker_group, "workerId": worker_id}
    return {"status": {"taskId": TASK_ID, "runs": [run | ({"reasonResolved": reason} if reason else {})]}}


def reclaimed(taken_until: Any = "2026-01-31T12:40:00.375Z") -> dict[str, Any]:
    credentials = {"clientId": "renewed", "accessToken": "r" * 44, "certificate": "{}"}
    return {"takenUntil": taken_until, "credentials": credentials}


async def test_a_reclaim_takes_over_time_and_credentials(server: Scripted) -> None:
    server.then(reclaimed(), status("completed", "completed"))
    run = run_at(server)
    assert await run.reclaim() == datetime(2026, 1, 31, 12, 40, 0, 375_000, UTC)
    await run.report(Resolution.COMPLETED)
    assert server.clients == [f"task-client/{TASK_ID}/0", "renewed"]


@pytest.mark.parametrize("trouble", [401, 403])
async def test_a_reclaim_with_credentials_that_are_refused_may_be_tried_again(server: Scripted, trouble: int) -> None:
    server.then(error(trouble))
    with pytest.raises(AccessDenied):
        await run_at(server).reclaim()


async def test_a_reclaim_the_queue_cannot_answer_may_be_tried_again(server: Scripted) -> None:
    server.then(error(500))
    with pytest.raises(ServiceError):
        await run_at(server).reclaim()
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "answer", [{}, reclaimed("soon"), {**reclaimed(), "credentials": {}}, {**reclaimed(), "credentials": 7}]
)
async def test_a_reclaim_that_is_not_understood_changes_nothing(server: Scripted, answer: Any) -> None:
    server.then(answer)
    run = run_at(server)
    before = run.taken_until
    with pytest.raises(ServiceError, match="cannot be used"):
        await run.reclaim()
    assert run.taken_until == before


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (status("exception", "canceled"), StopReason.CANCELED),
        (status("exception", "deadline-exceeded"), StopReason.CANCELED),
        (status("exception", "claim-expired"), StopReason.CLAIM_LOST),
        (status("completed", "completed"), StopReason.CLAIM_LOST),
        (status("running", worker_id="another"), StopReason.CLAIM_LOST),
        (status(), StopReason.CLAIM_LOST),
        ({}, StopReason.CLAIM_LOST),
        (error(500), StopReason.CLAIM_LOST),
        (error(403), StopReason.CLAIM_LOST),
    ],
)
@pytest.mark.parametrize("refusal", [409, 404])
async def test_a_refused_reclaim_says_who_ended_the_run_as_far_as_can_be_known(
    server: Scripted, seen: Any, reason: StopReason, refusal: int
) -> None:
    server.then(error(refusal, "Run 0 is resolved"), seen)
    with pytest.raises(Stop) as caught:
        await run_at(server).reclaim()
    assert caught.value.reason is reason


async def test_a_reclaim_the_queue_calls_malformed_is_a_defect(server: Scripted) -> None:
    server.then(error(400))
    with pytest.raises(Defect):
        await run_at(server).reclaim()


async def test_a_run_that_is_ours_is_confirmed(server: Scripted) -> None:
    server.then(status())
    await run_at(server).confirm()


@pytest.mark.parametrize("denied", [401, 403])
async def test_where_the_status_may_not_be_seen_a_reclaim_says_the_same(server: Scripted, denied: int) -> None:
    server.then(error(denied), reclaimed())
    run = run_at(server)
    await run.confirm()
    assert run.taken_until == datetime(2026, 1, 31, 12, 40, 0, 375_000, UTC)


async def test_a_task_the_queue_does_not_know_any_more_is_lost(server: Scripted) -> None:
    server.then(error(404))
    with pytest.raises(Stop) as caught:
        await run_at(server).confirm()
    assert caught.value.reason is StopReason.CLAIM_LOST


@pytest.mark.parametrize("answer", [{}, {"status": {}}, {"status": {"runs": []}}, {"status": {"runs": [7]}}])
async def test_a_status_that_is_not_understood_confirms_nothing(server: Scripted, answer: Any) -> None:
    server.then(answer)
    with pytest.raises(ServiceError):
        await run_at(server).confirm()


async def test_a_status_the_queue_calls_malformed_is_a_defect(server: Scripted) -> None:
    server.then(error(400))
    with pytest.raises(Defect):
        await run_at(server).confirm()


@pytest.mark.parametrize("refusal", [409, 404])
async def test_a_report_for_a_run_resolved_by_somebody_else_is_no_error(
    server: Scripted, refusal: int, caplog: pytest.LogCaptureFixture
) -> None:
    server.then(error(refusal))
    await run_at(server).report(Resolution.COMPLETED)
    assert len(server.asked) == 1
    assert "by somebody else" in caplog.text


async def test_a_report_is_tried_once_for_only_the_worker_knows_when_its_claim_ends(server: Scripted) -> None:
    server.then(error(503), {})
    with pytest.raises(ServiceError, match="reportException: 503"):
        await run_at(server).report(Resolution.MALFORMED_PAYLOAD)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "nonsense", [{}, {"status": []}, {"status": {"taskId": "other"}}, {"code": "InternalServerError", "message": "no"}]
)
async def test_a_report_is_only_known_to_have_arrived_from_the_queues_own_answer(
    server: Scripted, nonsense: dict[str, Any]
) -> None:
    server.then(nonsense)
    with pytest.raises(ServiceError, match="it is no status of this task"):
        await run_at(server).report(Resolution.COMPLETED)


@pytest.mark.parametrize("nonsense", [{}, {"status": {"runs": []}}, {"status": {"runs": [7]}}])
async def test_a_status_that_says_nothing_is_asked_for_again(server: Scripted, nonsense: dict[str, Any]) -> None:
    server.then(nonsense, status())
    await run_at(server).confirm()
    assert len(server.asked) == 2


async def test_an_artifact_whose_creation_is_answered_with_nonsense_is_created_again(server: Scripted) -> None:
    server.then({"storageType": "s3"}, {"storageType": "s3", "putUrl": "http://storage/a"})
    target = await run_at(server).create_artifact(StorageS3(ArtifactName("public/a"), "text/plain", EPOCH))
    assert target == PutTarget("http://storage/a")


async def test_a_report_the_queue_calls_malformed_is_a_defect_and_nothing_else_is_reported(server: Scripted) -> None:
    server.then(error(400))
    with pytest.raises(Defect):
        await run_at(server).report(Resolution.COMPLETED)
    assert len(server.asked) == 1


async def test_nothing_is_sent_for_a_run_that_is_not_ours(server: Scripted) -> None:
    await run_at(server).report(Resolution.NOT_OURS)
    assert server.asked == []


NAME = ArtifactName("public/a%b c.txt")


async def test_artifacts_are_asked_for_as_the_queues_schema_says(server: Scripted) -> None:
    expires = EPOCH.replace(microsecond=999_999)
    server.then(
        {"storageType": "s3", "putUrl": "https://s3/x", "contentType": "text/plain", "expires": "x"},
        {
            "storageType": "object",
            "name": "t/x",
            "projectId": "none",
            "uploadId": "u",
            "credentials": reclaimed()["credentials"],
        },
        {"storageType": "error"},
    )
    run = run_at(server)
    assert await run.create_artifact(StorageS3(NAME, "text/plain", expires)) == PutTarget("https://s3/x")
    target = await run.create_artifact(StorageObject(NAME, "text/plain", expires))
    assert isinstance(target, ObjectTarget)
    assert (target.object_name, target.project_id, target.upload_id) == ("t/x", "none", "u")
    assert await run.create_artifact(StorageError(NAME, "too-large-file-on-worker", "m" * 5000, expires)) == NoTarget()
    written = "2026-01-31T12:00:00.999Z"
    assert [body for _, _, body in server.asked] == [
        {"storageType": "s3", "contentType": "text/plain", "expires": written},
        {"storageType": "object", "contentType": "text/plain", "expires": written},
        {"storageType": "error", "reason": "too-large-file-on-worker", "message": "m" * 4096, "expires": written},
    ]
    assert server.asked[0][1].endswith("/artifacts/public%2Fa%25b%20c.txt")


async def test_a_reference_and_a_link_are_asked_for_as_the_queues_schema_says(server: Scripted) -> None:
    server.then({"storageType": "reference"}, {"storageType": "link"})
    run = run_at(server)
    assert await run.create_artifact(StorageReference(NAME, "https://a/b", "text/plain", EPOCH)) == NoTarget()
    assert await run.create_artifact(StorageLink(NAME, ArtifactName("public/other"), EPOCH)) == NoTarget()
    written = "2026-01-31T12:00:00.000Z"
    assert [body for _, _, body in server.asked] == [
        {"storageType": "reference", "url": "https://a/b", "contentType": "text/plain", "expires": written},
        {"storageType": "link", "artifact": "public/other", "expires": written},
    ]


@pytest.mark.parametrize("answer", [{}, {"putUrl": ""}, {"putUrl": 7}])
async def test_an_upload_target_that_is_not_understood_is_an_error_of_the_service(
    server: Scripted, answer: Any
) -> None:
    server.then(answer)
    with pytest.raises(ServiceError, match="has no putUrl"):
        await run_at(server).create_artifact(StorageS3(NAME, "text/plain", EPOCH))


async def test_an_artifact_refused_because_the_run_was_cancelled_ends_the_run(server: Scripted) -> None:
    server.then(error(409), status("exception", "canceled"))
    with pytest.raises(Stop) as caught:
        await run_at(server).create_artifact(StorageS3(NAME, "text/plain", EPOCH))
    assert caught.value.reason is StopReason.CANCELED


@pytest.mark.parametrize(("refusal", "ours"), [(400, Defect), (403, AccessDenied)])
async def test_a_refused_artifact_is_one_of_our_errors(server: Scripted, refusal: int, ours: type[Exception]) -> None:
    server.then(error(refusal))
    with pytest.raises(ours):
        await run_at(server).create_artifact(StorageS3(NAME, "text/plain", EPOCH))


async def test_an_object_is_finished(server: Scripted) -> None:
    server.then(no_content())
    await run_at(server).finish_artifact(NAME, "u")
    assert server.asked[0][2] == {"uploadId": "u"}


@pytest.mark.parametrize(("refusal", "ours"), [(400, Defect), (409, Stop)])
async def test_an_object_that_cannot_be_finished_is_one_of_our_errors(
    server: Scripted, refusal: int, ours: type[Exception]
) -> None:
    server.then(error(refusal), status("exception", "canceled"))
    with pytest.raises(ours):
        await run_at(server).finish_artifact(NAME, "u")
