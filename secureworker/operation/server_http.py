"""As much of HTTP as a page for reading needs: GET and HEAD without a body, one request on a connection.

Written here, and not taken from aiohttp, because of its bounds: everything that a caller can send or withhold has a
limit below, in time and in bytes, and the server runs in the loop that renews claims.
"""

import http
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

HEAD_BYTES: Final = 8192
"""Of a request line and its headers."""
PLAIN: Final = "text/plain; charset=utf-8"
_REQUEST_LINE = re.compile(r"([A-Z]{1,20}) (/[\x21-\x7e]*) HTTP/1\.[01]")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\x80-\xff\t]*)")
_PORT = re.compile(r":[0-9]{1,5}$")
_ALWAYS: Final = (
    ("Cache-Control", "no-store"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Connection", "close"),
)
NOTHING_ELSE: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The content security policy: nothing is loaded, run, framed or sent. A page may add a style of its own."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for."""

    method: str
    path: str
    """As it was sent: nothing is decoded, and what would need it is nothing that is there."""
    query: Mapping[str, str]
    """`a=1&b=2`, undecoded; of what is there twice, the last."""
    headers: Mapping[str, str]
    """By their names in lower case."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered."""

    body: bytes
    content_type: str = PLAIN
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    """Beside those that every answer has; a `Content-Security-Policy` here is in the place of `NOTHING_ELSE`."""


class Refusal(Exception):
    """The request gets an answer that is a refusal."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.answer = refused(status, why)


def refused(status: int, why: str) -> Answer:
    """Say no, and why."""
    more = (("Allow", "GET, HEAD"),) if status == http.HTTPStatus.METHOD_NOT_ALLOWED else ()
    return Answer(f"{why}\n".encode(), status=status, headers=more)


def parse(head: bytes) -> Request:
    """Read a request's head, without the blank line that ends it.

    1. It is a request line and headers, in their form, and each that counts is there once.
    2. It is GET or HEAD, and has no body.
    3. It was sent to this machine by a name that only this machine has. A name that an attacker owns and has resolve
       to loopback (DNS rebinding) would let their page read this one.
    4. It is not made by a page of somebody else's, which could learn from how long it takes.

    Raises:
        Refusal: it is not so.
    """
    # 1.
    first, *lines = head.decode("latin-1").split("\r\n")
    asked = _REQUEST_LINE.fullmatch(first)
    if asked is None:
        raise Refusal(400, "this is no HTTP request")
    headers: dict[str, str] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        name = header[1].lower() if header else ""
        if header is None or (name in headers and name in {"host", "content-length", "transfer-encoding"}):
            raise Refusal(400, "the request's headers have not their form")
        headers[name] = header[2].strip()
    # 2.
    if asked[1] not in {"GET", "HEAD"}:
        raise Refusal(405, "this can only be read: GET and HEAD")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise Refusal(400, "a request here has no body")
    # 3.
    if not _is_here(headers.get("host", "")):
        raise Refusal(421, "ask for localhost, 127.0.0.1 or [::1]: other names are not this machine's alone")
    # 4.
    foreign = headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}
    if foreign and headers.get("sec-fetch-mode") != "navigate":
        raise Refusal(403, "another site's page asks for this")
    path, _, query = asked[2].partition("?")
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return Request(asked[1], path, {name: value for name, _, value in pairs}, headers)


def _is_here(host: str) -> bool:
    name = _PORT.sub("", host)
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def write(answer: Answer, *, with_body: bool = True) -> bytes:
    """Give the bytes of an answer."""
    given = {name for name, _ in answer.headers}
    policy = () if "Content-Security-Policy" in given else (("Content-Security-Policy", NOTHING_ELSE),)
    about = (("Content-Type", answer.content_type), ("Content-Length", str(len(answer.body))))
    lines = [f"HTTP/1.1 {answer.status} {http.HTTPStatus(answer.status).phrase}"]
    lines += (f"{name}: {value}" for name, value in (*about, *answer.headers, *policy, *_ALWAYS))
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (answer.body if with_body else b"")
