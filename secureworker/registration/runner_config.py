"""The file that worker-runner writes for generic-worker, of which this worker takes who it is and its credentials.

Everything else in it is ignored: it comes from the worker pool's definition, which others may change than those who
review the policy.
"""

import json
import logging
from dataclasses import dataclass
from typing import Final

from secureworker.core.claim import Credentials, Json, parse_credentials
from secureworker.core.errors import SettingsError
from secureworker.core.ids import WorkerIdentity, WorkerPool
from secureworker.host.private import read_private

logger = logging.getLogger(__name__)

_MOST_BYTES: Final = 1024 * 1024
_TAKEN: Final = (
    "rootURL",
    "provisionerId",
    "workerType",
    "workerGroup",
    "workerId",
    "clientId",
    "accessToken",
    "certificate",
)


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """What worker-runner says of this worker."""

    root_url: str
    identity: WorkerIdentity
    credentials: Credentials


def read_runner_config(path: str) -> RunnerConfig:
    """Read the file. Blocking.

    Raises:
        SettingsError: others can have it, or something is missing. No message shows a value that may be secret.
    """
    content = read_private(path, "worker-runner's configuration", most_bytes=_MOST_BYTES)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise SettingsError(f"worker-runner's configuration {path} is no JSON") from None
    if not isinstance(document, dict):
        raise SettingsError(f"worker-runner's configuration {path} is no JSON object")
    ignored = sorted(str(key) for key in document.keys() - set(_TAKEN))
    if ignored:
        logger.debug("of worker-runner's configuration these are ignored: %s", ", ".join(ignored))
    try:
        pool = WorkerPool(_text(document, "provisionerId"), _text(document, "workerType"))
        identity = WorkerIdentity(pool, _text(document, "workerGroup"), _text(document, "workerId"))
        # worker-runner leaves the certificate out, or empty, where there is none.
        certificate = document.get("certificate") or None
        credentials = parse_credentials(
            {
                "clientId": _text(document, "clientId"),
                "accessToken": _text(document, "accessToken"),
                "certificate": certificate,
            }
        )
        return RunnerConfig(_text(document, "rootURL"), identity, credentials)
    except ValueError as error:
        raise SettingsError(f"worker-runner's configuration {path} cannot be used: {error}") from None


def _text(document: dict[str, Json], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is missing, or no text")
    return value
