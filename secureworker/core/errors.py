"""The whole exception tree, split by whose fault it is.

    SecureworkerError
    ├── TaskError               the task's author: the run is resolved, the worker goes on
    │   ├── BadPayload          malformed-payload, with all reasons
    │   └── BadArtifact         an output that may not be published
    ├── ServiceError            a Taskcluster service or the network: later may work
    │   └── AccessDenied        our credentials are refused (401, 403)
    ├── HostError               the operator: the worker claims nothing until the host is in order again
    │   ├── PolicyError         the policy file, with file and line
    │   ├── SettingsError       options, environment, settings, credentials
    │   ├── SandboxError        the runtime, a namespace, a cgroup, a read-back
    │   ├── KeyUnusable         the signing key
    │   ├── AuditError          the audit log: it was changed, or cannot be written
    │   │   └── AuditEnded      ... and will not be written until its signer is started anew
    │   └── SignerLost          the connection to the signer, which there is only one of in a worker's life
    ├── Defect                  this program itself: the run is an internal-error, the worker goes on
    └── Stop                    somebody ends the run early; no fault

Messages say what, why, and what to do. None holds a secret; none that reaches the task log holds a host path.
"""

from enum import Enum


class SecureworkerError(Exception):
    """Every error this program raises on purpose."""


class TaskError(SecureworkerError):
    """The task's author must change something. The message goes into the public task log."""


class BadPayload(TaskError):
    """The task cannot be run as it is written.

    Attributes:
        reasons: a sentence each; all that were found, not the first.
    """

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class BadArtifact(TaskError):
    """An output of the script may not be published.

    Attributes:
        names: the offending outputs' names as far as they can be shown, shortened, escaped.
    """

    def __init__(self, message: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.names = names


class ServiceError(SecureworkerError):
    """A service did not do what was asked, after all retries; it may later."""


class AccessDenied(ServiceError):
    """Our credentials are refused (401 or 403): trying again with the same ones will not help."""


class HostError(SecureworkerError):
    """Something on this host is not as it must be. The worker claims nothing until it is; the operator must act."""


class PolicyError(HostError):
    """The policy cannot be used.

    Attributes:
        problems: one line each, `file:line: key: what was found; what to do`; all that were found.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class SettingsError(HostError):
    """Options, environment variables, settings or credentials of this host cannot be used."""


class SandboxError(HostError):
    """The sandbox could not be made, or is not what was asked for. The script did not run, or was stopped."""


class KeyUnusable(HostError):
    """The signing key is missing, readable by others, or no key."""


class AuditError(HostError):
    """The audit log was changed, or cannot be written. Nothing is signed, and no task is claimed."""


class AuditEnded(AuditError):
    """The audit log takes no more records until its signer is started anew: a worker that goes on is of no use."""


class SignerLost(HostError):
    """The signer is gone, and with it the one connection to it: a worker that goes on is of no use."""


NEED_NEW_START = (AuditEnded, SignerLost)
"""What no waiting mends: the worker ends, so that whoever keeps it running starts it anew."""


class Defect(SecureworkerError):
    """An error nobody thought of met a run. No HostError: a task that finds one must not be able to end the worker."""


class StopReason(Enum):
    """Why a run ends before its script does."""

    CLAIM_LOST = "claim-lost"
    """The claim is not ours any more (409), or could not be renewed in time. Nothing is reported."""
    CANCELED = "canceled"
    """The task was cancelled, or its deadline passed. Nothing is reported."""
    TIME_LIMIT = "time-limit"
    """The script ran longer than its limit."""
    DISK_LIMIT = "disk-limit"
    """The script wrote more than its limit."""
    SHUTDOWN = "worker-shutdown"
    """The worker was asked to end."""


class Stop(SecureworkerError):
    """A guard ends the run. Wins over the errors that ending it causes."""

    def __init__(self, reason: StopReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
