"""The worker's own log: private, one line per event, for people or for machines. The task log is `tasklog`."""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from enum import Enum
from types import TracebackType
from typing import TextIO

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
"""Control characters, line separators, and characters that reorder or hide others: names of tasks are their authors'
to choose, and a log line must not be."""
_LONGEST = 4_000
"""Characters of one message: more would not fit the journal's 48 KiB with everything escaped (journald.conf(5))."""
_QUIET = ("asyncio", "aiohttp", "mohawk", "taskcluster", "urllib3")
"""Libraries that log what they send and receive: the official client's DEBUG lines hold credentials, and those of the
library that signs for it hold signatures, and payloads with a registration's secrets."""


class LogFormat(Enum):
    """How lines are written."""

    HUMAN = "human"
    JSON = "json"


def configure(chosen: LogFormat, *, verbose: bool = False, stream: TextIO | None = None) -> None:
    """Send everything logged to `stream`, standard error by default. Call it once, at the start of the program."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if chosen is LogFormat.JSON else HumanLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # What nobody caught, and what libraries warn of, is a line as every other.
    sys.excepthook = _log_uncaught
    logging.captureWarnings(capture=True)
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger(__name__).critical(
        "ended by an error of its own: %s", kind.__name__, exc_info=(kind, error, trace)
    )


def harmless(text: str) -> str:
    """Escape what could end a line, move the cursor or hide text, and shorten what is too long."""
    shown = _UNSAFE.sub(lambda found: repr(found[0])[1:-1], text[: _LONGEST + 1])
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]} ..."


class HumanLines(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO    T/0: claimed: a task`; a traceback follows in indented lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one event."""
        line = f"{_time(record)} {record.levelname:<7} {harmless(record.getMessage())}"
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n    {harmless(part)}" for part in trace.splitlines())
        return line


class JsonLines(logging.Formatter):
    """One JSON object per line: `time`, `level`, `logger`, `message`, and `traceback` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one event."""
        event = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": harmless(record.getMessage()),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
