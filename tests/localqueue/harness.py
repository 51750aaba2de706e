"""What the tests of the embedded Taskcluster share: its published schemas, a clock, and callers."""

import io
import json
import os
import re
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import jsonschema
import mohawk  # type: ignore[import-untyped]  # has no type information
import referencing
import taskcluster
import taskcluster.aio
from aiohttp import web
from aiohttp.typedefs import Middleware
from referencing.jsonschema import DRAFT7
from yarl import URL

from secureworker.core.claim import Secret
from secureworker.localqueue.server import Running, serve
from secureworker.localqueue.settings import Settings, StaticClient, StaticPool, StaticWorker

CHECKOUT = Path(__file__).parent.parent.parent
REFERENCES = Path(
    os.environ.get("SECUREWORKER_REFERENCES", CHECKOUT.parent / "shared" / "taskcluster" / "references.json")
)
SAMPLES = REFERENCES.parent / "samples"
POOL = "tc-real/smoke-42a79"
WORKER = {"workerGroup": "tc-real-group", "workerId": "w1"}
REGISTERED = {"workerPoolId": "tc-real/static", "workerGroup": "tc-real-group", "workerId": "static-1--42a79"}
"""A worker that worker-manager knows."""
REGISTRATION_SECRET = "HwH5dWgLS6ygG3_7wOT1UQMPUCLoILRF23gh6LR1nIvg"
_ROOT = "http://taskcluster.test"
"""Schemas name each other by paths from the root URL."""


