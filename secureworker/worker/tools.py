"""The long-lived ports that runs are carried out with. No fact about a task."""

from dataclasses import dataclass, field

from secureworker.core.ids import WorkerIdentity
from secureworker.core.policy import Policy
from secureworker.core.verification import Checks
from secureworker.ports import (
    ArtifactStore,
    AuditLog,
    Clock,
    Doors,
    HostGuard,
    Inputs,
    LiveLogs,
    Networks,
    Outputs,
    Sandbox,
    Secrets,
    Signer,
    TaskLogs,
    Watcher,
    Workspaces,
)
from secureworker.worker.turns import Turns


@dataclass(frozen=True, slots=True)
class Tools:
    """What `app` wires once, and every run uses."""

    policy: Policy
    identity: WorkerIdentity
    clock: Clock
    logs: TaskLogs
    live: LiveLogs
    workspaces: Workspaces
    networks: Networks
    doors: Doors
    inputs: Inputs
    checks: Checks
    """What inputs' statements are held against."""
    secrets: Secrets
    sandbox: Sandbox
    outputs: Outputs
    signer: Signer
    store: ArtifactStore
    audit: AuditLog
    guard: HostGuard
    """Asked before every claim."""
    watcher: Watcher
    """Told what happens."""
    turns: Turns = field(default_factory=Turns)
    """Which of the runs may be at work together."""
