"""Hawk, the server's side: what is signed, and whether a signature is right. Whose key it is, `credentials` decides.

Follows the description of Hawk 1 (github.com/mozilla/hawk, API.md), as Taskcluster's clients use it: SHA-256 only, no
nonce is remembered, and the answer is not signed.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime

from secureworker.localqueue.errors import ApiError

_ATTRIBUTE = re.compile(r'(\w+)="([ !#-\[\]-~]*)"\s*(?:,\s*|$)')
_KNOWN = frozenset({"id", "ts", "nonce", "hash", "ext", "mac", "app", "dlg"})
_BEWIT = re.compile(r"([?&])bewit=([^&]*)(&|$)")
_BEWIT_PARTS = 4
_DEFAULT_PORT = "80"


def refuse(message: str) -> ApiError:
    """Say why a request is not authenticated."""
    return ApiError("AuthenticationFailed", message)


@dataclass(frozen=True, slots=True)
class Signed:
    """The parts of a request that a signature covers."""

    method: str
    resource: str
    """Path and query as they were sent, not decoded."""
    host: str
    """The Host header."""


@dataclass(frozen=True, slots=True)
class Header:
    """An `Authorization: Hawk ...` header."""

    client_id: str
    timestamp: str
    nonce: str
    mac: str
    ext: str
    payload_hash: str
    app: str
    delegated_by: str


@dataclass(frozen=True, slots=True)
class Bewit:
    """A signature in a URL: the URL is good, without headers, until it expires."""

    client_id: str
    expires: str
    mac: str
    ext: str
    resource: str
    """Path and query without the bewit."""


def parse_header(text: str) -> Header:
    """Read the header.

    Raises:
        ApiError: it is no Hawk header, repeats an attribute, or lacks one.
    """
    scheme, _, rest = text.partition(" ")
    if scheme.lower() != "hawk":
        raise refuse("Unauthorized")
    found: dict[str, str] = {}
    position = 0
    while position < len(rest):
        match = _ATTRIBUTE.match(rest, position)
        if match is None or match[1] not in _KNOWN or match[1] in found:
            raise refuse("Bad Request: Bad header format")
        found[match[1]] = match[2]
        position = match.end()
    if not all(found.get(name) for name in ("id", "ts", "nonce", "mac")):
        raise refuse("Bad Request: Missing attributes")
    return Header(
        client_id=found["id"],
        timestamp=found["ts"],
        nonce=found["nonce"],
        mac=found["mac"],
        ext=found.get("ext", ""),
        payload_hash=found.get("hash", ""),
        app=found.get("app", ""),
        delegated_by=found.get("dlg", ""),
    )


def parse_bewit(resource: str) -> Bewit | None:
    """Take the bewit out of a path with query; None where there is none.

    Raises:
        ApiError: it cannot be read.
    """
    match = _BEWIT.search(resource)
    if match is None:
        return None
    try:
        parts = unpad(match[2]).decode().split("\\")
    except ValueError:
        raise refuse("Bad Request: Invalid bewit encoding") from None
    if len(parts) != _BEWIT_PARTS or not all(parts[:3]):
        raise refuse("Bad Request: Invalid bewit structure")
    before, after = resource[: match.start()], resource[match.end() :]
    rest = before + (match[1] + after if after else "")
    return Bewit(client_id=parts[0], expires=parts[1], mac=parts[2], ext=parts[3], resource=rest)


def check_header(signed: Signed, header: Header, key: str, now: datetime, skew: float) -> None:
    """Do nothing where the header is signed with `key` for this request, at about this time.

    Raises:
        ApiError: it is not.
    """
    lines = [header.timestamp, header.nonce, signed.method.upper(), signed.resource, *_host_and_port(signed.host)]
    lines += [header.payload_hash, header.ext]
    if header.app:
        lines += [header.app, header.delegated_by]
    if not _same(_mac("header", lines, key), header.mac):
        raise refuse("Unauthorized: Bad mac")
    if not header.timestamp.isdecimal() or abs(int(header.timestamp) - now.timestamp()) > skew:
        raise refuse("Unauthorized: Stale timestamp")


def check_bewit(signed: Signed, bewit: Bewit, key: str, now: datetime) -> None:
    """Do nothing where the URL is signed with `key` and still good.

    Raises:
        ApiError: it is not.
    """
    if signed.method.upper() not in {"GET", "HEAD"}:
        raise refuse("Unauthorized: Invalid method")
    lines = [bewit.expires, "", "GET", bewit.resource, *_host_and_port(signed.host), "", bewit.ext]
    if not bewit.expires.isdecimal() or int(bewit.expires) <= now.timestamp():
        raise refuse("Unauthorized: Access expired")
    if not _same(_mac("bewit", lines, key), bewit.mac):
        raise refuse("Unauthorized: Bad mac")


def check_payload(expected: str, content_type: str, payload: bytes) -> None:
    """Do nothing where the payload has the hash that was signed.

    Raises:
        ApiError: it has not.
    """
    kind = content_type.partition(";")[0].strip().lower()
    computed = _base64(hashlib.sha256(b"hawk.1.payload\n" + kind.encode() + b"\n" + payload + b"\n").digest())
    if not _same(computed, expected):
        message = (
            f"Invalid payload hash: {expected}\nComputed payload hash: {computed}\n"
            "This happens when your request carries a signed hash of the payload and the hash doesn't match the hash "
            "we've computed on the server-side."
        )
        raise refuse(message)


def make_bewit(signed: Signed, client_id: str, key: str, ext: str, expires: datetime) -> str:
    """Sign a URL; the value of its query parameter `bewit`."""
    until = str(int(expires.timestamp()))
    mac = _mac("bewit", [until, "", "GET", signed.resource, *_host_and_port(signed.host), "", ext], key)
    return base64.urlsafe_b64encode(f"{client_id}\\{until}\\{mac}\\{ext}".encode()).decode().rstrip("=")


def unpad(text: str) -> bytes:
    """Decode base64 of either alphabet, padded or not; raise ValueError where it is neither."""
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)


def _host_and_port(header: str) -> tuple[str, str]:
    host, colon, port = header.rpartition(":")
    return (host.lower(), port) if colon and port.isdecimal() else (header.lower(), _DEFAULT_PORT)


def _mac(kind: str, lines: list[str], key: str) -> str:
    text = "\n".join([f"hawk.1.{kind}", *lines, ""])
    return _base64(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest())


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
