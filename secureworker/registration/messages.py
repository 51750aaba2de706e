"""The lines that worker-runner and a worker exchange: `~` and a JSON object with a `type`, one to a line.

The protocol is that of Taskcluster's `tools/workerproto`. Pure: bytes in, values out.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from secureworker.core.claim import Credentials, Json, parse_credentials

ERROR_REPORT: Final = "error-report"
SHUTDOWN: Final = "shutdown"
GRACEFUL_TERMINATION: Final = "graceful-termination"
LOG: Final = "log"
NEW_CREDENTIALS: Final = "new-credentials"
CAPABILITIES: Final = (ERROR_REPORT, GRACEFUL_TERMINATION, LOG, NEW_CREDENTIALS, SHUTDOWN)
"""What this worker knows of the protocol: all of it."""
_MARK: Final = b"~"


class BadMessage(Exception):
    """A line that looks like a message and is none. Never shows the line: it may hold credentials."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """worker-runner is there, and knows these capabilities."""

    capabilities: frozenset[str]


@dataclass(frozen=True, slots=True)
class GracefulTermination:
    """The worker is to end."""

    finish_tasks: bool
    """Whether there is time to let running tasks come to their end."""


@dataclass(frozen=True, slots=True)
class NewCredentials:
    """Credentials for all that the worker does from now on, but for tasks."""

    credentials: Credentials


@dataclass(frozen=True, slots=True)
class Unknown:
    """A message of a type that this worker does not know."""

    type: str


Message: TypeAlias = Welcome | GracefulTermination | NewCredentials | Unknown


def parse(line: bytes) -> Message | None:
    """Read a line without its end; None where it is no message at all.

    Raises:
        BadMessage: it is one, and cannot be understood.
    """
    if not line.startswith(_MARK + b"{"):
        return None
    try:
        document = json.loads(line[1:])
    except (ValueError, RecursionError):
        raise BadMessage("a message is no JSON") from None
    kind = document.get("type")
    if not isinstance(kind, str):
        raise BadMessage("a message has no type")
    match kind:
        case "welcome":
            return Welcome(_capabilities(document))
        case "graceful-termination":
            finish = document.get("finish-tasks")
            if not isinstance(finish, bool):
                raise BadMessage("finish-tasks of graceful-termination is neither true nor false")
            return GracefulTermination(finish)
        case "new-credentials":
            return NewCredentials(_credentials(document))
        case _:
            return Unknown(kind[:80])


def _capabilities(document: Mapping[str, Json]) -> frozenset[str]:
    found = document.get("capabilities")
    if not isinstance(found, list):
        raise BadMessage("capabilities of welcome is no list")
    return frozenset(each for each in found if isinstance(each, str))


def _credentials(document: Mapping[str, Json]) -> Credentials:
    try:
        return parse_credentials(
            {
                "clientId": document.get("client-id"),
                "accessToken": document.get("access-token"),
                # worker-runner writes an empty one where there is none.
                "certificate": document.get("certificate") or None,
            }
        )
    except ValueError as error:
        raise BadMessage(f"new-credentials cannot be used: {error}") from None


def line(kind: str, /, **properties: Json) -> bytes:
    """Write a message as a line."""
    return _MARK + json.dumps({"type": kind, **properties}).encode() + b"\n"
