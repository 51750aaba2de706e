"""Queue: the workers' side of a run: claim, reclaim, report."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from secureworker.core.claim import Credentials
from secureworker.localqueue import credentials, lifecycle, times
from secureworker.localqueue.calls import Call, Endpoint, Handler, Reply
from secureworker.localqueue.database import Database
from secureworker.localqueue.errors import conflict, not_found
from secureworker.localqueue.lifecycle import Task
from secureworker.localqueue.queue_workers import WorkerRows
from secureworker.localqueue.settings import Settings, StaticClient
from secureworker.localqueue.task_rows import TaskRows
from secureworker.localqueue.wakeups import Wakeups


class RunEndpoints:
    """What a worker calls."""

    def __init__(
        self, database: Database, tasks: TaskRows, workers: WorkerRows, wakeups: Wakeups, issuer: StaticClient
    ) -> None:
        self._database = database
        self._tasks = tasks
        self._workers = workers
        self._wakeups = wakeups
        self._issuer = issuer

    def endpoints(self, settings: Settings) -> tuple[Endpoint, ...]:
        """Name what is served."""
        claim_time = timedelta(seconds=settings.claim_timeout)

        async def claim(call: Call) -> Reply:
            return await self._claim_work(call, settings.long_poll, claim_time, settings.clock)

        async def reclaim(call: Call) -> Reply:
            return self._reclaim(call, claim_time)

        def run(name: str, verb: str, handler: Handler, schema: str | None = None) -> Endpoint:
            action = "reclaim" if verb == "reclaim" else "resolve"
            route = f"/task/<taskId>/runs/<runId>/{verb}"
            return Endpoint("queue", name, "POST", route, handler, f"queue:{action}-task:<taskId>/<runId>", schema)

        return (
            Endpoint(
                "queue",
                "claimWork",
                "POST",
                "/claim-work/<taskQueueId>",
                claim,
                {"AllOf": ["queue:claim-work:<taskQueueId>", "queue:worker-id:<workerGroup>/<workerId>"]},
                "queue/v1/claim-work-request.json#",
                deferred=True,
            ),
            run("reclaimTask", "reclaim", reclaim),
            run("reportCompleted", "completed", self._completed),
            run("reportFailed", "failed", self._failed),
            run("reportException", "exception", self._exception, "queue/v1/task-exception-request.json#"),
        )

    async def _claim_work(
        self, call: Call, long_poll: float, claim_time: timedelta, clock: Callable[[], datetime]
    ) -> Reply:
        pool, asked = call.params["taskQueueId"], call.payload
        worker = (asked["workerGroup"], asked["workerId"])
        call.authorize({"workerGroup": worker[0], "workerId": worker[1]})
        self._workers.note(pool, *worker, call.now)
        loop = asyncio.get_running_loop()
        end = loop.time() + long_poll
        while True:
            now = times.truncate(clock())
            found: list[dict[str, Any]] = []
            # Nothing is awaited between this look at the connection and the answer: a poll that was dropped takes no
            # task with it.
            if not call.closed() and not self._workers.is_quarantined(pool, *worker, now):
                found = self._take((pool, call.by), worker, asked["tasks"], now, now + claim_time)
            left = end - loop.time()
            if found or left <= 0 or self._wakeups.closing.is_set():
                return Reply({"tasks": found})
            await self._wakeups.wait(pool, left)

    def _take(
        self, of: tuple[str, str], worker: tuple[str, str], count: int, now: datetime, taken_until: datetime
    ) -> list[dict[str, Any]]:
        pool, by = of
        with self._database.step():
            claims = [
                lifecycle.claimed(task, *worker, now, taken_until) for task in self._tasks.waiting(pool, count, now)
            ]
            for task in claims:
                self._tasks.save(task, by)
            if claims:
                taken = [(task.task_id, len(task.runs) - 1) for task in claims]
                self._workers.note_claims(pool, *worker, taken)
        return [self._claim(task, now, taken_until) for task in claims]

    def _claim(self, task: Task, now: datetime, taken_until: datetime) -> dict[str, Any]:
        held = self._held(task, now, taken_until)
        lent = held.pop("credentials")
        # The database's own text, as the real claimWork passes it on; reclaimTask does not.
        return held | {"takenUntil": times.postgresql(taken_until), "task": task.definition, "credentials": lent}

    def _held(self, task: Task, now: datetime, taken_until: datetime) -> dict[str, Any]:
        run_id, run = len(task.runs) - 1, task.runs[-1]
        return {
            "status": task.status(),
            "runId": run_id,
            "workerGroup": run.worker_group,
            "workerId": run.worker_id,
            "takenUntil": times.javascript(taken_until),
            "credentials": credentials.wire(self._credentials(task, now, taken_until)),
        }

    def _credentials(self, task: Task, now: datetime, taken_until: datetime) -> Credentials:
        run_id, run = len(task.runs) - 1, task.runs[-1]
        until = times.epoch_seconds(taken_until)
        name = f"task-client/{task.task_id}/{run_id}/on/{run.worker_group}/{run.worker_id}/until/{until}"
        verbs = ("reclaim-task", "resolve-task", "create-artifact")
        scopes = [f"queue:{verb}:{task.task_id}/{run_id}" for verb in verbs]
        return credentials.temporary(self._issuer, name, (*scopes, *task.definition["scopes"]), now, taken_until)

    def _reclaim(self, call: Call, claim_time: timedelta) -> Reply:
        task, run_id = self._get(call), call.run_id
        if task.deadline <= call.now:
            message = f"can't be reclaimed past its deadline of {task.definition['deadline']}."
            raise conflict(f"Task `{task.task_id}` {message}")
        if not task.running(run_id):
            raise conflict(f"Run {run_id} on task `{task.task_id}` is resolved or not running.")
        taken_until = call.now + claim_time
        changed = lifecycle.reclaimed(task, taken_until)
        with self._database.step():
            self._tasks.save(changed, call.by)
        return Reply(self._held(changed, call.now, taken_until))

    async def _completed(self, call: Call) -> Reply:
        return self._report(call, "completed")

    async def _failed(self, call: Call) -> Reply:
        return self._report(call, "failed")

    def _report(self, call: Call, state: str) -> Reply:
        task, run_id = self._get(call), call.run_id
        if task.running(run_id):
            task = lifecycle.resolved(task, state, state, call.now)
            with self._database.step():
                self._tasks.save(task, call.by)
        elif run_id != len(task.runs) - 1 or task.runs[run_id].state != state:
            raise conflict(f"Run {run_id} of task `{task.task_id}` is not running or {state}.")
        return Reply({"status": task.status()})

    async def _exception(self, call: Call) -> Reply:
        task, run_id, reason = self._get(call), call.run_id, call.payload["reason"]
        if task.running(run_id):
            task = lifecycle.resolved(task, "exception", reason, call.now)
            with self._database.step():
                self._tasks.save(task, call.by)
        elif len(task.runs) - 1 > run_id + 1 or task.runs[run_id].reason_resolved != reason:
            raise conflict(f"Run {run_id} on task `{task.task_id}` is resolved or not running.")
        return Reply({"status": task.status()})

    def _get(self, call: Call) -> Task:
        """Give the task, which has the run."""
        task_id = call.params["taskId"]
        task = self._tasks.get(task_id)
        if task is None:
            raise not_found(f"Task `{task_id}` not found. Are you sure it was created?")
        if call.run_id >= len(task.runs):
            raise not_found(f"Run {call.run_id} not found on task `{task_id}`.")
        return task
