"""Being a child of worker-runner: it starts the worker, renews its credentials, and tells it when to end.

It talks over the worker's standard input and output; the worker's log stays on standard error.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import BinaryIO, Final, NoReturn, Protocol, TypeAlias, final

from secureworker.core.claim import Credentials, Json
from secureworker.core.errors import AccessDenied, HostError, ServiceError
from secureworker.host.logs import harmless
from secureworker.host.own_credentials import OwnCredentials
from secureworker.ports import Clock
from secureworker.registration import messages
from secureworker.registration.messages import (
    BadMessage,
    GracefulTermination,
    Message,
    NewCredentials,
    Unknown,
    Welcome,
)

logger = logging.getLogger(__name__)

WELCOME_SECONDS: Final = 30.0
"""worker-runner says welcome as soon as it has started the worker."""
LONGEST_LINE: Final = 1024 * 1024
"""Credentials with a certificate of many scopes are some KiB."""
MOST_UNSENT: Final = 1024 * 1024
"""Log lines that worker-runner does not read are dropped beyond this."""
FLUSH_SECONDS: Final = 2.0
"""For what is unsent when the worker ends."""
CHECK_AGAIN_SECONDS: Final = 30.0
"""Where new credentials could not be checked. They come half an hour before the old ones end, and only once."""

Check: TypeAlias = Callable[[Credentials], Awaitable[None]]


class Ending(Protocol):
    """What worker-runner may ask for; see `worker.shutdown.Shutdown`."""

    def drain(self, reason: str) -> None:
        """Claim no more, let running tasks finish."""

    def now(self, reason: str) -> None:
        """Claim no more, end running tasks."""


@final
class _Sending(asyncio.Protocol):
    """Notes when all that was written is in the pipe."""

    def __init__(self) -> None:
        self.all_sent = asyncio.Event()
        self.all_sent.set()

    def pause_writing(self) -> None:
        self.all_sent.clear()

    def resume_writing(self) -> None:
        self.all_sent.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            logger.warning("worker-runner reads no more: %s", exc)
        self.all_sent.set()


@final
class Runner:
    """The worker-runner at the other end. Made by `open_runner`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport, sending: "_Sending") -> None:
        self._reader = reader
        self._writer = writer
        self._sending = sending
        self._agreed: frozenset[str] = frozenset()
        self._offered: Credentials | None = None
        self._offer = asyncio.Event()

    async def greet(self) -> None:
        """Wait for its welcome, and agree on what both know.

        Raises:
            HostError: there is none: nobody is there, or somebody else.
        """
        try:
            async with asyncio.timeout(WELCOME_SECONDS):
                while not isinstance(message := await self._receive(), Welcome):
                    if message is None:
                        raise HostError(
                            "standard input ended before worker-runner's welcome; do not use "
                            "--with-worker-runner where worker-runner does not start the worker"
                        )
        except TimeoutError as error:
            raise HostError(
                f"no welcome of worker-runner on standard input within {WELCOME_SECONDS:g} s; do not use "
                "--with-worker-runner where worker-runner does not start the worker"
            ) from error
        self._agreed = message.capabilities & frozenset(messages.CAPABILITIES)
        self._send(messages.line("hello", capabilities=list[Json](sorted(self._agreed))))
        logger.info("worker-runner is there, and knows %s", ", ".join(sorted(self._agreed)) or "nothing more")

    async def serve(self, own: OwnCredentials, check: Check, ending: Ending, clock: Clock) -> NoReturn:
        """Take what it says, for ever. Where it goes away, nobody renews the credentials: the worker drains.

        Cancelled and begun again, it goes on where it was.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take(own, check, clock))
            await self._listen(ending)
            ending.drain("worker-runner is gone")
        raise AssertionError  # taking has no end

    async def _listen(self, ending: Ending) -> None:
        """Take what worker-runner says until it goes away."""
        while (message := await self._receive()) is not None:
            match message:
                case GracefulTermination(finish_tasks=True):
                    ending.drain("worker-runner asked to end when running tasks have")
                case GracefulTermination():
                    ending.now("worker-runner asked to end at once")
                case NewCredentials(credentials=fresh):
                    self._offered = fresh
                    self._offer.set()
                case Unknown(type=kind):
                    logger.warning("worker-runner says %r, which this worker does not know", kind)
                case Welcome():
                    logger.warning("worker-runner says welcome again")

    def report_error(self, title: str, description: str, extra: dict[str, Json]) -> None:
        """Have an error shown among the worker pool's. Everybody can read those: no paths, names or values."""
        self._send_if(
            messages.ERROR_REPORT,
            kind="worker-error",
            title=title[:128],
            description=description[:10_240],
            extra=extra,
        )

    def remove_worker(self) -> None:
        """Have this worker removed, and its machine ended: it is of no more use."""
        self._send_if(messages.SHUTDOWN)

    def log(self, body: dict[str, Json]) -> None:
        """Hand a log event over; dropped where worker-runner does not keep up."""
        if self._writer.get_write_buffer_size() < MOST_UNSENT:
            self._send_if(messages.LOG, body=body)

    async def flush(self) -> None:
        """Wait a little until all is sent."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._sending.all_sent.wait()

    def _send_if(self, kind: str, /, **properties: Json) -> None:
        if kind in self._agreed:
            self._send(messages.line(kind, **properties))

    def _send(self, line: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(line)

    async def _take(self, own: OwnCredentials, check: Check, clock: Clock) -> NoReturn:
        """Check what is offered, and use it. What cannot be checked now is checked again, unless newer ones come."""
        while True:
            await self._offer.wait()
            fresh = self._offered
            assert fresh is not None
            try:
                await check(fresh)
                own.take(fresh)
                logger.info("using the new credentials of %s from worker-runner", fresh.client_id)
            except (AccessDenied, HostError) as error:
                logger.error("the new credentials of worker-runner are not used: %s", error)  # noqa: TRY400 - it says all
            except ServiceError as error:
                logger.warning("the new credentials of worker-runner cannot be checked now: %s", error)
                await clock.sleep(CHECK_AGAIN_SECONDS)
                continue
            if self._offered is fresh:
                self._offer.clear()

    async def _receive(self) -> Message | None:
        """Give the next message that can be understood; None at the end."""
        while True:
            try:
                line = await self._reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return None
            except asyncio.LimitOverrunError as error:
                logger.warning("worker-runner sends a line of more than %d bytes, which is skipped", LONGEST_LINE)
                await self._reader.read(error.consumed or LONGEST_LINE)
                continue
            try:
                message = messages.parse(line.rstrip(b"\r\n"))
            except BadMessage as error:
                logger.warning("worker-runner: %s", error)
                continue
            if message is not None:
                return message
            logger.debug("worker-runner sends a line of %d bytes that is no message", len(line))


@asynccontextmanager
async def open_runner(incoming: BinaryIO, outgoing: BinaryIO) -> AsyncIterator[Runner]:
    """Talk to the worker-runner at the other end of two pipes, which are closed when this is left.

    Raises:
        HostError: there is no worker-runner.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(LONGEST_LINE)
    try:
        reading, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), incoming)
        writing, sending = await loop.connect_write_pipe(_Sending, outgoing)
    except (OSError, ValueError) as error:
        raise HostError(
            f"standard input and output are no pipes ({error}); do not use --with-worker-runner where worker-runner "
            "does not start the worker"
        ) from error
    # Nothing counts as sent before it is in the pipe.
    writing.set_write_buffer_limits(high=0)
    runner = Runner(reader, writing, sending)
    try:
        await runner.greet()
        yield runner
        await runner.flush()
    finally:
        reading.close()
        writing.close()


@final
class RunnerLog(logging.Handler):
    """Hands the worker's log over to worker-runner, beside what goes to standard error."""

    def __init__(self, runner: Runner, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._runner = runner
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one event over, from any thread."""
        body: dict[str, Json] = {
            "textPayload": harmless(record.getMessage()),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        with suppress(RuntimeError):  # The loop has ended: so has the worker.
            self._loop.call_soon_threadsafe(self._runner.log, body)
