"""What happens to a worker, as values: what it tells whoever watches it. Nothing is decided by them.

The audit log is for what must be provable; this is for what an operator wants to see now, and may be lost.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import TypeAlias

from secureworker.core.ids import RunId, Sha256, TaskId, WorkerIdentity
from secureworker.core.outcome import Execution, Outcome, Reason, Resolution


class Phase(Enum):
    """The steps of a run, in order."""

    CLAIMED = "claimed"
    DECIDING = "deciding"
    VERIFYING = "verifying"
    WAITING = "waiting"
    """For its turn: beside a run of an exclusive script there is no other."""
    PREPARING = "preparing"
    FETCHING = "fetching"
    CONFIRMING = "confirming"
    RUNNING = "running"
    SEALING = "sealing"
    SIGNING = "signing"
    UPLOADING = "uploading"
    CONCLUDING = "concluding"
    REPORTING = "reporting"
    ENDED = "ended"


class State(Enum):
    """What the worker as a whole is at."""

    STARTING = "starting"
    CLAIMING = "claiming"
    """It asks for tasks, whatever else it runs meanwhile."""
    FULL = "full"
    """It runs as many tasks as it may."""
    HINDERED = "hindered"
    """It claims nothing, because something on its host or about its credentials is not in order."""
    UNANSWERED = "unanswered"
    """The Queue does not answer as it should; it is asked again."""
    DRAINING = "draining"
    """It claims no more, and runs end."""
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Why no task can be claimed now."""

    what: str
    """One word of `HINDRANCES`, for metrics."""
    why: str
    """A sentence for the operator: what is found, and what to do."""
    ends_by_beginning_anew: bool = False
    """Whether the worker mends it by making all checks again, as at its start; else somebody has to do something."""


HINDRANCES = (
    *("disk", "inodes", "memory", "clock", "runtime", "cgroup", "host"),
    *("signer", "audit", "credentials", "quarantine"),
)
"""All there are, so that each has its own time series from the start."""


@dataclass(frozen=True, slots=True)
class StateEntered:
    """The worker as a whole is at something else now."""

    state: State
    why: str = ""
    hindrances: tuple[Hindrance, ...] = ()
    """With `HINDERED`: at least one."""


@dataclass(frozen=True, slots=True)
class Began:
    """A worker begins; or begins anew, by another policy."""

    identity: WorkerIdentity
    version: str
    root_url: str
    policy_sha256: Sha256


@dataclass(frozen=True, slots=True)
class SignerMet:
    """What is signed from now on is signed by this key."""

    fingerprint: str


@dataclass(frozen=True, slots=True)
class Appended:
    """The audit log has grown, and this is what it says of itself now."""

    origin: str
    size: int
    root: Sha256
    note: str
    """The checkpoint as the signer signed it: whoever keeps it elsewhere can hold the log to it later."""


@dataclass(frozen=True, slots=True)
class SelfTested:
    """The sandbox held in the self-test."""

    probes: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """A run is ours now."""

    task_id: TaskId
    run_id: RunId
    name: str
    """The task's own, as its author wrote it: hostile."""
    created: datetime | None = None
    """When the task was, as its author says; None where its definition is no such thing."""


@dataclass(frozen=True, slots=True)
class Decided:
    """The policy admits a run, or refuses it."""

    task_id: TaskId
    run_id: RunId
    script: str
    """Empty where it is refused."""
    reasons: tuple[Reason, ...] = ()
    """Why it is refused; empty where it is admitted."""


@dataclass(frozen=True, slots=True)
class PhaseEntered:
    """A run has come to its next step."""

    task_id: TaskId
    run_id: RunId
    phase: Phase


@dataclass(frozen=True, slots=True)
class Renewed:
    """A claim was renewed."""

    task_id: TaskId
    run_id: RunId
    slack_seconds: float
    """What was left of the claim when the answer came."""


@dataclass(frozen=True, slots=True)
class Executed:
    """A script has ended, by itself."""

    task_id: TaskId
    run_id: RunId
    execution: Execution


@dataclass(frozen=True, slots=True)
class Stored:
    """Artifacts of a run are stored."""

    task_id: TaskId
    run_id: RunId
    artifacts: int
    size: int
    """Bytes, before any encoding."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A run has ended."""

    task_id: TaskId
    run_id: RunId
    outcome: Outcome
    resolution: Resolution
    reported: bool
    """Whether the Queue knows of it: False also where it is not ours to report."""
    summary: str
    """Why, in a line."""


@dataclass(frozen=True, slots=True)
class Faulted:
    """Something went wrong that an operator should see, and that is of no single run."""

    what: str
    message: str


Happening: TypeAlias = (
    Began
    | SignerMet
    | Appended
    | StateEntered
    | SelfTested
    | Claimed
    | Decided
    | PhaseEntered
    | Renewed
    | Executed
    | Stored
    | Resolved
    | Faulted
)
