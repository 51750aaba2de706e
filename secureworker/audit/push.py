"""Telling others of a log's checkpoints, round after round: a witness, the journal. One that is gone is no end."""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from secureworker.audit import shards
from secureworker.audit.journal import Journal
from secureworker.audit.place import open_existing
from secureworker.audit.witness import Pusher, checkpoint_of
from secureworker.core.checkpoint import Checkpoint
from secureworker.core.errors import ServiceError

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Push:
    """Whom to tell of a log."""

    directory: str
    pusher: Pusher | None = None
    journal: Journal | None = None
    _told: dict[str, int] = field(default_factory=dict)
    """By shard: the size of which the journal has a line."""

    async def round(self, cosigned: Callable[[Checkpoint], None]) -> tuple[str, ...]:
        """Tell each once; give why somebody could not be told. Who was, is told of later changes only.

        Args:
            cosigned: called with each checkpoint that the witness has newly signed.

        Raises:
            AuditError: the log cannot be read, or the witness has seen another one of its name.
        """
        problems = []
        if self.journal is not None:
            try:
                await asyncio.to_thread(self._tell, self.journal)
            except ServiceError as error:
                problems.append(str(error))
        if self.pusher is not None:
            try:
                for checkpoint in await self.pusher.push():
                    cosigned(checkpoint)
            except ServiceError as error:
                problems.append(str(error))
        return tuple(problems)

    def _tell(self, journal: Journal) -> None:
        place = open_existing(self.directory)
        try:
            for number in shards.list_shards(place):
                checkpoint = checkpoint_of(shards.read_checkpoint(place, number))
                if self._told.get(checkpoint.origin) != checkpoint.size:
                    journal.tell(checkpoint)
                    self._told[checkpoint.origin] = checkpoint.size
        finally:
            os.close(place)

    async def until(self, told: asyncio.Event, seconds: float, cosigned: Callable[[Checkpoint], None]) -> None:
        """Go round every so often until `told`. What could not be told is a warning, and tried again.

        Raises:
            AuditError: as for `round`: this is for somebody to look at, and no waiting mends it.
        """
        while not told.is_set():
            for problem in await self.round(cosigned):
                logger.warning("%s; tried again in %g s", problem, seconds)
            try:
                async with asyncio.timeout(seconds):
                    await told.wait()
            except TimeoutError:
                continue
