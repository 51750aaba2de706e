"""The Taskcluster door: requests of a script, signed with its run's credentials for less than those could do."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, final

from secureworker import __version__
from secureworker.core.claim import Credentials
from secureworker.core.doors import TASKCLUSTER_HOST, Doors
from secureworker.core.paths import BadTarget, canonical, permits
from secureworker.proxy import answers, hawk
from secureworker.proxy.account import Account, Meter
from secureworker.proxy.replies import BadReply, Reply
from secureworker.proxy.requests import IDLE_SECONDS, Bad, Body, Head, read_head
from secureworker.proxy.upstream import Broken, Connection, Upstream
from secureworker.proxy.wire import Gone, Wire

logger = logging.getLogger(__name__)

NAME: Final = "taskcluster proxy"
_HOSTS: Final = frozenset({TASKCLUSTER_HOST, f"{TASKCLUSTER_HOST}:80"})
_REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_WITHOUT_CONTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
"""Of other methods, some proxies take no request that does not say its length, were it 0."""
_NO_CONTENT: Final = 204
_USER_AGENT: Final = f"secureworker/{__version__}"


@final
class TaskclusterDoor:
    """What is behind the listener at `http://taskcluster`, for one run."""

    def __init__(
        self,
        upstream: Upstream,
        doors: Doors,
        credentials: Callable[[], Credentials],
        account: Account,
    ) -> None:
        """Serve one run.

        Args:
            upstream: the only host that requests go to.
            doors: the routes and scopes.
            credentials: asked for each request: reclaiming the run renews them.
            account: where requests are counted and refusals noted.
        """
        self._upstream = upstream
        self._doors = doors
        self._credentials = credentials
        self._account = account
        self._signs: hawk.Signing | None = None
        self._own = secrets.token_urlsafe(12)
        self._asked = 0

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
        try:
            return await self._exchange(wire, head, body, meter)
        except (Broken, BadReply, TimeoutError, OSError) as error:
            # The task log says it once; a script could fill the worker's own by asking again and again.
            logger.debug("%s: %s cannot be passed on: %s", NAME, path, type(error).__name__)
            late = isinstance(error, TimeoutError)
            raise self._refuse(
                head, 504 if late else 502, "Taskcluster does not answer" if late else "Taskcluster cannot be reached"
            ) from error

    async def _exchange(self, wire: Wire, head: Head, body: Body, meter: Meter) -> bool:
        """Make the request; again, where a connection was closed meanwhile that was kept from another one."""
        while True:
            connection = await self._upstream.connection()
            kept = False
            try:
                connection.begin(self._written(head))
                if whole := body.complete:
                    reply = await connection.reply()
                    await self._relay(wire, head, reply, connection, meter, keep=head.persistent)
                else:
                    reply, whole = await self._send_and_receive(wire, head, body, connection, meter)
                kept = whole and reply.persistent and reply.ends(head.method)
            except Broken:
                if connection.fresh or not connection.silent or head.method not in _REPEATABLE or head.length != 0:
                    raise
            else:
                return whole and head.persistent
            finally:
                if kept:
                    self._upstream.keep(connection)
                else:
                    connection.close()

    async def _send_and_receive(
        self, wire: Wire, head: Head, body: Body, connection: Connection, meter: Meter
    ) -> tuple[Reply, bool]:
        """Send a body while an answer is waited for, and passed on: it may come before all of the body is sent.

        Returns:
            the answer, and whether all of the body was sent before it.
        """
        begun = False
        try:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(_send(connection, body, meter, chunked=head.length is None))
                reply = await connection.reply()
                begun = True
                whole = sending.done() and body.complete
                await self._relay(wire, head, reply, connection, meter, keep=whole and head.persistent)
                sending.cancel()
        except ExceptionGroup as failures:
            # Where an answer has begun, only an end of the connection can say that something is wrong.
            raise (Gone() if begun else failures.exceptions[0]) from None
        return reply, whole

    def _written(self, head: Head) -> bytes:
        """Write the request: of the script's it has method, target, and a few headers."""
        path, _, query = head.target.partition("?")
        target = head.target if query else path
        signed = hawk.Request(head.method, target, self._upstream.host, self._upstream.port)
        authorization = self._signing().authorization(signed, int(time.time()), self._nonce())
        headers = [
            ("Host", self._upstream.authority),
            *answers.to_taskcluster(head),
            ("Authorization", authorization),
        ]
        if not any(name == "user-agent" for name, _ in head.headers):
            headers.append(("User-Agent", _USER_AGENT))
        if head.length is None:
            headers.append(("Transfer-Encoding", "chunked"))
        elif head.length or head.method not in _WITHOUT_CONTENT:
            headers.append(("Content-Length", str(head.length)))
        return f"{head.method} {target} HTTP/1.1\r\n".encode("ascii") + answers.lines(headers) + b"\r\n"

    def _nonce(self) -> str:
        """Give what no other request of any run is signed with. Chance, which is slow, is asked once for each run."""
        self._asked += 1
        return f"{self._own}{self._asked}"

    def _signing(self) -> hawk.Signing:
        """Give what signs with the run's newest credentials."""
        credentials = self._credentials()
        if self._signs is None or self._signs.credentials is not credentials:
            self._signs = hawk.Signing(credentials, self._doors.scopes)
        return self._signs

    async def _relay(
        self, wire: Wire, head: Head, reply: Reply, connection: Connection, meter: Meter, *, keep: bool
    ) -> None:
        """Pass on an answer: its status, most headers, and its body as it is, in whatever encoding.

        Raises:
            Gone: it is cut short, which only an end of the connection can say; or nobody takes it.
        """
        headers = answers.to_script(reply.headers)
        has_body = reply.has_body(head.method)
        chunked = has_body and reply.length is None and not head.old
        if reply.length is not None and reply.status != _NO_CONTENT:
            headers.append(("Content-Length", str(reply.length)))
        elif chunked:
            headers.append(("Transfer-Encoding", "chunked"))
        if not keep or (has_body and reply.length is None and not chunked):
            headers.append(("Connection", "close"))
        pending = answers.status_line(reply.status, reply.reason) + answers.lines(headers) + b"\r\n"
        try:
            if has_body:
                async for chunk in connection.body(reply):
                    meter.received += len(chunk)
                    framed = b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk
                    await wire.send(pending + framed if pending else framed, IDLE_SECONDS)
                    pending = b""
                pending += b"0\r\n\r\n" if chunked else b""
        except (Broken, BadReply, TimeoutError) as error:
            raise Gone from error
        if pending:
            await wire.send(pending, IDLE_SECONDS)


async def _send(connection: Connection, body: Body, meter: Meter, *, chunked: bool) -> None:
    """Send a request's body. Who takes no more of it may still answer."""
    with suppress(Broken):
        async for chunk in body.chunks():
            await connection.send(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
            meter.sent += len(chunk)
        if chunked:
            await connection.send(b"0\r\n\r\n")
