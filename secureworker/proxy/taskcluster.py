"""The Taskcluster door: requests of a script, signed with its run's credentials for less than those could do."""

import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, final

import aiohttp
from yarl import URL

from secureworker.core.claim import Credentials
from secureworker.core.doors import TASKCLUSTER_HOST, Doors
from secureworker.core.paths import BadTarget, canonical, permits
from secureworker.proxy import answers, hawk
from secureworker.proxy.account import Account, Meter
from secureworker.proxy.requests import IDLE_SECONDS, Bad, Body, Head, read_head
from secureworker.proxy.wire import Gone, Wire

logger = logging.getLogger(__name__)

NAME: Final = "taskcluster proxy"
_HOSTS: Final = frozenset({TASKCLUSTER_HOST, f"{TASKCLUSTER_HOST}:80"})
_NO_BODY: Final = frozenset({204, 304})
_FINAL: Final = 200
_AUTOMATIC: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""Headers that aiohttp would add."""


class _Once:
    """A body for one attempt: aiohttp may repeat a PUT whose connection broke, and this one is used up by then."""

    def __init__(self, body: Body, meter: Meter) -> None:
        self._body = body
        self._meter = meter
        self._begun = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._begun:
            raise aiohttp.ClientConnectionError("the connection broke, and the body is used up")
        self._begun = True
        async for chunk in self._body.chunks():
            self._meter.sent += len(chunk)
            yield chunk


@final
class TaskclusterDoor:
    """What is behind the listener at `http://taskcluster`, for one run."""

    def __init__(
        self,
        root_url: str,
        doors: Doors,
        credentials: Callable[[], Credentials],
        session: aiohttp.ClientSession,
        account: Account,
    ) -> None:
        """Serve one run.

        Args:
            root_url: the only host that requests go to.
            doors: the routes and scopes.
            credentials: asked for each request: reclaiming the run renews them.
            session: follows no proxy, and keeps no cookies.
            account: where requests are counted and refusals noted.
        """
        self._root_url = root_url.rstrip("/")
        self._doors = doors
        self._credentials = credentials
        self._session = session
        self._account = account
        self._signs: hawk.Signing | None = None

    async def talk(self, wire: Wire) -> None:
        """Answer the requests of a connection, one after the other."""
        while True:
            head = await read_head(wire)
            path = self._admit(head)
            if not await self._forward(wire, head, path):
                await wire.part()
                return

    def _admit(self, head: Head) -> str:
        """Give the decoded path of a request that may be made.

        1. It is for this host, as the script knows it.
        2. Its target is the one spelling of a path.
        3. The path is among the script's routes.

        Raises:
            Bad: one of these does not hold.
        """
        # 1.
        if head.get("host").lower() not in _HOSTS and not (head.old and not head.get("host")):
            raise self._refuse(head, 421, f"this is {TASKCLUSTER_HOST}, and no other host is reached here")
        # 2.
        try:
            path = canonical(head.target)
        except BadTarget as error:
            raise self._refuse(head, 400, str(error)) from error
        # 3.
        if not permits(self._doors.routes, head.method, path):
            raise self._refuse(head, 403, "the policy's taskcluster.routes have no such request for this script")
        return path

    def _refuse(self, head: Head, status: int, why: str) -> Bad:
        self._account.refuse(NAME, f"{head.method} {head.target}", why)
        return Bad(status, why, noted=True)

    async def _forward(self, wire: Wire, head: Head, path: str) -> bool:
        """Make the request, and pass on what is answered; say whether the connection may be used again."""
        meter = self._account.meter(f"taskcluster:{path.split('/')[2]}")
        meter.connections += 1
        body = Body(wire, head)
        if head.awaits_continue:
            await wire.send(answers.CONTINUE, IDLE_SECONDS)
        begun = False
        try:
            async with self._request(head, body, meter) as response:
                if response.status < _FINAL:
                    raise aiohttp.ClientConnectionError("an answer that is none")
                begun = True
                keep = head.persistent and body.complete
                await self._relay(wire, head, response, meter, keep=keep)
                return keep
        except (aiohttp.ClientError, TimeoutError) as error:
            if body.problem is not None and not begun:
                raise body.problem from error
            if begun or isinstance(error.__cause__, Gone):
                # The answer is cut short: only an end of the connection can say so.
                raise Gone from error
            # The task log says it once; a script could fill the worker's own by asking again and again.
            logger.debug("%s: %s cannot be passed on: %s", NAME, path, type(error).__name__)
            late = isinstance(error, TimeoutError)
            raise self._refuse(
                head, 504 if late else 502, "Taskcluster does not answer" if late else "Taskcluster cannot be reached"
            ) from error

    def _request(self, head: Head, body: Body, meter: Meter) -> "aiohttp.client._RequestContextManager":
        """Begin the request: of the script's it has method, target, body, and a few headers."""
        url = URL(self._root_url + head.target, encoded=True)
        signed = hawk.Request(head.method, url.raw_path_qs, url.host or "", url.port or 0)
        authorization = self._signing().authorization(signed, int(time.time()), secrets.token_urlsafe(8))
        headers = [*answers.to_taskcluster(head), ("Authorization", authorization)]
        if head.length:
            headers.append(("Content-Length", str(head.length)))
        return self._session.request(
            head.method,
            url,
            headers=headers,
            data=None if body.complete else _Once(body, meter),
            skip_auto_headers=_AUTOMATIC,
            allow_redirects=False,
            auto_decompress=False,
        )

    def _signing(self) -> hawk.Signing:
        """Give what signs with the run's newest credentials."""
        credentials = self._credentials()
        if self._signs is None or self._signs.credentials is not credentials:
            self._signs = hawk.Signing(credentials, self._doors.scopes)
        return self._signs

    async def _relay(
        self, wire: Wire, head: Head, response: aiohttp.ClientResponse, meter: Meter, *, keep: bool
    ) -> None:
        """Pass on an answer: its status, most headers, and its body as it is, in whatever encoding."""
        headers = answers.to_script(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers
        )
        length = response.headers.get("Content-Length")
        empty = head.method == "HEAD" or response.status in _NO_BODY
        chunked = not empty and length is None and not head.old
        if length is not None:
            headers.append(("Content-Length", str(int(length))))
        elif chunked:
            headers.append(("Transfer-Encoding", "chunked"))
        if not keep or (length is None and not chunked and not empty):
            headers.append(("Connection", "close"))
        pending = answers.status_line(response.status, response.reason or "") + answers.lines(headers) + b"\r\n"
        if not empty:
            async for chunk in response.content.iter_any():
                meter.received += len(chunk)
                framed = b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk
                await wire.send(pending + framed if pending else framed, IDLE_SECONDS)
                pending = b""
            pending += b"0\r\n\r\n" if chunked else b""
        if pending:
            await wire.send(pending, IDLE_SECONDS)
