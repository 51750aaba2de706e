"""The process that shows logs: `python -m secureworker.livelog`, started by the worker and by nobody else."""

import argparse
import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import ssl
from typing import Final

from secureworker.core.errors import HostError
from secureworker.host import confine
from secureworker.host.logs import LogFormat, configure
from secureworker.host.userns import set_aside
from secureworker.livelog import wire
from secureworker.livelog.server import Logs, LogServer

logger = logging.getLogger(__name__)

SHOWER_UID: Final = 1_899_999_998
"""Nobody's, as the signer's is, and another one: beyond the ids of scripts and of distributions' users."""
MOST_DESCRIPTORS: Final = 512
NICENESS: Final = 10


def main() -> int:
    """Show logs until the worker ends the conversation."""
    parser = argparse.ArgumentParser(prog="secureworker.livelog")
    for name in ("channel", "listener", "certificate", "key"):
        parser.add_argument(f"--{name}-fd", type=int, required=True)
    parser.add_argument("--log-format", default="human")
    given = parser.parse_args()
    configure(LogFormat(given.log_format))
    # It ends when the worker does. What is sent to the whole group must not end it while there is more to be read.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=given.channel_fd) as channel:
        try:
            asyncio.run(_show(channel, socket.socket(fileno=given.listener_fd), given.certificate_fd, given.key_fd))
        except (HostError, OSError, ValueError) as error:
            # The worker's own log says it: this process is not started by anybody else.
            with contextlib.suppress(OSError):
                wire.send(channel, wire.Ready(str(error) or type(error).__name__))
            return 1
    return 0


async def _show(channel: socket.socket, listener: socket.socket, certificate: int, key: int) -> None:
    """Get what needs rights, give them up, and only then listen to anybody.

    1. The certificate and its key, which only root may read.
    2. No rights, no cores, few descriptors, no system calls that connect or start anything.
    3. Our port, at the socket that the worker listens at.
    4. Logs, as the worker hands them over.
    """
    loop = asyncio.get_running_loop()
    # 1.
    context = _context(certificate, key)
    # 2.
    if os.geteuid() == 0:
        uid = set_aside(SHOWER_UID, before_last=1)
        confine.become(uid, uid)
    confine.keep_memory_private()
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_DESCRIPTORS, MOST_DESCRIPTORS))
    # Handshakes cost strangers nothing and this host a millisecond each: the worker comes first.
    os.nice(NICENESS)
    confine.filter_system_calls()
    # 3. and 4.
    logs = Logs()
    over = loop.create_future()
    channel.setblocking(False)  # noqa: FBT003 - the standard library's
    with listener:
        async with LogServer(logs).serving(listener, context):
            loop.add_reader(channel, _take, channel, logs, over)
            wire.send(channel, wire.Ready())
            try:
                await over
            finally:
                loop.remove_reader(channel)


def _context(certificate: int, key: int) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a prompt: a key that is encrypted is refused.
        context.load_cert_chain(f"/proc/self/fd/{certificate}", f"/proc/self/fd/{key}", password=lambda: b"")
    except ssl.SSLError as error:
        raise HostError(
            f"the live log's certificate cannot be used: {error.reason or error}; give PEM files that belong together, "
            "the key without a passphrase"
        ) from error
    finally:
        os.close(certificate)
        os.close(key)
    return context


def _take(channel: socket.socket, logs: Logs, over: "asyncio.Future[None]") -> None:
    """Take a message of the worker's."""
    message: wire.Message | None = None
    try:
        message = wire.receive(channel)
    except BlockingIOError:
        return
    except ValueError as error:
        # Such is a log that comes where no descriptor is left for it. Those that are shown are none the worse for it.
        logger.warning("the worker is not understood: %s", error)
        return
    except OSError as error:
        logger.warning("the worker is not heard any more: %s", error.strerror)
    match message:
        case wire.Show(digest, descriptor):
            logs.show(digest, descriptor)
        case wire.End(digest):
            logs.end(digest)
        case _ if not over.done():
            over.set_result(None)


if __name__ == "__main__":
    raise SystemExit(main())
