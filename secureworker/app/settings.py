"""What an operator sets beside the policy, and the policy as a worker takes it."""

from dataclasses import dataclass, field
from typing import Final

from secureworker.artifacts.store import Storage
from secureworker.core.errors import PolicyError, SettingsError
from secureworker.core.ids import WorkerIdentity
from secureworker.core.policy import Policy
from secureworker.livelog.settings import LiveLogSettings
from secureworker.operation.around import OperationSettings
from secureworker.operation.view_open import NOT_SHOWN, Places
from secureworker.policyfile import load, unenforceable
from secureworker.policyfile.manifest import manifest, read_signature
from secureworker.registration.source import Source
from secureworker.signing.policies import MAX_BYTES, check_policy
from secureworker.signing.publickeys import read_public_key

DEFAULT_DRAIN_SECONDS: Final = 60.0
AUDIT_LOG: Final = "audit"
"""Below the state directory: the audit log, which is the signer's."""
LOGS: Final = "logs"
"""Below the state directory: the logs of runs, until they are uploaded."""
MEMORY: Final = "secrets"
"""Below the state directory: a file system in memory, for the secrets of scripts while they run."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator sets beside the policy."""

    identity: WorkerIdentity
    credentials: Source
    """Where the worker's own credentials come from, now and later."""
    key: str | None
    """URI of the signing key, for a signer of our own; None where `signer` names one that has it."""
    state_dir: str
    """The worker's own directory; made where it is missing."""
    runtime: str | None = None
    storage: Storage = Storage.S3
    drain_seconds: float = DEFAULT_DRAIN_SECONDS
    capacity: int = 1
    """How many tasks are run at once; no more than the policy allows."""
    tasks: int | None = None
    """End after this many tasks."""
    idle_seconds: float | None = None
    """End when there was no task for so long; None: never."""
    out_of_reach: tuple[str, ...] = ()
    """Files that the self-test shows a script cannot get at, beside the key."""
    credentials_directory: str | None = None
    """Of systemd, where it has given us any."""
    signer: str | None = None
    """`unix:/path`: where a signer listens that somebody else has started."""
    signer_user: str | None = None
    """Whom a signer of our own becomes, where we are root; None: an id that is nobody's."""
    retired_keys: tuple[str, ...] = ()
    """Public keys, or files that hold them, under which the audit log was begun."""
    audit_log: str | None = None
    """The directory of the audit log of a signer of our own; None: below the state directory."""
    log_format: str = "human"
    status: Places = NOT_SHOWN
    """Where it is shown what this worker does."""
    live_logs: LiveLogSettings | None = None
    """Where logs are shown while they are written, for scripts whose rules say so."""
    disk_per_run: int | None = None
    """Bytes that must be free for each run before it is claimed; None: what the policy lets scripts use."""
    memory_per_run: int | None = None
    """The same, of memory."""
    operation: OperationSettings = field(default_factory=OperationSettings)
    """How the worker is shown to who operates it."""


def load_policy(path: str, root_url: str | None, policy_key: str | None = None, capacity: int = 1) -> Policy:
    """Read the policy, and hold an operator's ideas of the root URL and the capacity against it.

    Args:
        path: the policy file.
        root_url: what the operator takes for the Taskcluster.
        policy_key: file with the reviewers' public key; only a policy that they signed is taken then.
        capacity: how many tasks are to be run at once.

    Raises:
        PolicyError: the policy cannot be used, is not signed, or has rules that nothing would enforce.
        SettingsError: it is for another Taskcluster, or allows fewer tasks at once; or the key is none.
    """
    policy = load(path)
    if policy_key is not None:
        try:
            reviewers = read_public_key(policy_key)
        except ValueError as error:
            raise SettingsError(f"the policy key cannot be used: {error}") from error
        check_policy(path, read_signature(path, MAX_BYTES), manifest(path, policy), reviewers)
    missing = unenforceable(policy)
    if missing:
        raise PolicyError(tuple(f"{path}: {line}" for line in missing))
    if root_url is not None and root_url.rstrip("/") != policy.root_url.rstrip("/"):
        raise SettingsError(
            f"the root URL is set to {root_url}, and {path} is a policy for {policy.root_url}; correct one of them"
        )
    if capacity > policy.max_capacity:
        raise SettingsError(
            f"the capacity is set to {capacity}, and {path} allows {policy.max_capacity} at once; set a lower one, or "
            "have max-capacity in the policy reviewed"
        )
    return policy
