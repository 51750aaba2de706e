"""Queue: create tasks, look at them, and change them from outside (schedule, rerun, cancel)."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from secureworker.localqueue import lifecycle, times
from secureworker.localqueue.calls import Call, Endpoint, Handler, Reply
from secureworker.localqueue.database import Database
from secureworker.localqueue.errors import bad_input, conflict, not_found
from secureworker.localqueue.expressions import Expression
from secureworker.localqueue.lifecycle import Task
from secureworker.localqueue.schemas import PRIORITIES
from secureworker.localqueue.task_rows import TaskRows

_DRIFT = timedelta(minutes=15)
_LONGEST = timedelta(days=5)


def _about_task(verb: str) -> Expression:
    return {
        "AnyOf": [
            f"queue:{verb}-task:<schedulerId>/<taskGroupId>/<taskId>",
            f"queue:{verb}-task-in-project:<projectId>",
            {"AllOf": [f"queue:{verb}-task", "assume:scheduler-id:<schedulerId>/<taskGroupId>"]},
        ]
    }


class TaskEndpoints:
    """Tasks, from their creators' side."""

    def __init__(self, database: Database, tasks: TaskRows) -> None:
        self._database = database
        self._tasks = tasks

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Name what is served."""

        def get(name: str, route: str, handler: Handler, scopes: Expression) -> Endpoint:
            return Endpoint("queue", name, "GET", route, handler, scopes)

        def change(name: str, verb: str, handler: Handler) -> Endpoint:
            return Endpoint("queue", name, "POST", f"/task/<taskId>/{verb}", handler, _about_task(verb), deferred=True)

        group = "queue:list-task-group:<taskGroupId>"
        schema = "queue/v1/create-task-request.json#"
        return (
            get("task", "/task/<taskId>", self._task, "queue:get-task:<taskId>"),
            get("status", "/task/<taskId>/status", self._status, "queue:status:<taskId>"),
            Endpoint(
                "queue", "createTask", "PUT", "/task/<taskId>", self._create, {"AllOf": []}, schema, deferred=True
            ),
            change("scheduleTask", "schedule", self._schedule),
            change("rerunTask", "rerun", self._rerun),
            change("cancelTask", "cancel", self._cancel),
            get("listTaskGroup", "/task-group/<taskGroupId>/list", self._list_group, group),
            get("getTaskGroup", "/task-group/<taskGroupId>", self._group, group),
            get(
                "listDependentTasks",
                "/task/<taskId>/dependents",
                self._list_dependents,
                "queue:list-dependent-tasks:<taskId>",
            ),
            get("pendingTasks", "/pending/<taskQueueId>", self._pending, "queue:pending-count:<taskQueueId>"),
        )

    async def _task(self, call: Call) -> Reply:
        return Reply(self._get(call).definition)

    async def _status(self, call: Call) -> Reply:
        return _status(self._get(call))

    async def _create(self, call: Call) -> Reply:
        task_id, given = call.params["taskId"], call.payload
        _name_pool(given)
        call.authenticate().require(_creation_scopes(given))
        definition = _complete(task_id, given, call.now)
        with self._database.step():
            existing = self._tasks.get(task_id)
            if existing is not None:
                if existing.definition == definition:
                    return _status(existing)
                message = "already used by another task.\nThis could be the result of faulty idempotency!"
                raise conflict(f"taskId `{task_id}` {message}")
            self._check_group(definition)
            task = Task(task_id, definition, (), definition["retries"])
            needed = [other for other in definition["dependencies"] if other != task_id]
            states = self._tasks.states(needed)
            absent = [other for other in needed if other not in states]
            if absent:
                raise bad_input(f"`task.dependencies` references non-existing tasks: {', '.join(absent)}")
            if satisfied(task, states):
                task = lifecycle.scheduled(task, call.now)
            self._tasks.add(task, call.by)
        return _status(task)

    def _check_group(self, definition: dict[str, Any]) -> None:
        group, scheduler = definition["taskGroupId"], definition["schedulerId"]
        for other in self._tasks.group(group)[:1]:
            if other.definition["schedulerId"] != scheduler:
                message = (
                    f"Task group `{group}` contains tasks with schedulerId `{other.definition['schedulerId']}`; "
                    f"a task of schedulerId `{scheduler}` cannot be added: all tasks of a group have the same"
                )
                raise conflict(message)

    async def _schedule(self, call: Call) -> Reply:
        def step(task: Task) -> Task:
            if task.deadline < call.now:
                raise _too_late(task, "scheduled")
            return lifecycle.scheduled(task, call.now) if task.state == "unscheduled" else task

        return self._change(call, step)

    async def _rerun(self, call: Call) -> Reply:
        def step(task: Task) -> Task:
            if task.deadline < call.now:
                raise _too_late(task, "rescheduled")
            again = lifecycle.rerun(task, call.now)
            if again.state not in {"pending", "running"}:
                raise conflict(f"Maximum number of runs reached ({lifecycle.MAX_RUNS}).")
            return again

        return self._change(call, step)

    async def _cancel(self, call: Call) -> Reply:
        def step(task: Task) -> Task:
            if task.deadline < call.now:
                raise _too_late(task, "canceled")
            return lifecycle.stopped(task, "canceled", call.now)

        return self._change(call, step)

    def _change(self, call: Call, step: Callable[[Task], Task]) -> Reply:
        task = self._get(call)
        named = ("schedulerId", "taskGroupId", "projectId")
        call.authorize({name: task.definition[name] for name in named})
        with self._database.step():
            changed = step(task)
            if changed is not task:
                self._tasks.save(changed, call.by)
        return _status(changed)

    async def _list_group(self, call: Call) -> Reply:
        tasks = self._members(call)
        _, offset = call.page()
        listed = call.paged("tasks", [_both(task) for task in tasks[offset:]])
        return Reply(_group(call.params["taskGroupId"], tasks) | listed)

    async def _group(self, call: Call) -> Reply:
        return Reply(_group(call.params["taskGroupId"], self._members(call)))

    async def _list_dependents(self, call: Call) -> Reply:
        task = self._get(call)
        _, offset = call.page()
        dependents = self._tasks.dependents(task.task_id)[offset:]
        return Reply({"taskId": task.task_id} | call.paged("tasks", [_both(other) for other in dependents]))

    async def _pending(self, call: Call) -> Reply:
        pool = call.params["taskQueueId"]
        provisioner_id, worker_type = pool.split("/")
        return Reply(
            {
                "provisionerId": provisioner_id,
                "workerType": worker_type,
                "taskQueueId": pool,
                "pendingTasks": self._tasks.pending_count(pool),
            }
        )

    def _members(self, call: Call) -> list[Task]:
        tasks = self._tasks.group(call.params["taskGroupId"])
        if not tasks:
            raise not_found(f"No task-group with taskGroupId: `{call.params['taskGroupId']}`")
        return tasks

    def _get(self, call: Call) -> Task:
        task = self._tasks.get(call.params["taskId"])
        if task is None:
            raise not_found(f"Task `{call.params['taskId']}` not found. Are you sure it was created?")
        return task


def satisfied(task: Task, states: dict[str, str]) -> bool:
    """Whether a task's dependencies, in these states, let it be scheduled."""
    enough = {"completed"} if task.definition["requires"] == "all-completed" else {"completed", "failed", "exception"}
    return all(states.get(needed) in enough for needed in task.definition["dependencies"])


