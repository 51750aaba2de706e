"""The composition root: from settings and a policy to a worker at work. Only `wiring` names concrete engines."""

from secureworker.app.serving import Reloading, serve, unwrapped
from secureworker.app.settings import AUDIT_LOG, DEFAULT_DRAIN_SECONDS, LOGS, MEMORY, Settings, load_policy

__all__ = [
    "AUDIT_LOG",
    "DEFAULT_DRAIN_SECONDS",
    "LOGS",
    "MEMORY",
    "Reloading",
    "Settings",
    "load_policy",
    "serve",
    "unwrapped",
]
