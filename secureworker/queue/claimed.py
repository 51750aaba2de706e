"""A claimed run at the real Queue: the port `ClaimedRun`."""

import functools
import logging
from collections.abc import Callable
from datetime import datetime
from typing import assert_never, final

from secureworker.core.claim import Claim, Credentials, Json, parse_credentials, parse_time
from secureworker.core.errors import Defect, ServiceError, Stop, StopReason
from secureworker.core.ids import ArtifactName
from secureworker.core.outcome import Resolution
from secureworker.core.uploads import (
    ArtifactRequest,
    NoTarget,
    ObjectTarget,
    PutTarget,
    StorageError,
    StorageLink,
    StorageObject,
    StorageReference,
    StorageS3,
    UploadTarget,
)
from secureworker.queue.calls import ATTEMPTS, Answer, Calls, Refused

logger = logging.getLogger(__name__)

RECLAIM_ATTEMPTS = 2
"""Few: who keeps the claim tries again by itself, and watches how much time is left."""
STATUS_ATTEMPTS = 2
REPORT_ATTEMPTS = 1
"""Who reports tries again by itself: it knows when the claim ends, after which nothing may be reported."""
_CANCELED = frozenset({"canceled", "deadline-exceeded"})
_CONFLICT = 409
_NOT_FOUND = 404
_DENIED = (401, 403)


@final
class TaskclusterRun:
    """One run, with its newest credentials: the one mutable thing of a run."""

    def __init__(self, claim: Claim, calls: Calls) -> None:
        self.claim = claim
        self._calls = calls
        self._credentials = claim.credentials
        self._taken_until = claim.taken_until
        self._name = (str(claim.task_id), str(int(claim.run_id)))

    @property
    def taken_until(self) -> datetime:
        """When the claim ends, as the Queue said last."""
        return self._taken_until

    @property
    def credentials(self) -> Credentials:
        """The run's newest credentials: those of its claim, or of the last reclaim."""
        return self._credentials

    async def reclaim(self) -> datetime:
        """Renew the claim (`reclaimTask`), and use its new credentials from now on."""
        try:
            answer = await self._call("reclaimTask", *self._name, attempts=RECLAIM_ATTEMPTS, check=_renewed)
        except Refused as refused:
            if refused.status in (_CONFLICT, _NOT_FOUND):
                raise await self._why_lost(refused) from refused
            raise refused.as_ours() from refused
        self._taken_until, self._credentials = _renewed(answer)
        return self._taken_until

    async def confirm(self) -> None:
        """Look at the run's status; where that may not be seen, renew the claim instead, which says the same."""
        try:
            answer = await self._call("status", self._name[0], attempts=STATUS_ATTEMPTS, check=self._read_status)
        except Refused as refused:
            if refused.status in _DENIED:
                await self.reclaim()
                return
            if refused.status == _NOT_FOUND:
                raise Stop(StopReason.CLAIM_LOST, str(refused)) from refused
            raise refused.as_ours() from refused
        lost = self._read_status(answer)
        if lost is not None:
            raise lost

    async def report(self, resolution: Resolution) -> None:
        """Resolve the run. 409 and 404 are no errors: somebody else resolved it, and that stands."""
        try:
            match resolution:
                case Resolution.NOT_OURS:
                    return
                case Resolution.COMPLETED:
                    await self._report("reportCompleted")
                case Resolution.FAILED:
                    await self._report("reportFailed")
                case (
                    Resolution.MALFORMED_PAYLOAD
                    | Resolution.RESOURCE_UNAVAILABLE
                    | Resolution.INTERNAL_ERROR
                    | Resolution.INTERMITTENT_TASK
                    | Resolution.WORKER_SHUTDOWN
                ):
                    await self._report("reportException", {"reason": resolution.value})
                case _:
                    assert_never(resolution)
        except Refused as refused:
            if refused.status not in (_CONFLICT, _NOT_FOUND):
                raise refused.as_ours() from refused
            logger.warning("%s: was resolved by somebody else meanwhile: %s", self.claim, refused)

    async def _report(self, call: str, *body: object) -> None:
        await self._call(call, *self._name, *body, attempts=REPORT_ATTEMPTS, check=self._is_of_this_task)

    def _is_of_this_task(self, answer: Answer) -> None:
        """See that it is the Queue that says so: a 200 of anything before it would leave the run to its claim's end."""
        status = answer.get("status")
        if not isinstance(status, dict) or status.get("taskId") != self._name[0]:
            raise ValueError("it is no status of this task")

    async def create_artifact(self, request: ArtifactRequest) -> UploadTarget:
        """Create an artifact, or create it again, which gives a fresh URL.

        Raises:
            Stop: the run is not ours any more.
            ServiceError: not now.
            Defect: the Queue refuses the artifact.
        """
        try:
            answer = await self._call(
                "createArtifact",
                *self._name,
                str(request.name),
                _artifact(request),
                check=functools.partial(_target, request),
            )
        except Refused as refused:
            if refused.status == _CONFLICT:
                # Either the run is resolved, or the artifact exists and is another one.
                await self.confirm()
            raise refused.as_ours() from refused
        return _target(request, answer)

    async def finish_artifact(self, name: ArtifactName, upload_id: str) -> None:
        """Mark an object artifact present."""
        try:
            await self._call("finishArtifact", *self._name, str(name), {"uploadId": upload_id})
        except Refused as refused:
            if refused.status == _CONFLICT:
                await self.confirm()
            raise refused.as_ours() from refused

    async def _call(
        self, call: str, *arguments: object, attempts: int = ATTEMPTS, check: Callable[[Answer], object] = bool
    ) -> Answer:
        return await self._calls.make(call, self._newest_credentials, *arguments, attempts=attempts, check=check)

    def _newest_credentials(self) -> Credentials:
        return self._credentials

    async def _why_lost(self, refused: Refused) -> Stop:
        """Find out who ended the run; where that cannot be known, it is lost all the same."""
        try:
            answer = await self._call("status", self._name[0], attempts=1, check=self._read_status)
            lost = self._read_status(answer)
        except (Refused, ServiceError, Defect):
            lost = None
        return lost or Stop(StopReason.CLAIM_LOST, str(refused))

    def _read_status(self, answer: Answer) -> Stop | None:
        """Compare the Queue's status of the run with what it must be while we hold it."""
        status = answer.get("status")
        runs = status.get("runs") if isinstance(status, dict) else None
        run_id = int(self.claim.run_id)
        if not isinstance(runs, list) or len(runs) <= run_id:
            raise ValueError(f"it has no run {run_id}")
        run = runs[run_id]
        if not isinstance(run, dict):
            raise ValueError(f"its run {run_id} is no object")
        holder = (run.get("workerGroup"), run.get("workerId"))
        worker = self.claim.worker
        if run.get("state") == "running" and holder == (worker.worker_group, worker.worker_id):
            return None
        why = str(run.get("reasonResolved") or run.get("state"))[:40]
        if why in _CANCELED:
            return Stop(StopReason.CANCELED, f"the task was ended by somebody else ({why})")
        return Stop(StopReason.CLAIM_LOST, f"the run is not this worker's any more ({why})")


