"""What may end a run early. Each guard waits for one thing, never returns normally, and does nothing else."""

import logging
from datetime import timedelta
from typing import NoReturn

from secureworker.core.errors import ServiceError, Stop, StopReason
from secureworker.core.happening import Renewed
from secureworker.ports import ClaimedRun, Clock, Watcher
from secureworker.worker.lease import Lease
from secureworker.worker.shutdown import Shutdown

logger = logging.getLogger(__name__)

RENEW_AT = 0.4
"""Part of a claim's remaining time after which it is renewed: 8 of Taskcluster's 20 minutes, so that 11 are left to
try again in."""
LEAST_SECONDS = 0.5
"""Between two renewals, also where a clock that is wrong makes every claim seem over."""
RETRY_SECONDS = (2.0, 5.0, 10.0, 20.0, 30.0)
"""Pauses between attempts to renew a claim; the last one repeats."""
PAUSE_PART = 0.2
"""A pause is at most this part of what is left of the claim: of a short one, a whole pause could be all there is."""
STATUS_SECONDS = 10.0
"""Between two looks at a run's status. A cancellation is to be seen within 30 s; a look costs the Queue 10 ms."""
END_MARGIN_SECONDS = 20.0
"""Before a claim ends, the run is over: time for the kill to be felt, and for clocks that differ."""
END_MARGIN_PART = 0.2
"""That margin is at most this part of a claim: a Queue with short claims must not leave no time to work in."""
MOST_OF_A_CLAIM = 0.5
"""All margins together: below what `RENEW_AT` leaves, so that no claim ends before it was tried to be renewed."""


HASTY_GRACE_SECONDS = 1.0
"""All the grace that is left to a script when the operator asks to stop now."""


async def keep_claim(run: ClaimedRun, lease: Lease, clock: Clock, watcher: Watcher | None = None) -> NoReturn:
    """Renew the claim long before it ends, again and again; `end_with_claim` watches that this succeeds.

    Raises:
        Stop: `CLAIM_LOST` or `CANCELED`: the Queue says that the run is not ours any more.
    """
    while True:
        await clock.sleep(max(RENEW_AT * lease.remaining(), LEAST_SECONDS))
        failures = 0
        while True:
            try:
                taken_until = await run.reclaim()
                slack = lease.remaining()
                lease.renew(taken_until)
                if watcher is not None:
                    watcher.saw(Renewed(run.claim.task_id, run.claim.run_id, slack))
                break
            except ServiceError as error:
                logger.warning(
                    "%s: the claim is not renewed yet, and ends in %.0f s: %s", run.claim, lease.remaining(), error
                )
            longest = max(PAUSE_PART * lease.remaining(), LEAST_SECONDS)
            await clock.sleep(min(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)], longest))
            failures += 1


async def end_with_claim(lease: Lease, clock: Clock, stopping_takes: timedelta = timedelta(0)) -> NoReturn:
    """Raise before the claim ends, early enough for work whose end takes `stopping_takes`.

    Raises:
        Stop: `CLAIM_LOST`: the claim was not renewed in time.
    """
    margin = min(
        min(END_MARGIN_SECONDS, END_MARGIN_PART * lease.remaining()) + stopping_takes.total_seconds(),
        MOST_OF_A_CLAIM * lease.remaining(),
    )
    # A renewal moves the end while this sleeps: look again on waking.
    while (left := lease.remaining() - margin) > 0:
        await clock.sleep(left)
    raise Stop(
        StopReason.CLAIM_LOST,
        f"the claim could not be renewed and ends in {lease.remaining():.0f} s; if that is unexpected, check the "
        "network to the Queue and this host's clock",
    )


async def watch_cancellation(run: ClaimedRun, clock: Clock) -> NoReturn:
    """Ask for the run's status every now and then.

    Raises:
        Stop: `CANCELED`, or `CLAIM_LOST` where somebody else has resolved the run.
    """
    while True:
        await clock.sleep(STATUS_SECONDS)
        try:
            await run.confirm()
        except ServiceError as error:
            # Not asked is not answered: the claim itself is watched by others.
            logger.info("%s: the run's status is unknown just now: %s", run.claim, error)


async def watch_time(clock: Clock, limit: timedelta) -> NoReturn:
    """End the work when it has taken `limit`.

    Raises:
        Stop: `TIME_LIMIT`.
    """
    await clock.sleep(limit.total_seconds())
    raise Stop(StopReason.TIME_LIMIT, f"the script ran for its limit of {limit.total_seconds():g} s and was stopped")


async def watch_shutdown(shutdown: Shutdown) -> NoReturn:
    """End the work when running tasks are to end.

    Raises:
        Stop: `SHUTDOWN`.
    """
    raise Stop(StopReason.SHUTDOWN, await shutdown.runs_must_end())


async def watch_haste(shutdown: Shutdown, clock: Clock) -> NoReturn:
    """Cut a script's grace short once the operator will not wait any longer.

    Belongs right beside `Sandbox.run`: where the script is being stopped already, this cancels it a second time, which
    the sandbox takes for "kill it now".

    Raises:
        Stop: `SHUTDOWN`.
    """
    await shutdown.asked_at_once()
    # Two cancellations in one moment would be one: the first, by `watch_shutdown`, must have arrived.
    await clock.sleep(HASTY_GRACE_SECONDS)
    raise Stop(StopReason.SHUTDOWN, "the operator asked to stop now")
