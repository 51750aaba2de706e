"""Queue: create artifacts, finish them, list them. Reading them is in `artifact_reads`."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from secureworker.localqueue import credentials, times
from secureworker.localqueue.artifact_rows import ArtifactRows, ObjectRows, StoredArtifact
from secureworker.localqueue.blobs import PRIVATE, PUBLIC, Blobs
from secureworker.localqueue.calls import Call, Endpoint, Reply
from secureworker.localqueue.errors import bad_input, conflict, not_found
from secureworker.localqueue.journal import Journal
from secureworker.localqueue.lifecycle import Task
from secureworker.localqueue.settings import Settings, StaticClient
from secureworker.localqueue.task_rows import TaskRows
from secureworker.localqueue.times import javascript

_PAST = timedelta(minutes=15)
_UPLOAD_CREDENTIALS = timedelta(hours=24)
_DEFAULT_TYPE = "application/binary"
_DETAILS = ("url", "artifact", "reason", "message", "contentLength")


def bucket_of(name: str) -> str:
    """Give the bucket of an s3 artifact."""
    return PUBLIC if name.startswith("public/") else PRIVATE


def blob_key(artifact: StoredArtifact) -> str:
    """Give the key of an s3 artifact in its bucket."""
    return f"{artifact.task_id}/{artifact.run_id}/{artifact.name}"


def object_name(artifact: StoredArtifact) -> str:
    """Give the name of an object artifact at the Object service."""
    return f"t/{blob_key(artifact)}"


class ArtifactEndpoints:
    """Artifacts, from the worker's side."""

    def __init__(
        self,
        tasks: TaskRows,
        rows: tuple[ArtifactRows, ObjectRows],
        blobs: Blobs,
        issuer: StaticClient,
        journal: Journal,
    ) -> None:
        self._tasks = tasks
        self._artifacts, self._objects = rows
        self._journal = journal
        self._blobs = blobs
        self._issuer = issuer

    def endpoints(self, settings: Settings, root_url: str) -> tuple[Endpoint, ...]:
        """Name what is served."""
        late = timedelta(seconds=settings.late_artifacts)

        async def create(call: Call) -> Reply:
            task, artifact = self._record(call, late)
            return Reply(self._target(task, artifact, call.now, root_url, settings.put_url_lifetime))

        route = "/task/<taskId>/runs/<runId>/artifacts/<name>"
        scope = "queue:create-artifact:<taskId>/<runId>"
        finish = "queue/v1/finish-artifact-request.json#"
        of_run, of_task = "queue:list-artifacts:<taskId>:<runId>", "queue:list-artifacts:<taskId>"
        return (
            Endpoint("queue", "createArtifact", "POST", route, create, scope, "queue/v1/post-artifact-request.json#"),
            Endpoint("queue", "finishArtifact", "PUT", route, self._finish, scope, finish),
            Endpoint("queue", "listArtifacts", "GET", "/task/<taskId>/runs/<runId>/artifacts", self._list, of_run),
            Endpoint("queue", "listLatestArtifacts", "GET", "/task/<taskId>/artifacts", self._list, of_task),
            Endpoint(
                "queue",
                "artifactInfo",
                "GET",
                "/task/<taskId>/runs/<runId>/artifact-info/<name>",
                self._info,
                of_run,
            ),
            Endpoint("queue", "latestArtifactInfo", "GET", "/task/<taskId>/artifact-info/<name>", self._info, of_task),
        )

    def _record(self, call: Call, late: timedelta) -> tuple[Task, StoredArtifact]:
        """Keep the artifact that is asked for, or find that it is there already."""
        asked, run_id = call.payload, call.run_id
        expires = times.parse(asked["expires"])
        if expires < call.now - _PAST:
            raise bad_input("Expires must be in the future")
        task = self._tasks.get(call.params["taskId"])
        if task is None:
            raise bad_input("Task not found")
        if run_id >= len(task.runs):
            raise bad_input("Run not found")
        if task.runs[run_id].worker_id is None:
            raise bad_input("Run was not claimed by a worker and so no artifacts can exist")
        if expires > task.expires:
            message = (
                f"Artifact expires ({javascript(expires)}) after the task expiration {javascript(task.expires)} "
                "(task.expires < expires) - this is not allowed, artifacts may not expire after the task they belong "
                "to expires"
            )
            raise bad_input(message)
        _check_open(task, run_id, call.now - late)
        wanted = StoredArtifact(
            task_id=task.task_id,
            run_id=run_id,
            name=call.params["name"],
            storage_type=asked["storageType"],
            content_type=asked.get("contentType", _DEFAULT_TYPE),
            expires=expires,
            present=asked["storageType"] != "object",
            details={key: asked[key] for key in _DETAILS if key in asked},
        )
        kept = _accepted(self._artifacts.get(wanted.task_id, run_id, wanted.name), wanted)
        self._artifacts.save(kept)
        self._journal.of_artifact(
            "artifact", (task.task_id, run_id), call.by, name=kept.name, storageType=kept.storage_type
        )
        return task, kept

    def _target(
        self, task: Task, artifact: StoredArtifact, now: datetime, root_url: str, lifetime: float
    ) -> dict[str, Any]:
        """Say where the bytes go."""
        if artifact.storage_type == "s3":
            where = (bucket_of(artifact.name), blob_key(artifact))
            url, until = self._blobs.signed_url(root_url, "PUT", where, lifetime, {})
            return {
                "storageType": "s3",
                "contentType": artifact.content_type,
                "expires": javascript(until),
                "putUrl": url,
            }
        if artifact.storage_type != "object":
            return {"storageType": artifact.storage_type}
        run, project, name = task.runs[artifact.run_id], task.definition["projectId"], object_name(artifact)
        expires = min(now + _UPLOAD_CREDENTIALS, artifact.expires)
        client = f"artifact-upload/{task.task_id}/{artifact.run_id}/on/{run.worker_group}/{run.worker_id}"
        scopes = (f"object:upload:{project}:{name}",)
        return {
            "storageType": "object",
            "name": name,
            "projectId": project,
            "uploadId": artifact.details["uploadId"],
            "expires": javascript(expires),
            "credentials": credentials.wire(credentials.temporary(self._issuer, client, scopes, now, expires)),
        }

    async def _finish(self, call: Call) -> Reply:
        artifact = self._artifacts.get(call.params["taskId"], call.run_id, call.params["name"])
        if artifact is None:
            raise not_found("Artifact not found")
        if artifact.storage_type != "object":
            raise bad_input("Only object artifacts can be finished")
        if artifact.details["uploadId"] != call.payload["uploadId"]:
            raise bad_input("given uploadId does not match that for the artifact")
        stored = self._objects.get(object_name(artifact))
        if stored is None or stored.upload_id is not None:
            raise bad_input("Object storing artifact data does not exist")
        self._artifacts.save(replace(artifact, present=True))
        self._journal.of_artifact("finished", (artifact.task_id, artifact.run_id), call.by, name=artifact.name)
        return Reply(None, 204)

    async def _list(self, call: Call) -> Reply:
        limit, offset = call.page()
        run_id = run_of(self._tasks, call)
        found = self._artifacts.of_run(call.params["taskId"], run_id, limit + 1, offset)
        return Reply(call.paged("artifacts", [_wire(artifact) for artifact in found]))

    async def _info(self, call: Call) -> Reply:
        run_id = run_of(self._tasks, call)
        artifact = self._artifacts.get(call.params["taskId"], run_id, call.params["name"])
        if artifact is None:
            raise not_found("Artifact not found")
        return Reply(_wire(artifact))


