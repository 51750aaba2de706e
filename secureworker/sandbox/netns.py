"""The network namespace of a run: a loopback interface that is up, listeners that the worker serves, and no way out.

The worker makes it, before the container, so that the listeners' ports are taken when a script comes to look for them,
and so that nothing in the container owns it.
"""

import fcntl
import os
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from secureworker.core.doors import Door
from secureworker.core.errors import SandboxError
from secureworker.core.plan import Plan
from secureworker.ports import Network
from secureworker.sandbox import kernel

_SIOCSIFFLAGS = 0x8914  # include/uapi/linux/sockios.h
_IFF_UP = 0x1  # include/uapi/linux/if.h
_SELF = "/proc/thread-self/ns/net"
_BACKLOG = 128
"""Connections that the kernel completes before anybody accepts them; more wait, or time out."""


class NamespaceNetworks:
    """The port `Networks`, for a worker that may make namespaces."""

    @asynccontextmanager
    async def open(self, plan: Plan) -> AsyncIterator[Network]:
        """See `ports.Networks`. Takes under 1 ms."""
        making = network_namespace(plan.doors.open)
        # Entering waits for a thread for a fraction of a millisecond, leaving closes descriptors: not worth another.
        with making as network:
            yield network


@contextmanager
def network_namespace(doors: tuple[Door, ...] = ()) -> Iterator[Network]:
    """Make a namespace with `lo` up and a listener for each door; give descriptors that keep them.

    A thread of its own enters it and ends: a thread that has entered can never come back, and one of a pool would
    take later work into the namespace.
    """
    opened: list[int] = []
    failed: list[OSError] = []

    def enter() -> None:
        try:
            kernel.unshare_network()
            # Without it connects fail with ENETUNREACH instead of ECONNREFUSED, and listeners cannot be reached.
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
                fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))
            opened.append(os.open(_SELF, os.O_RDONLY | os.O_CLOEXEC))
            opened.extend(_listen(door.value) for door in doors)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=enter, name="network-namespace")
    thread.start()
    thread.join()
    try:
        if failed:
            raise SandboxError(
                f"a network namespace cannot be made: {failed[0].strerror}; "
                "the worker needs CAP_SYS_ADMIN, and a kernel with CONFIG_NET_NS"
            ) from failed[0]
        namespace, *listeners = opened
        yield Network(namespace, tuple(zip(doors, listeners, strict=True)))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _listen(port: int) -> int:
    """Listen on the loopback of the calling thread's namespace. Ports below 1024 are ours to give: we made it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as listener:
        # No SO_REUSEADDR and no SO_REUSEPORT: nobody can listen beside it.
        listener.bind(("127.0.0.1", port))
        listener.listen(_BACKLOG)
        return listener.detach()
