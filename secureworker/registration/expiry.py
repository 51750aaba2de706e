"""Seeing to it that the worker claims nothing with credentials that are about to end."""

import asyncio
import logging
from collections.abc import Callable
from typing import NoReturn, TypeAlias

from secureworker.core.registration import drain_in, expiry
from secureworker.host.own_credentials import OwnCredentials
from secureworker.ports import Clock

logger = logging.getLogger(__name__)

Drain: TypeAlias = Callable[[str], None]
"""Tells the worker to claim no more, and why."""


async def watch_expiry(own: OwnCredentials, clock: Clock, drain: Drain) -> NoReturn:
    """Drain the worker before its credentials end, unless others are taken meanwhile. Never returns."""
    while True:
        ends = expiry(own.current())
        if ends is None:
            await own.taken()
            continue
        logger.info("the worker's credentials are good until %s", ends.isoformat(timespec="seconds"))
        if not await _taken_within(own, clock, drain_in(ends, clock.now()).total_seconds()):
            drain(f"the worker's credentials end at {ends.isoformat(timespec='seconds')}, and there are no others")
            await own.taken()


async def _taken_within(own: OwnCredentials, clock: Clock, seconds: float) -> bool:
    """Wait for other credentials, but not longer than `seconds`."""
    async with asyncio.TaskGroup() as group:
        taking = group.create_task(own.taken())
        sleeping = group.create_task(clock.sleep(seconds))
        done, _ = await asyncio.wait((taking, sleeping), return_when=asyncio.FIRST_COMPLETED)
        taking.cancel()
        sleeping.cancel()
    return taking in done
