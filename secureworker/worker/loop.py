"""The claim loop: claims while it may, runs what it claimed, and ends only when every claimed run has ended."""

import asyncio
import logging
from dataclasses import dataclass
from typing import final

from secureworker.core.choose import runs_alone
from secureworker.core.errors import (
    NEED_NEW_START,
    AccessDenied,
    AuditError,
    HostError,
    SecureworkerError,
    ServiceError,
    SettingsError,
)
from secureworker.core.happening import Faulted, Hindrance, State, StateEntered
from secureworker.core.outcome import Errored, Exited, Outcome
from secureworker.ports import ClaimedRun, Events, Queue
from secureworker.worker.idle import Idle
from secureworker.worker.mending import Mending, Renewal
from secureworker.worker.run import run_claim
from secureworker.worker.shutdown import Shutdown
from secureworker.worker.tools import Tools

logger = logging.getLogger(__name__)

PAUSES_SECONDS = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0)
"""Between attempts to claim while the Queue cannot be reached; the last one repeats."""
REFUSALS = 5
"""Times in a row that our credentials are refused before the worker gives up, once they were taken: a minute's trouble
of the Auth service looks the same as credentials that were revoked. Refused the first time, they are wrong."""
HINDERED_SECONDS = 10.0
"""Between two looks at what keeps this host from taking on tasks."""
MOST_AT_ONCE = 32
"""Tasks that one claimWork may ask for (`maximum` in the Queue's schema)."""
POLL_SECONDS = 1.0
"""The least time from an answer without a run to the next request. Taskcluster holds an empty one back for 20 s; a
Queue that does not must not be asked in a tight loop."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How the loop ended."""

    reason: str
    claimed: int
    fault: SecureworkerError | None = None
    """What the operator must act upon; None: the worker ended because it was asked to."""


