"""The reviewed policy as frozen values. Built only by `policyfile`, which has checked every line of it.

Paths are absolute. What a script is shown and given is in `ScriptRule`; what is decided with it, in `decide`.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from secureworker.core.doors import Destination
from secureworker.core.ids import ScriptName, Sha256, WorkerPool
from secureworker.core.origin import TraceRule
from secureworker.core.outcome import ExitCodes
from secureworker.core.paths import Route
from secureworker.core.plan import Limits, Mount, OutputRules, PinnedFile
from secureworker.core.privileges import ExtraScope
from secureworker.core.schemas import CompiledSchema
from secureworker.core.secrets import SecretSource, parse_source
from secureworker.core.templates import Template
from secureworker.core.trust import TrustPool


@dataclass(frozen=True, slots=True)
class Always:
    """The only script of its policy: every admitted task runs it."""


@dataclass(frozen=True, slots=True)
class ScopeEquals:
    """Exactly one of the task's scopes begins with `prefix`, and its rest is `equals`."""

    prefix: str
    equals: str


@dataclass(frozen=True, slots=True)
class PayloadEquals:
    """The payload's key `field` is the text `equals`."""

    field: str
    equals: str


When: TypeAlias = Always | ScopeEquals | PayloadEquals


@dataclass(frozen=True, slots=True)
class Source:
    """A repository that tasks may come from, compared part by part with `task.metadata.source`."""

    scheme: str
    host: str
    """With its port where that is not the scheme's own."""
    owner: str
    """Empty on hosts whose repositories have none."""
    repository: str

    def __str__(self) -> str:
        return "/".join(part for part in (f"{self.scheme}:/", self.host, self.owner, self.repository) if part)


@dataclass(frozen=True, slots=True)
class DenyRule:
    """Tasks that are refused whatever else is said: those that fulfil every condition here. At least one is given."""

    reason: str
    """For the task's author."""
    scopes: tuple[str, ...]
    """A task scope overlaps one of these."""
    scheduler_ids: tuple[str, ...]
    project_ids: tuple[str, ...]
    definition: CompiledSchema | None
    """The whole definition is as this schema says."""


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
    sources: tuple[Source, ...] = ()
    """Empty: tasks may come from anywhere."""
    definition: CompiledSchema | None = None
    deny: tuple[DenyRule, ...] = ()


@dataclass(frozen=True, slots=True)
class SecretRule:
    """A file with a secret of the host, for one script's runs."""

    file: str
    """Its name in the sandbox."""
    source: str
    """`credential:<name>`, `file:<absolute path>` or `taskcluster:<name>#<key>`: never the secret itself."""

    def __post_init__(self) -> None:
        parse_source(self.source)

    @property
    def place(self) -> SecretSource:
        """Give the source in its parts."""
        return parse_source(self.source)


@dataclass(frozen=True, slots=True)
class TaskclusterRule:
    """What a script may do at Taskcluster, by the worker's proxy."""

    routes: tuple[Route, ...] = ()
    scopes: tuple[str, ...] = ()
    """Granted as far as the task's own scopes satisfy them."""


@dataclass(frozen=True, slots=True)
class UpstreamRule:
    """Which inputs a script may have."""

    required: bool
    worker_pools: tuple[str, ...]
    """Pools that may have made them; a trailing `*` stands for the rest of the name."""
    max_size: int
    forbid_features: tuple[str, ...]
    """Payload features that a task may not have used whose outputs are inputs here."""
    trace: TraceRule | None = None
    """How inputs are followed to the tree; None: they are not."""


@dataclass(frozen=True, slots=True)
class ScriptRule:
    """One allowlisted script, and all that it gets."""

    name: ScriptName
    description: str
    when: When
    command: tuple[Template, ...]
    """The first is fixed, and an absolute path. Each gives a text, a list of texts, or nothing."""
    pinned: tuple[PinnedFile, ...]
    payload_schema: CompiledSchema
    """`payload_schema.document` is the schema as it was written."""
    requires_scopes: tuple[Template, ...]
    """Each gives a scope, a list of them, or nothing."""
    environment: tuple[tuple[str, str], ...]
    config: Template | None
    """Gives an object."""
    limits: Limits
    mounts: tuple[Mount, ...]
    outputs: OutputRules
    exit_codes: ExitCodes
    repeatable: bool
    grace: timedelta
    exclusive: bool = False
    """Whether its runs are alone on their worker."""
    live_log: bool = False
    """Whether its runs' logs may be read while they are written."""
    secrets: tuple[SecretRule, ...] = ()
    network: tuple[Destination, ...] = ()
    taskcluster: TaskclusterRule = TaskclusterRule()
    upstream: UpstreamRule | None = None
    """None: a payload with `upstreamArtifacts` is refused."""
    unlimited: bool = False
    """`limits: none`: for hosts that cannot limit. `limits` then bounds the run time only."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The whole file."""

    sha256: Sha256
    """Of the file's bytes: in every decision, statement and log header."""
    root_url: str
    worker_pool: WorkerPool
    tasks: TaskConstraints
    scripts: tuple[ScriptRule, ...]
    trust: tuple[TrustPool, ...] = ()
    """Whose outputs may be inputs: as it stands here, or as the trust file says that is named here."""
    trust_file: PinnedFile | None = None
    """Where `trust` is from, with the digest of what was read; None: from the policy itself. Where it is not among
    `files`, it is of another host, and was not read."""
    worker_scopes: tuple[ExtraScope, ...] = ()
    """What the worker's own credentials must be able to do beside claiming; more they must not."""
    max_capacity: int = 1
    """How many tasks a worker may run at once."""
    files: tuple[PinnedFile, ...] = ()
    """What the policy refers to, schemas and the trust file: by path, with the digest of what was read."""
