"""How a run ended, and the one total function that says how it is resolved at the Queue."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TypeAlias, assert_never

from secureworker.core.doors import Traffic
from secureworker.core.errors import BadPayload, SecureworkerError, ServiceError, StopReason, TaskError
from secureworker.core.ids import Sha256


class Resolution(Enum):
    """What is reported to the Queue; values beyond the first two are reasons of `reportException`."""

    COMPLETED = "completed"
    FAILED = "failed"
    MALFORMED_PAYLOAD = "malformed-payload"
    RESOURCE_UNAVAILABLE = "resource-unavailable"
    INTERNAL_ERROR = "internal-error"
    INTERMITTENT_TASK = "intermittent-task"
    WORKER_SHUTDOWN = "worker-shutdown"
    NOT_OURS = "not-ours"
    """Nothing is reported: the run was cancelled, or its claim is lost."""


STANDARD_EXIT_CODES: tuple[tuple[int, Resolution], ...] = (
    (0, Resolution.COMPLETED),
    (3, Resolution.MALFORMED_PAYLOAD),
    (4, Resolution.RESOURCE_UNAVAILABLE),
    (5, Resolution.INTERNAL_ERROR),
    (7, Resolution.INTERMITTENT_TASK),
    (241, Resolution.INTERMITTENT_TASK),
    (245, Resolution.INTERMITTENT_TASK),
)
"""scriptworker's, but 2: every usage error of argparse and bash is 2 too, so here it fails unless a rule maps it."""


@dataclass(frozen=True, slots=True)
class ExitCodes:
    """A script's exit codes and what they mean; those not listed mean `failed`."""

    overrides: tuple[tuple[int, Resolution], ...] = ()

    def resolution(self, code: int) -> Resolution:
        """Look `code` up, the rule's own entries first."""
        return dict(STANDARD_EXIT_CODES + self.overrides).get(code, Resolution.FAILED)


@dataclass(frozen=True, slots=True)
class ExitCode:
    """The script ended by itself."""

    code: int


@dataclass(frozen=True, slots=True)
class KilledBySignal:
    """A signal ended the script, whoever sent it."""

    signal: int
    out_of_memory: bool = False
    """The kernel killed the run's cgroup at its memory limit."""


ExitStatus: TypeAlias = ExitCode | KilledBySignal


@dataclass(frozen=True, slots=True)
class Usage:
    """What the run's cgroup counted; None where the host's cgroup version does not count it."""

    cpu_seconds: float | None = None
    memory_peak_bytes: int | None = None
    processes_peak: int | None = None


@dataclass(frozen=True, slots=True)
class Execution:
    """A script that was started and has ended, with every process it left dead and reaped."""

    status: ExitStatus
    started: datetime
    finished: datetime
    usage: Usage
    runtime: str
    """Name and version of the OCI runtime: `runc 1.1.5`."""
    template_sha256: Sha256
    """Of the bundle's config with per-task paths replaced: equal between tasks of a rule on one host."""
    bundle_sha256: Sha256
    """Of the bundle's config as it was given to the runtime."""
    traffic: tuple[Traffic, ...] = ()
    """What went through the run's doors, by destination."""
    unlimited: bool = False
    """Nothing but its time was limited, as the policy allows."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The script ended, and its outputs are published."""

    execution: Execution
    exit_codes: ExitCodes = field(default_factory=ExitCodes)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a task is refused: the rule's key in the policy, and a sentence with the offending value and what to do."""

    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.message}" if self.rule else self.message


@dataclass(frozen=True, slots=True)
class Refused:
    """The policy does not admit the task. All reasons, not the first."""

    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Stopped:
    """A guard ended the run."""

    reason: StopReason
    detail: str
    started: bool
    """Whether the script had been started."""
    repeatable: bool = True


@dataclass(frozen=True, slots=True)
class Errored:
    """Something broke on the way."""

    error: SecureworkerError
    started: bool
    repeatable: bool = True


Outcome: TypeAlias = Exited | Refused | Stopped | Errored


def _resolve_stop(outcome: Stopped) -> Resolution:
    match outcome.reason:
        case StopReason.CLAIM_LOST | StopReason.CANCELED:
            return Resolution.NOT_OURS
        case StopReason.TIME_LIMIT | StopReason.DISK_LIMIT:
            return Resolution.FAILED
        case StopReason.SHUTDOWN:
            # The Queue reruns worker-shutdown, and not internal-error: a script whose effects must not be repeated
            # is not started again once it has been.
            interrupted_for_good = outcome.started and not outcome.repeatable
            return Resolution.INTERNAL_ERROR if interrupted_for_good else Resolution.WORKER_SHUTDOWN
        case _:
            assert_never(outcome.reason)


def _resolve_error(outcome: Errored) -> Resolution:
    match outcome.error:
        case BadPayload():
            return Resolution.MALFORMED_PAYLOAD
        case TaskError():
            return Resolution.FAILED
        case ServiceError():
            return Resolution.INTERNAL_ERROR if outcome.started else Resolution.RESOURCE_UNAVAILABLE
        case _:
            return Resolution.INTERNAL_ERROR


def resolve(outcome: Outcome) -> Resolution:
    """Say how a run is resolved. Total: every outcome has exactly one resolution, and no other code knows them."""
    match outcome:
        case Exited():
            status = outcome.execution.status
            if isinstance(status, KilledBySignal):
                return Resolution.FAILED
            return outcome.exit_codes.resolution(status.code)
        case Refused():
            return Resolution.MALFORMED_PAYLOAD
        case Stopped():
            return _resolve_stop(outcome)
        case Errored():
            return _resolve_error(outcome)
        case _:
            assert_never(outcome)