@final
class ClaimLoop:
    """One worker's loop. `capacity` runs at a time."""

    def __init__(
        self,
        queue: Queue,
        tools: Tools,
        shutdown: Shutdown,
        *,
        capacity: int = 1,
        tasks: int | None = None,
        idle_seconds: float | None = None,
    ) -> None:
        self._queue = queue
        self._tools = tools
        self._shutdown = shutdown
        self._capacity = capacity
        self._tasks = tasks
        """Claim no more than this many in all; None: no limit."""
        self._idle = Idle(tools.clock, idle_seconds)
        self._failures = 0
        """Claims in a row that could not be made, for whatever reason."""
        self._refusals = 0
        """Claims in a row that were refused for our credentials."""
        self._ever_answered = False
        self._running: set[str] = set()
        """By name: task and run."""
        self._alone = 0
        """How many of them are of scripts that run alone: beside them nothing is claimed."""
        self._claimed = 0
        self._run_ended = asyncio.Event()
        self._fault: SecureworkerError | None = None
        self._mending = Mending(tools.sandbox, tools.clock, tools.watcher)
        self._renewal = Renewal(tools.clock)
        self._entered: StateEntered | None = None

    async def serve(self, events: Events) -> Ended:
        """Claim and run until told to end, or until claiming makes no sense any more. All runs are over then."""
        async with asyncio.TaskGroup() as background:
            listening = (
                background.create_task(self._shutdown.listen(events)),
                background.create_task(self._shutdown.let_drain_time_pass()),
                background.create_task(self._say_that_it_drains()),
            )
            # Let what was asked for during the start be heard before the first claim.
            await asyncio.sleep(0)
            async with asyncio.TaskGroup() as runs:
                await self._claim_until_told(runs)
                self._enter(State.DRAINING, self._shutdown.reason)
            for listener in listening:
                listener.cancel()
        self._enter(State.ENDED, self._shutdown.reason)
        if self._shutdown.reason:
            return Ended(self._shutdown.reason, self._claimed, self._fault)
        return Ended(f"all {self._claimed} tasks that were asked for are done", self._claimed, self._mending.error)

    async def _say_that_it_drains(self) -> None:
        """Show it at once: the claim loop hears of it when a run ends, or an answer comes."""
        await self._shutdown.no_more_claims()
        self._enter(State.DRAINING, self._shutdown.reason)

    async def _claim_until_told(self, runs: asyncio.TaskGroup) -> None:
        while not self._shutdown.begun and self._claimed != self._tasks:
            if not self._running and (why := self._idle.reason_to_end()):
                self._shutdown.drain(why)
                return
            free = self._free_places()
            if not free:
                self._enter(State.FULL, "a run must be alone on this worker" if self._alone else "")
                await self._a_run_ends()
                continue
            # Looking takes its time, in which the worker may be told to end, and places may become free.
            room = await self._room_for(free)
            if not room or self._shutdown.begun:
                continue
            self._enter(State.CLAIMING)
            asked = self._tools.clock.monotonic()
            # One request at a time. A place that becomes free meanwhile is asked for with the next one, which is as
            # soon as there is a task at all: the Queue holds back only the answer that there is none.
            answer = await self._ask(room)
            begun = [self._begin(run, runs, wanted=place < room) for place, run in enumerate(answer)]
            if not any(begun):
                await self._shutdown.pause(asked + POLL_SECONDS - self._tools.clock.monotonic())

    async def _ask(self, free: int) -> tuple[ClaimedRun, ...]:
        """Ask the Queue once; where that gives nothing, return only when it makes sense to ask again."""
        try:
            # Never cancelled, whatever the operator asks for meanwhile: the answer may hold a claim.
            answer = await self._queue.claim(free)
        except AccessDenied as error:
            self._refusals += 1
            if not self._ever_answered or self._refusals == REFUSALS:
                self._give_up(error, "the Queue refuses this worker's credentials")
            else:
                await self._wait(error)
            return ()
        except ServiceError as error:
            await self._wait(error)
            return ()
        except (SettingsError, *NEED_NEW_START) as error:
            self._give_up(error, "claiming is not possible")
            return ()
        except HostError as error:
            # Nothing was claimed. The guards were asked a moment ago: at their next look they find it, or it is gone.
            await self._let_them_pass((Hindrance("audit" if isinstance(error, AuditError) else "host", str(error)),))
            return ()
        except Exception as error:
            logger.exception("an error of the worker's own while claiming")
            await self._wait(error)
            return ()
        self._failures = self._refusals = 0
        self._ever_answered = True
        return answer

    async def _room_for(self, runs: int) -> int:
        """Look how many of `runs` more tasks this host can take on; where it is none, return when to look again."""
        try:
            hindrances = await self._tools.guard.hindrances(runs)
            while hindrances and runs > 1:
                # What there is no room for at once may be run one after the other.
                runs //= 2
                hindrances = await self._tools.guard.hindrances(runs)
            hindrances = hindrances or await self._mending.hindrances()
        except HostError as error:
            self._give_up(error, "only a new start mends this")
            return 0
        if hindrances:
            await self._let_them_pass(hindrances)
            return 0
        self._renewal.over()
        return runs

    async def _let_them_pass(self, hindrances: tuple[Hindrance, ...]) -> None:
        why = "; ".join(hindrance.why for hindrance in hindrances)
        if self._enter(State.HINDERED, why, hindrances):
            logger.warning("claiming no tasks for now: %s", why)
        else:
            logger.debug("still claiming no tasks: %s", why)
        if self._renewal.due(hindrances, idle=not self._running) and self._shutdown.begin_anew(
            "all checks are made again, as at the start"
        ):
            return
        await self._shutdown.pause(HINDERED_SECONDS)

    def _enter(self, state: State, why: str = "", hindrances: tuple[Hindrance, ...] = ()) -> bool:
        """Tell whoever watches; say whether anything but the wording is new."""
        entered = StateEntered(state, why, hindrances)
        before, self._entered = self._entered, entered
        if entered != before:
            self._tools.watcher.saw(entered)
        if before is not None and before.state is State.HINDERED and state is State.CLAIMING:
            logger.info("nothing keeps this worker from claiming any more")
        kinds = [hindrance.what for hindrance in hindrances]
        return before is None or (state, kinds) != (before.state, [hindrance.what for hindrance in before.hindrances])

    def _free_places(self) -> int:
        if self._alone:
            return 0
        free = min(self._capacity - len(self._running), MOST_AT_ONCE)
        return free if self._tasks is None else min(free, self._tasks - self._claimed)

    async def _a_run_ends(self) -> None:
        """Wait for a free place. Runs end by themselves, soon after the worker is told to end at the latest."""
        self._run_ended.clear()
        await self._run_ended.wait()

    async def _wait(self, error: Exception) -> None:
        self._enter(State.UNANSWERED, str(error))
        pause = PAUSES_SECONDS[min(self._failures, len(PAUSES_SECONDS) - 1)]
        self._failures += 1
        logger.warning("cannot claim, trying again in %g s: %s", pause, error)
        await self._shutdown.pause(pause)

    def _give_up(self, fault: SecureworkerError, why: str) -> None:
        self._fault = self._fault or fault
        logger.error("%s: %s", why, fault)
        self._shutdown.drain(why)

    def _begin(self, run: ClaimedRun, runs: asyncio.TaskGroup, *, wanted: bool) -> bool:
        """Begin a run; say whether it is one that can be begun."""
        name = str(run.claim)
        if name in self._running:
            # It has its places under this name, and whatever was reported would be about it.
            logger.error("%s: the Queue gave this run to this worker again while it is under way; left alone", name)
            return False
        self._claimed += 1
        self._running.add(name)
        unwanted = self._shutdown.reason if self._shutdown.begun else "" if wanted else "the Queue gave more than asked"
        alone = not unwanted and runs_alone(run.claim.task, self._tools.policy)
        self._alone += alone
        runs.create_task(self._carry_out(run, unwanted, alone=alone), name=f"run {name}")
        return True

    async def _carry_out(self, run: ClaimedRun, unwanted: str, *, alone: bool) -> None:
        self._learn_from(await run_claim(run, self._tools, self._shutdown, unwanted))
        self._running.discard(str(run.claim))
        self._alone -= alone
        self._idle.worked()
        self._run_ended.set()

    def _learn_from(self, outcome: Outcome) -> None:
        """See what a run says of this host. A broken one must not eat the queue: others run elsewhere, or later."""
        match outcome:
            case Errored(error=HostError() as error):
                self._tools.watcher.saw(Faulted("host", str(error)))
                if isinstance(error, NEED_NEW_START):
                    self._give_up(error, "only a new start mends this")
                else:
                    self._mending.broke(error)
            case Exited():
                self._mending.held()
            case _:
                pass
