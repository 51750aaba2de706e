"""Whether a task is what a task graph, or a repository, makes of it: key by key, less what neither can know.

Every exception is listed here with its reason. All that is not listed is compared.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from secureworker.core.claim import MAX_NESTING, Json, nesting, parse_time
from secureworker.core.ids import TaskId

_QUEUE_DEFAULTS: Final[Mapping[str, Json]] = {
    "dependencies": [],
    "extra": {},
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
_ANY_TIME: Final[dict[str, Json]] = {"relative-datestamp": ""}
"""In the place of a time that the graph says nothing of."""
_NOTICES: Final = frozenset({"statuses", "checks"})
"""Routes that the GitHub service adds to hear of its tasks (`tc-yaml.js`); they cause nothing else."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z")
_SPAN = re.compile(r"([0-9]{1,9}) ?([a-z]{1,7})")
_SECONDS: Final[Mapping[str, int]] = {
    unit: seconds
    for units, seconds in (
        (("s", "second", "seconds"), 1),
        (("min", "minute", "minutes"), 60),
        (("h", "hour", "hours"), 3600),
        (("d", "day", "days"), 86400),
        (("mo", "month", "months"), 30 * 86400),
        (("y", "year", "years"), 365 * 86400),
    )
    for unit in units
}
"""Units of a `relative-datestamp` (taskgraph 24, `util/time.py`): months have 30 days, and years 365."""
_MILLISECOND: Final = timedelta(milliseconds=1)
_WITHOUT_EFFECT: Final = frozenset({"priority"})
"""What the Queue lets others change after a task was created (`changeTaskPriority`, v1), and no worker looks at."""


def differences_of_entry(
    found: Mapping[str, Json], entry: Mapping[str, Json], decision: TaskId, scheduler_id: Json
) -> tuple[str, ...]:
    """Say which keys of a definition are not as its entry in a task graph says.

    What taskgraph writes into `task-graph.json` is the definition before it makes the task, and this is all that is
    done to it then (`create.py`; held against taskgraph 24.5.1 in tests/core/test_likeness.py):

    - every `{"relative-datestamp": ...}` becomes `created` and as much more; only `created` itself can be any time.
    - `dependencies`: those of the definition, with or without the decision task itself.
    - `taskGroupId`, `schedulerId`: the decision task's. The Queue has one scheduler for all tasks of a group.

    Besides, what the Queue does: it completes its own defaults and the two spellings of the pool, and lets others
    change the `priority`.
    """
    task = entry.get("task")
    assert isinstance(task, dict)
    filled: dict[str, Json] = {"schedulerId": scheduler_id, **task, "taskGroupId": str(decision)}
    for key in _TIMES:
        filled.setdefault(key, _ANY_TIME)
    named = entry.get("dependencies")
    # By name they are here too, for graphs whose definitions do not have them.
    due = set(_texts(task.get("dependencies", list(named.values()) if isinstance(named, dict) else named)))
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
    - `schedulerId` is that of the GitHub service, unless the repository says another.
    - what else is not there is what the Queue completes; and others may change the `priority`.

    The service fills in `created` too. A repository must write it all the same (`$fromNow: ''`): the service's own is
    some milliseconds after the moment that all other times are counted from.
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
    created = _moment(one.get("created"))
    wrong = [] if _pool(one) == _pool(other) else ["taskQueueId"]
    keys = sorted({*one, *other}.difference(_POOL_KEYS, _WITHOUT_EFFECT))
    return (
        *wrong,
        *(key for key in keys if not (key in one and key in other and _same(one[key], other[key], created))),
    )


def _pool(definition: Mapping[str, Json]) -> Json:
    parts = [definition.get(key) for key in _POOL_KEYS]
    return parts[0] if parts[0] is not None else f"{parts[1]}/{parts[2]}"


def _same(found: Json, wanted: Json, created: datetime | None) -> bool:
    """Whether values are equal: of one kind, times as moments, and the time that a relative one becomes."""
    if isinstance(wanted, dict) and wanted.keys() == {"relative-datestamp"}:
        return _is_due(found, wanted, created)
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(_same(found[key], wanted[key], created) for key in found)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(
            _same(one, other, created) for one, other in zip(found, wanted, strict=True)
        )
    if isinstance(found, str) and isinstance(wanted, str) and _TIME.fullmatch(found) and _TIME.fullmatch(wanted):
        one, other = _moment(found), _moment(wanted)
        return found == wanted if one is None or other is None else one == other
    # JSON has one kind of number, and the Queue writes 1.0 as 1; Python would also take True for 1.
    return isinstance(found, bool) is isinstance(wanted, bool) and found == wanted


def _is_due(found: Json, wanted: Mapping[str, Json], created: datetime | None) -> bool:
    """Whether a time is the one that a `relative-datestamp` becomes where it is counted from `created`."""
    moment = _moment(found)
    if moment is None or created is None or wanted == _ANY_TIME:
        return moment is not None
    span = wanted["relative-datestamp"]
    written = _SPAN.fullmatch(span) if isinstance(span, str) else None
    if written is None or written[2] not in _SECONDS:
        return False
    try:
        due = created + timedelta(seconds=int(written[1]) * _SECONDS[written[2]])
    except OverflowError:
        return False
    # Both were cut to milliseconds, of one moment; who rounds them instead may be one off.
    return abs(moment - due) <= _MILLISECOND


def _moment(value: Json) -> datetime | None:
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        return None
    try:
        return parse_time(value)
    except ValueError:
        return None


def _texts(value: Json) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
