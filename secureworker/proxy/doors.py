"""The port `Doors`: puts a run's doors together, and serves them for as long as its script runs."""

import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, final

import aiohttp

from secureworker.core.doors import Door, Traffic
from secureworker.core.plan import Plan
from secureworker.host.http import HttpLimits, open_session
from secureworker.ports import ClaimedRun, Network, TaskLog
from secureworker.proxy import egress, taskcluster
from secureworker.proxy.account import Account
from secureworker.proxy.reaching import Resolve, system_resolver
from secureworker.proxy.serving import Served, serving
from secureworker.proxy.tunnel import TunnelLimits

UPSTREAM_LIMITS: Final = HttpLimits(stall_seconds=120.0, connections=256)
"""Of requests to Taskcluster. One that hangs for long holds one of its script's connections, and nobody else's."""
DEFAULT_LIMITS: Final = TunnelLimits()
_DESCRIPTORS: Final = 16_384
"""For this process. A run may cost 512; a worker that has none left could not even renew its claims."""


@final
class _OpenDoors:
    """See `ports.OpenDoors`."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def traffic(self) -> tuple[Traffic, ...]:
        """See `ports.OpenDoors`."""
        return self._account.traffic()


@final
class ProxyDoors:
    """See `ports.Doors`. Made by `open_doors`."""

    def __init__(self, session: aiohttp.ClientSession, resolve: Resolve, limits: TunnelLimits) -> None:
        self._session = session
        self._resolve = resolve
        self._limits = limits

    @asynccontextmanager
    async def open(self, run: ClaimedRun, plan: Plan, network: Network, log: TaskLog) -> AsyncIterator[_OpenDoors]:
        """See `ports.Doors`. Leaving takes no time that depends on the script."""
        account = Account(log)
        listeners = {
            door: socket.fromfd(there, socket.AF_INET, socket.SOCK_STREAM) for door, there in network.listeners
        }
        served = []
        for door, listener in listeners.items():
            listener.setblocking(False)  # noqa: FBT003 - the socket's own signature
            served.append(self._behind(door, listener, run, plan, account))
        async with serving(tuple(served), account):
            yield _OpenDoors(account)

    def _behind(self, door: Door, listener: socket.socket, run: ClaimedRun, plan: Plan, account: Account) -> Served:
        if door is Door.TASKCLUSTER:
            service = taskcluster.TaskclusterDoor(
                plan.root_url, plan.doors, lambda: run.credentials, self._session, account
            )
            return Served(taskcluster.NAME, listener, service.talk)
        hosts = egress.EgressDoor(plan.doors.destinations, self._resolve, account, self._limits)
        return Served(egress.NAME, listener, hosts.talk)


@asynccontextmanager
async def open_doors(
    limits: TunnelLimits = DEFAULT_LIMITS, resolve: Resolve | None = None
) -> AsyncIterator[ProxyDoors]:
    """Give the port, with connections to Taskcluster that end with this context.

    Args:
        limits: of tunnels.
        resolve: how names are resolved; None: as this host does.
    """
    _allow_descriptors()
    with system_resolver() as system:
        async with open_session(UPSTREAM_LIMITS) as session:
            yield ProxyDoors(session, resolve or system, limits)


def _allow_descriptors() -> None:
    """Raise this process's limit, which on many hosts is 1,024, as far as it may be. Scripts have their own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