def _status(task: Task) -> Reply:
    return Reply({"status": task.status()})


def _both(task: Task) -> dict[str, Any]:
    return {"status": task.status(), "task": task.definition}


def _group(task_group: str, tasks: list[Task]) -> dict[str, Any]:
    last = max(task.definition["expires"] for task in tasks)
    return {"taskGroupId": task_group, "schedulerId": tasks[0].definition["schedulerId"], "expires": last}


def _too_late(task: Task, what: str) -> Exception:
    return conflict(f"Task `{task.task_id}` can't be {what} past its deadline of {task.definition['deadline']}.")


def _name_pool(given: dict[str, Any]) -> None:
    """Complete the pool's three names from those that are given, in place: errors repeat them, as the real ones do."""
    provisioner_id, worker_type = given.get("provisionerId"), given.get("workerType")
    if "taskQueueId" not in given:
        if not provisioner_id or not worker_type:
            raise bad_input("At least a provisionerId and a workerType or a taskQueueId must be provided")
        given["taskQueueId"] = f"{provisioner_id}/{worker_type}"
    first, second = given["taskQueueId"].split("/")
    if provisioner_id not in {None, first} or worker_type not in {None, second}:
        raise bad_input(f"taskQueueId {given['taskQueueId']} is not {provisioner_id}/{worker_type}")
    given["provisionerId"], given["workerType"] = first, second


def _creation_scopes(given: dict[str, Any]) -> Expression:
    pool = f"{given['provisionerId']}/{given['workerType']}"
    enough = PRIORITIES[: PRIORITIES.index(given["priority"]) + 1]
    return {
        "AllOf": [
            *given["scopes"],
            *(f"queue:route:{route}" for route in given["routes"]),
            f"queue:create-task:project:{given['projectId']}",
            f"queue:scheduler-id:{given['schedulerId']}",
            {"AnyOf": [f"queue:create-task:{priority}:{pool}" for priority in enough]},
        ]
    }


def _complete(task_id: str, given: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Complete a definition and check its times."""
    given.setdefault("taskGroupId", task_id)
    created, deadline = times.parse(given["created"]), times.parse(given["deadline"])
    if not now - _DRIFT <= created <= now + _DRIFT:
        raise bad_input("Created timestamp must be within 15 minutes of now")
    if created > deadline:
        raise bad_input("Deadline cannot be before created")
    if deadline < now:
        raise bad_input("Deadline cannot be in the past")
    if deadline - now > _LONGEST + _DRIFT:
        raise bad_input("Deadline cannot be more than 5 days into the future")
    expires = times.parse(given["expires"]) if "expires" in given else deadline + timedelta(days=365)
    if expires < deadline:
        raise bad_input("Expires cannot be before the deadline")
    if any(scope.endswith("**") for scope in given["scopes"]):
        raise bad_input("scopes must not end with `**`")
    for name, moment in (("created", created), ("deadline", deadline), ("expires", expires)):
        given[name] = times.javascript(moment)
    return {key: given[key] for key in _KEYS}


_KEYS = (
    "provisionerId",
    "workerType",
    "taskQueueId",
    "schedulerId",
    "projectId",
    "taskGroupId",
    "dependencies",
    "requires",
    "routes",
    "priority",
    "retries",
    "created",
    "deadline",
    "expires",
    "scopes",
    "payload",
    "metadata",
    "tags",
    "extra",
)
