"""Several of a port as one."""

import logging
from dataclasses import dataclass

from secureworker.core.happening import Happening, Hindrance
from secureworker.ports import HostGuard, Watcher

logger = logging.getLogger(__name__)


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
            try:
                found += await guard.hindrances(runs)
            except Exception as error:
                logger.exception("%s could not look at this host", type(guard).__name__)
                found.append(Hindrance("host", f"{type(guard).__name__} failed: {error}"))
        return tuple(found)
