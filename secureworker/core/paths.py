"""Paths of requests to Taskcluster: one spelling for each, and which of them a script may ask for.

A proxy that matches one spelling of a path while the service behind it understands another guards nothing. So there is
no normalising here: a target is in the one form that is expected, or refused.
"""

import re
from dataclasses import dataclass
from typing import Final

MAX_TARGET: Final = 4096
"""Characters. Taskcluster's longest: an artifact name of 1,024 characters, each percent-encoded."""

_PATH = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,=:@/-]|%[0-9A-F]{2})+")
# Service, version and first word name the API's method, and are plain: nothing encoded can change what is called.
_API = re.compile(r"/api/[a-z][a-z0-9-]{0,37}/v[0-9]{1,3}/[a-z][a-z0-9-]{0,37}(?:/.+)?")
# Taskcluster tells methods apart before it decodes: only where a name is the last thing in every method of its kind can
# an encoded slash not turn a route's method into another (`hooks/group/id%2Ftrigger` is a hook, not its trigger).
_NAME_AT_THE_END = re.compile(
    r"/api/(?:queue/v[0-9]+/task/[A-Za-z0-9_-]+/(?:runs/[0-9]+/)?artifact(?:s|-info|-content)|secrets/v[0-9]+/secret"
    r"|queue/v[0-9]+/(?:claim-work|pending)|object/v[0-9]+/[a-z-]+)/.+"
)
_QUERY = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")
_BEWIT = re.compile(r"bewit(?:[=\[ ]|$)")
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
_NEEDS_NO_ENCODING = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_NEVER_ENCODED = frozenset(b"%\\")
_PRINTABLE = range(0x20, 0x7F)

# What only the worker may say to the Queue, whatever a policy's routes are. No such scope is granted either.
_WORKERS_OWN = re.compile(
    r"/api/(?:queue/v[0-9]+/(?:claim-work(?:/.*)?"
    r"|task/[^/]+/(?:claim|runs/[^/]+/(?:claim|reclaim|completed|failed|exception|artifacts(?:/.*)?))"
    r"|provisioners/.*)"
    r"|worker-manager/v[0-9]+/worker/.*)",
    re.IGNORECASE,
)
_READING = frozenset({"GET", "HEAD"})


class BadTarget(ValueError):
    """A request target is not in the form expected. The message is for the script's author."""


@dataclass(frozen=True, slots=True)
class Route:
    """A request that a script may make of Taskcluster."""

    method: str
    path: str
    """Decoded; a trailing `*` stands for the rest of the path, slashes included."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def allows(self, method: str, path: str) -> bool:
        """Say whether it covers a request, by the path as `canonical` gives it."""
        if method != self.method:
            return False
        return path.startswith(self.path[:-1]) if self.path.endswith("*") else path == self.path


def canonical(target: str) -> str:
    """Give the decoded path of a request target (`/api/…`, perhaps with a query), for matching with routes.

    1. It is short, and has no character that a target cannot have: no fragment, no backslash, no `;`.
    2. The query is well formed and encodes no control character. Nowhere is a bewit, which would sign the request:
       services look for it behind any `?` or `&`, of the path too.
    3. Its path begins with `/api/<service>/<version>/<word>`, all of it plain.
    4. What is percent-encoded is printable, needs to be encoded, and is no `%`: there is one spelling of each path.
       `%2F` is a slash within the name of a secret, artifact, object or pool, as every official client sends it.
    5. Decoded, no segment is empty, `.` or `..`.

    Raises:
        BadTarget: one of these does not hold.
    """
    # 1.
    if len(target) > MAX_TARGET:
        raise BadTarget(f"the target is longer than {MAX_TARGET} characters")
    path, _, query = target.partition("?")
    if not _PATH.fullmatch(path):
        raise BadTarget("the path has a character that must be percent-encoded, or is not percent-encoded as %2F is")
    # 2.
    _check_query(query)
    _check_bewit(target)
    # 3.
    if not _API.fullmatch(path):
        raise BadTarget("the path is none of a Taskcluster API: /api/<service>/<version>/<word> is expected")
    # 4.
    for digits in _ENCODED.findall(path):
        byte = int(digits, 16)
        if byte not in _PRINTABLE or byte in _NEEDS_NO_ENCODING or byte in _NEVER_ENCODED:
            raise BadTarget(f"the path has %{digits} in it, which no name needs")
    if "%2F" in path and not _NAME_AT_THE_END.fullmatch(path):
        raise BadTarget("the path has %2F outside of the name of a secret, artifact, object or worker pool")
    decoded = _decoded(path)
    # 5.
    if any(segment in {"", ".", ".."} for segment in decoded.split("/")[1:]):
        raise BadTarget("the path has an empty segment, '.' or '..'")
    return decoded


def _decoded(text: str) -> str:
    """Decode percent-encoding, to a character for each byte."""
    return _ENCODED.sub(lambda encoded: chr(int(encoded[1], 16)), text)


def _check_query(query: str) -> None:
    if not _QUERY.fullmatch(query):
        raise BadTarget("the query has a character that must be percent-encoded")
    if any(character < " " or character == "\x7f" for character in _decoded(query)):
        raise BadTarget("the query has a control character in it")


def _check_bewit(target: str) -> None:
    parts = re.split("[&;?]", _decoded(target.replace("+", " ")).lower())
    if any(_BEWIT.match(part.strip()) for part in parts[1:]):
        raise BadTarget("the target has a bewit: requests are signed by the worker, and by nobody else")


def is_workers_own(method: str, path: str) -> bool:
    """Say whether a request, by its decoded path, is one for the worker alone: claim, reclaim, resolve, upload."""
    return method not in _READING and _WORKERS_OWN.fullmatch(path) is not None


def permits(routes: tuple[Route, ...], method: str, path: str) -> bool:
    """Say whether a request, by its decoded path, is among a script's routes, and not the worker's own."""
    return not is_workers_own(method, path) and any(route.allows(method, path) for route in routes)
