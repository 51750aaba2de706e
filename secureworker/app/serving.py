"""A worker from its start to its end, and anew with each policy."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace

from secureworker.app.settings import Settings
from secureworker.app.watching import watched
from secureworker.app.wiring import wired
from secureworker.core.audit import AuditRecord, Detail, Ending, Event, text
from secureworker.core.errors import HostError, SecureworkerError
from secureworker.core.policy import Policy
from secureworker.host.threads import threads_for
from secureworker.operation.notices import Notices
from secureworker.ports import Events, Queue
from secureworker.registration.source import Held
from secureworker.worker.audited import conclude
from secureworker.worker.loop import ClaimLoop, Ended
from secureworker.worker.shutdown import Shutdown
from secureworker.worker.supervise import supervise
from secureworker.worker.tools import Tools

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Reloading:
    """The policy in force, and how it is read again (SIGHUP)."""

    policy: Policy
    load: Callable[[], Policy]
    notices: Notices

    async def again(self) -> bool:
        """Read the policy again; say whether it is another one, for the same pool. What is wrong is logged."""
        self.notices.reloading()
        anew = await self._read()
        if not anew:
            self.notices.ready()
        return anew

    async def _read(self) -> bool:
        try:
            found = await asyncio.to_thread(self.load)
        except SecureworkerError as error:
            for problem in str(error).splitlines():
                logger.error("the policy cannot be used, so the old one stays: %s", problem)  # noqa: TRY400 - says it all
            return False
        if (found.root_url, found.worker_pool) != (self.policy.root_url, self.policy.worker_pool):
            logger.error(
                "the policy is for %s at %s now, so the old one stays; start another worker for that",
                found.worker_pool,
                found.root_url,
            )
            return False
        if (found.sha256, found.files) == (self.policy.sha256, self.policy.files):
            logger.info("the policy is as it was")
            return False
        self.policy = found
        return True


def unwrapped(tools: Tools, queue: Queue) -> tuple[Tools, Queue]:
    """Give the ports as they are: what every worker works with. Tests put something between."""
    return tools, queue


async def serve(
    policy: Policy,
    settings: Settings,
    events: Events,
    load: Callable[[], Policy] | None = None,
    wrap: Callable[[Tools, Queue], tuple[Tools, Queue]] = unwrapped,
) -> Ended:
    """Work until told to end. Everything is checked before the first claim, and nothing is left behind.

    Args:
        policy: what this worker may do.
        settings: what the operator says beside it.
        events: what the operator asks for while it works.
        load: reads the policy again. With another one the worker begins anew between tasks: every check is made again.
        wrap: gives the ports that the loop works with. For who calls this from Python; no option and no variable of
            the environment leads here.

    Raises:
        HostError: something on this host is not as it must be; no task was claimed.
        ServiceError: the Queue cannot be reached; no task was claimed.
    """
    # The loop ends it, after all who use it.
    asyncio.get_running_loop().set_default_executor(threads_for(settings.capacity))
    claimed = 0
    # Whoever looks at a worker sees one, whatever policies it goes through.
    async with watched(policy, settings) as lookers:
        notices = lookers.operation.notices
        reloading = None if load is None else Reloading(policy, load, notices)
        while True:
            left = None if settings.tasks is None else settings.tasks - claimed
            wiring = _announced(wired(policy, settings, lookers), notices)
            ended, anew = await _serve_once(wiring, replace(settings, tasks=left), events, reloading, wrap)
            claimed += ended.claimed
            if reloading is None or not anew or ended.fault is not None or left == ended.claimed:
                return replace(ended, claimed=claimed)
            policy = reloading.policy


@asynccontextmanager
async def _announced(
    wiring: AbstractAsyncContextManager[tuple[Tools, Queue, Held]], notices: Notices
) -> AsyncIterator[tuple[Tools, Queue, Held]]:
    """Say that the worker is ready: everything is checked then, and nothing is claimed yet."""
    async with wiring as wired_up:
        notices.ready()
        yield wired_up


async def _serve_once(
    wiring: AbstractAsyncContextManager[tuple[Tools, Queue, Held]],
    settings: Settings,
    events: Events,
    reloading: Reloading | None,
    wrap: Callable[[Tools, Queue], tuple[Tools, Queue]],
) -> tuple[Ended, bool]:
    """Work with one policy; say too whether to begin anew with another."""
    async with wiring as (made, audited, held):
        tools, queue = wrap(made, audited)
        logger.info("claiming tasks of %s", tools.policy.worker_pool)
        shutdown = Shutdown(tools.clock, settings.drain_seconds, None if reloading is None else reloading.again)
        loop = ClaimLoop(
            queue,
            tools,
            shutdown,
            capacity=settings.capacity,
            tasks=settings.tasks,
            idle_seconds=settings.idle_seconds,
        )
        ended = await supervise(loop.serve(events), *held.keepers(shutdown))
        if held.lapsed and ended.fault is None:
            ended = replace(ended, fault=HostError(f"{held.lapsed[0]}; give this worker new ones"))
        details: tuple[tuple[str, Detail], ...] = (("reason", text(ended.reason)), ("tasks", ended.claimed))
        ending = Ending.OK if ended.fault is None else Ending.FAILED
        await conclude(tools.audit, AuditRecord(Event.WORKER_STOP, ending, details=details))
        return ended, shutdown.starts_anew
