"""The worker's own credentials over time: until when they are good, when to renew them, what a registration gives."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from secureworker.core.claim import Credentials, Json, Secret, parse_credentials, parse_time
from secureworker.core.ids import WorkerIdentity

RENEW_AT: Final = 0.6
"""Part of their remaining time after which credentials are renewed: enough is left to try again for hours, or to let
running tasks end."""
DRAIN_BEFORE: Final = timedelta(minutes=5)
"""Before its credentials end, a worker claims no more: a claim takes up to a minute, and clocks differ."""
DRAIN_PART: Final = 0.1
"""That is at most this part of what was left when they came."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Registered:
    """What worker-manager gives to a worker that registers."""

    credentials: Credentials
    expires: datetime
    secret: Secret
    """What the next registration takes, once."""


def parse_registered(answer: Mapping[str, Json]) -> Registered:
    """Read the answer of `registerWorker` or `reregisterWorker`.

    Raises:
        ValueError: something is missing. The message shows no value.
    """
    credentials, secret = answer.get("credentials"), answer.get("secret")
    if not isinstance(secret, str) or not secret:
        raise ValueError("secret is missing")
    return Registered(
        credentials=parse_credentials(credentials if isinstance(credentials, dict) else {}),
        expires=parse_time(answer.get("expires")),
        secret=Secret(secret),
    )


def write_registered(registered: Registered, identity: WorkerIdentity, root_url: str) -> bytes:
    """Write what is kept until the next start. Holds secrets."""
    credentials = registered.credentials
    document: dict[str, Json] = {
        "worker": str(identity),
        "rootUrl": root_url,
        "expires": registered.expires.isoformat(),
        "secret": registered.secret.reveal(),
        "credentials": {
            "clientId": credentials.client_id,
            "accessToken": credentials.access_token.reveal(),
            **({"certificate": credentials.certificate.reveal()} if credentials.certificate else {}),
        },
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def read_registered(content: bytes, identity: WorkerIdentity, root_url: str) -> Registered:
    """Read what `write_registered` wrote.

    Raises:
        ValueError: it is something else, or another worker's. The message shows no value.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    if not isinstance(document, dict):
        raise ValueError("it is no object")
    if (document.get("worker"), document.get("rootUrl")) != (str(identity), root_url):
        raise ValueError("it is of another worker, or of another Taskcluster")
    return parse_registered(document)


def expiry(credentials: Credentials) -> datetime | None:
    """Say until when credentials are good, by their certificate; None: permanent, or a certificate nobody can read."""
    if credentials.certificate is None:
        return None
    try:
        certificate = json.loads(credentials.certificate.reveal())
        return _EPOCH + timedelta(milliseconds=certificate["expiry"])
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None


def renew_in(expires: datetime, now: datetime) -> timedelta:
    """Say after what time to renew credentials that end at `expires`."""
    return max(timedelta(0), (expires - now) * RENEW_AT)


def drain_in(expires: datetime, now: datetime) -> timedelta:
    """Say after what time to claim no more, with credentials that end at `expires`."""
    left = expires - now
    return max(timedelta(0), left - min(DRAIN_BEFORE, left * DRAIN_PART))
