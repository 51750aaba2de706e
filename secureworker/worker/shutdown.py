"""What the operator has asked for: to claim no more, and to end what runs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import final

from secureworker.ports import Clock, Events

logger = logging.getLogger(__name__)


@final
class Shutdown:
    """The worker's way to its end; only ever goes forward.

    `drain` (SIGUSR1, as often as a container platform likes): claim no more, let running tasks finish.
    `stop` (SIGTERM): the same, and running tasks end after the drain time.
    `now` (a second SIGTERM): running tasks end at once.
    `reload` (SIGHUP): with another policy, claim no more and let running tasks finish; then the worker begins anew.
    """

    def __init__(self, clock: Clock, drain_seconds: float, reload: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Begin, with nothing asked for.

        Args:
            clock: the time.
            drain_seconds: how long running tasks may go on after a stop was asked for.
            reload: reads the policy again; says whether there is another one to go on with. It does not raise.
        """
        self._clock = clock
        self._drain_seconds = drain_seconds
        self._reload = reload
        self._reloaded = False
        self._told_to_end = False
        self._no_more_claims = asyncio.Event()
        self._stop_asked = asyncio.Event()
        self._runs_end = asyncio.Event()
        self._at_once = asyncio.Event()
        self.reason = ""
        """Why no more tasks are claimed; empty while they are."""

    @property
    def starts_anew(self) -> bool:
        """Whether this is no end but a pause: another policy is there, and nobody asked for more than that."""
        return self._reloaded and not self._told_to_end

    @property
    def begun(self) -> bool:
        """Whether no more tasks are to be claimed."""
        return self._no_more_claims.is_set()

    def drain(self, reason: str) -> None:
        """Claim no more. The first reason stands."""
        if not self.begun:
            self.reason = reason
            logger.info("claiming no more tasks: %s", reason)
            self._no_more_claims.set()

    def stop(self, reason: str) -> None:
        """Claim no more, and end what runs after the drain time."""
        self.drain(reason)
        self._stop_asked.set()

    def now(self, reason: str) -> None:
        """Claim no more, and end what runs."""
        self.drain(reason)
        self._at_once.set()
        self._runs_end.set()

    async def no_more_claims(self) -> None:
        """Return when no more tasks are to be claimed."""
        await self._no_more_claims.wait()

    async def runs_must_end(self) -> str:
        """Return when running tasks are to end, and say why in a sentence for their logs."""
        await self._runs_end.wait()
        return "the worker is shutting down"

    async def asked_at_once(self) -> None:
        """Return when the operator will not wait any longer."""
        await self._at_once.wait()

    async def pause(self, seconds: float) -> None:
        """Sleep, but not into a shutdown."""
        async with asyncio.TaskGroup() as group:
            sleeping = group.create_task(self._clock.sleep(seconds))
            waking = group.create_task(self.no_more_claims())
            await asyncio.wait((sleeping, waking), return_when=asyncio.FIRST_COMPLETED)
            sleeping.cancel()
            waking.cancel()

    async def listen(self, events: Events) -> None:
        """Take what the operator asks for, until cancelled."""
        async for asked in events.shutdowns():
            if asked == "reload":
                await self._read_again()
                continue
            self._told_to_end = True
            match asked:
                case "drain":
                    self.drain("the operator asked to drain")
                case "stop":
                    self.stop("the operator asked to stop")
                case _:
                    self.now("the operator asked to stop now")

    async def _read_again(self) -> None:
        """Read the policy again, unless the worker is on its way to an end already."""
        if self._reload is None or self.begun:
            logger.info("the policy is not read again now")
            return
        if await self._reload():
            self._reloaded = True
            self.drain("the policy has changed")

    def begin_anew(self, why: str) -> bool:
        """Claim no more, and then make all checks again and go on; say whether that can be."""
        if self._reload is None or self.begun:
            return False
        self._reloaded = True
        self.drain(why)
        return True

    async def let_drain_time_pass(self) -> None:
        """Once a stop is asked for, end the runs when the drain time has passed."""
        await self._stop_asked.wait()
        await self._clock.sleep(self._drain_seconds)
        if not self._runs_end.is_set():
            logger.info("the drain time of %g s is over: running tasks end now", self._drain_seconds)
            self._runs_end.set()
