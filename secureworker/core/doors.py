"""The two ways out of a task's network namespace, as values: what lies behind each, and how a script finds it."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from secureworker.core.addresses import HostPort
from secureworker.core.paths import Route
from secureworker.core.scopes import intersect, overlaps

TASKCLUSTER_HOST: Final = "taskcluster"
"""In the sandbox's /etc/hosts, for 127.0.0.1."""
TASKCLUSTER_URL: Final = f"http://{TASKCLUSTER_HOST}"
EGRESS_PORT: Final = 3128
"""What HTTP proxies usually listen on."""
EGRESS_URL: Final = f"http://127.0.0.1:{EGRESS_PORT}"
NO_PROXY: Final = f"127.0.0.1,localhost,{TASKCLUSTER_HOST}"

NEVER_GRANTED: Final = (
    "queue:claim-*",
    "queue:reclaim-*",
    "queue:resolve-*",
    "queue:create-artifact*",
    "queue:worker-id*",
    "queue:quarantine-worker*",
    "worker-manager:*",
    "assume:*",  # stands for what is not known here, perhaps for all of the above
)
"""Scopes of the worker's own business. A scope that overlaps one of these is not granted, whoever allows it."""


class Door(Enum):
    """A listener in a task's network namespace, by its port on 127.0.0.1 inside."""

    TASKCLUSTER = 80
    EGRESS = EGRESS_PORT


@dataclass(frozen=True, slots=True)
class Destination:
    """A host and port that a script may reach through the egress proxy."""

    host: str
    """As `addresses.parse_host` gives it."""
    port: int
    plain: bool = False
    """Plain HTTP, forwarded and not tunnelled."""
    internal: bool = False
    """The name may resolve to an address that is not globally routable."""

    def __str__(self) -> str:
        return f"{'http://' if self.plain else ''}{self.at}{' (internal)' if self.internal else ''}"

    @property
    def at(self) -> HostPort:
        """Give host and port."""
        return HostPort(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Doors:
    """What one run may reach. Nothing, unless said."""

    routes: tuple[Route, ...] = ()
    scopes: tuple[str, ...] = ()
    """What requests to Taskcluster are authorised with."""
    destinations: tuple[Destination, ...] = ()

    @property
    def open(self) -> tuple[Door, ...]:
        """Give the doors there are: none without anything behind it."""
        found = ((Door.TASKCLUSTER, self.routes), (Door.EGRESS, self.destinations))
        return tuple(door for door, behind in found if behind)

    def environment(self) -> tuple[tuple[str, str], ...]:
        """Give the variables by which a script's programs find the doors."""
        found: list[tuple[str, str]] = []
        if Door.TASKCLUSTER in self.open:
            found.append(("TASKCLUSTER_PROXY_URL", TASKCLUSTER_URL))
        if Door.EGRESS in self.open:
            # Programs do not agree on the case; curl takes no upper-case HTTP_PROXY, for CGI's sake.
            found += [(name, EGRESS_URL) for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")]
            found += [("no_proxy", NO_PROXY), ("NO_PROXY", NO_PROXY)]
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went through a door to one destination."""

    destination: str
    """`host:port`; for Taskcluster, its service."""
    connections: int
    """For Taskcluster: requests."""
    sent_bytes: int
    received_bytes: int


def granted_scopes(allowed: tuple[str, ...], held: tuple[str, ...]) -> tuple[str, ...]:
    """Give what a script's requests may be authorised with.

    Args:
        allowed: what the policy's rule says.
        held: the task's scopes.
    """
    both = intersect(allowed, held)
    return tuple(scope for scope in both if not any(overlaps(scope, never) for never in NEVER_GRANTED))
