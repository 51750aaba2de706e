"""The worker's side of live logs: the port `LiveLogs`, and the process that shows them, started again if it ended."""

import asyncio
import logging
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from secureworker.core.errors import HostError, SettingsError
from secureworker.host.private import read_private
from secureworker.livelog import wire
from secureworker.livelog.settings import LiveLogSettings

logger = logging.getLogger(__name__)

START_SECONDS: Final = 30.0
END_SECONDS: Final = 5.0
_MOST_PEM: Final = 256 * 1024
_PASSED_ON: Final = frozenset({"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ"})


@final
class ShownLogs:
    """Hands logs over to a process that shows them. One that has ended is started again for the next log."""

    def __init__(self, settings: LiveLogSettings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._process: _Process | None = None
        self._shown: dict[str, str] = {}
        """Digests of addresses, by run: of the logs that are being written. Empty: it is not shown any more."""
        self._starting = asyncio.Lock()

    async def show(self, run: str, path: str) -> str:
        """Show the log at `path`, of the run of that name, from now on; give its address.

        Raises:
            HostError: it cannot be shown.
        """
        async with self._starting:
            process = await self._serving()
        token = secrets.token_urlsafe(32)
        digest = wire.digest_of(token)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                process.tell(wire.Show(digest, descriptor))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise HostError(f"the log cannot be handed over to be shown: {error.strerror}") from error
        self._shown[run] = digest
        return f"{self._settings.url}/log/{token}"

    def ended(self, run: str) -> bool:
        """Say that nothing more is written to a run's log; tell whether it was shown. Once is enough."""
        digest = self._shown.pop(run, None)
        if digest and self._process is not None:
            with suppress(OSError):
                self._process.tell(wire.End(digest))
        return digest is not None

    async def start(self) -> None:
        """See that logs can be shown.

        Raises:
            SettingsError: the certificate or its key cannot be used.
            HostError: the process does not start.
        """
        async with self._starting:
            await self._serving()

    async def close(self) -> None:
        """End the process. Logs are not shown any more."""
        if self._process is not None:
            await asyncio.to_thread(self._process.end)
            self._process = None

    async def _serving(self) -> "_Process":
        """Give the process; another one where it ended, or where there is a new certificate and nothing is shown."""
        process = self._process
        if process is not None:
            if process.child.poll() is None and (any(self._shown.values()) or process.pair == _pair(self._settings)):
                return process
            logger.info("the process that shows logs is started anew")
            await self.close()
            # Runs that are under way have an artifact that leads there: it is still to lead to the log at their end.
            self._shown = dict.fromkeys(self._shown, "")
        try:
            self._process = await asyncio.to_thread(_start, self._settings, self._listener)
        except OSError as error:
            raise HostError(f"the process that shows logs cannot be started: {error.strerror}") from error
        return self._process


@dataclass(frozen=True, slots=True)
class _Process:
    """The process that shows logs."""

    child: "subprocess.Popen[bytes]"
    channel: socket.socket
    pair: tuple[object, ...]
    """What certificate and key were, to see that they are others now."""

    def tell(self, message: wire.Message) -> None:
        """Send it a message, without waiting.

        Raises:
            OSError: it is gone, or is now: it has taken nothing for hundreds of messages, and would show for ever what
                it was not told the end of.
        """
        try:
            wire.send(self.channel, message)
        except OSError:
            self.child.kill()
            raise

    def end(self) -> None:
        """End it, and wait for that."""
        self.channel.close()
        try:
            self.child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning("the process %d, which shows logs, did not end and is killed", self.child.pid)
            self.child.kill()
            self.child.wait()


@asynccontextmanager
async def shown_logs(settings: LiveLogSettings) -> AsyncIterator[ShownLogs]:
    """Bind the port and start the process; it ends with this.

    Raises:
        SettingsError: the port cannot be bound, or the certificate cannot be used.
        HostError: the process does not start.
    """
    try:
        family = socket.AF_INET6 if ":" in settings.listen[0] else socket.AF_INET
        listener = socket.create_server(settings.listen, family=family, backlog=64)
    except OSError as error:
        where = f"{settings.listen[0]}:{settings.listen[1]}"
        raise SettingsError(f"live logs cannot be shown at {where}: {error.strerror}; give another address") from error
    with listener:
        shown = ShownLogs(settings, listener)
        try:
            await shown.start()
            logger.info("live logs are shown at %s", settings.url)
            yield shown
        finally:
            await shown.close()


def _pair(settings: LiveLogSettings) -> tuple[object, ...]:
    found = []
    for path in (settings.certificate, settings.key):
        with suppress(OSError):
            status = Path(path).stat()
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)


def _start(settings: LiveLogSettings, listener: socket.socket) -> _Process:
    """Start the process, and wait until it has given up its rights and shows what it is handed."""
    pair = _pair(settings)
    key = read_private(settings.key, "the live log's key", most_bytes=_MOST_PEM)
    try:
        certificate = Path(settings.certificate).read_bytes()[:_MOST_PEM]
    except OSError as error:
        raise SettingsError(
            f"the live log's certificate {settings.certificate} cannot be read: {error.strerror}"
        ) from error
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ExitStack() as stack:
        stack.enter_context(its)
        stack.callback(ours.close)
        given = {"channel": its.fileno(), "listener": listener.fileno()}
        for name, content in (("certificate", certificate), ("key", key)):
            given[name] = os.memfd_create(f"{name}.pem")
            stack.callback(os.close, given[name])
            os.write(given[name], content)
            os.lseek(given[name], 0, os.SEEK_SET)
        child = subprocess.Popen(
            [
                # -P: of what lies where the worker was started, nothing is imported.
                *(sys.executable, "-P", "-m", "secureworker.livelog", "--log-format", settings.log_format),
                *(word for name, descriptor in given.items() for word in (f"--{name}-fd", str(descriptor))),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=tuple(given.values()),
            # Of its own session: what a terminal sends to the worker is not for it.
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name in _PASSED_ON},
        )
        its.close()
        ours.settimeout(START_SECONDS)
        try:
            ready = wire.receive(ours)
        except (OSError, ValueError) as error:
            ready = wire.Ready(str(error))
        if ready != wire.Ready():
            child.kill()
            child.wait()
            why = ready.error if isinstance(ready, wire.Ready) else "it ended; the worker's log says more"
            raise HostError(f"logs cannot be shown: {why}")
        # A process that takes no messages must not hold up the worker.
        ours.setblocking(False)  # noqa: FBT003 - the standard library's
        stack.pop_all()
        os.close(given["certificate"])
        os.close(given["key"])
        its.close()
    return _Process(child, ours, pair)
