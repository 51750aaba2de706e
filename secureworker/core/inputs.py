"""What a task wants of other tasks: `payload.upstreamArtifacts`, read strictly. Nothing here is verified yet.

The form is scriptworker's, so that its scripts find what they expect: `[{taskId, taskType, paths, optional?}]`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from secureworker.core.claim import Json
from secureworker.core.ids import ArtifactName, RunId, Sha256, TaskId
from secureworker.core.origin import TraceRule
from secureworker.core.schemas import show

MAX_TASKS: Final = 200
"""Tasks whose artifacts one task may want; each costs five requests to the Queue."""
MAX_PATHS: Final = 10_000
"""Paths in all; releases with a hundred languages have some thousands."""
MAX_PATTERNS: Final = 100
"""Paths with `*`, each of which is held against every artifact of its task."""
MAX_SEGMENT: Final = 255
"""NAME_MAX of every file system in use (limits.h)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Some artifacts of one task."""

    task_id: TaskId
    paths: tuple[str, ...]
    """Names of artifacts; where `optional`, a `*` stands for any characters, slashes included."""
    optional: bool = False
    """What is missing or bad is left out, and the script finds nothing in its place."""


@dataclass(frozen=True, slots=True)
class InputPlan:
    """What a script shall be given of other tasks, and which of it the policy allows."""

    wanted: tuple[Wanted, ...] = ()
    required: bool = False
    """Without any input, the script does not run."""
    worker_pools: tuple[str, ...] = ()
    """Pools that may have made them; a trailing `*` stands for the rest of the name."""
    max_size: int = 0
    """Bytes of all of them together, decoded."""
    forbid_features: tuple[str, ...] = ()
    trace: TraceRule | None = None
    """How they are followed to the tree; None: they are not."""

    def tasks(self) -> tuple[TaskId, ...]:
        """Give each task once."""
        return tuple(dict.fromkeys(wanted.task_id for wanted in self.wanted))


@dataclass(frozen=True, slots=True)
class Input:
    """One artifact that its own task's statement vouches for: what may be fetched, and must have this digest."""

    task_id: TaskId
    run_id: RunId
    name: ArtifactName
    sha256: Sha256
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.task_id}/{self.name}"


@dataclass(frozen=True, slots=True)
class Received:
    """What a script will find of its inputs."""

    inputs: tuple[Input, ...]
    absent: tuple[tuple[Input, str], ...] = ()
    """Optional ones that could not be had, each with the reason."""
    size: int = 0
    """Bytes, decoded."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the bytes of an artifact are: the one address that the Queue, or its Object service, points to."""

    url: str = field(repr=False)
    """Presigned: a secret until it expires. Never logged."""


@dataclass(frozen=True, slots=True)
class NotThere:
    """Why an artifact cannot be had, now and later."""

    why: str


def read_wanted(payload: Mapping[str, Json]) -> tuple[tuple[Wanted, ...], tuple[str, ...]]:
    """Read `upstreamArtifacts`.

    1. It is a list of objects with a task's id, its type, paths, and perhaps whether they are optional. Other keys are
       for the script, and its schema's to judge.
    2. A path is the name of an artifact that a file can have; `*` is in it only where it is optional.
    3. There are no more of any than can be dealt with.

    Returns:
        what is wanted, and everything that is wrong with it.
    """
    listed = payload.get("upstreamArtifacts", [])
    if not isinstance(listed, list):
        return (), (f"payload.upstreamArtifacts: found {show(listed)}; expected a list",)
    wanted: list[Wanted] = []
    problems: list[str] = []
    for index, entry in enumerate(listed):
        try:
            # 1, 2.
            wanted.append(_read_entry(entry))
        except ValueError as error:
            problems.append(f"payload.upstreamArtifacts[{index}]{error}")
    # 3.
    paths = [path for each in wanted for path in each.paths]
    for count, most, what in (
        (len({each.task_id for each in wanted}), MAX_TASKS, "tasks"),
        (len(paths), MAX_PATHS, "paths"),
        (sum("*" in path for path in paths), MAX_PATTERNS, "paths with *"),
    ):
        if count > most:
            problems.append(f"payload.upstreamArtifacts: found {count} {what}; expected at most {most}")
    return tuple(wanted), tuple(problems)


def _read_entry(entry: Json) -> Wanted:
    if not isinstance(entry, dict):
        raise ValueError(f": found {show(entry)}; expected an object")
    optional = entry.get("optional", False)
    if not isinstance(optional, bool):
        raise ValueError(f".optional: found {show(optional)}; expected true or false")
    if not isinstance(entry.get("taskType"), str):
        raise ValueError(f".taskType: found {show(entry.get('taskType'))}; expected a text")
    paths = entry.get("paths")
    if not isinstance(paths, list) or not paths:
        raise ValueError(f".paths: found {show(paths)}; expected a list with a path or more")
    written = entry.get("taskId")
    try:
        task_id = TaskId(written) if isinstance(written, str) else None
    except ValueError:
        task_id = None
    if task_id is None:
        raise ValueError(f".taskId: found {show(written)}; expected a task id, 22 characters")
    return Wanted(task_id, tuple(_read_paths(paths, optional=optional)), optional)


def _read_paths(paths: list[Json], *, optional: bool) -> Iterator[str]:
    for index, path in enumerate(paths):
        why = "expected a text" if not isinstance(path, str) else why_no_file(path)
        if isinstance(path, str) and not why and "*" in path and not optional:
            why = "* is for optional paths only: write the names out"
        if not isinstance(path, str) or why:
            raise ValueError(f".paths[{index}]: found {show(path)}; {why}")
        yield path


def why_no_file(name: str) -> str:
    """Say why no file could have the name of an artifact, below a directory of its task; nothing where one could."""
    try:
        ArtifactName(name)
    except ValueError:
        return "expected an artifact's name: relative, printable, without empty segments, '.' and '..'"
    if max(map(len, name.split("/"))) > MAX_SEGMENT:
        return f"no file's name has more than {MAX_SEGMENT} characters"
    return ""


def fits(pattern: str, name: str) -> bool:
    """Whether `name` is `pattern`, with any characters for each `*`. In linear time: neither is ours."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    last = rest.pop()
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in rest:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
