"""The long-lived ports that runs are carried out with. No fact about a task."""

from dataclasses import dataclass

from secureworker.core.ids import WorkerIdentity
from secureworker.core.policy import Policy
from secureworker.ports import (
    ArtifactStore,
    AuditLog,
    Clock,
    Doors,
    Networks,
    Outputs,
    Sandbox,
    Secrets,
    Signer,
    TaskLogs,
    Workspaces,
)


@dataclass(frozen=True, slots=True)
class Tools:
    """What `app` wires once, and every run uses."""

    policy: Policy
    identity: WorkerIdentity
    clock: Clock
    logs: TaskLogs
    workspaces: Workspaces
    networks: Networks
    doors: Doors
    secrets: Secrets
    sandbox: Sandbox
    outputs: Outputs
    signer: Signer
    store: ArtifactStore
    audit: AuditLog
