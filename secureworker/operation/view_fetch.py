"""Asks a worker for its standing, as `secureworker status` does. Blocking; every wait and every answer is bounded."""

import http.client
import json
import socket
import threading
import urllib.parse
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from secureworker.core.standing import cut
from secureworker.host.sanitise import sanitise_line
from secureworker.host.sockets import connected

ANSWER_SECONDS: Final = 10.0
"""Without a byte."""
WHOLE_SECONDS: Final = 30.0
"""For all of an answer: who sends a byte now and then would else hold the command for ever."""
ANSWER_BYTES: Final = 8 * 1024 * 1024
_PATH: Final = "/status.json"
_MOST_WHY: Final = 300


class NotRunning(Exception):
    """No worker answers; says what to do."""


class NoStatus(Exception):
    """What answers is no worker of this kind."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to ask: a UNIX socket, or a host and port."""

    path: str = ""
    host: str = ""
    port: int = 80

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def parse_url(url: str) -> Place:
    """Read `http://127.0.0.1:8080`; raise ValueError where it is anything else."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.username is not None or parts.path not in {"", "/"}:
        raise ValueError(f"{url[:200]!r} is no address of a status page: http://127.0.0.1:PORT is expected")
    return Place(host=parts.hostname, port=parts.port or 80)


class _Connection(http.client.HTTPConnection):
    """Connects to a UNIX socket where there is a path."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.host or "localhost", place.port, timeout=ANSWER_SECONDS)
        self._place = place

    def connect(self) -> None:
        if self._place.path:
            self.sock: socket.socket = connected(self._place.path, ANSWER_SECONDS)
        else:
            super().connect()

    def give_up(self) -> None:
        """End the exchange from another thread: who waits for a byte finds the end."""
        with suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)


def fetch(place: Place, whole_seconds: float = WHOLE_SECONDS) -> dict[str, Any]:
    """Give the status document, as it came: nothing in it is known to be right.

    Raises:
        NotRunning: nobody answers, or this user may not ask.
        NoStatus: what answers is not a JSON object.
    """
    connection = _Connection(place)
    patience = threading.Timer(whole_seconds, connection.give_up)
    patience.daemon = True
    patience.start()
    try:
        connection.request("GET", _PATH)
        answer = connection.getresponse()
        body = answer.read(ANSWER_BYTES + 1)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NotRunning(
            f"no worker answers at {place}: {error.strerror}; start it, or say where it is by --state-dir, --socket or "
            "--url"
        ) from error
    except PermissionError as error:
        raise NotRunning(
            f"{place} is not for this user to ask at; ask as root or as the worker's user, or have the socket in a "
            "directory of a group (docs/status.md)"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        # What it says may be what was sent, as it came: whoever listens there, it is to reach no terminal.
        why = sanitise_line(cut(str(error), _MOST_WHY))
        raise NotRunning(f"the worker at {place} does not answer: {type(error).__name__}: {why}") from error
    finally:
        patience.cancel()
        connection.close()
    if answer.status != http.client.OK or len(body) > ANSWER_BYTES:
        raise NoStatus(f"what answers at {place} is no worker: it says {answer.status}")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NoStatus(f"what answers at {place} is no worker: it sends no JSON") from error
    if not isinstance(document, dict):
        raise NoStatus(f"what answers at {place} is no worker: it sends no status")
    return document
