"""The one place that makes HTTP sessions: with timeouts, size limits, few connections, and a name.

Imported only where a session is opened: aiohttp costs 150 ms, and `secureworker --help` shall not pay for it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from secureworker import __version__

USER_AGENT = f"secureworker/{__version__}"
CONNECTIONS_PER_RUN = 12
"""8 downloads or 4 uploads, a report or a renewal beside, and some that only wait to be used again."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What a session waits for, and takes, at most."""

    connect_seconds: float = 30.0
    """To get a connection, TLS included."""
    stall_seconds: float = 60.0
    """Without a byte from the other side."""
    total_seconds: float | None = None
    """For a whole exchange; None where it takes as long as it moves: uploads."""
    answer_bytes: int = 16 * 1024 * 1024
    """Of an answer's body, decompressed. Taskcluster's largest answers, claims with 1 MB payloads, are below 10 MB."""
    connections: int = 16

    def shared_by(self, runs: int) -> "HttpLimits":
        """Give the limits of a session for so many runs: what one of them holds, another never waits for."""
        return replace(self, connections=self.connections + (runs - 1) * CONNECTIONS_PER_RUN)


class AnswerTooLarge(aiohttp.ClientPayloadError):
    """The other side sends more than was asked for; a `ClientError`, so that every adapter translates it."""


DEFAULT_LIMITS = HttpLimits()


def open_session(
    limits: HttpLimits = DEFAULT_LIMITS,
    read_json: Callable[[str], Any] = json.loads,
    heard: Callable[[Mapping[str, str]], None] | None = None,
) -> aiohttp.ClientSession:
    """Make a session; to be used as an async context manager, and for a long time: it keeps connections.

    Where `read_json` is given, answers are read with it, whoever asks for their JSON; `heard` is told the headers of
    every answer.

    Redirects are the caller's to refuse, per request. Proxy variables of the environment are not followed. Cookies are
    not kept: what one task's request is answered must not be part of another's.
    """

    class LimitedResponse(aiohttp.ClientResponse):
        """Refuses a body beyond the limit; `json()` and `text()` read by `read()` too."""

        async def read(self) -> bytes:
            if self._body is None:
                taken = bytearray()
                async for chunk in self.content.iter_any():
                    taken += chunk
                    if len(taken) > limits.answer_bytes:
                        self.close()
                        raise AnswerTooLarge(f"{self.url.host} answers with more than {limits.answer_bytes} bytes")
                self._body = bytes(taken)
            return await super().read()

        async def json(
            self,
            *,
            encoding: str | None = None,
            loads: Callable[[str], Any] | None = None,
            content_type: str | None = "application/json",
        ) -> Any:
            reader = read_json if loads is None or loads is json.loads else loads
            return await super().json(encoding=encoding, loads=reader, content_type=content_type)

    async def tell(_: aiohttp.ClientSession, __: object, params: aiohttp.TraceRequestEndParams) -> None:
        if heard is not None:
            heard(params.response.headers)

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(tell)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=limits.connections),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(
            total=limits.total_seconds,
            connect=limits.connect_seconds,
            sock_connect=limits.connect_seconds,
            sock_read=limits.stall_seconds,
        ),
        headers={"User-Agent": USER_AGENT},
        response_class=LimitedResponse,
        trace_configs=[] if heard is None else [trace],
        trust_env=False,
        auto_decompress=True,
    )
