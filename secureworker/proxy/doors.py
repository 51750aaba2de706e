"""The port `Doors`: puts a run's doors together, and serves them for as long as its script runs."""

import resource
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, assert_never, final

from secureworker.core.doors import Door, Traffic
from secureworker.core.plan import Plan
from secureworker.ports import ClaimedRun, Network, TaskLog
from secureworker.proxy import egress, taskcluster
from secureworker.proxy.account import Account
from secureworker.proxy.egress import EgressDoor
from secureworker.proxy.names import LookUp, look_up, resolving
from secureworker.proxy.serving import Served, Talk, serving
from secureworker.proxy.taskcluster import TaskclusterDoor
from secureworker.proxy.tunnel import TunnelLimits
from secureworker.proxy.upstream import Upstream

_NAMES: Final = {Door.TASKCLUSTER: taskcluster.NAME, Door.EGRESS: egress.NAME}
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

    def __init__(self, look_up: LookUp, limits: TunnelLimits, tls: ssl.SSLContext | None = None) -> None:
        self._look_up = look_up
        self._tls = tls
        self._limits = limits

    @asynccontextmanager
    async def open(self, run: ClaimedRun, plan: Plan, network: Network, log: TaskLog) -> AsyncIterator[_OpenDoors]:
        """See `ports.Doors`. Leaving takes no time that depends on the script."""
        account = Account(log)
        async with AsyncExitStack() as stack:
            served = []
            for door, descriptor in network.listeners:
                listener = socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM)
                stack.callback(listener.close)
                listener.setblocking(False)  # noqa: FBT003 - the socket's own signature
                talk = self._behind(door, run, plan, account, stack)
                served.append(Served(_NAMES[door], listener, talk))
            async with serving(tuple(served), account):
                yield _OpenDoors(account)

    def _behind(self, door: Door, run: ClaimedRun, plan: Plan, account: Account, stack: AsyncExitStack) -> Talk:
        match door:
            case Door.TASKCLUSTER:
                # Connections for each run: none on which one run was answered is used for another.
                upstream = Upstream(plan.root_url, stack.enter_context(resolving(self._look_up)), self._tls)
                stack.callback(upstream.close)
                return TaskclusterDoor(upstream, plan.doors, lambda: run.credentials, account).talk
            case Door.EGRESS:
                names = stack.enter_context(resolving(self._look_up))
                return EgressDoor(plan.doors.destinations, names, account, self._limits).talk
            case _:
                assert_never(door)


@asynccontextmanager
async def open_doors(
    limits: TunnelLimits = DEFAULT_LIMITS, look_up: LookUp = look_up, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ProxyDoors]:
    """Give the port.

    Args:
        limits: of tunnels.
        look_up: how names are resolved.
        tls: who is believed to be Taskcluster; None: as this host does.
    """
    _allow_descriptors()
    yield ProxyDoors(look_up, limits, tls)


def _allow_descriptors() -> None:
    """Raise this process's limit, which on many hosts is 1,024, as far as it may be. Scripts have their own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
