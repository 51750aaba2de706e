"""Both clocks at once, and which boot they belong to."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True, slots=True)
class Moment:
    """When something is, by the wall clock and by one that nobody sets."""

    time: datetime
    monotonic_ms: int
    boot: str

    def jump_since(self, earlier: "Moment") -> timedelta:
        """Say by how much the wall clock was set since `earlier`; across boots, only by how much it is behind."""
        if self.boot != earlier.boot:
            return min(self.time - earlier.time, timedelta(0))
        return self.time - earlier.time - timedelta(milliseconds=self.monotonic_ms - earlier.monotonic_ms)


class SystemMoments:
    """This host's clocks."""

    def __init__(self) -> None:
        self._boot = Path(_BOOT_ID).read_text(encoding="ascii").strip()

    def now(self) -> Moment:
        """Give the moment. CLOCK_BOOTTIME goes on while the host sleeps, as the wall clock does."""
        return Moment(datetime.now(UTC), time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000, self._boot)
