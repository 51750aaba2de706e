"""What the doors answer by themselves, and what of both sides' headers goes through."""

import json
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from secureworker.proxy.requests import Head

_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        "expect",
        "content-length",  # framing: written anew
        "host",
    }
)
"""RFC 9110, 7.6.1, and what older clients say."""
_TO_TASKCLUSTER: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-language",
        "content-encoding",
        "content-type",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-unmodified-since",
        "range",
        "user-agent",
        "x-taskcluster-trace-id",
    }
)
"""All that a request to an API needs. Not credentials, not cookies, and none of the headers by which other proxies are
told of another host, path, method or sender."""
_NOT_TO_SCRIPTS: Final = frozenset({"set-cookie", "www-authenticate", "server-authorization", "alt-svc"})
_NEITHER: Final = _HOP_BY_HOP | _NOT_TO_SCRIPTS
_VALUE = re.compile(r"[\x20-\x7e\t\x80-\xff]*")
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"


def status_line(status: int, reason: str = "") -> bytes:
    """Write the first line of an answer."""
    known = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else reason
    return f"HTTP/1.1 {status} {known if _VALUE.fullmatch(known) else ''}\r\n".encode("latin-1")


def refusal(status: int, message: str, *, body: bool = True) -> bytes:
    """Write an answer of our own, after which the connection ends; in the form of Taskcluster's errors."""
    content = json.dumps({"code": "RefusedByWorker", "message": message}, indent=2).encode() + b"\n"
    fields = (
        b"Content-Type: application/json\r\n"
        b"Content-Length: " + str(len(content)).encode() + b"\r\n"
        b"X-Content-Type-Options: nosniff\r\n"
        b"Connection: close\r\n\r\n"
    )
    return status_line(status) + fields + (content if body else b"")


def to_taskcluster(head: Head) -> list[tuple[str, str]]:
    """Give those of a script's headers that the service sees."""
    listed = head.listed
    return [(name, value) for name, value in head.headers if name in _TO_TASKCLUSTER and name not in listed]


def to_host(head: Head) -> list[tuple[str, str]]:
    """Give those of a script's headers that a host sees which the policy names: all but the hop's own."""
    listed = head.listed
    return [(name, value) for name, value in head.headers if name not in _HOP_BY_HOP and name not in listed]


def to_script(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Give those of an answer's headers that a script sees. They are well formed: `replies` has seen to that."""
    return [(name, value) for name, value in headers if name.lower() not in _NEITHER]


def lines(headers: Iterable[tuple[str, str]]) -> bytes:
    """Write headers as they go over the wire."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers]).encode("latin-1")
