"""Signing a request as Taskcluster's clients do (Hawk 1, SHA-256), for less than its credentials could do.

Nothing is signed but method, path with query, host and port: bodies stream, and the services ask for no payload hash.
"""

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import final

from secureworker.core.claim import Credentials


@dataclass(frozen=True, slots=True)
class Request:
    """What the signature covers."""

    method: str
    resource: str
    """Path and query, exactly as they are sent."""
    host: str
    port: int


@final
class Signing:
    """Signing with one set of credentials for one set of scopes: what does not change from request to request."""

    def __init__(self, credentials: Credentials, scopes: tuple[str, ...]) -> None:
        """Prepare.

        Args:
            credentials: whose requests they are; a run's are temporary, and carry a certificate.
            scopes: all that the requests may do; those the credentials have beyond them do not count.
        """
        self.credentials = credentials
        told: dict[str, object] = {"authorizedScopes": list(scopes)}
        if credentials.certificate is not None:
            told["certificate"] = json.loads(credentials.certificate.reveal())
        self._ext = base64.b64encode(json.dumps(told, separators=(",", ":")).encode()).decode("ascii")
        self._keyed = hmac.new(credentials.access_token.reveal().encode(), digestmod=hashlib.sha256)

    def authorization(self, request: Request, timestamp: int, nonce: str) -> str:
        """Give the value of the header `Authorization`.

        Args:
            request: what is signed.
            timestamp: seconds since 1970.
            nonce: never the same twice within a second.
        """
        signed = (
            f"hawk.1.header\n{timestamp}\n{nonce}\n{request.method}\n{request.resource}\n{request.host.lower()}\n"
            f"{request.port}\n\n{self._ext}\n"  # between port and ext: no payload hash
        )
        keyed = self._keyed.copy()
        keyed.update(signed.encode())
        mac = base64.b64encode(keyed.digest()).decode("ascii")
        return (
            f'Hawk id="{self.credentials.client_id}", ts="{timestamp}", nonce="{nonce}", ext="{self._ext}", mac="{mac}"'
        )
