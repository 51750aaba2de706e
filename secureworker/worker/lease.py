"""How long a run is ours."""

from datetime import datetime, timedelta
from typing import final

from secureworker.ports import Clock


@final
class Lease:
    """The end of a claim, counted on the monotonic clock from the moment the Queue told it.

    `takenUntil` is a time of the wall clock. It is compared with ours once, when it arrives, and never again: a wall
    clock that is set later neither ends a claim that is good nor keeps one that is not. One that is behind would make a
    claim seem longer than it is: so none is taken to last longer than the Queue itself says that claims do.
    """

    def __init__(self, clock: Clock, taken_until: datetime, longest: timedelta | None = None) -> None:
        """Take over a claim, just made.

        Args:
            clock: the time.
            taken_until: by the Queue's clock.
            longest: how long a claim lasts, where the Queue says it.
        """
        self._clock = clock
        self._longest = float("inf") if longest is None else longest.total_seconds()
        self._ends = 0.0
        self.renew(taken_until)

    def renew(self, taken_until: datetime) -> None:
        """Take over the end of a claim, just heard from the Queue."""
        left = (taken_until - self._clock.now()).total_seconds()
        self._ends = self._clock.monotonic() + min(left, self._longest)

    def remaining(self) -> float:
        """Give the seconds until the claim ends; negative when it has."""
        return self._ends - self._clock.monotonic()
