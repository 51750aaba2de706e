"""From names to addresses: as this host does, in threads of one run's own.

A name server that does not answer holds a thread for as long as the C library waits, half a minute and more. So no two
runs share one: what a run's names do to lookups, they do to its own.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Final, TypeAlias, final

from secureworker.core.address_blocks import Address
from secureworker.core.addresses import HostPort

AT_ONCE: Final = 2
"""Lookups of one run. Its other names wait; the same name is looked up once for all that ask meanwhile."""

LookUp: TypeAlias = Callable[[HostPort], tuple[Address, ...]]
"""Gives the addresses of a host, best first; raises OSError. Blocking."""


def look_up(place: HostPort) -> tuple[Address, ...]:
    """Ask as this host does."""
    found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    return tuple(ip_address(address[0]) for *_, address in found)


@final
class Names:
    """The lookups of one run. Made by `resolving`."""

    def __init__(self, look_up: LookUp, threads: ThreadPoolExecutor) -> None:
        self._look_up = look_up
        self._threads = threads
        self._asked: dict[HostPort, asyncio.Future[tuple[Address, ...]]] = {}

    async def resolve(self, place: HostPort) -> tuple[Address, ...]:
        """Give the addresses of a host, best first: never an older answer than to this question, or one under way.

        Raises:
            OSError: it has none, or nobody can say.
        """
        asked = self._asked.get(place)
        if asked is None:
            asked = asyncio.get_running_loop().run_in_executor(self._threads, self._look_up, place)
            self._asked[place] = asked
            asked.add_done_callback(lambda done: self._answered(place, done))
        # Shielded: who gives up must not take the answer from others who wait for it.
        return await asyncio.shield(asked)

    def _answered(self, place: HostPort, done: asyncio.Future[tuple[Address, ...]]) -> None:
        del self._asked[place]
        if not done.cancelled():
            # Looked at: an error that nobody waits for any more is none.
            done.exception()


@contextmanager
def resolving(look_up: LookUp) -> Iterator[Names]:
    """Give the lookups of a run. Leaving does not wait for those that are still under way."""
    threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="names")
    try:
        yield Names(look_up, threads)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
