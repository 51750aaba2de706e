"""The time of this host."""

import asyncio
import time
from datetime import UTC, datetime
from typing import final


@final
class SystemClock:
    """The port `Clock`, for real."""

    def now(self) -> datetime:
        """Give the wall clock's time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Give the kernel's monotonic clock: it stands still while the host is suspended, and never goes back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep; 0 and less only lets others run."""
        await asyncio.sleep(max(seconds, 0.0))
