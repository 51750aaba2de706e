"""What the Queue says of other tasks, asked with the credentials of a run: what its task may not read, nobody gets."""

from typing import Final, final

from secureworker.core.chain import Upstream, UpstreamRun
from secureworker.core.claim import Json, parse_credentials
from secureworker.core.errors import BadPayload, ServiceError
from secureworker.core.ids import ArtifactName, RunId, TaskId
from secureworker.core.inputs import NotThere, Source
from secureworker.ports import ClaimedRun
from secureworker.queue.calls import Answer, Calls, Refused

_NOT_FOUND: Final = 404
_FORBIDDEN: Final = 403
_METHOD: Final = "getUrl"
"""Of the Object service's ways to download: one address, without redirects."""


@final
class UpstreamTasks:
    """Reads tasks, and where their artifacts are."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def facts(self, run: ClaimedRun, task_id: TaskId) -> Upstream:
        """Give a task and its last run, without its statements.

        Raises:
            BadPayload: the run's task may not read it.
            ServiceError: not now.
        """
        try:
            definition = await self._calls.make("task", lambda: run.credentials, str(task_id))
            answer = await self._calls.make("status", lambda: run.credentials, str(task_id))
        except Refused as refused:
            if refused.status == _NOT_FOUND:
                return Upstream(task_id, None)
            if refused.status == _FORBIDDEN:
                raise BadPayload(
                    (f"the task {task_id} may not be read with this task's scopes; give it queue:get-task:{task_id}",)
                ) from refused
            raise refused.as_ours() from refused
        status = answer.get("status")
        if not isinstance(status, dict) or status.get("taskId") != task_id:
            raise ServiceError(f"status: the answer is not about {task_id}")
        return Upstream(task_id, definition, str(status.get("state")), _last_run(status.get("runs")))

    async def locate(self, run: ClaimedRun, task_id: TaskId, run_id: RunId, name: ArtifactName) -> Source | NotThere:
        """Say where an artifact of one run is. The answer is good for some minutes.

        Raises:
            ServiceError: not now.
        """
        number = str(int(run_id))
        try:
            answer = await self._calls.make("artifact", lambda: run.credentials, str(task_id), number, str(name))
        except Refused as refused:
            if refused.status == _NOT_FOUND:
                return NotThere("it is not there, or not any more")
            if refused.status == _FORBIDDEN:
                return NotThere(f"it may not be read with this task's scopes; give it queue:get-artifact:{name}")
            raise refused.as_ours() from refused
        match answer.get("storageType"):
            case "s3":
                return Source(_text(answer, "url"))
            case "object":
                return await self._locate_object(answer)
            case "error":
                return NotThere(f"its worker could not upload it: {str(answer.get('message'))[:200]!a}")
            case other:
                # A reference leads anywhere, the metadata address of this host's cloud included.
                return NotThere(f"it is stored as {str(other)[:40]!a}, and only s3 and object are fetched")

    async def _locate_object(self, artifact: Answer) -> Source | NotThere:
        credentials = artifact.get("credentials")
        try:
            lent = parse_credentials(credentials if isinstance(credentials, dict) else {})
        except ValueError as error:
            raise ServiceError(f"artifact: the answer cannot be used: {error}") from error
        try:
            answer = await self._calls.of("Object").make(
                "startDownload", lambda: lent, _text(artifact, "name"), {"acceptDownloadMethods": {_METHOD: True}}
            )
        except Refused as refused:
            if refused.status == _NOT_FOUND:
                return NotThere("its object is not there, or not any more")
            raise refused.as_ours() from refused
        if answer.get("method") != _METHOD:
            raise ServiceError("startDownload: the answer is of another method than was asked for")
        return Source(_text(answer, "url"))


def _last_run(runs: Json) -> UpstreamRun | None:
    if not isinstance(runs, list):
        raise ServiceError("status: the answer has no list of runs")
    if not runs:
        return None
    last = runs[-1]
    try:
        if not isinstance(last, dict) or last["runId"] != len(runs) - 1:
            raise ValueError("its last run has another number")
        group, worker = (str(last.get(key, "")) for key in ("workerGroup", "workerId"))
        return UpstreamRun(RunId(len(runs) - 1), str(last["state"]), group, worker)
    except (KeyError, ValueError) as error:
        raise ServiceError(f"status: the answer cannot be used: {error}") from error


def _text(answer: Answer, key: str) -> str:
    value = answer.get(key)
    if not isinstance(value, str) or not value:
        raise ServiceError(f"the answer has no {key}")
    return value
