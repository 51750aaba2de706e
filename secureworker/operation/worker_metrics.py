"""Log lines as generic-worker writes them, `WORKER_METRICS {json}`, for who collects those of a whole fleet."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, final

from secureworker.core.happening import Claimed, Happening, Phase, PhaseEntered, State, StateEntered
from secureworker.core.ids import RunId, TaskId, WorkerIdentity
from secureworker.ports import Clock

logger = logging.getLogger(__name__)

WORKER: Final = "secureworker"
"""In the place of `generic-worker` and `docker-worker`."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """What of an instance's place is known; empty where it is not."""

    region: str = ""
    instance_type: str = ""


@final
class WorkerMetricsLines:
    """The `Watcher` that writes them: the same events and keys, times in whole seconds since 1970."""

    def __init__(
        self,
        identity: WorkerIdentity,
        clock: Clock,
        where: Whereabouts,
        write: Callable[[str], None] = lambda line: logger.info("%s", line),
    ) -> None:
        self._identity = identity
        self._clock = clock
        self._where = where
        self._write = write
        self._ready = False

    def boot(self, booted: datetime) -> None:
        """Say when this machine was started."""
        self._say("instanceBoot", booted)

    def saw(self, happening: Happening) -> None:
        """See `ports.Watcher`."""
        now = self._clock.now()
        match happening:
            case StateEntered(state=State.CLAIMING) if not self._ready:
                self._ready = True
                self._say("workerReady", now)
            case Claimed():
                run = happening.task_id, happening.run_id
                if happening.created is not None:
                    self._say("taskQueued", happening.created, run)
                self._say("taskStart", now, run)
            case PhaseEntered(phase=Phase.ENDED):
                self._say("taskFinish", now, (happening.task_id, happening.run_id))
            case _:
                pass

    def _say(self, event: str, time: datetime, run: tuple[TaskId, RunId] | None = None) -> None:
        fields: dict[str, str | int] = {
            "eventType": event,
            "worker": WORKER,
            "workerPoolId": str(self._identity.pool),
            "workerId": self._identity.worker_id,
            "timestamp": int(time.timestamp()),
            "region": self._where.region,
            "instanceType": self._where.instance_type,
        }
        if run is not None:
            fields |= {"taskId": str(run[0]), "runId": int(run[1])}
        self._write(f"WORKER_METRICS {json.dumps(fields, sort_keys=True, separators=(',', ':'))}")
