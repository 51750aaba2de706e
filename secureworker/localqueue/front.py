"""From an HTTP request to an endpoint, and from its reply to an HTTP answer."""

import json
import logging
import zlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

from aiohttp import web

from secureworker.localqueue import calls, errors, times
from secureworker.localqueue.blobs import BUCKETS, Blobs
from secureworker.localqueue.calls import Call, Match, Reply, Router
from secureworker.localqueue.credentials import Caller, Clients, Request
from secureworker.localqueue.errors import ApiError, Asked
from secureworker.localqueue.hawk import Signed

logger = logging.getLogger(__name__)

_COMPRESSED_FROM = 1024
"""Bytes; smaller bodies are sent as they are (the default of the real services' compression)."""
_GZIP_WINDOW = 31
_GZIP_LEVEL = 1
_HEADERS = {
    "Cache-Control": "no-store no-cache must-revalidate",
    "X-Content-Type-Options": "nosniff",
    "Access-Control-Allow-Origin": "*",
}


class Front:
    """Answers every request."""

    def __init__(
        self, router: Router, clients: Clients, blobs: Blobs, root_url: str, clock: Callable[[], datetime]
    ) -> None:
        self._router = router
        self._clients = clients
        self._blobs = blobs
        self._root_url = root_url
        self._clock = clock

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request, whatever it is."""
        path, _, query = request.raw_path.partition("?")
        if path[1:].partition("/")[0] in BUCKETS:
            return await self._blobs.serve(request)
        match = self._router.find(request.method, path)
        if match is None:
            return _response(request, Reply({"error": "Not found"}, 404))
        return _response(request, await self._answer(request, match, calls.parse_query(query)))

    async def _answer(self, request: web.Request, match: Match, query: dict[str, str]) -> Reply:
        endpoint = match.endpoint
        payload: Any = {}
        try:
            raw = await _read(request)
            # Errors repeat the payload as far as it was understood: as text, as JSON, completed.
            payload = raw.decode(errors="replace")
            payload = calls.parse_payload(raw)
            calls.check_url(endpoint, match.params, query)
            payload = calls.completed(endpoint, payload)
            call = self._call(request, match, payload, query, raw)
            if not endpoint.deferred:
                call.authorize({})
            calls.check_body(endpoint, payload, self._root_url)
            return await endpoint.handler(call)
        except ApiError as error:
            return self._refusal(error, match, payload)
        except Exception:
            logger.exception("%s.%s failed", endpoint.service, endpoint.name)
            broken = ApiError("InternalServerError", "Internal Server Error, see the log of the embedded Taskcluster")
            return self._refusal(broken, match, {})

    def _call(self, request: web.Request, match: Match, payload: Any, query: dict[str, str], raw: bytes) -> Call:
        asked = Request(
            Signed(request.method, request.raw_path, request.headers.get("Host", "")),
            request.headers.get("Authorization", ""),
            request.headers.get("Content-Type", ""),
            raw,
        )
        known: list[Caller] = []

        def authenticate() -> Caller:
            if not known:
                known.append(self._clients.authenticate(asked))
            return known[0]

        def closed() -> bool:
            return request.transport is None or request.transport.is_closing()

        now = times.truncate(self._clock())
        return Call(match.params, payload, query, authenticate, match.endpoint.scopes, now, closed)

    def _refusal(self, error: ApiError, match: Match, payload: Any) -> Reply:
        shown = _shown(match.endpoint.service, payload)
        asked = Asked(match.endpoint.name, match.params, shown, self._clock())
        headers = {"WWW-Authenticate": "hawk"} if error.code == "AuthenticationFailed" else {}
        return Reply(errors.body(error, asked), error.status, headers)


def _shown(service: str, payload: Any) -> Any:
    """Leave out of a payload what errors must not repeat."""
    if service == "worker-manager":
        return "(OMITTED)"
    if service == "secrets" and isinstance(payload, dict) and "secret" in payload:
        return payload | {"secret": "(OMITTED)"}
    return payload


async def _read(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as problem:
        raise ApiError("InputTooLarge", "Request body too large") from problem


def _response(request: web.Request, reply: Reply) -> web.Response:
    headers = {**_HEADERS, **reply.headers}
    if reply.body is None:
        return web.Response(status=reply.status, headers=headers)
    body = json.dumps(reply.body, indent=2).encode()
    if len(body) >= _COMPRESSED_FROM and "gzip" in request.headers.get("Accept-Encoding", ""):
        packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
        body = packer.compress(body) + packer.flush()
        headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    headers["Content-Type"] = "application/json; charset=utf-8"
    return web.Response(status=reply.status, body=body, headers=headers)
