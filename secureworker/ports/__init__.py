"""Everything the worker does to the world, as Protocols: `worker/` knows nothing else.

Each has one real implementation, one honest fake in `secureworker.testing`, and contract tests that both pass
(`tests/contracts/`). Errors are those of `core.errors`: no adapter's own exception crosses a port.
"""

from secureworker.ports.evidence import (
    Artifact,
    ArtifactStore,
    AuditLog,
    Outputs,
    SignedFile,
    Signer,
    Statement,
    VerifiedInput,
)
from secureworker.ports.logs import LiveLogs, OpenTaskLog, TaskLogs
from secureworker.ports.places import (
    Doors,
    Inputs,
    Network,
    Networks,
    OpenDoors,
    Sandbox,
    Secrets,
    Workspace,
    Workspaces,
)
from secureworker.ports.queue import ClaimedRun, Queue
from secureworker.ports.surroundings import Clock, Events, HostGuard, TaskLog, Watcher

__all__ = [
    "Artifact",
    "ArtifactStore",
    "AuditLog",
    "ClaimedRun",
    "Clock",
    "Doors",
    "Events",
    "HostGuard",
    "Inputs",
    "LiveLogs",
    "Network",
    "Networks",
    "OpenDoors",
    "OpenTaskLog",
    "Outputs",
    "Queue",
    "Sandbox",
    "Secrets",
    "SignedFile",
    "Signer",
    "Statement",
    "TaskLog",
    "TaskLogs",
    "VerifiedInput",
    "Watcher",
    "Workspace",
    "Workspaces",
]
