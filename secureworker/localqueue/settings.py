"""What can be set about the embedded Taskcluster. Times are seconds; their defaults are the real services'."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from secureworker.core.claim import Secret

ANONYMOUS_SCOPES = (
    "auth:current-scopes",
    "auth:expand-scopes",
    "queue:get-artifact:public/*",
    "queue:get-task:*",
    "queue:list-artifacts:*",
    "queue:list-dependent-tasks:*",
    "queue:list-task-group:*",
    "queue:list-workers:*",
    "queue:get-worker:*",
    "queue:pending-count:*",
    "queue:status:*",
    "secrets:list-secrets",
)
"""What a freshly deployed Taskcluster gives everyone (role `anonymous`), as far as it concerns what is served here."""


def system_clock() -> datetime:
    """Give the time of this host."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class StaticClient:
    """A client that is configured, not created by request."""

    client_id: str
    access_token: Secret
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Role:
    """What `assume:<role_id>` stands for."""

    role_id: str
    scopes: tuple[str, ...]


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
    clock: Callable[[], datetime] = system_clock
    """UTC, aware. A test's own clock moves claims, deadlines and URLs; only the long poll waits in real time."""
