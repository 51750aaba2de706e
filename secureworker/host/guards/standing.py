"""What the worker stands on beside its machine: the signer with its audit log, the time, its own credentials."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, final

from secureworker.core.claim import Credentials
from secureworker.core.errors import NEED_NEW_START, AuditError, HostError, SecureworkerError
from secureworker.core.happening import Hindrance
from secureworker.core.registration import drain_in, expiry
from secureworker.host.own_credentials import OwnCredentials
from secureworker.ports import AuditLog, Clock

logger = logging.getLogger(__name__)

MOST_SKEW_SECONDS: Final = 15.0
"""Below the 20 s before a claim's end by which a script is dead: a clock that is further behind would let a script live
after its claim, and one that is far ahead finds every claim ended when it arrives, and would eat the queue."""
LATEST_SECONDS: Final = 600.0
"""The Queue's time is asked for where it was heard longer ago. A worker that claims hears it every 20 s."""
_TRUNCATED_SECONDS: Final = 0.5
"""`Date` has whole seconds, the fraction cut off: half of one is lost on average."""


@final
class Evidence:
    """The port `HostGuard` for the signer, and for the audit log that it keeps."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit

    async def hindrances(self, runs: int) -> tuple[Hindrance, ...]:  # noqa: ARG002 - the same for any number
        """See `ports.HostGuard`."""
        try:
            await self._audit.check()
        except NEED_NEW_START:
            raise
        except HostError as error:
            return (Hindrance("audit" if isinstance(error, AuditError) else "signer", str(error)),)
        return ()


@final
class ServerTime:
    """What time it is for the Queue, by the `Date` of its answers and the monotonic clock since."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heard: tuple[datetime, float] | None = None

    def heard(self, headers: Mapping[str, str]) -> None:
        """Take note of an answer's headers. One without a `Date`, or with one that is none, says nothing."""
        try:
            date = parsedate_to_datetime(headers["Date"])
        except (KeyError, ValueError, TypeError, IndexError, OverflowError):
            return
        date = date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
        self._heard = date, self._clock.monotonic()

    @property
    def age(self) -> float | None:
        """Seconds since it was heard; None: never."""
        return None if self._heard is None else self._clock.monotonic() - self._heard[1]

    @property
    def ahead(self) -> float:
        """Seconds by which our wall clock is ahead of the Queue's; 0 where that was never heard."""
        if self._heard is None or self.age is None:
            return 0.0
        date, _ = self._heard
        return (self._clock.now() - date).total_seconds() - self.age - _TRUNCATED_SECONDS


@final
class Clocks:
    """The port `HostGuard` for the wall clock. One that jumps while the worker waits is found at the next look."""

    def __init__(self, server: ServerTime, ask: Callable[[], Awaitable[object]]) -> None:
        """Take what was heard, and what has the Queue say something; which may raise a ServiceError."""
        self._server = server
        self._ask = ask

    async def hindrances(self, runs: int) -> tuple[Hindrance, ...]:  # noqa: ARG002 - the same for any number
        """See `ports.HostGuard`."""
        age = self._server.age
        if age is None or age > LATEST_SECONDS or self._wrong():
            # A machine that slept, or whose clock was put right, is found wrong by what it remembers.
            try:
                await self._ask()
            except SecureworkerError as error:
                logger.debug("the Queue does not say what time it is: %s", error)
        if not self._wrong():
            return ()
        ahead = self._server.ahead
        which = "ahead of" if ahead > 0 else "behind"
        return (Hindrance("clock", f"this host's clock is {abs(ahead):.0f} s {which} the Queue's; set it right (NTP)"),)

    def _wrong(self) -> bool:
        return abs(self._server.ahead) > MOST_SKEW_SECONDS


@final
class Expiry:
    """The port `HostGuard` for the worker's own Taskcluster credentials: no claim with some that are about to end."""

    def __init__(self, own: OwnCredentials, clock: Clock) -> None:
        self._own = own
        self._clock = clock
        self._known: Credentials | None = None
        self._no_claim_from: datetime | None = None
        self._ends: datetime | None = None

    async def hindrances(self, runs: int) -> tuple[Hindrance, ...]:  # noqa: ARG002 - the same for any number
        """See `ports.HostGuard`."""
        now, current = self._clock.now(), self._own.current()
        if current is not self._known:
            # How long before their end depends on how much was left when they came.
            self._known, self._ends = current, expiry(current)
            self._no_claim_from = None if self._ends is None else now + drain_in(self._ends, now)
        if self._ends is None or self._no_claim_from is None or now < self._no_claim_from:
            return ()
        until = self._ends.isoformat(timespec="seconds")
        return (Hindrance("credentials", f"this worker's credentials end at {until}; give it new ones"),)
