"""What an endpoint is, and how a request becomes a call of one: the order of checks is decided here.

1. The URL names an endpoint, or the answer is 404.
2. The payload is JSON.
3. The parts of the URL match their patterns.
4. The caller is who they say, and has the scopes, where these depend on the URL only.
5. The payload has the endpoint's schema; defaults are filled in.
6. The endpoint itself, which asks for scopes that depend on more than the URL.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

from secureworker.localqueue import validation
from secureworker.localqueue.credentials import Caller
from secureworker.localqueue.errors import ApiError
from secureworker.localqueue.expressions import Expression, substitute
from secureworker.localqueue.schemas import SLUG

_PLACE = re.compile(r"<([A-Za-z]+)>")
_IDENTIFIER = r"^[a-zA-Z0-9-_]{1,38}$"
PATTERNS: Mapping[str, str] = {
    "taskId": SLUG,
    "taskGroupId": SLUG,
    "runId": r"^0*([0-9]{1,3}|1000)$",
    "provisionerId": _IDENTIFIER,
    "workerType": _IDENTIFIER,
    "workerGroup": _IDENTIFIER,
    "workerId": _IDENTIFIER,
    "workerPoolId": r"^[a-zA-Z0-9-_]{1,38}/[a-z]([-a-z0-9]{0,36}[a-z0-9])?$",
    "taskQueueId": r"^[a-zA-Z0-9-_]{1,38}/[a-z]([-a-z0-9]{0,36}[a-z0-9])?$",
    "continuationToken": r"^[0-9]+$",
    "limit": r"^[0-9]+$",
}
"""What parts of URLs match, as JavaScript writes it."""
_PRINTABLE = r"^[\x20-\x7e]+$"
MAX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: JSON, or nothing."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """A request that got as far as its endpoint."""

    params: Mapping[str, str]
    payload: Any
    query: Mapping[str, str]
    authenticate: Callable[[], Caller]
    template: Expression | None
    """The endpoint's scopes, not filled in."""
    now: datetime
    closed: Callable[[], bool]
    """Whether the caller is gone."""

    @property
    def run_id(self) -> int:
        """The `runId` of the URL."""
        return int(self.params["runId"])

    @property
    def by(self) -> str:
        """Who calls."""
        return self.authenticate().client_id or "nobody"

    def authorize(self, values: Mapping[str, str]) -> None:
        """Ask for the endpoint's scopes, filled in from the URL and `values`."""
        if self.template is not None:
            self.authenticate().require(substitute(self.template, {**self.params, **values}))

    def page(self) -> tuple[int, int]:
        """Give limit and offset of a listing."""
        limit = min(int(self.query.get("limit", MAX_PAGE)), MAX_PAGE)
        return limit, int(self.query.get("continuationToken", 0))

    def paged(self, key: str, rows: list[Any]) -> dict[str, Any]:
        """Cut a listing that was asked for with one row more than the limit; say how to go on."""
        limit, offset = self.page()
        body: dict[str, Any] = {key: rows[:limit]}
        if len(rows) > limit:
            body["continuationToken"] = str(offset + limit)
        return body


Handler = Callable[[Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method of a service."""

    service: str
    name: str
    method: str
    route: str
    handler: Handler
    scopes: Expression | None = None
    """None is public."""
    body: str | None = None
    """Name of the payload's schema; None takes no payload."""
    deferred: bool = False
    """The handler itself asks for the scopes, when it knows what they depend on."""


@dataclass(frozen=True, slots=True)
class Match:
    """An endpoint and the parts of the URL that led to it, decoded."""

    endpoint: Endpoint
    params: Mapping[str, str]


class Router:
    """Finds the endpoint for a URL."""

    def __init__(self, endpoints: tuple[Endpoint, ...]) -> None:
        self._routes = tuple((_compile(endpoint), endpoint) for endpoint in endpoints)

    def find(self, method: str, path: str) -> Match | None:
        """Look `path` up, as it was sent: `%2F` in a part is no slash."""
        for pattern, endpoint in self._routes:
            found = pattern.fullmatch(path)
            if found and endpoint.method == method:
                return Match(endpoint, {name: unquote(part) for name, part in found.groupdict().items()})
        return None


def _compile(endpoint: Endpoint) -> re.Pattern[str]:
    pieces = _PLACE.split(f"/api/{endpoint.service}/v1{endpoint.route}")
    literal, names = pieces[::2], pieces[1::2]
    # Names of artifacts, objects and secrets may hold slashes, sent as they are or encoded.
    places = [f"(?P<{name}>.+)" if name in {"name", "clientId"} else f"(?P<{name}>[^/]+)" for name in names]
    return re.compile("".join(re.escape(text) + place for text, place in zip(literal, [*places, ""], strict=True)))


def parse_payload(raw: bytes) -> Any:
    """Read a request's body; nothing is an empty object.

    Raises:
        ApiError: it is no JSON.
    """
    if not raw:
        return {}
    try:
        return json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as problem:
        raise ApiError("MalformedPayload", f"Failed to parse JSON: {_explain(problem)}") from None


def _refuse_constant(name: str) -> None:
    """Refuse `NaN` and `Infinity`, which Python would take and nobody else."""
    raise ValueError(f"{name} is not JSON")


def _explain(problem: ValueError | RecursionError) -> str:
    if isinstance(problem, RecursionError):
        return "it is nested too deeply"
    if not isinstance(problem, json.JSONDecodeError):
        return str(problem)
    known = {"Expecting property name enclosed in double quotes": "Expected property name or '}'"}
    where = f"position {problem.pos} (line {problem.lineno} column {problem.colno})"
    return f"{known.get(problem.msg, problem.msg)} in JSON at {where}"


def check_url(endpoint: Endpoint, params: Mapping[str, str], query: Mapping[str, str]) -> None:
    """Hold the parts of the URL against their patterns.

    Raises:
        ApiError: some do not match; all are named.
    """
    wrong = []
    for kind, values in (("URL parameter", params), ("Query-string parameter", query)):
        for name, value in values.items():
            pattern = _pattern(endpoint, name)
            if pattern is not None and not re.fullmatch(pattern, value):
                shown = pattern.replace("/", "\\/") if name == "taskQueueId" else pattern
                wrong.append(f"{kind} '{name}' given as '{value}' must match regular expression: '/{shown}/'")
    if wrong:
        raise ApiError("InvalidRequestArguments", "\n".join(["Invalid URL patterns:", *wrong]))


def _pattern(endpoint: Endpoint, name: str) -> str | None:
    if name == "name" and endpoint.service in {"queue", "object"}:
        return _PRINTABLE
    return PATTERNS.get(name)


def completed(endpoint: Endpoint, payload: Any) -> Any:
    """Give the payload with the schema's defaults, valid or not."""
    return payload if endpoint.body is None else validation.with_defaults(endpoint.body, payload)


def check_body(endpoint: Endpoint, payload: Any, root_url: str) -> None:
    """Hold the payload against the endpoint's schema.

    Raises:
        ApiError: it does not fit.
    """
    if endpoint.body is not None:
        validation.check(endpoint.body, payload, root_url)


def parse_query(text: str) -> dict[str, str]:
    """Read the query of a URL."""
    return dict(parse_qsl(text, keep_blank_values=True))
