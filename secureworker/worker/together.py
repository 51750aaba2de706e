"""Several of a port as one."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from secureworker.core.errors import NEED_NEW_START
from secureworker.core.happening import Happening, Hindrance
from secureworker.ports import HostGuard, Watcher

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 40.0
"""A guard that takes longer than this is a hindrance: the worker would say nothing while a disk hangs."""


@dataclass(frozen=True, slots=True)
class Watchers:
    """Tells everybody. One that fails keeps nothing from the others, nor from the worker."""

    watchers: tuple[Watcher, ...] = ()

    def saw(self, happening: Happening) -> None:
        """See `ports.Watcher`."""
        for watcher in self.watchers:
            try:
                watcher.saw(happening)
            except Exception:
                logger.exception("%s was not shown to an operator", type(happening).__name__)


@dataclass(frozen=True, slots=True)
class HostGuards:
    """Asks everybody. One that fails is a hindrance itself: nobody knows what it would have found."""

    guards: tuple[HostGuard, ...] = ()

    async def hindrances(self, runs: int) -> tuple[Hindrance, ...]:
        """See `ports.HostGuard`."""
        found: list[Hindrance] = []
        for guard in self.guards:
            name = type(guard).__name__
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    found += await guard.hindrances(runs)
            except NEED_NEW_START:
                raise
            except TimeoutError:
                found.append(Hindrance("host", f"{name} does not come back: it has waited {LOOK_SECONDS:g} s"))
            except Exception as error:
                logger.exception("%s could not look at this host", name)
                found.append(Hindrance("host", f"{name} failed: {error}"))
        return tuple(found)
