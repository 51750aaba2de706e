"""Whether a task is what a task graph, or a repository, makes of it: key by key, less what neither can know.

Every exception is listed here with its reason. All that is not listed is compared.
"""

import re
from collections.abc import Mapping
from typing import Final

from secureworker.core.claim import MAX_NESTING, Json, nesting, parse_time
from secureworker.core.ids import TaskId

_QUEUE_DEFAULTS: Final[Mapping[str, Json]] = {
    "dependencies": [],
    "extra": {},
    "priority": "lowest",
    "projectId": "none",
    "requires": "all-completed",
    "retries": 5,
    "routes": [],
    "scopes": [],
    "tags": {},
}
"""What the Queue writes where the creator said nothing (schema create-task-request.json of queue v1)."""
_POOL_KEYS: Final = ("taskQueueId", "provisionerId", "workerType")
"""Two spellings of one thing, which is compared as one."""
_TIMES: Final = ("created", "deadline", "expires")
_NOTICES: Final = frozenset({"statuses", "checks"})
"""Routes that the GitHub service adds to hear of its tasks; they cause nothing else."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z")


def differences_of_entry(
    found: Mapping[str, Json], entry: Mapping[str, Json], decision: TaskId, scheduler_id: Json
) -> tuple[str, ...]:
    """Say which keys of a definition are not as its entry in a task graph says.

    What a decision task cannot know when it writes the graph is filled in by it or the Queue later, and may differ:

    - `created`, `deadline`, `expires`, and every `{"relative-datestamp": ...}`: a time takes its place.
    - `dependencies`: those of the entry, with or without the decision task itself.
    - `taskGroupId`, `schedulerId`: the decision task's.
    - what the Queue completes: its own defaults, and the two spellings of the pool.
    """
    task = entry.get("task")
    assert isinstance(task, dict)
    filled: dict[str, Json] = {"schedulerId": scheduler_id, **task, "taskGroupId": str(decision)}
    for key in _TIMES:
        filled.setdefault(key, {"relative-datestamp": ""})
    named, written = entry.get("dependencies"), task.get("dependencies")
    due = {*_texts(list(named.values()) if isinstance(named, dict) else named), *_texts(written)}
    got = set(_texts(found.get("dependencies")))
    dependencies: list[Json] = list(got if got in (due, due | {decision}) else due)
    filled["dependencies"] = sorted(dependencies, key=str)
    return _differences({**found, "dependencies": sorted(list[Json](got), key=str)}, filled)


def differences_of_rendering(
    found: Mapping[str, Json], rendered: Mapping[str, Json], task_id: TaskId
) -> tuple[str, ...]:
    """Say which keys of a decision task's definition are not as the repository makes them.

    - `taskId` is the task's, and so is `taskGroupId`, unless the repository says another.
    - Times are compared as moments.
    - `routes` may have those besides by which the GitHub service hears of its tasks.
    - what is not there is what that service or the Queue completes: their own defaults.
    """
    filled: dict[str, Json] = {"taskGroupId": str(task_id), "schedulerId": "taskcluster-github", **rendered}
    wrong = () if filled.pop("taskId", None) == task_id else ("taskId",)
    routes = _texts(filled.get("routes"))
    more = [route for route in _texts(found.get("routes")) if route in _NOTICES and route not in routes]
    filled["routes"] = [*routes, *more]
    return (*wrong, *_differences(found, filled))


def _differences(found: Mapping[str, Json], wanted: Mapping[str, Json]) -> tuple[str, ...]:
    if nesting(dict(found)) > MAX_NESTING:
        return (f"nesting deeper than {MAX_NESTING}",)
    one, other = ({**_QUEUE_DEFAULTS, **each} for each in (found, wanted))
    pools = [_pool(each) for each in (one, other)]
    wrong = [] if pools[0] == pools[1] else ["taskQueueId"]
    keys = sorted({*one, *other}.difference(_POOL_KEYS))
    return (*wrong, *(key for key in keys if not (key in one and key in other and _same(one[key], other[key]))))


def _pool(definition: Mapping[str, Json]) -> Json:
    parts = [definition.get(key) for key in _POOL_KEYS]
    return parts[0] if parts[0] is not None else f"{parts[1]}/{parts[2]}"


def _same(found: Json, wanted: Json) -> bool:
    """Whether values are equal: of one type, times as moments, and a time wherever one was yet to be worked out."""
    if isinstance(wanted, dict) and wanted.keys() == {"relative-datestamp"}:
        return isinstance(found, str) and _TIME.fullmatch(found) is not None
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(_same(found[key], wanted[key]) for key in found)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_same, found, wanted))
    if isinstance(found, str) and isinstance(wanted, str) and _TIME.fullmatch(found) and _TIME.fullmatch(wanted):
        try:
            return parse_time(found) == parse_time(wanted)
        except ValueError:
            return found == wanted
    return type(found) is type(wanted) and found == wanted


def _texts(value: Json) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
