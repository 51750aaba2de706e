"""What can be set about the embedded Taskcluster. Times are seconds; their defaults are the real services'."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from secureworker.core.claim import Secret
from secureworker.localqueue.journal import Keep

ANONYMOUS_SCOPES = (
    "auth:current-scopes",
    "auth:expand-scopes",
    "auth:get-client:*",
    "auth:get-role:*",
    "auth:list-clients",
    "auth:list-roles",
    "github:get-badge:*",
    "github:get-repository:*",
    "github:latest-status:*",
    "github:list-builds",
    "hooks:get:*",
    "hooks:list-hooks:*",
    "hooks:list-last-fires:*",
    "hooks:status:*",
    "index:find-task:*",
    "index:list-namespaces:*",
    "index:list-tasks:*",
    "purge-cache:all-purge-requests",
    "purge-cache:purge-requests:*",
    "queue:get-artifact:public/*",
    "queue:get-provisioner:*",
    "queue:get-task:*",
    "queue:get-worker-type:*",
    "queue:get-worker:*",
    "queue:list-artifacts:*",
    "queue:list-dependent-tasks:*",
    "queue:list-provisioners",
    "queue:list-task-group:*",
    "queue:list-worker-types:*",
    "queue:list-workers:*",
    "queue:pending-count:*",
    "queue:status:*",
    "secrets:list-secrets",
    "worker-manager:get-worker-pool:*",
    "worker-manager:get-worker:*",
    "worker-manager:list-providers",
    "worker-manager:list-worker-pool-errors:*",
    "worker-manager:list-worker-pools",
    "worker-manager:list-workers:*",
)
"""What a freshly deployed Taskcluster gives everyone (the role `anonymous`), for services not served here too."""


def system_clock() -> datetime:
    """Give the time of this host."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class StaticClient:
    """A client that is configured, not created by request."""

    client_id: str
    access_token: Secret
    scopes: tuple[str, ...]


PARAMETER: Final = "<..>"


@dataclass(frozen=True, slots=True)
class Role:
    """What `assume:<role_id>` stands for."""

    role_id: str
    """With a `*` at its end, it is the role of all whose names begin so."""
    scopes: tuple[str, ...]
    """In those of such a role, `<..>` is the rest of the name."""

    def __post_init__(self) -> None:
        """Refuse what Auth refuses too.

        Raises:
            ValueError: a scope has two parameters, or one behind a `*`, which would be no `*` any more or two of them.
        """
        for scope in self.scopes if self.role_id.endswith("*") else ():
            if scope.count(PARAMETER) > 1 or scope.endswith(f"*{PARAMETER}"):
                raise ValueError(f"the role {self.role_id} has the scope {scope}, in which {PARAMETER} is ambiguous")


@dataclass(frozen=True, slots=True)
class StaticWorker:
    """A worker that worker-manager knows, and that proves itself by a secret."""

    worker_group: str
    worker_id: str
    secret: Secret
    """44 letters, digits, `-` and `_`."""


@dataclass(frozen=True, slots=True)
class StaticPool:
    """A worker pool of a static provider, which starts no workers by itself."""

    worker_pool: str
    workers: tuple[StaticWorker, ...]
    provider_id: str = "static"
    worker_config: str = "{}"
    """JSON; given to every worker that registers."""
    reregistration_timeout: float = 96 * 3600.0
    """How long the credentials are good that a worker gets."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set."""

    clients: tuple[StaticClient, ...]
    host: str = "127.0.0.1"
    port: int = 0
    """0 takes a free one."""
    data: str | None = None
    """Directory that everything is kept in; None keeps it in memory and temporary files, gone when the server ends."""
    claim_timeout: float = 1200.0
    """How long a claim holds, from claimWork or reclaimTask on."""
    long_poll: float = 20.0
    """How long claimWork waits for a task."""
    hint_interval: float = 1.0
    """How long a waiting claimWork sleeps between looks. 0 wakes it when a task becomes pending."""
    claim_resolver_interval: float = 5.0
    """How often expired claims are looked for."""
    deadline_delay: float = 60.0
    """How long after its deadline a task is resolved."""
    deadline_resolver_interval: float = 5.0
    """How often passed deadlines are looked for."""
    dependency_resolver_interval: float = 5.0
    """How often satisfied dependencies are looked for."""
    certificate_drift: float = 300.0
    """By how much a certificate may be used before its start and after its expiry."""
    hawk_skew: float = 900.0
    """By how much the timestamp of a request may be off."""
    late_artifacts: float = 1500.0
    """How long after a run became `exception` artifacts may be created for it."""
    put_url_lifetime: float = 2700.0
    """How long an upload URL is good."""
    get_url_lifetime: float = 1800.0
    """How long a download URL of a private artifact is good."""
    max_body_bytes: int = 10_000_000
    """Of a request to an API; uploads are not limited."""
    roles: tuple[Role, ...] = (Role("anonymous", ANONYMOUS_SCOPES),)
    """The role `anonymous` is everybody's, without credentials too."""
    worker_pools: tuple[StaticPool, ...] = ()
    """What worker-manager knows. The Queue serves any pool, known or not."""
    journal: Keep | None = None
    """Told every change of a run or an artifact, as it happens; None: nobody is."""
    clock: Callable[[], datetime] = system_clock
    """UTC, aware. A test's own clock moves claims, deadlines and URLs; only the long poll waits in real time."""
