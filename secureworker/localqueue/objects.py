"""Object: uploads inline or to a presigned URL, and downloads. Once finished, an object does not change."""

import base64
import binascii
from dataclasses import replace
from datetime import datetime
from typing import Any

from secureworker.localqueue import times
from secureworker.localqueue.artifact_rows import ObjectRows, StoredObject
from secureworker.localqueue.blobs import OBJECTS, Blobs
from secureworker.localqueue.calls import Call, Endpoint, Reply
from secureworker.localqueue.errors import ApiError, bad_input, conflict, not_found
from secureworker.localqueue.settings import Settings
from secureworker.localqueue.times import javascript

_UPLOAD = "object:upload:<projectId>:<name>"
_DOWNLOAD = "object:download:<name>"


class ObjectEndpoints:
    """The Object service."""

    def __init__(self, rows: ObjectRows, blobs: Blobs, settings: Settings, root_url: str) -> None:
        self._rows = rows
        self._blobs = blobs
        self._put_lifetime = settings.put_url_lifetime
        self._get_lifetime = settings.get_url_lifetime
        self._root_url = root_url

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Name what is served."""
        schemas = "object/v1/create-upload-request.json#", "object/v1/finish-upload-request.json#"
        download = "object/v1/download-object-request.json#"
        return (
            Endpoint(
                "object", "createUpload", "PUT", "/upload/<name>", self._create, _UPLOAD, schemas[0], deferred=True
            ),
            Endpoint(
                "object",
                "finishUpload",
                "POST",
                "/finish-upload/<name>",
                self._finish,
                _UPLOAD,
                schemas[1],
                deferred=True,
            ),
            Endpoint("object", "startDownload", "PUT", "/start-download/<name>", self._start, _DOWNLOAD, download),
            Endpoint("object", "object", "GET", "/metadata/<name>", self._metadata, _DOWNLOAD),
            Endpoint("object", "download", "GET", "/download/<name>", self._download, _DOWNLOAD),
        )

    async def _create(self, call: Call) -> Reply:
        name, asked = call.params["name"], call.payload
        call.authorize({"projectId": asked["projectId"]})
        expires = times.parse(asked["expires"])
        stored = self._rows.get(name)
        if stored is None:
            stored = StoredObject(name, asked["projectId"], asked["uploadId"], expires, {})
        if (stored.project_id, stored.upload_id, stored.expires) != (asked["projectId"], asked["uploadId"], expires):
            raise conflict("Object already exists")
        self._rows.save(replace(stored, hashes=_merged(stored, asked.get("hashes", {}))))
        return Reply(
            {
                "projectId": asked["projectId"],
                "uploadId": asked["uploadId"],
                "expires": asked["expires"],
                "uploadMethod": self._method(name, asked["proposedUploadMethods"]),
            }
        )

    def _method(self, name: str, proposed: dict[str, Any]) -> dict[str, Any]:
        """Take the data at once where it is there, else say where to put it."""
        if "dataInline" in proposed:
            inline = proposed["dataInline"]
            try:
                content = base64.b64decode(inline["objectData"], validate=True)
            except binascii.Error:
                raise bad_input("Invalid base64 objectData") from None
            # 8 KiB at most, by the schema: written faster than a thread is found.
            self._blobs.keep(OBJECTS, name, content, inline["contentType"])
            return {"dataInline": True}
        if "putUrl" not in proposed:
            return {}
        wanted = proposed["putUrl"]
        headers = {"content-length": str(wanted["contentLength"]), "content-type": wanted["contentType"]}
        url, expires = self._blobs.signed_url(self._root_url, "PUT", (OBJECTS, name), self._put_lifetime, headers)
        shown = {"Content-Length": headers["content-length"], "Content-Type": headers["content-type"]}
        return {"putUrl": {"url": url, "expires": javascript(expires), "headers": shown}}

    async def _finish(self, call: Call) -> Reply:
        name, asked = call.params["name"], call.payload
        call.authorize({"projectId": asked["projectId"]})
        stored = self._get(name)
        if stored.project_id != asked["projectId"]:
            raise bad_input(f'Object "{name}" does not have projectId {asked["projectId"]}')
        hashes = asked.get("hashes", {})
        if stored.upload_id is None:
            for algorithm, digest in hashes.items():
                if stored.hashes.get(algorithm) != digest:
                    raise conflict(f'Object "{name}" is already finished, without this hash of algorithm {algorithm}')
            return Reply({})
        if stored.upload_id != asked["uploadId"]:
            raise conflict(f'Object "{name}" does not have uploadId {asked["uploadId"]}')
        if not self._blobs.exists(OBJECTS, name):
            raise bad_input(f'Object "{name}" was not uploaded')
        self._rows.save(replace(stored, upload_id=None, hashes=_merged(stored, hashes)))
        return Reply({})

    async def _start(self, call: Call) -> Reply:
        stored = self._finished(call)
        accepted = call.payload["acceptDownloadMethods"]
        url, expires = self._url(stored.name)
        if "getUrl" in accepted:
            return Reply(
                {"method": "getUrl", "url": url, "expires": javascript(expires), "hashes": dict(stored.hashes)}
            )
        if "simple" in accepted:
            return Reply({"method": "simple", "url": url})
        raise ApiError("NoMatchingMethod", "Object supports methods simple, getUrl")

    async def _metadata(self, call: Call) -> Reply:
        stored = self._finished(call)
        return Reply(
            {"projectId": stored.project_id, "expires": javascript(stored.expires), "hashes": dict(stored.hashes)}
        )

    async def _download(self, call: Call) -> Reply:
        url, _ = self._url(self._finished(call).name)
        return Reply({}, 303, {"Location": url})

    def _url(self, name: str) -> tuple[str, datetime]:
        return self._blobs.signed_url(self._root_url, "GET", (OBJECTS, name), self._get_lifetime, {})

    def _finished(self, call: Call) -> StoredObject:
        stored = self._get(call.params["name"])
        if stored.upload_id is not None:
            raise not_found(f'Object "{stored.name}" not found')
        return stored

    def _get(self, name: str) -> StoredObject:
        stored = self._rows.get(name)
        if stored is None:
            raise not_found(f'Object "{name}" not found')
        return stored


def _merged(stored: StoredObject, hashes: dict[str, str]) -> dict[str, str]:
    if any(stored.hashes.get(algorithm, digest) != digest for algorithm, digest in hashes.items()):
        raise conflict("Content hash already exists with a different value")
    return stored.hashes | hashes
