"""The reviewed policy as frozen values. Built only by `policyfile`, which has checked every line of it.

Paths are absolute. What a script is shown and given is in `ScriptRule`; what is decided with it, in `decide`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from secureworker.core.claim import Json
from secureworker.core.ids import ScriptName, Sha256, WorkerPool
from secureworker.core.outcome import ExitCodes
from secureworker.core.plan import Limits, Mount, OutputRules, PinnedFile
from secureworker.core.schemas import CompiledSchema


@dataclass(frozen=True, slots=True)
class Always:
    """The only script of its policy: every admitted task runs it."""


@dataclass(frozen=True, slots=True)
class ScopeEquals:
    """Exactly one of the task's scopes begins with `prefix`, and its rest is `equals`."""

    prefix: str
    equals: str


When: TypeAlias = Always | ScopeEquals


@dataclass(frozen=True, slots=True)
class TaskConstraints:
    """What every task must satisfy before a script is chosen."""

    scheduler_ids: tuple[str, ...]
    project_ids: tuple[str, ...]
    scopes_allow: tuple[str, ...]
    """Scope patterns in Taskcluster's sense (`*` suffix). A task scope that none satisfies is a refusal."""
    scopes_forbid: tuple[str, ...]
    """Wins over `scopes_allow`: a task scope that overlaps one of these is a refusal."""
    max_run_time: timedelta


@dataclass(frozen=True, slots=True)
class ScriptRule:
    """One allowlisted script, and all that it gets."""

    name: ScriptName
    description: str
    when: When
    command: tuple[str, ...]
    pinned: tuple[PinnedFile, ...]
    payload_schema: CompiledSchema
    """`payload_schema.document` is the schema as it was written."""
    requires_scopes: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    config: Mapping[str, Json] | None
    limits: Limits
    mounts: tuple[Mount, ...]
    outputs: OutputRules
    exit_codes: ExitCodes
    repeatable: bool
    grace: timedelta


@dataclass(frozen=True, slots=True)
class Policy:
    """The whole file."""

    sha256: Sha256
    """Of the file's bytes: in every decision, statement and log header."""
    root_url: str
    worker_pool: WorkerPool
    tasks: TaskConstraints
    scripts: tuple[ScriptRule, ...]
