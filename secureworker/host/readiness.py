"""Telling systemd that a service is ready, for a process that gives up making sockets before it is (sd_notify(3))."""

import logging
import socket
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

logger = logging.getLogger(__name__)

VARIABLE: Final = "NOTIFY_SOCKET"


@dataclass(frozen=True, slots=True)
class Readiness:
    """Who waits for this process; nobody, mostly."""

    channel: socket.socket | None = None

    def tell(self) -> None:
        """Say that this process is ready. What goes wrong is logged, and is the other side's to notice."""
        if self.channel is not None:
            try:
                self.channel.send(b"READY=1")
            except OSError as error:
                logger.warning("the service manager cannot be told that this is ready: %s", error.strerror)


@contextmanager
def readiness(environment: MutableMapping[str, str]) -> Iterator[Readiness]:
    """Connect to who waits, now; take the address out of the environment: no other process shall speak for this one."""
    address = environment.pop(VARIABLE, "")
    if not address:
        yield Readiness()
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        # A leading @ stands for the NUL of an abstract address.
        connected = None
        with suppress(OSError):
            channel.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            connected = channel
        if connected is None:
            logger.warning("%s is %r, where nobody listens", VARIABLE, address)
        yield Readiness(connected)
