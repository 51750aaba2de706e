"""Clients, temporary credentials, and who a request comes from.

Temporary credentials are made by whoever holds a client's token, without asking anyone: the certificate is signed
with the token, and the temporary token derives from it and the certificate's seed (Taskcluster manual, "Temporary
Credentials").
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from secureworker.core.claim import Credentials, Secret
from secureworker.core.scopes import satisfies, unsatisfied
from secureworker.localqueue import hawk
from secureworker.localqueue.expressions import expand, require
from secureworker.localqueue.settings import Role, Settings, StaticClient
from secureworker.localqueue.times import milliseconds, slugid

_SEED_LENGTH = 44
_LONGEST_MS = 31 * 24 * 3600 * 1000
_LAST_ASCII, _FIRST_ASCII = "~", " "


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from."""

    client_id: str | None
    """None without credentials."""
    scopes: tuple[str, ...]
    """With roles expanded."""

    def require(self, expression: str | dict[str, list[Any]]) -> None:
        """Raise `InsufficientScopes` where the caller does not satisfy the expression."""
        require(self.client_id, self.scopes, expression)


@dataclass(frozen=True, slots=True)
class Request:
    """What authentication looks at."""

    signed: hawk.Signed
    authorization: str
    """The header; empty where there is none."""
    content_type: str
    payload: bytes


def temporary(
    issuer: StaticClient, name: str, scopes: tuple[str, ...], start: datetime, expiry: datetime
) -> Credentials:
    """Make named temporary credentials, good from `start` to `expiry`."""
    token = issuer.access_token.reveal()
    certificate: dict[str, Any] = {
        "version": 1,
        "scopes": list(scopes),
        "start": milliseconds(start),
        "expiry": milliseconds(expiry),
        "seed": slugid() + slugid(),
    }
    certificate["signature"] = _signature(token, name, {**certificate, "issuer": issuer.client_id})
    certificate["issuer"] = issuer.client_id
    return Credentials(
        client_id=name,
        access_token=Secret(_derived_token(token, certificate["seed"])),
        certificate=Secret(json.dumps(certificate, separators=(",", ":"))),
    )


def wire(credentials: Credentials) -> dict[str, str]:
    """Give credentials as the services send them. Holds secrets."""
    shown = {"clientId": credentials.client_id, "accessToken": credentials.access_token.reveal()}
    if credentials.certificate is not None:
        shown["certificate"] = credentials.certificate.reveal()
    return shown


class Clients:
    """The clients, and how a request is traced to one of them."""

    def __init__(self, settings: Settings, internal: tuple[StaticClient, ...]) -> None:
        self._clients: Mapping[str, StaticClient] = {c.client_id: c for c in (*settings.clients, *internal)}
        self._roles: tuple[Role, ...] = settings.roles
        self._drift_ms = round(settings.certificate_drift * 1000)
        self._skew = settings.hawk_skew
        self._clock: Callable[[], datetime] = settings.clock

    def expand(self, scopes: tuple[str, ...]) -> tuple[str, ...]:
        """Add what roles stand for."""
        return expand(scopes, self._roles)

    def authenticate(self, request: Request) -> Caller:
        """Find out who sent a request; without any credentials, it is everybody.

        Raises:
            ApiError: `AuthenticationFailed`.
        """
        now = self._clock()
        if request.authorization:
            header = hawk.parse_header(request.authorization)
            key, scopes = self._load(header.client_id, header.ext, now)
            hawk.check_header(request.signed, header, key, now, self._skew)
            if header.payload_hash:
                hawk.check_payload(header.payload_hash, request.content_type, request.payload)
            return Caller(header.client_id, scopes)
        bewit = hawk.parse_bewit(request.signed.resource)
        if bewit is None:
            return Caller(None, self.expand(("assume:anonymous",)))
        key, scopes = self._load(bewit.client_id, bewit.ext, now)
        hawk.check_bewit(request.signed, bewit, key, now)
        return Caller(bewit.client_id, scopes)

    def _load(self, client_id: str, ext: str, now: datetime) -> tuple[str, tuple[str, ...]]:
        """Give the key a request must be signed with, and the scopes it then has."""
        limits = _parse_ext(ext)
        certificate = limits.get("certificate")
        issuer_id = client_id
        if isinstance(certificate, dict) and certificate.get("issuer"):
            issuer_id = certificate["issuer"]
            if issuer_id == client_id:
                raise hawk.refuse("ext.certificate.issuer must differ from the supplied clientId")
        client = self._clients.get(str(issuer_id))
        if client is None:
            raise hawk.refuse(f"Client with clientId '{issuer_id}' not found")
        key, scopes = client.access_token.reveal(), self.expand(client.scopes)
        if certificate:
            _check_certificate(certificate, client_id, issuer_id, scopes)
            self._check_times(certificate, milliseconds(now))
            if not hmac.compare_digest(_signature(key, client_id, certificate), str(certificate.get("signature"))):
                raise hawk.refuse("ext.certificate.signature is not valid, or wrong clientId provided")
            key, scopes = _derived_token(key, certificate["seed"]), tuple(certificate["scopes"])
        everybodys = self.expand((*scopes, "assume:anonymous"))
        authorized = limits.get("authorizedScopes")
        if authorized is None:
            return key, everybodys
        return key, self.expand((*_authorized(authorized, everybodys), "assume:anonymous"))

    def _check_times(self, certificate: dict[str, Any], now_ms: int) -> None:
        if certificate["start"] > now_ms + self._drift_ms:
            raise hawk.refuse("ext.certificate.start > now")
        if certificate["expiry"] < now_ms - self._drift_ms:
            raise hawk.refuse("ext.certificate.expiry < now")
        if certificate["expiry"] - certificate["start"] > _LONGEST_MS:
            raise hawk.refuse("ext.certificate cannot last longer than 31 days!")