def _renewed(answer: Answer) -> tuple[datetime, Credentials]:
    credentials = answer.get("credentials")
    until = parse_time(answer.get("takenUntil"))
    return until, parse_credentials(credentials if isinstance(credentials, dict) else {})


def _expires(moment: datetime) -> str:
    # Cut to milliseconds, never rounded up: an artifact that expires after its task is refused.
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _artifact(request: ArtifactRequest) -> dict[str, Json]:
    """Write the request. Without `contentLength`: with it, v106 can never finish an object artifact (500)."""
    expires = _expires(request.expires)
    match request:
        case StorageS3():
            return {"storageType": "s3", "contentType": request.content_type, "expires": expires}
        case StorageObject():
            return {"storageType": "object", "contentType": request.content_type, "expires": expires}
        case StorageError():
            message = request.message[:4096]  # the schema's limit
            return {"storageType": "error", "reason": request.reason, "message": message, "expires": expires}
        case StorageReference():
            found = {"url": request.url, "contentType": request.content_type}
            return {"storageType": "reference", **found, "expires": expires}
        case StorageLink():
            # Without a content type: the schema has none for links.
            return {"storageType": "link", "artifact": request.artifact, "expires": expires}
        case _:
            assert_never(request)


def _target(request: ArtifactRequest, answer: Answer) -> UploadTarget:
    match request:
        case StorageS3():
            return PutTarget(_text(answer, "putUrl"))
        case StorageObject():
            credentials = answer.get("credentials")
            return ObjectTarget(
                object_name=_text(answer, "name"),
                upload_id=_text(answer, "uploadId"),
                project_id=_text(answer, "projectId"),
                credentials=parse_credentials(credentials if isinstance(credentials, dict) else {}),
            )
        case StorageError() | StorageReference() | StorageLink():
            return NoTarget()
        case _:
            assert_never(request)


def _text(answer: Answer, key: str) -> str:
    value = answer.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"it has no {key}")
    return value
