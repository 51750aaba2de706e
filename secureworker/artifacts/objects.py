"""The Object service's side of an upload: createUpload and finishUpload, signed with the credentials of one upload."""

import asyncio
import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

import aiohttp

from secureworker.artifacts.transfer import BytesBody, FileBody, NotStored, put
from secureworker.core.ids import Sha256
from secureworker.core.uploads import ObjectTarget

_INLINE_BYTES = 8192
"""`maxLength` of `objectData` in Taskcluster's schema upload-method-data-inline.json, decoded."""
_RETRIED_STATUS = 429
_SERVER_ERRORS = 500


class _ObjectClient(Protocol):
    """What is used of `taskcluster.aio.Object`, which has no types."""

    async def createUpload(self, name: str, payload: Mapping[str, Any]) -> Mapping[str, Any]: ...  # noqa: N802

    async def finishUpload(self, name: str, payload: Mapping[str, Any]) -> None: ...  # noqa: N802


class ObjectService:
    """Calls the Object service of one Taskcluster. Does not retry; says whether that may help."""

    def __init__(self, session: aiohttp.ClientSession, root_url: str, stall_seconds: float) -> None:
        self._session = session
        self._root_url = root_url
        self._stall_seconds = stall_seconds

    async def upload(
        self, target: ObjectTarget, body: FileBody | BytesBody, content_type: str, expires: datetime
    ) -> NotStored | None:
        """Negotiate a way to upload, and upload; small bodies within the negotiation.

        `content_type` and `expires` are what they were in `createArtifact`.
        """
        proposed: dict[str, Any] = {"putUrl": {"contentType": content_type, "contentLength": body.size}}
        if body.size <= _INLINE_BYTES:
            proposed["dataInline"] = {
                "contentType": content_type,
                "objectData": base64.b64encode(await body.read()).decode(),
            }
        asked = {
            "uploadId": target.upload_id,
            "projectId": target.project_id,
            "expires": expires.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "proposedUploadMethods": proposed,
        }
        answer = await self._call("createUpload", target, asked)
        if isinstance(answer, NotStored):
            return answer
        match answer.get("uploadMethod"):
            case {"dataInline": True}:
                return None
            case {"putUrl": {"url": str(url), "headers": dict(headers)}}:
                # They are part of the URL's signature, and must be sent as they are.
                return await put(self._session, url, body, headers, stall_seconds=self._stall_seconds)
            case _:
                return NotStored("the object service offers no way to upload that this worker knows", again=False)

    async def finish(self, target: ObjectTarget, sha256: Sha256) -> NotStored | None:
        """Say that all is there, and what its digest is; the service then takes no more."""
        asked = {"uploadId": target.upload_id, "projectId": target.project_id, "hashes": {"sha256": sha256}}
        answer = await self._call("finishUpload", target, asked)
        return answer if isinstance(answer, NotStored) else None

    async def _call(self, method: str, target: ObjectTarget, asked: dict[str, Any]) -> dict[str, Any] | NotStored:
        # Here, because the client's import costs 200 ms, and workers that store by s3 never need it.
        from taskcluster import exceptions  # noqa: PLC0415

        client = self._client(target)
        try:
            async with asyncio.timeout(self._stall_seconds):
                answer = await getattr(client, method)(target.object_name, asked)
        except TimeoutError:
            return NotStored(f"the object service did not answer {method} in {self._stall_seconds:g} s", again=True)
        except (exceptions.TaskclusterRestFailure, exceptions.TaskclusterAuthFailure) as error:
            again = error.status_code == _RETRIED_STATUS or error.status_code >= _SERVER_ERRORS
            return NotStored(f"the object service answered {error.status_code} to {method}", again=again)
        except aiohttp.ClientResponseError as error:
            return NotStored(f"the object service answered {error.status} to {method}", again=True)
        except (exceptions.TaskclusterConnectionError, aiohttp.ClientError, OSError) as error:
            return NotStored(f"the object service cannot be reached: {type(error).__name__}", again=True)
        return answer if isinstance(answer, dict) else {}

    def _client(self, target: ObjectTarget) -> _ObjectClient:
        from taskcluster.aio import Object  # noqa: PLC0415 - as above

        # A dict of its own per call: the client turns the values into bytes in place.
        credentials = {
            "clientId": target.credentials.client_id,
            "accessToken": target.credentials.access_token.reveal(),
        }
        if target.credentials.certificate is not None:
            credentials["certificate"] = target.credentials.certificate.reveal()
        client: _ObjectClient = Object(
            {"rootUrl": self._root_url, "credentials": credentials, "maxRetries": 0}, session=self._session
        )
        return client
