"""Whether the Queue gives this worker any tasks at all: a guard beside those of the host."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final, final

from secureworker.core.claim import Credentials, parse_time
from secureworker.core.errors import SecureworkerError
from secureworker.core.happening import Hindrance
from secureworker.core.ids import WorkerIdentity
from secureworker.ports import Clock
from secureworker.queue.calls import Answer, Calls, Refused

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 60.0
"""Between two looks. A quarantined worker is answered like any other that there is no task for: that it is one is only
in its own record."""
_NOT_FOUND: Final = 404


@final
class Quarantine:
    """Looks every now and then at this worker's own record (`getWorker`), which everybody may see by default."""

    def __init__(
        self, calls: Calls, identity: WorkerIdentity, credentials: Callable[[], Credentials], clock: Clock
    ) -> None:
        self._calls = calls
        self._named = (
            *(identity.pool.provisioner_id, identity.pool.worker_type),
            *(identity.worker_group, identity.worker_id),
        )
        self._credentials = credentials
        self._clock = clock
        self._next = 0.0
        self._until: datetime | None = None
        self._may_look = True

    async def hindrances(self, runs: int) -> tuple[Hindrance, ...]:  # noqa: ARG002 - the port's
        """See `ports.HostGuard`. Where it cannot be known, there is none: the Queue itself keeps the quarantine."""
        now = self._clock.monotonic()
        if self._may_look and now >= self._next:
            self._next = now + LOOK_SECONDS
            await self._look()
        if self._until is None or self._until <= self._clock.now():
            return ()
        until = self._until.isoformat(timespec="seconds").replace("+00:00", "Z")
        why = f"this worker is quarantined in the Queue until {until}; lift it there once the worker is in order"
        return (Hindrance("quarantine", why),)

    async def _look(self) -> None:
        try:
            answer = await self._calls.make("getWorker", self._credentials, *self._named, attempts=1, check=_until)
        except Refused as refused:
            self._until = None
            # 404: a worker that never asked for work, or not for a day, has no record.
            if refused.status != _NOT_FOUND:
                self._may_look = False
                logger.info("a quarantine will not be noticed: %s; give the worker's client queue:get-worker", refused)
            return
        except SecureworkerError as error:
            logger.debug("whether this worker is quarantined is unknown just now: %s", error)
            return
        self._until = _until(answer)


def _until(answer: Answer) -> datetime | None:
    found = answer.get("quarantineUntil")
    return None if found is None else parse_time(found)
