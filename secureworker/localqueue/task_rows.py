"""The tasks' table."""

import json
from collections.abc import Callable
from datetime import datetime

from secureworker.localqueue.database import Database
from secureworker.localqueue.journal import Journal
from secureworker.localqueue.lifecycle import Run, Task
from secureworker.localqueue.schemas import PRIORITIES
from secureworker.localqueue.times import milliseconds


class TaskRows:
    """Tasks, and which needs which."""

    def __init__(self, database: Database, changed: Callable[[Task], None], journal: Journal) -> None:
        self._db = database
        self._journal = journal
        self._changed = changed

    def get(self, task_id: str) -> Task | None:
        """Look a task up."""
        found = self._tasks("task_id = ?", task_id)
        return found[0] if found else None

    def add(self, task: Task, by: str) -> None:
        """Keep a new task."""
        self._db.execute(
            "INSERT INTO tasks VALUES (?, ?, ?, '', ?, 0, ?, 0, 0, ?, '[]')",
            (
                task.task_id,
                task.pool,
                task.definition["taskGroupId"],
                PRIORITIES.index(task.definition["priority"]),
                milliseconds(task.deadline),
                json.dumps(task.definition),
            ),
        )
        for needed in task.definition["dependencies"]:
            self._db.execute("INSERT INTO dependencies VALUES (?, ?)", (needed, task.task_id))
        self._save(None, task, by)

    def save(self, task: Task, by: str) -> None:
        """Keep what became of a task. One that becomes pending goes to the end of its line."""
        self._save(None if self._journal.keep is None else self.get(task.task_id), task, by)

    def _save(self, before: Task | None, task: Task, by: str) -> None:
        taken_until = task.runs[-1].taken_until if task.runs and task.state == "running" else None
        self._db.execute(
            "UPDATE tasks SET state = ?, runs = ?, retries_left = ?, taken_until = ?, turn = CASE WHEN ? = 'pending'"
            " THEN (SELECT coalesce(max(turn), 0) + 1 FROM tasks) ELSE 0 END"
            " WHERE task_id = ?",
            (
                task.state,
                json.dumps([run.wire(number) for number, run in enumerate(task.runs)]),
                task.retries_left,
                0 if taken_until is None else milliseconds(taken_until),
                task.state,
                task.task_id,
            ),
        )
        self._journal.of_task(before, task, by)
        self._changed(task)

    def waiting(self, pool: str, count: int, now: datetime) -> list[Task]:
        """Give the next pending tasks of a pool: by priority, then in the order they became pending."""
        where = "pool = ? AND state = 'pending' AND deadline > ? ORDER BY rank, turn LIMIT ?"
        return self._tasks(where, pool, milliseconds(now), count)

    def pending_count(self, pool: str) -> int:
        """Count the pending tasks of a pool."""
        query = "SELECT count(*) FROM tasks WHERE pool = ? AND state = 'pending'"
        ((count,),) = self._db.execute(query, (pool,))
        return int(count)

    def expired_claims(self, now: datetime) -> list[Task]:
        """Give the running tasks whose claim ended."""
        return self._tasks("state = 'running' AND taken_until <= ?", milliseconds(now))

    def overdue(self, moment: datetime) -> list[Task]:
        """Give the tasks that are not resolved and had their deadline before `moment`."""
        return self._tasks("state IN ('unscheduled', 'pending', 'running') AND deadline <= ?", milliseconds(moment))

    def unscheduled(self) -> list[Task]:
        """Give the tasks that wait for others."""
        return self._tasks("state = 'unscheduled'")

    def group(self, task_group: str) -> list[Task]:
        """Give the tasks of a group, in the order of their ids."""
        return self._tasks("task_group = ? ORDER BY task_id", task_group)

    def dependents(self, task_id: str) -> list[Task]:
        """Give the tasks that need this one."""
        return self._tasks("task_id IN (SELECT task_id FROM dependencies WHERE needed = ?) ORDER BY task_id", task_id)

    def states(self, task_ids: list[str]) -> dict[str, str]:
        """Give the states of those that exist."""
        found: dict[str, str] = {}
        for task_id in task_ids:
            found.update(self._db.execute("SELECT task_id, state FROM tasks WHERE task_id = ?", (task_id,)))
        return found

    def _tasks(self, where: str, *values: str | int) -> list[Task]:
        query = f"SELECT task_id, definition, runs, retries_left FROM tasks WHERE {where}"  # noqa: S608 literals above
        return [
            Task(task_id, json.loads(definition), tuple(Run.read(run) for run in json.loads(runs)), retries)
            for task_id, definition, runs, retries in self._db.execute(query, values)
        ]