_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|^`]+")


class Clock:
    """Time that stands still unless a test moves it on."""

    def __init__(self) -> None:
        self._moved = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self._moved

    def advance(self, seconds: float) -> None:
        self._moved += timedelta(seconds=seconds)


class References:
    """Taskcluster's published descriptions of its services."""

    def __init__(self, path: Path) -> None:
        documents = {entry["filename"]: entry["content"] for entry in json.loads(path.read_text())}
        resources = [
            (f"{_ROOT}/{name}", DRAFT7.create_resource(content))
            for name, content in documents.items()
            if name.startswith("schemas/")
        ]
        self._registry = referencing.Registry().with_resources(resources)
        self._entries = [
            (service, entry, re.compile(_pattern(service, entry["route"])))
            for service in ("auth", "queue", "object", "secrets", "worker-manager")
            for entry in documents[f"references/{service}/v1/api.json"]["entries"]
        ]

    def find(self, method: str, path: str) -> tuple[str, dict[str, Any]] | None:
        """Give the service and the entry that a request is for."""
        for service, entry, pattern in self._entries:
            if entry["method"].upper() == method and pattern.fullmatch(path):
                return service, entry
        return None

    def problems(self, service: str, schema: str, value: Any) -> list[str]:
        """Give what is wrong with a value."""
        reference = {"$ref": f"{_ROOT}/schemas/{service}/{schema.rstrip('#')}"}
        checker = jsonschema.FormatChecker(formats=())
        checker.checks("date-time", raises=ValueError)(
            lambda value: not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None
        )
        checker.checks("uri")(lambda value: not isinstance(value, str) or bool(_URI.fullmatch(value)))
        validator = jsonschema.Draft7Validator(reference, registry=self._registry, format_checker=checker)
        return [f"{service}/{schema} {error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def _pattern(service: str, route: str) -> str:
    # Only names have slashes that need no escaping.
    parts = re.split(r"<(\w+)>", f"/api/{service}/v1{route}")
    return "".join(
        (".+" if text == "name" else "[^/]+") if odd % 2 else re.escape(text) for odd, text in enumerate(parts)
    )


@dataclass
class Checked:
    """What the schemas said about what went over the wire."""

    references: References
    problems: list[str] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)

    def middleware(self) -> Middleware:
        """Hold every request and answer against the schemas."""

        @web.middleware
        async def check(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            response = await handler(request)
            found = self.references.find(request.method, request.raw_path.partition("?")[0])
            if found is not None and isinstance(response, web.Response):
                service, entry = found
                self._request(service, entry, await _json(request), response.status)
                self._answer(service, entry, response)
            return response

        return check

    def _request(self, service: str, entry: dict[str, Any], payload: Any, status: int) -> None:
        if "input" in entry and status < 300:
            self.problems += self.references.problems(service, entry["input"], payload)

    def _answer(self, service: str, entry: dict[str, Any], response: web.Response) -> None:
        name = f"{service}.{entry['name']}"
        if response.status >= 400:
            if response.status != 424:
                self._error(name, _body(response), response.status)
            return
        self.answered.add(name)
        if "output" in entry:
            self.problems += self.references.problems(service, entry["output"], _body(response))

    def _error(self, name: str, body: Any, status: int) -> None:
        facts = re.compile(
            r".*\n\n---\n\n\* method:     \w+\n\* errorCode:  \w+\n\* statusCode: \d+\n\* time:       \S+Z", re.DOTALL
        )
        known = body.keys() == {"code", "message", "requestInfo"}
        known = known and body["requestInfo"].keys() == {"method", "params", "payload", "time"}
        if not known or not facts.fullmatch(body["message"]):
            self.problems.append(f"{name}: {status}: not an error's body: {body}")


async def _json(request: web.Request) -> Any:
    try:
        return json.loads(await request.read() or b"{}")
    except (ValueError, web.HTTPException):
        return None


def _body(response: web.Response) -> Any:
    assert isinstance(response.body, bytes)
    packed = response.headers.get("Content-Encoding") == "gzip"
    return json.loads(zlib.decompress(response.body, 31) if packed else response.body)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: Any
    headers: Mapping[str, str]


def a_client(client_id: str, *scopes: str) -> StaticClient:
    """A static client; its token is its id over and over."""
    return StaticClient(client_id, Secret((client_id * 44)[:44]), scopes)


ROOT = a_client("static/taskcluster/root", "*")
CREATOR = a_client(
    "project/tc-real/creator",
    "queue:create-task:lowest:tc-real/*",
    "queue:scheduler-id:tc-real",
    "secrets:get:a/*",
)
A_WORKER = a_client(
    "project/tc-real/smoke-worker",
    f"queue:claim-work:{POOL}",
    "queue:worker-id:tc-real-group/*",
)

STATIC_POOL = StaticPool(
    REGISTERED["workerPoolId"],
    (StaticWorker(REGISTERED["workerGroup"], REGISTERED["workerId"], Secret(REGISTRATION_SECRET)),),
    worker_config='{"hello": "from workerConfig"}',
    reregistration_timeout=3600.0,
)

Who = StaticClient | Mapping[str, str] | None
"""A static client, credentials as the services send them, or nobody."""


def credentials_of(who: Who) -> dict[str, str]:
    """Credentials as the official client takes them: a copy, for it changes them in place."""
    if who is None:
        return {}
    if isinstance(who, StaticClient):
        return {"clientId": who.client_id, "accessToken": who.access_token.reveal()}
    return dict(who)


@dataclass
class World:
    """A running server, and ways to talk to it."""

    running: Running
    clock: Clock
    http: aiohttp.ClientSession

    @property
    def root_url(self) -> str:
        return self.running.root_url

    def official(self, who: Who, service: str = "Queue") -> Any:
        """Give the official asynchronous client."""
        options = {"rootUrl": self.root_url, "credentials": credentials_of(who), "maxRetries": 0}
        return getattr(taskcluster.aio, service)(options, session=self.http)

    async def ask(  # noqa: PLR0913 a request has that many parts, most of them rarely named
        self,
        who: Who,
        name: str,
        *params: str | int,
        payload: Any = None,
        service: str = "Queue",
        query: dict[str, str] | None = None,
        ext: dict[str, Any] | None = None,
        raw: bytes | None = None,
        signed: dict[str, Any] | None = None,
    ) -> Answer:
        """Make one request by hand; an error is an answer too.

        `ext` adds to what the credentials say, `raw` is sent in place of the payload, and `signed` replaces parts of
        what is signed.
        """
        entry = getattr(taskcluster, service).funcinfo[name]
        route = entry["route"]
        for param, value in zip(entry["args"], params, strict=True):
            route = route.replace(f"<{param}>", quote(str(value), safe=""))
        url = f"{self.root_url}/api/{getattr(taskcluster, service).serviceName}/v1{route}"
        if query:
            url += "?" + urlencode(query)
        sent = raw if raw is not None else b"" if payload is None else json.dumps(payload).encode()
        return await self.send(who, entry["method"].upper(), url, sent, ext or {}, signed or {})

    async def send(
        self, who: Who, method: str, url: str, sent: bytes, ext: dict[str, Any], signed: dict[str, Any]
    ) -> Answer:
        headers = {"Content-Type": "application/json"} if sent else {}
        if who is not None:
            known = credentials_of(who)
            extra = dict(ext)
            if "certificate" in known:
                extra["certificate"] = json.loads(known["certificate"])
            sender = mohawk.Sender(
                credentials={"id": known["clientId"], "key": known["accessToken"], "algorithm": "sha256"},
                **{
                    "url": url,
                    "method": method,
                    "content": sent,
                    "content_type": headers.get("Content-Type", ""),
                    "ext": taskcluster.utils.encodeStringForB64Header(json.dumps(extra)).decode() if extra else None,
                    "_timestamp": int(self.clock().timestamp()),
                    **signed,
                },
            )
            headers["Authorization"] = sender.request_header
        async with self.http.request(
            method,
            URL(url, encoded=True),
            data=sent or None,
            headers=headers,
            allow_redirects=False,
            skip_auto_headers=["Content-Type"],  # it would not be signed
        ) as response:
            text = await response.text()
            is_json = "json" in response.headers.get("Content-Type", "")
            return Answer(response.status, json.loads(text) if is_json and text else text, dict(response.headers))

    async def create(self, task_id: str | None = None, who: Who = ROOT, **changes: Any) -> str:
        """Create a task; give its id."""
        task_id = task_id or taskcluster.slugId()
        answer = await self.ask(who, "createTask", task_id, payload=self.a_task(**changes))
        assert answer.status == 200, answer.body
        return task_id

    def a_task(self, **changes: Any) -> dict[str, Any]:
        """Write a task definition; a change to None leaves the property out."""
        now = self.clock()
        written = {
            "taskQueueId": POOL,
            "schedulerId": "tc-real",
            "created": stamp(now),
            "deadline": stamp(now + timedelta(hours=2)),
            "expires": stamp(now + timedelta(days=3)),
            "scopes": ["secrets:get:project/tc-real/*", "queue:get-artifact:private/*"],
            "payload": {"command": ["true"]},
            "projectId": "tc-real",
            "metadata": {
                "name": "tc-real",
                "description": "tc-real",
                "owner": "nobody@localhost.test",
                "source": "http://localhost/",
            },
            **changes,
        }
        return {key: value for key, value in written.items() if value is not None}

    async def claim(self, count: int = 1, pool: str = POOL, who: Who = ROOT, **worker: str) -> list[dict[str, Any]]:
        """Claim work; give the claims."""
        asked = {**WORKER, **worker, "tasks": count}
        answer = await self.ask(who, "claimWork", pool, payload=asked)
        assert answer.status == 200, answer.body
        tasks: list[dict[str, Any]] = answer.body["tasks"]
        return tasks

    async def claimed(self, **changes: Any) -> tuple[str, dict[str, str]]:
        """Create and claim a task; give its id and the credentials of its run 0."""
        task_id = await self.create(**changes)
        (claim,) = await self.claim(pool=changes.get("taskQueueId", POOL))
        assert claim["status"]["taskId"] == task_id
        return task_id, claim["credentials"]

    async def status(self, task_id: str) -> dict[str, Any]:
        """Give a task's status."""
        answer = await self.ask(None, "status", task_id)
        status: dict[str, Any] = answer.body["status"]
        return status

    async def artifact(
        self, who: Who, task_id: str, name: str, run_id: int = 0, hours: float = 24, **changes: Any
    ) -> Answer:
        """Ask for an artifact to be created."""
        expires = stamp(self.clock() + timedelta(hours=hours))
        payload = {"storageType": "s3", "expires": expires, "contentType": "text/plain", **changes}
        payload = {key: value for key, value in payload.items() if value is not None}
        return await self.ask(who, "createArtifact", task_id, run_id, name, payload=payload)

    async def put(self, url: str, content: bytes, **headers: str) -> Answer:
        """Upload to a presigned URL."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        target, sent = URL(url, encoded=True), io.BytesIO(content)
        async with self.http.put(target, data=sent, headers=named, skip_auto_headers=["Content-Type"]) as response:
            return Answer(response.status, await response.text(), dict(response.headers))

    async def get(self, url: str, **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
        """Download, following redirects."""
        async with self.http.get(URL(url, encoded=True), headers=headers) as response:
            return response.status, await response.read(), dict(response.headers)


def stamp(moment: datetime) -> str:
    """Write a time as Python clients do, with microseconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@asynccontextmanager
async def a_world(checked: Checked | None, clock: Clock | None = None, **settings: Any) -> AsyncIterator[World]:
    """Serve, with fast polls and resolvers that act when a test calls them, unless it says otherwise."""
    clock = clock or Clock()
    defaults: dict[str, Any] = {
        "clients": (ROOT, CREATOR, A_WORKER),
        "long_poll": 0.05,
        "hint_interval": 0.0,
        "hawk_skew": 10 * 24 * 3600.0,
        "claim_resolver_interval": 3600.0,
        "deadline_resolver_interval": 3600.0,
        "dependency_resolver_interval": 3600.0,
        "worker_pools": (STATIC_POOL,),
        "clock": clock,
    }
    middlewares = () if checked is None else (checked.middleware(),)
    async with (
        serve(Settings(**(defaults | settings)), middlewares=middlewares) as running,
        aiohttp.ClientSession() as http,
    ):
        yield World(running, clock, http)
