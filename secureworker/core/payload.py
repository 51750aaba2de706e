"""A task's payload against what every script has in common, and against the schema of the one that was chosen."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from secureworker.core.claim import Json
from secureworker.core.inputs import Wanted, read_wanted
from secureworker.core.schemas import CompiledSchema, Problem, show, spell

BASE_KEYS: Final = ("maxRunTime", "upstreamArtifacts")
"""Keys that mean the same for every script. A script's own schema may leave them out, and may say more about them."""
_LONGEST_SECONDS: Final = 10 * 365 * 86400
"""More is not a time but an attempt to overflow one."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a payload asks of the worker itself."""

    run_time: timedelta | None
    """`maxRunTime`; None where the task leaves it to the rule."""
    wanted: tuple[Wanted, ...] = ()
    """`upstreamArtifacts`."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """What is wrong with a payload."""

    problems: tuple[str, ...]
    """`payload.<path>: found ...; expected ...`, each."""


def _line(problem: Problem) -> str:
    return f"{spell(('payload', *problem.path))}: {problem.message}"


def _run_time(payload: Mapping[str, Json]) -> timedelta | None:
    """Read `maxRunTime`; raise ValueError where it is no whole number of seconds from 1."""
    seconds = payload.get("maxRunTime")
    if "maxRunTime" not in payload:
        return None
    # JSON schema would let 60.0 pass as a whole number, and Python True as 1.
    if type(seconds) is not int or not 0 < seconds <= _LONGEST_SECONDS:
        raise ValueError(f"payload.maxRunTime: found {show(seconds)}; expected a whole number of seconds, 1 or more")
    return timedelta(seconds=seconds)


def examine(payload: Mapping[str, Json], schema: CompiledSchema) -> Request | Malformed:
    """Hold a payload against the base rules and a script's schema, and collect everything that is wrong.

    The payload's depth has been checked: nothing here is called for a document that `schemas.too_much` refuses.
    """
    problems: list[str] = []
    run_time: timedelta | None = None
    # 1. maxRunTime, if there, is a positive whole number of seconds.
    try:
        run_time = _run_time(payload)
    except ValueError as error:
        problems.append(str(error))
    # 2. upstreamArtifacts, if there, has the form that all scripts' inputs have.
    wanted, wrong = read_wanted(payload)
    problems.extend(wrong)
    # 3. The rest is as the script's schema says. The common keys are shown to it where it speaks of them.
    named = schema.keys_at(())
    rest: Json = {key: value for key, value in payload.items() if key not in BASE_KEYS or key in named}
    problems.extend(line for line in map(_line, schema.problems(rest)) if line not in problems)
    return Malformed(tuple(problems)) if problems else Request(run_time, wanted)
