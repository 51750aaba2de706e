"""All that looks at a worker for as long as its process works, whatever policy it works by."""

import asyncio
import functools
import json
import logging
import re
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn, final

from prometheus_client import CONTENT_TYPE_LATEST

from secureworker.core.ids import WorkerIdentity
from secureworker.operation.files import (
    HEARTBEAT_SECONDS,
    TEXTFILE_SECONDS,
    as_state,
    as_text,
    heartbeat,
    write_every,
)
from secureworker.operation.heart import Heart
from secureworker.operation.metrics import Metrics
from secureworker.operation.notices import Announcer, Notices, show_life
from secureworker.operation.server import Get
from secureworker.operation.server_http import Answer, Request
from secureworker.operation.worker_metrics import Whereabouts, WorkerMetricsLines
from secureworker.ports import Clock, Watcher

logger = logging.getLogger(__name__)

UNABLE: Final = 503
_BOOT_TIME: Final = re.compile(r"^btime (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class OperationSettings:
    """How an operator wants to be shown a worker, beside its status page."""

    notices: Notices = field(default_factory=Notices)
    textfile: str | None = None
    """Where to write metrics for node_exporter."""
    heartbeat: str | None = None
    """A file that is new as long as the worker is alive."""
    worker_metrics: bool = False
    """Whether to log lines as generic-worker does."""
    where: Whereabouts = field(default_factory=Whereabouts)


@final
class Operation:
    """What looks at one worker."""

    def __init__(self, settings: OperationSettings, identity: WorkerIdentity, clock: Clock) -> None:
        self.notices = settings.notices
        self.metrics = Metrics(clock)
        self.heart = Heart(clock, self.metrics.progressed)
        self._settings = settings
        self.clock = clock
        self._lines = WorkerMetricsLines(identity, clock, settings.where) if settings.worker_metrics else None

    @property
    def watchers(self) -> tuple[Watcher, ...]:
        """Give who is to be told what happens."""
        lines: tuple[Watcher, ...] = () if self._lines is None else (self._lines,)
        # The heart first: what the others show of it is of this moment.
        return (self.heart, self.metrics, Announcer(self.notices), *lines)

    @property
    def routes(self) -> Mapping[str, Get]:
        """Give what the status server can answer with."""
        return {"/metrics": self._show_metrics, "/health": self._show_health}

    def keepers(self) -> tuple[Coroutine[Any, Any, NoReturn], ...]:
        """Give what is to run beside the worker, from its start to its end."""
        heart, clock = self.heart, self.clock
        found = [show_life(self.notices, heart, clock)]
        if self._settings.textfile is not None:
            make = functools.partial(as_text, self.metrics.registry)
            found.append(write_every(TEXTFILE_SECONDS, self._settings.textfile, make, clock))
        if self._settings.heartbeat is not None:
            beat = functools.partial(heartbeat, heart, clock)
            found.append(write_every(HEARTBEAT_SECONDS, self._settings.heartbeat, beat, clock))
        return tuple(found)

    async def begin(self) -> None:
        """Say what is there to say of the start."""
        self.notices.send("STATUS=starting")
        if self._lines is not None:
            self._lines.boot(await asyncio.to_thread(_booted, self.clock.now()))

    def _show_metrics(self, _: Request) -> Answer:
        return Answer(as_text(self.metrics.registry), CONTENT_TYPE_LATEST)

    def _show_health(self, _: Request) -> Answer:
        body = f"{json.dumps(as_state(self.heart, self.clock), indent=2)}\n".encode()
        return Answer(body, "application/json", status=200 if self.heart.able else UNABLE)


def _booted(now: datetime) -> datetime:
    """Give when this machine was started; where it does not say, now."""
    try:
        found = _BOOT_TIME.search(Path("/proc/stat").read_text("ascii"))
    except OSError:
        return now
    return now if found is None else datetime.fromtimestamp(int(found[1]), UTC)


@asynccontextmanager
async def operated(settings: OperationSettings, identity: WorkerIdentity, clock: Clock) -> AsyncIterator[Operation]:
    """Look at a worker while the block runs. Nothing that goes wrong in looking ends the block."""
    operation = Operation(settings, identity, clock)
    await operation.begin()
    failed: Exception | None = None
    async with asyncio.TaskGroup() as group:
        keepers = operation.keepers()
        running = [group.create_task(_undisturbing(keeper)) for keeper in keepers]
        try:
            yield operation
        except Exception as problem:  # noqa: BLE001 - raised below: the group would wrap what is not its own
            failed = problem
        finally:
            operation.notices.stopping()
            for task in running:
                task.cancel()
    for keeper in keepers:
        # Of a worker that fails at once, they have never begun.
        keeper.close()
    if failed is not None:
        raise failed


async def _undisturbing(keeper: Coroutine[Any, Any, NoReturn]) -> None:
    try:
        await keeper
    except Exception:
        logger.exception("an error of the worker's own in what shows it to its operator; it goes on")
