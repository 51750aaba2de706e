"""Queue: the workers that were seen, and their quarantine."""

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from secureworker.localqueue import times
from secureworker.localqueue.calls import Call, Endpoint, Reply
from secureworker.localqueue.database import Database
from secureworker.localqueue.errors import not_found
from secureworker.localqueue.times import from_milliseconds, javascript, milliseconds

_KEPT = timedelta(days=1)
_RECENT = 20
"""How many of a worker's tasks are remembered."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that was seen."""

    pool: str
    worker_group: str
    worker_id: str
    first_claim: datetime
    seen: datetime
    quarantine_until: datetime
    quarantines: tuple[dict[str, str], ...] = ()
    recent: tuple[dict[str, Any], ...] = ()

    def wire(self, now: datetime) -> dict[str, Any]:
        """Give the worker as the API does."""
        provisioner_id, worker_type = self.pool.split("/")
        shown: dict[str, Any] = {
            "provisionerId": provisioner_id,
            "workerType": worker_type,
            "taskQueueId": self.pool,
            "workerGroup": self.worker_group,
            "workerId": self.worker_id,
            "recentTasks": list(self.recent),
            "expires": javascript(self.seen + _KEPT),
            "firstClaim": javascript(self.first_claim),
            "lastDateActive": javascript(self.seen),
            "quarantineDetails": list(self.quarantines),
        }
        if self.quarantine_until > now:
            shown["quarantineUntil"] = javascript(self.quarantine_until)
        return shown


class WorkerRows:
    """The workers' table."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def get(self, pool: str, worker_group: str, worker_id: str) -> Worker | None:
        """Look a worker up."""
        rows = self._db.execute(
            "SELECT first_claim, seen, quarantine_until, quarantines, recent FROM workers WHERE worker = ?",
            (f"{pool}/{worker_group}/{worker_id}",),
        )
        for first, seen, until, quarantines, recent in rows:
            return Worker(
                pool,
                worker_group,
                worker_id,
                first_claim=from_milliseconds(first),
                seen=from_milliseconds(seen),
                quarantine_until=from_milliseconds(until),
                quarantines=tuple(json.loads(quarantines)),
                recent=tuple(json.loads(recent)),
            )
        return None

    def save(self, worker: Worker) -> None:
        """Keep a worker, in place of what it was."""
        self._db.execute(
            "INSERT OR REPLACE INTO workers VALUES (?, ?, ?, ?, ?, ?)",
            (
                f"{worker.pool}/{worker.worker_group}/{worker.worker_id}",
                milliseconds(worker.first_claim),
                milliseconds(worker.seen),
                milliseconds(worker.quarantine_until),
                json.dumps(worker.quarantines),
                json.dumps(worker.recent),
            ),
        )

    def note(self, pool: str, worker_group: str, worker_id: str, now: datetime) -> None:
        """Note that a worker asks for work."""
        self.save(replace(self._known(pool, worker_group, worker_id, now), seen=now))

    def note_claims(self, pool: str, worker_group: str, worker_id: str, claims: list[tuple[str, int]]) -> None:
        """Note what a worker that was noted got: task and run ids."""
        worker = self._known(pool, worker_group, worker_id, from_milliseconds(0))
        got = tuple({"taskId": task_id, "runId": run_id} for task_id, run_id in claims)
        self.save(replace(worker, recent=(*worker.recent, *got)[-_RECENT:]))

    def _known(self, pool: str, worker_group: str, worker_id: str, now: datetime) -> Worker:
        fresh = Worker(pool, worker_group, worker_id, now, now, from_milliseconds(0))
        return self.get(pool, worker_group, worker_id) or fresh

    def is_quarantined(self, pool: str, worker_group: str, worker_id: str, now: datetime) -> bool:
        """Whether a worker gets no tasks now."""
        worker = self.get(pool, worker_group, worker_id)
        return worker is not None and worker.quarantine_until > now


class WorkerEndpoints:
    """Workers, from their operators' side."""

    def __init__(self, rows: WorkerRows) -> None:
        self._rows = rows

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Name what is served."""
        named = "<provisionerId>/<workerType>/<workerGroup>/<workerId>"
        route = "/provisioners/<provisionerId>/worker-types/<workerType>/workers/<workerGroup>/<workerId>"
        return (
            Endpoint("queue", "getWorker", "GET", route, self._get, f"queue:get-worker:{named}"),
            Endpoint(
                "queue",
                "quarantineWorker",
                "PUT",
                route,
                self._quarantine,
                {"AllOf": [f"queue:quarantine-worker:{named}"]},
                "queue/v1/quarantine-worker-request.json#",
            ),
        )

    async def _get(self, call: Call) -> Reply:
        return Reply(self._worker(call).wire(call.now))

    async def _quarantine(self, call: Call) -> Reply:
        worker = self._worker(call)
        until = times.parse(call.payload["quarantineUntil"])
        detail = {
            "clientId": call.authenticate().client_id or "",
            "updatedAt": javascript(call.now),
            "quarantineUntil": javascript(until),
            "quarantineInfo": call.payload.get("quarantineInfo", ""),
        }
        changed = replace(worker, quarantine_until=until, quarantines=(*worker.quarantines, detail))
        self._rows.save(changed)
        return Reply(changed.wire(call.now))

    def _worker(self, call: Call) -> Worker:
        params = call.params
        pool = f"{params['provisionerId']}/{params['workerType']}"
        worker = self._rows.get(pool, params["workerGroup"], params["workerId"])
        if worker is None:
            names = f"{params['workerGroup']}/{params['workerId']}"
            raise not_found(f"Worker `{names}` of task queue `{pool}` not found: it never asked for work")
        return worker
