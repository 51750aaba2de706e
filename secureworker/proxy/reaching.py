"""From a destination of the policy to a connection: the name is resolved here, and the address judged before use."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Final

from secureworker.core.addresses import Address, HostPort, parse_address, why_not
from secureworker.core.doors import Destination
from secureworker.proxy.requests import Bad

logger = logging.getLogger(__name__)

RESOLVE_SECONDS: Final = 15.0
CONNECT_SECONDS: Final = 20.0
_MOST_ADDRESSES = 8
_RESOLVERS = 4
"""Threads. A name server that does not answer holds one of them for as long as the C library waits: not those that the
rest of the worker needs."""

Resolve = Callable[[HostPort], Awaitable[tuple[Address, ...]]]
"""Gives the addresses of a host, best first; raises OSError."""


@contextmanager
def system_resolver() -> Iterator[Resolve]:
    """Resolve as this host does."""
    threads = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="resolver")

    async def resolve(place: HostPort) -> tuple[Address, ...]:
        look_up = asyncio.get_running_loop().run_in_executor(
            threads, lambda: socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        )
        return tuple(ip_address(address[0]) for *_, address in await look_up)

    try:
        yield resolve
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


async def reach(destination: Destination, resolve: Resolve) -> socket.socket:
    """Connect to a destination.

    1. Its name is resolved, once; an address stands for itself.
    2. Every address that it has is one that may be connected to: not the first good one, for who gives good and bad
       ones at a time tries something.
    3. The connection goes to such an address, not to the name, which may have another one by now.

    Returns:
        a connected, non-blocking socket.

    Raises:
        Bad: it cannot be resolved or reached, or may not.
    """
    # 1.
    addresses = await _addresses(destination, resolve)
    # 2.
    for address in addresses:
        reason = why_not(address, destination.host, internal=destination.internal)
        if reason:
            raise Bad(403, reason)
    # 3.
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await _connect(addresses, destination.port)
    except TimeoutError:
        raise Bad(504, "the host does not answer") from None
    except OSError as error:
        raise Bad(502, f"the host cannot be reached: {error.strerror or error}") from error


async def _addresses(destination: Destination, resolve: Resolve) -> tuple[Address, ...]:
    literal = parse_address(destination.host)
    if literal is not None:
        return (literal,)
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            addresses = await resolve(destination.at)
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
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004 - IP's versions
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.setblocking(False)  # noqa: FBT003 - the socket's own signature
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(connection, (str(address), port))
    except BaseException:
        connection.close()
        raise
    return connection
