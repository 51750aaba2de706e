"""Signing a request as Taskcluster's clients do (Hawk 1, SHA-256), for less than its credentials could do.

Nothing is signed but method, path with query, host and port: bodies stream, and the services ask for no payload hash.
"""

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass

from secureworker.core.claim import Credentials


@dataclass(frozen=True, slots=True)
class Request:
    """What the signature covers."""

    method: str
    resource: str
    """Path and query, exactly as they are sent."""
    host: str
    port: int


def authorization(
    request: Request, credentials: Credentials, scopes: tuple[str, ...], timestamp: int, nonce: str
) -> str:
    """Give the value of the header `Authorization`.

    Args:
        request: what is signed.
        credentials: whose it is; a run's are temporary, and carry a certificate.
        scopes: all that the request may do; those the credentials have beyond them do not count.
        timestamp: seconds since 1970.
        nonce: never the same twice within a second.
    """
    told: dict[str, object] = {"authorizedScopes": list(scopes)}
    if credentials.certificate is not None:
        told["certificate"] = json.loads(credentials.certificate.reveal())
    ext = base64.b64encode(json.dumps(told, separators=(",", ":")).encode()).decode("ascii")
    signed = "\n".join(
        (
            "hawk.1.header",
            str(timestamp),
            nonce,
            request.method,
            request.resource,
            request.host.lower(),
            str(request.port),
            "",  # no payload hash
            ext,
            "",
        )
    )
    key = credentials.access_token.reveal().encode()
    mac = base64.b64encode(hmac.new(key, signed.encode(), hashlib.sha256).digest()).decode("ascii")
    return f'Hawk id="{credentials.client_id}", ts="{timestamp}", nonce="{nonce}", ext="{ext}", mac="{mac}"'
