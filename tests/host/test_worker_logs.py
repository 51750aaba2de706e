"""The worker's own log: a line per event, whatever is in it."""

import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from secureworker.host.logs import LogFormat, configure, harmless


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    quiet = {name: logging.getLogger(name).level for name in ("asyncio", "aiohttp", "mohawk", "taskcluster", "urllib3")}
    hook = sys.excepthook
    yield io.StringIO()
    sys.excepthook = hook
    logging.captureWarnings(capture=False)
    root.handlers[:], level = before
    root.setLevel(level)
    for name, value in quiet.items():
        logging.getLogger(name).setLevel(value)


def test_people_get_time_level_and_message(stream: io.StringIO) -> None:
    configure(LogFormat.HUMAN, stream=stream)
    logging.getLogger("secureworker.x").info("%s: claimed", "T/0")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    T/0: claimed\n", stream.getvalue())


def test_machines_get_one_object_per_line(stream: io.StringIO) -> None:
    configure(LogFormat.JSON, stream=stream)
    logging.getLogger("secureworker.x").warning("one\ntwo")
    event = json.loads(stream.getvalue())
    assert event.keys() == {"time", "level", "logger", "message"}
    assert (event["level"], event["logger"], event["message"]) == ("warning", "secureworker.x", "one\\ntwo")


@pytest.mark.parametrize("chosen", list(LogFormat))
def test_a_traceback_is_kept_with_its_event(stream: io.StringIO, chosen: LogFormat) -> None:
    configure(chosen, stream=stream)
    try:
        raise KeyError("a\nb")
    except KeyError:
        logging.getLogger("x").exception("it broke")
    assert "KeyError" in stream.getvalue()
    if chosen is LogFormat.JSON:
        assert "Traceback" in json.loads(stream.getvalue())["traceback"]
    else:
        first, *rest = stream.getvalue().splitlines()
        assert first.endswith("it broke")
        assert all(line.startswith("    ") for line in rest)


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("a\nERROR forged", "a\\nERROR forged"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u2028b", "a\\u2028b"),
        ("a\rb\x00", "a\\rb\\x00"),
        ("größe ✔", "größe ✔"),
    ],
)
def test_nothing_in_a_message_ends_its_line_or_moves_the_cursor(hostile: str, shown: str) -> None:
    assert harmless(hostile) == shown


def test_a_message_without_end_is_shortened() -> None:
    assert len(harmless("x" * 1_000_000)) < 5_000


@pytest.mark.parametrize(("verbose", "lines"), [(False, 0), (True, 1)])
def test_details_are_logged_only_where_asked_for_and_those_of_libraries_never(
    stream: io.StringIO, lines: int, *, verbose: bool
) -> None:
    configure(LogFormat.HUMAN, verbose=verbose, stream=stream)
    logging.getLogger("secureworker.x").debug("a detail")
    logging.getLogger("taskcluster.aio.asyncutils").debug("HTTP Payload: a secret")
    logging.getLogger("mohawk.base").debug("calculating payload hash from: a secret")
    assert len(stream.getvalue().splitlines()) == lines


@pytest.mark.parametrize("chosen", list(LogFormat))
def test_what_nobody_caught_is_a_line_of_the_log_too(chosen: LogFormat) -> None:
    program = (
        "import warnings; from secureworker.host.logs import *; "
        f"configure(LogFormat({chosen.value!r})); warnings.warn('old'); raise KeyError('a bug')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    if chosen is LogFormat.JSON:
        warning, error = (json.loads(line) for line in ended.stderr.splitlines())
        assert "old" in warning["message"]
        assert (error["level"], error["message"]) == ("critical", "ended by an error of its own: KeyError")
        assert "a bug" in error["traceback"]
    else:
        assert "CRITICAL ended by an error of its own: KeyError\n    Traceback" in ended.stderr
