"""What is served of a worker: the page, the document, and the tails of running tasks' logs."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from secureworker.core.standing import RunStanding, Standing
from secureworker.host.tails import log_file, read_tail
from secureworker.operation.board import Board
from secureworker.operation.page import FASTEST_SECONDS, SLOWEST_SECONDS, as_page, security_policy
from secureworker.operation.server import Get
from secureworker.operation.server_http import PLAIN, Answer, Refusal, Request
from secureworker.operation.view import as_document
from secureworker.ports import Clock

TAIL_BYTES: Final = 64 * 1024
"""Of a running task's log, by itself."""
PAGE_TAILS_BYTES: Final = 64 * 1024
"""Of all running tasks' logs together, in the page."""
_MOST_PER_TAIL: Final = 16 * 1024
_LOG = re.compile(r"/runs/([A-Za-z0-9_-]{22})/(0|[1-9][0-9]{0,3})/log")
_SECONDS = re.compile(r"[1-9][0-9]{0,3}")


@dataclass(frozen=True, slots=True)
class Views:
    """Makes the answers. Reads the standing, the clock, and logs of runs that are ours; no other file."""

    board: Board
    clock: Clock
    logs: str
    """The directory of the logs of runs, which are sanitised and masked as they are written."""

    def routes(self) -> Mapping[str, Get]:
        """Give the answers by path."""
        return {"/": self.page, "/status.json": self.document, "/runs/": self.tail}

    def page(self, request: Request) -> Answer:
        """Give the page; with `?every=5`, one that reads itself again."""
        standing = self.board.standing
        share = min(_MOST_PER_TAIL, PAGE_TAILS_BYTES // max(1, len(standing.runs)))
        tails = {
            (str(run.task_id), int(run.run_id)): tail.decode("utf-8", "replace")
            for run in standing.runs
            if (tail := self._tail(run, share)) is not None
        }
        made = as_page(self._document(standing), tails, _every(request))
        return Answer(made, "text/html; charset=utf-8", headers=(("Content-Security-Policy", security_policy()),))

    def document(self, _: Request) -> Answer:
        """Give the document."""
        made = json.dumps(self._document(self.board.standing), indent=2)
        return Answer(f"{made}\n".encode(), "application/json")

    def tail(self, request: Request) -> Answer:
        """Give the end of a running task's log. A path leads to a file only where it names a run that is ours."""
        asked = _LOG.fullmatch(request.path)
        runs = self.board.standing.runs
        found = [run for run in runs if asked and (run.task_id, str(int(run.run_id))) == asked.groups()]
        tail = self._tail(found[0], TAIL_BYTES) if found else None
        if tail is None:
            raise Refusal(404, "no such run is running here")
        return Answer(tail, PLAIN)

    def _document(self, standing: Standing) -> dict[str, Any]:
        return as_document(standing, self.clock.now())

    def _tail(self, run: RunStanding, most_bytes: int) -> bytes | None:
        try:
            return read_tail(log_file(self.logs, run.task_id, run.run_id), most_bytes)
        except OSError:
            # Not begun yet, or removed in this moment.
            return None


def _every(request: Request) -> int | None:
    asked = request.query.get("every", "")
    if not _SECONDS.fullmatch(asked):
        return None
    return min(max(int(asked), FASTEST_SECONDS), SLOWEST_SECONDS)