def _parse_ext(ext: str) -> dict[str, Any]:
    if not ext:
        return {}
    try:
        limits = json.loads(hawk.unpad(ext))
    except ValueError:
        raise hawk.refuse("Failed to parse ext") from None
    if not isinstance(limits, dict):
        raise hawk.refuse("Failed to parse ext")
    return limits


def _check_certificate(certificate: Any, client_id: str, issuer_id: str, issuing: tuple[str, ...]) -> None:
    """Check all of a certificate but its times and signature."""
    if not isinstance(certificate, dict):
        raise hawk.refuse("ext.certificate must be a JSON object")
    if certificate.get("version") != 1:
        raise hawk.refuse("ext.certificate.version must be 1")
    seed = certificate.get("seed")
    if not isinstance(seed, str) or len(seed) != _SEED_LENGTH:
        raise hawk.refuse("ext.certificate.seed must be 44 characters")
    for name in ("start", "expiry"):
        if not isinstance(certificate.get(name), int):
            raise hawk.refuse(f"ext.certificate.{name} must be a number")
    if not _are_scopes(certificate.get("scopes")):
        raise hawk.refuse("ext.certificate.scopes must be an array of valid scopes")
    if client_id != issuer_id and not satisfies(issuing, f"auth:create-client:{client_id}"):
        message = (
            f"ext.certificate issuer `{issuer_id}` doesn't have `auth:create-client:{client_id}` for supplied clientId."
        )
        raise hawk.refuse(message)
    if unsatisfied(issuing, certificate["scopes"]):
        message = (
            f"ext.certificate issuer `{issuer_id}` doesn't satisfy all certificate scopes "
            f"{', '.join(certificate['scopes'])}.  The temporary credentials were not generated correctly."
        )
        raise hawk.refuse(message)


def _authorized(authorized: Any, granted: tuple[str, ...]) -> tuple[str, ...]:
    if not _are_scopes(authorized):
        raise hawk.refuse("ext.authorizedScopes must be an array of valid scopes")
    if unsatisfied(granted, authorized):
        have, want = "\n".join(granted), "\n".join(authorized)
        message = (
            "Supplied credentials do not satisfy authorizedScopes; credentials have scopes:\n\n"
            f"```\n{have}\n```\n\nauthorizedScopes are:\n\n```\n{want}\n```"
        )
        raise hawk.refuse(message)
    return tuple(authorized)


def _are_scopes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(scope, str) and all(_FIRST_ASCII <= letter <= _LAST_ASCII for letter in scope) for scope in value
    )


def _signature(token: str, client_id: str, certificate: Mapping[str, Any]) -> str:
    lines = ["version:1"]
    if certificate.get("issuer"):
        lines += [f"clientId:{client_id}", f"issuer:{certificate['issuer']}"]
    lines += [f"{name}:{certificate[name]}" for name in ("seed", "start", "expiry")]
    lines += ["scopes:", *certificate["scopes"]]
    return base64.b64encode(_hmac(token, "\n".join(lines))).decode()


def _derived_token(token: str, seed: str) -> str:
    return base64.urlsafe_b64encode(_hmac(token, seed)).decode().rstrip("=")


def _hmac(key: str, text: str) -> bytes:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()
