"""After a run that failed because of this host: how long to wait, and what must hold before the next claim."""

import logging
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from secureworker.core.errors import NEED_NEW_START, HostError
from secureworker.core.happening import Hindrance, SelfTested
from secureworker.ports import Clock, Sandbox, Watcher

logger = logging.getLogger(__name__)

ANEW_SECONDS: Final = 60.0
"""From finding what a new beginning mends to that beginning. An upgrade replaces its files one after the other."""

BROKEN_SECONDS: Final = (60.0, 600.0, 3600.0)
"""From a run that failed because of this host to the next claim, by how many such in a row; the last repeats. A host
that is broken for good, in a way that no look at it finds, takes a task an hour: the others run elsewhere."""
SELF_TEST_SECONDS: Final = (10.0, 30.0, 60.0, 300.0)
"""Between attempts at a self-test that fails; the last one repeats. They cost no task, but some processor time."""


@dataclass
class Renewal:
    """When to begin anew, because that is what mends all that keeps a worker from claiming."""

    clock: Clock
    _since: float | None = None

    def due(self, hindrances: tuple[Hindrance, ...], *, idle: bool) -> bool:
        """Take note of what hinders now; say whether it has been that for long enough, and nothing runs."""
        if not all(hindrance.ends_by_beginning_anew for hindrance in hindrances):
            self._since = None
            return False
        now = self.clock.monotonic()
        self._since = now if self._since is None else self._since
        return idle and now - self._since >= ANEW_SECONDS

    def over(self) -> None:
        """Take note that nothing hinders."""
        self._since = None


@dataclass
class Mending:
    """Keeps a worker from claiming after its host broke, until the sandbox has held in a new self-test."""

    sandbox: Sandbox
    clock: Clock
    watcher: Watcher
    error: HostError | None = None
    """What a run failed of, as long as it keeps the worker from claiming."""
    _breaks: int = 0
    """Runs in a row that failed so; those that were under way together count once."""
    _failed_tests: int = 0
    _not_before: float = 0.0
    """Monotonic time of the next self-test."""
    _why: str = field(default="", init=False)

    def broke(self, error: HostError) -> None:
        """Take note of a run that failed because of this host."""
        if self.error is None:
            self._breaks += 1
            self._failed_tests = 0
            self._wait(BROKEN_SECONDS[min(self._breaks, len(BROKEN_SECONDS)) - 1], f"a run failed of it: {error}")
        self.error = error

    def held(self) -> None:
        """Take note of a run that went through all that this host has to do for it."""
        if self.error is None:
            self._breaks = 0

    async def hindrances(self) -> tuple[Hindrance, ...]:
        """Say what speaks against a claim; where it is time, find out.

        Raises:
            HostError: one of `NEED_NEW_START`.
        """
        if self.error is None:
            return ()
        if self.clock.monotonic() >= self._not_before and await self._holds():
            self.error = None
            return ()
        return (Hindrance("host", self._why),)

    async def _holds(self) -> bool:
        try:
            passed = await self.sandbox.self_test()
        except NEED_NEW_START:
            raise
        except Exception as error:
            if not isinstance(error, HostError):
                logger.exception("an error of the worker's own in the self-test")
            seconds = SELF_TEST_SECONDS[min(self._failed_tests, len(SELF_TEST_SECONDS) - 1)]
            self._failed_tests += 1
            self._wait(seconds, f"the self-test fails: {error}")
            return False
        self.watcher.saw(SelfTested(len(passed)))
        logger.info("self-test: all %d probes failed to get out again; claiming", len(passed))
        return True

    def _wait(self, seconds: float, why: str) -> None:
        self._not_before = self.clock.monotonic() + seconds
        again = self.clock.now() + timedelta(seconds=seconds)
        self._why = f"this host is not in order, the self-test is tried at {again:%H:%M:%S} UTC: {why}"
