"""How much a script may use and publish, and for how long: limits, artifacts, exit codes, shutdown."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from secureworker.core.outcome import ExitCodes, Resolution
from secureworker.core.plan import Limits, OutputRules
from secureworker.core.policy import TaskConstraints
from secureworker.core.schemas import Path
from secureworker.policyfile.draft import Draft
from secureworker.policyfile.quantities import parse_duration, parse_size, spell_duration

DEFAULT_RUN_TIME: Final = "30m"
DEFAULT_LIMITS: Final[Mapping[str, Any]] = {
    "memory": "2GiB",
    "processes": 256,
    "cpus": 1,
    "disk": "10GiB",
    "files": 100_000,
    "log": "64MiB",
    "open-files": 1024,
}
_DEFAULT_ARTIFACTS: Final[Mapping[str, Any]] = {
    "max-size": "4GiB",
    "max-total": "16GiB",
    "max-count": 500,
    "expires": None,
    "content-types": {},
    "on-failure": "publish",
}
_ANY_LIMITS: Final = Limits(timedelta(minutes=1), 2**30, 2, 1, 2**30, 1000, 2**20, 64)
"""Stands in where the policy's own are wrong; no policy comes of it."""


def read_limits(draft: Draft, at: Path, constraints: TaskConstraints) -> tuple[Limits, bool]:
    """Read a script's limits: its own, else those of `defaults`, else the program's.

    Returns:
        the limits, and whether the script goes without any but the run time.
    """
    unlimited = draft.get(at, {}) == "none"
    run_time = _run_time(draft, at, constraints)
    values = {
        key: draft.first(((*at, key), ("defaults", "limits", key)), value) for key, value in DEFAULT_LIMITS.items()
    }
    try:
        limits = Limits(
            run_time=run_time,
            memory_bytes=parse_size(values["memory"]),
            processes=values["processes"],
            cpus=float(values["cpus"]),
            disk_bytes=parse_size(values["disk"]),
            files=values["files"],
            log_bytes=parse_size(values["log"]),
            open_files=values["open-files"],
        )
    except ValueError as error:
        draft.complain(at, str(error))
        return _ANY_LIMITS, unlimited
    return limits, unlimited


def _run_time(draft: Draft, at: Path, constraints: TaskConstraints) -> timedelta:
    longest = constraints.max_run_time
    for path in ((*at, "run-time"), ("defaults", "limits", "run-time")):
        if draft.has(path):
            span = parse_duration(draft.get(path, DEFAULT_RUN_TIME))
            if span > longest:
                expected = f"expected at most tasks.max-run-time, {spell_duration(longest)}"
                draft.complain(path, f"found {spell_duration(span)}; {expected}")
            return span
    return min(parse_duration(DEFAULT_RUN_TIME), longest)


def read_outputs(draft: Draft, at: Path) -> OutputRules:
    """Read which files of a script are published."""

    def get(key: str) -> Any:
        return draft.first(((*at, key), ("defaults", "artifacts", key)), _DEFAULT_ARTIFACTS[key])

    patterns: list[str] = draft.get((*at, "allow"), [])
    for index, pattern in enumerate(patterns):
        if any(segment in {"", ".", ".."} for segment in pattern.split("/")):
            draft.complain(
                (*at, "allow", index), f"found {pattern!r}; expected a pattern without empty segments, '.' and '..'"
            )
    expires: str | None = get("expires")
    rules = OutputRules(
        allow=tuple(patterns),
        max_size=parse_size(get("max-size")),
        max_total=parse_size(get("max-total")),
        max_count=get("max-count"),
        expires=None if expires is None else parse_duration(expires),
        content_types=tuple(sorted(get("content-types").items())),
        on_failure=get("on-failure") == "publish",
    )
    if draft.has((*at, "max-size")) and rules.max_size > rules.max_total:
        draft.complain((*at, "max-size"), "one artifact may be larger than all together (max-total); raise that")
    return rules


def read_exit_codes(draft: Draft, at: Path) -> ExitCodes:
    """Read what exit codes mean; a script's own win over those of `defaults`."""
    codes = {**draft.get(("defaults", "exit-codes"), {}), **draft.get(at, {})}
    return ExitCodes(tuple(sorted((int(code), Resolution(meaning)) for code, meaning in codes.items())))


def read_grace(draft: Draft, at: Path) -> timedelta:
    """Read the time between TERM and KILL."""
    return parse_duration(draft.first(((*at, "grace"), ("defaults", "on-shutdown", "grace")), "10s"))