def run_of(tasks: TaskRows, call: Call) -> int:
    """Give the run the URL names, or the task's latest; raise `ResourceNotFound` where there is none."""
    task_id = call.params["taskId"]
    task = tasks.get(task_id)
    if task is None:
        raise not_found(f"Task `{task_id}` not found. Are you sure it was created?")
    run_id = call.run_id if "runId" in call.params else len(task.runs) - 1
    if not 0 <= run_id < len(task.runs):
        raise not_found(f"Run {max(run_id, 0)} not found on task `{task_id}`.")
    return run_id


def _check_open(task: Task, run_id: int, since: datetime) -> None:
    """Refuse artifacts of a run that is resolved, unless as `exception` and not long ago."""
    run = task.runs[run_id]
    lately = run.state == "exception" and run.resolved is not None and run.resolved > since
    if run.state != "running" and not lately:
        message = (
            "Artifacts cannot be created for a task after it is resolved, unless it is resolved 'exception', and even "
            "in this case only up to 25 min past resolution.This to ensure that artifacts have been uploaded before a "
            "task is 'completed' and output is consumed by a dependent task"
        )
        raise conflict(f"{message}\n\nTask status: {json.dumps(task.status(), indent=2)}")


def _accepted(existing: StoredArtifact | None, wanted: StoredArtifact) -> StoredArtifact:
    """Decide whether an artifact may be created over what there is. The reference lists what may change."""
    if existing is None:
        if wanted.storage_type != "object":
            return wanted
        return replace(wanted, details=wanted.details | {"uploadId": times.slugid()})
    if existing.storage_type == "object":
        wanted = replace(
            wanted, present=existing.present, details=wanted.details | {"uploadId": existing.details["uploadId"]}
        )
    to_link = (existing.storage_type, wanted.storage_type) == ("reference", "link")
    retarget = existing.storage_type == wanted.storage_type == "reference"
    same = (existing.storage_type, existing.content_type) == (wanted.storage_type, wanted.content_type)
    if wanted.expires >= existing.expires and (to_link or (same and (retarget or existing.details == wanted.details))):
        return wanted
    shown = {
        "storageType": existing.storage_type,
        "contentType": existing.content_type,
        "expires": javascript(existing.expires),
    }
    message = "Artifact already exists with different properties, and none of the allowed exceptions apply"
    raise conflict(f"{message}: {json.dumps(shown, indent=2)}")


def _wire(artifact: StoredArtifact) -> dict[str, Any]:
    shown = {
        "storageType": artifact.storage_type,
        "name": artifact.name,
        "expires": javascript(artifact.expires),
        "contentType": artifact.content_type,
    }
    if "contentLength" in artifact.details:
        shown["contentLength"] = artifact.details["contentLength"]
    return shown
