"""The egress door: tunnels to exactly the hosts and ports of a rule, and plain HTTP where the rule says so."""

import asyncio
import logging
import re
from typing import Final, final

from secureworker.core.addresses import BadHost, HostPort, parse_address, parse_host_port
from secureworker.core.doors import Destination
from secureworker.proxy import answers
from secureworker.proxy.account import Account
from secureworker.proxy.hello import UNRECOGNISED_NAME, BadHello, Hello, parse_hello
from secureworker.proxy.names import Names
from secureworker.proxy.plain import exchange, written
from secureworker.proxy.reaching import reach
from secureworker.proxy.requests import IDLE_SECONDS, Bad, Head, read_head
from secureworker.proxy.tunnel import TunnelLimits, tunnel
from secureworker.proxy.wire import TooSlow, Wire

logger = logging.getLogger(__name__)

NAME: Final = "egress proxy"
HELLO_SECONDS: Final = 10.0
_ABSOLUTE = re.compile(r"http://([^/?#@\\]+)(/[^#\\]*)?")
_HTTP_PORT = 80
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@final
class EgressDoor:
    """What is behind the listener of `http(s)_proxy`, for one run."""

    def __init__(
        self,
        destinations: tuple[Destination, ...],
        names: Names,
        account: Account,
        limits: TunnelLimits,
    ) -> None:
        self._destinations = {(destination.at, destination.plain): destination for destination in destinations}
        self._names = names
        self._account = account
        self._limits = limits

    async def talk(self, wire: Wire) -> None:
        """Answer the one request of a connection: it becomes a tunnel, or ends with its answer."""
        head = await read_head(wire)
        if head.method == "CONNECT":
            await self._connect(wire, head)
        else:
            await self._forward(wire, head)

    async def _connect(self, wire: Wire, head: Head) -> None:
        """Make a tunnel.

        1. The target is a host and port, in their one spelling, and the request has no body.
        2. The policy names them, for TLS.
        3. Every address that the name has may be connected to.
        4. The first that the client says is a ClientHello for that very host; until then nothing is passed on.
        """
        # 1.
        try:
            place = parse_host_port(head.target)
        except BadHost as error:
            raise self._refuse(head.target, 400, f"the target of CONNECT has {error}") from error
        if head.length != 0 or head.awaits_continue:
            raise self._refuse(str(place), 400, "a CONNECT with a body")
        # 2.
        destination = self._allowed(place, plain=False)
        # 3.
        try:
            outside = await reach(destination, self._names)
        except Bad as bad:
            raise self._refuse(str(place), bad.status, str(bad)) from bad
        with Wire(outside) as onward:
            await wire.send(answers.ESTABLISHED, IDLE_SECONDS)
            # 4.
            if not await self._says_hello(wire, destination):
                return
            meter = self._account.meter(str(place))
            meter.connections += 1
            begun = wire.take(wire.waiting)
            wire.rest()
            await onward.send(begun, IDLE_SECONDS)
            meter.sent += len(begun)
            cut = await tunnel(wire.socket, outside, meter, self._limits)
            if cut:
                self._account.refuse(NAME, f"{place} any longer", f"the tunnel was {cut}")

    def _allowed(self, place: HostPort, *, plain: bool) -> Destination:
        destination = self._destinations.get((place, plain))
        if destination is None:
            other = self._destinations.get((place, not plain))
            why = "the policy's network.allow does not name it for this script"
            if other is not None:
                why = f"the policy allows it {'by TLS only' if plain else 'by plain HTTP only'}"
            raise self._refuse(str(place), 403, why)
        return destination

    def _refuse(self, what: str, status: int, why: str) -> Bad:
        self._account.refuse(NAME, what, why)
        return Bad(status, why, noted=True)

    async def _says_hello(self, wire: Wire, destination: Destination) -> bool:
        """See that the client begins TLS with the destination, and no other; if not, tell it by an alert."""
        try:
            hello = await _read_hello(wire)
            expected = None if parse_address(destination.host) is not None else destination.host
            if hello.server_name != expected:
                said = hello.server_name[:100] if hello.server_name else "none"
                raise BadHello(f"the server name in TLS is {said}, and must be {expected or 'left out'}")
        except BadHello as bad:
            self._account.refuse(NAME, str(destination.at), str(bad))
            await wire.send(UNRECOGNISED_NAME, IDLE_SECONDS)
            await wire.part()
            return False
        return True

    async def _forward(self, wire: Wire, head: Head) -> None:
        """Make a plain request, and pass on whatever is answered.

        1. The target is an absolute URL, without user information and fragment, and `Host` says the same.
        2. The policy names its host and port, for plain HTTP.
        3. Every address that the name has may be connected to.
        4. The request is written anew, for one answer: the connection is used for no other.
        """
        # 1.
        target = _ABSOLUTE.fullmatch(head.target)
        if head.method not in _METHODS or target is None:
            raise self._refuse(
                f"{head.method} {head.target}", 400, "a proxy takes CONNECT host:port, or http:// with a host"
            )
        try:
            place = parse_host_port(target[1], _HTTP_PORT)
            same = not head.get("host") or parse_host_port(head.get("host"), _HTTP_PORT) == place
        except BadHost as error:
            raise self._refuse(target[1], 400, f"the URL or the Host header has {error}") from error
        if not same:
            raise self._refuse(target[1], 400, "the Host header says another host than the URL")
        # 2.
        destination = self._allowed(place, plain=True)
        # 3.
        try:
            outside = await reach(destination, self._names)
        except Bad as bad:
            raise self._refuse(str(place), bad.status, str(bad)) from bad
        # 4.
        with Wire(outside) as onward:
            meter = self._account.meter(str(place))
            meter.connections += 1
            await exchange(wire, onward, head, written(head, place, target[2] or "/"), meter, self._limits)


async def _read_hello(wire: Wire) -> Hello:
    """Read until a ClientHello is there; it stays unread for others."""
    try:
        async with asyncio.timeout(HELLO_SECONDS):
            while (hello := parse_hello(wire.peek())) is None:
                await wire.fill(HELLO_SECONDS)
    except (TimeoutError, TooSlow):
        raise BadHello(f"no ClientHello within {HELLO_SECONDS:g} seconds") from None
    return hello
