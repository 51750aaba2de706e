"""Queue: read artifacts. The Queue never sends bytes, it says where they are."""

import base64
import json
from datetime import timedelta
from urllib.parse import quote

from secureworker.localqueue import credentials, hawk
from secureworker.localqueue.artifact_rows import ArtifactRows, StoredArtifact
from secureworker.localqueue.blobs import PUBLIC, Blobs
from secureworker.localqueue.calls import Call, Endpoint, Reply
from secureworker.localqueue.errors import bad_input, not_found
from secureworker.localqueue.queue_artifacts import blob_key, bucket_of, object_name, run_of
from secureworker.localqueue.settings import StaticClient
from secureworker.localqueue.task_rows import TaskRows

_READ_CREDENTIALS = timedelta(hours=1)
_STORAGE_HEADER = "x-taskcluster-artifact-storage-type"


class ArtifactReads:
    """Artifacts, from the readers' side."""

    def __init__(self, tasks: TaskRows, artifacts: ArtifactRows, blobs: Blobs, issuer: StaticClient) -> None:
        self._tasks = tasks
        self._artifacts = artifacts
        self._blobs = blobs
        self._issuer = issuer

    def endpoints(self, root_url: str, lifetime: float) -> tuple[Endpoint, ...]:
        """Name what is served; `lifetime` is that of URLs, in seconds."""

        async def redirect(call: Call) -> Reply:
            return self._redirect(call, self._find(call), root_url, lifetime)

        async def describe(call: Call) -> Reply:
            return self._describe(call, self._find(call), root_url, lifetime)

        routes = (
            ("getArtifact", "/task/<taskId>/runs/<runId>/artifacts/<name>", redirect),
            ("getLatestArtifact", "/task/<taskId>/artifacts/<name>", redirect),
            ("artifact", "/task/<taskId>/runs/<runId>/artifact-content/<name>", describe),
            ("latestArtifact", "/task/<taskId>/artifact-content/<name>", describe),
        )
        return tuple(
            Endpoint("queue", name, "GET", route, handler, {"AllOf": []}, deferred=True)
            for name, route, handler in routes
        )

    def _find(self, call: Call) -> StoredArtifact:
        """Follow links to the artifact, asking for the scope of each name on the way before saying what is there."""
        names = [call.params["name"]]
        while True:
            call.authenticate().require({"AllOf": [f"queue:get-artifact:{name}" for name in names]})
            run_id = run_of(self._tasks, call)
            artifact = self._artifacts.get(call.params["taskId"], run_id, names[-1])
            if artifact is None or not artifact.present or artifact.expires < call.now:
                raise not_found("Artifact not found")
            if artifact.storage_type != "link":
                return artifact
            names.append(artifact.details["artifact"])
            if names[-1] in names[:-1]:
                raise bad_input("Artifact link forms a cycle")

    def _redirect(self, call: Call, artifact: StoredArtifact, root_url: str, lifetime: float) -> Reply:
        kind = artifact.storage_type
        if kind == "error":
            shown = {key: artifact.details[key] for key in ("reason", "message")}
            return Reply(shown, 424, {_STORAGE_HEADER: kind})
        if kind == "object":
            url = self._object_url(call, artifact, root_url, lifetime)
        else:
            url = self._url(artifact, root_url, lifetime)
        return Reply({"storageType": kind, "url": url}, 303, {"Location": url, _STORAGE_HEADER: kind})

    def _describe(self, call: Call, artifact: StoredArtifact, root_url: str, lifetime: float) -> Reply:
        kind = artifact.storage_type
        if kind == "error":
            return Reply({"storageType": kind} | {key: artifact.details[key] for key in ("reason", "message")})
        if kind != "object":
            return Reply({"storageType": kind, "url": self._url(artifact, root_url, lifetime)})
        name = object_name(artifact)
        client = f"artifact-download/{blob_key(artifact)}"
        scopes = (f"object:download:{name}",)
        lent = credentials.temporary(self._issuer, _client_name(client), scopes, call.now, call.now + _READ_CREDENTIALS)
        return Reply({"storageType": kind, "name": name, "credentials": credentials.wire(lent)})

    def _url(self, artifact: StoredArtifact, root_url: str, lifetime: float) -> str:
        if artifact.storage_type == "reference":
            return str(artifact.details["url"])
        bucket, key = bucket_of(artifact.name), blob_key(artifact)
        if bucket == PUBLIC:
            return self._blobs.url(root_url, bucket, key)
        return self._blobs.signed_url(root_url, "GET", (bucket, key), lifetime, {})[0]

    def _object_url(self, call: Call, artifact: StoredArtifact, root_url: str, lifetime: float) -> str:
        """Give a URL of the Object service, signed for this object only."""
        name = object_name(artifact)
        resource = f"/api/object/v1/download/{quote(name, safe='')}"
        ext = base64.urlsafe_b64encode(json.dumps({"authorizedScopes": [f"object:download:{name}"]}).encode()).decode()
        signed = hawk.Signed("GET", resource, root_url.partition("//")[2])
        until = call.now + timedelta(seconds=lifetime)
        key = self._issuer.access_token.reveal()
        bewit = hawk.make_bewit(signed, self._issuer.client_id, key, ext, until)
        return f"{root_url}{resource}?bewit={bewit}"


def _client_name(text: str) -> str:
    """Keep to the letters a client id may have."""
    return "".join(letter if letter.isalnum() or letter in "!@/:.+|_-" else "_" for letter in text)
