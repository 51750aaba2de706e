"""From a destination of the policy to a connection: the name is resolved here, and the address judged before use."""

import asyncio
import logging
import socket
from ipaddress import IPv6Address, ip_address
from typing import Final

from secureworker.core.address_blocks import Address
from secureworker.core.addresses import parse_address, why_not
from secureworker.core.doors import Destination
from secureworker.proxy.names import Names
from secureworker.proxy.requests import Bad

logger = logging.getLogger(__name__)

RESOLVE_SECONDS: Final = 15.0
CONNECT_SECONDS: Final = 20.0
_MOST_ADDRESSES = 8
_NOBODYS: Final = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}
"""Documentation's. Where they can be bound to, so can all addresses (`net.ipv4.ip_nonlocal_bind`)."""


async def reach(destination: Destination, names: Names) -> socket.socket:
    """Connect to a destination.

    1. Its name is resolved, once; an address stands for itself.
    2. Every address that it has is one that may be connected to: not the first good one, for who gives good and bad
       ones at a time tries something.
    3. The connection goes to such an address, not to the name, which may have another one by now.
    4. It does not end at this very host, unless the policy says `internal`: a public name may have an address of this
       host's own, where services listen that take whoever comes from here for one of theirs.

    Returns:
        a connected, non-blocking socket, over which nothing was sent.

    Raises:
        Bad: it cannot be resolved or reached, or may not.
    """
    # 1.
    addresses = await _addresses(destination, names)
    # 2.
    for address in addresses:
        reason = why_not(address, destination.host, internal=destination.internal)
        if reason:
            raise Bad(403, reason)
    # 3.
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            connection = await _connect(addresses, destination.port)
    except TimeoutError:
        raise Bad(504, "the host does not answer") from None
    except OSError as error:
        raise Bad(502, f"the host cannot be reached: {error.strerror or error}") from error
    # 4.
    if not destination.internal and _ends_here(connection):
        connection.close()
        raise Bad(403, "the host is this very host, and the policy does not say internal: true")
    return connection


def _ends_here(connection: socket.socket) -> bool:
    """Say whether both ends of a connection are on this host.

    The kernel gives a connection to an address of the host's own that very address on this side too, whichever
    interface it is of. Where a route says otherwise (`local … src …`), the address can be bound to all the same.
    """
    here, there = (ip_address(end[0]) for end in (connection.getsockname(), connection.getpeername()))
    return here == there or _is_own(there)


def _is_own(address: Address) -> bool:
    """Say whether this host has an address, by binding to it, where only what it has can be bound to."""
    return _can_bind(address) and not _can_bind(_NOBODYS[address.version])


def _can_bind(address: Address) -> bool:
    with socket.socket(_family(address), socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


async def _addresses(destination: Destination, names: Names) -> tuple[Address, ...]:
    literal = parse_address(destination.host)
    if literal is not None:
        return (literal,)
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            addresses = await names.resolve(destination.at)
    except TimeoutError:
        raise Bad(504, "the name cannot be resolved in time") from None
    except (OSError, UnicodeError) as error:
        raise Bad(502, "the name cannot be resolved") from error
    if not addresses:
        raise Bad(502, "the name has no address")
    return tuple(dict.fromkeys(addresses))


async def _connect(addresses: tuple[Address, ...], port: int) -> socket.socket:
    """Try the addresses in turn."""
    failed: OSError | None = None
    for address in addresses[:_MOST_ADDRESSES]:
        try:
            return await _connect_to(address, port)
        except OSError as error:
            logger.debug("%s port %d: %s", address, port, error)
            failed = failed or error
    raise failed or OSError("no address")


async def _connect_to(address: Address, port: int) -> socket.socket:
    connection = socket.socket(_family(address), socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.setblocking(False)  # noqa: FBT003 - the socket's own signature
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(connection, (str(address), port))
    except BaseException:
        connection.close()
        raise
    return connection


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
