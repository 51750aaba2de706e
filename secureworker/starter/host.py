"""What can be found out about a host without asking: who and where it is, and who starts services there.

Looks, and changes nothing.
"""

import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass

_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST = 38
"""Characters of a worker id and of a worker group, in the Queue's schemas."""
NO_DOMAIN = "hosts"
"""The worker group of a host whose name has no domain."""


@dataclass(frozen=True, slots=True)
class HostIs:
    """What was found."""

    worker_group: str
    worker_id: str
    root: bool
    systemd: bool
    """Whether systemd runs here, as it says itself (sd_booted(3))."""
    program: str
    """This program's path, for a unit."""


def look(systemd_directory: str = "/run/systemd/system") -> HostIs:
    """Find out."""
    group, worker = names_of(socket.gethostname(), socket.getfqdn())
    return HostIs(group, worker, os.geteuid() == 0, os.path.isdir(systemd_directory), program())


def names_of(hostname: str, full_name: str) -> tuple[str, str]:
    """Give a worker group and a worker id that the Queue takes; pure.

    The id is the host's own name, and the group the first part of its domain: `signer-1.dc1.example.com` is `signer-1`
    of the group `dc1`.
    """
    own, _, domain = hostname.partition(".")
    if not domain and full_name.startswith(f"{own}."):
        domain = full_name.removeprefix(f"{own}.")
    first = domain.partition(".")[0]
    # getfqdn() gives such names where there is no domain.
    group = _fit(first) if first and domain not in {"localdomain", "local"} else NO_DOMAIN
    return group, _fit(own) or "worker"


def _fit(name: str) -> str:
    return _UNFIT.sub("-", name).strip("-")[:_LONGEST]


def program() -> str:
    """Give the path of the command `secureworker` that belongs to this interpreter."""
    beside = os.path.join(os.path.dirname(os.path.abspath(sys.executable)), "secureworker")
    return beside if os.access(beside, os.X_OK) else os.path.abspath(sys.argv[0])


def same_file(path: str, content: bytes) -> bool:
    """Whether a file is there, and holds exactly `content`."""
    try:
        with open(path, "rb") as file:
            return file.read(len(content) + 1) == content
    except OSError:
        return False


def replaced(text: str, places: Mapping[str, str]) -> str:
    """Put other paths into a file that was written for the usual ones; pure.

    A path is replaced as a whole: `/etc/secureworker` is no part of `/etc/secureworker-other`.
    """
    # The longest first: a path may begin with another one.
    names = sorted(places, key=len, reverse=True)
    pattern = re.compile(rf"({'|'.join(map(re.escape, names))})(?![\w.-])")
    return pattern.sub(lambda found: places[found[1]], text)
