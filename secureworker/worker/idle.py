"""How long a worker has had nothing to do, and whether that is long enough to end."""

from typing import final

from secureworker.ports import Clock


@final
class Idle:
    """Counts how long there has been nothing to do."""

    def __init__(self, clock: Clock, limit_seconds: float | None) -> None:
        """Begin, idle.

        Args:
            clock: the time.
            limit_seconds: after how long a worker ends; None: never.
        """
        self._clock = clock
        self._limit = limit_seconds
        self._since = clock.monotonic()

    def worked(self) -> None:
        """Something was done until now."""
        self._since = self._clock.monotonic()

    def reason_to_end(self) -> str:
        """Say why the worker ends; nothing while it goes on."""
        if self._limit is None or self._clock.monotonic() - self._since < self._limit:
            return ""
        return f"there was no task for {self._limit:g} s"
