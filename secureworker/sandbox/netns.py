"""The network namespace of a run: a loopback interface that is up, and no way out.

The worker makes it, before the container, so that it can later put listeners into it, and so that nothing in the
container owns it. Rootless, the runtime makes it: this module is not used then.
"""

import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from secureworker.core.errors import SandboxError
from secureworker.sandbox import kernel

_SIOCSIFFLAGS = 0x8914  # include/uapi/linux/sockios.h
_IFF_UP = 0x1  # include/uapi/linux/if.h
_SELF = "/proc/thread-self/ns/net"


@contextmanager
def network_namespace() -> Iterator[int]:
    """Make a namespace with `lo` up; give a descriptor that keeps it.

    A thread of its own enters it and ends: a thread that has entered can never come back, and one of a pool would
    take later work into the namespace. Takes under 1 ms.
    """
    made: list[int] = []
    failed: list[OSError] = []

    def enter() -> None:
        try:
            kernel.unshare_network()
            # Without it connects fail with ENETUNREACH instead of ECONNREFUSED, and listeners cannot be reached.
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
                fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))
            made.append(os.open(_SELF, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=enter, name="network-namespace")
    thread.start()
    thread.join()
    if failed:
        raise SandboxError(
            f"a network namespace cannot be made: {failed[0].strerror}; "
            "the worker needs CAP_SYS_ADMIN, and a kernel with CONFIG_NET_NS"
        ) from failed[0]
    try:
        yield made[0]
    finally:
        os.close(made[0])
