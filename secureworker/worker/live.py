"""A run's log, read while it is written. Nothing of a run depends on it."""

import asyncio
import logging
from dataclasses import dataclass

from secureworker.core.errors import HostError, SecureworkerError, Stop
from secureworker.core.ids import ArtifactName
from secureworker.core.uploads import StorageLink, StorageReference
from secureworker.ports import ClaimedRun, LiveLogs, OpenTaskLog

logger = logging.getLogger(__name__)

LIVE_LOG = ArtifactName("public/logs/live.log")
"""Where Taskcluster's own pages look for the log of a run that is under way, and of one that has ended."""
BACKING_LOG = ArtifactName("public/logs/live_backing.log")
CONTENT_TYPE = "text/plain; charset=utf-8"
PATIENCE_SECONDS = 15.0
"""For the Queue to take an artifact that only makes a log easier to find."""


@dataclass(frozen=True, slots=True)
class NoLiveLogs:
    """For policies that have none: the port `LiveLogs`."""

    async def show(self, run: str, path: str) -> str:  # noqa: ARG002 - the port's
        """See `ports.LiveLogs`."""
        raise HostError("this worker shows no live logs")

    def ended(self, run: str) -> bool:  # noqa: ARG002 - the port's
        """See `ports.LiveLogs`."""
        return False


async def begin(run: ClaimedRun, live: LiveLogs, log: OpenTaskLog) -> None:
    """Show the log from now on, and make the artifact that leads to it.

    Raises:
        Stop: the run turns out not to be ours.
    """
    try:
        address = await live.show(str(run.claim), log.path)
        request = StorageReference(LIVE_LOG, address, CONTENT_TYPE, run.claim.task.expires)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await run.create_artifact(request)
    except Stop:
        raise
    except (SecureworkerError, TimeoutError) as error:
        logger.warning("%s: its log is not shown live: %s", run.claim, str(error) or "the Queue takes too long")
        log.note("this log cannot be read while it is written")


async def settle(run: ClaimedRun) -> None:
    """Let the artifact lead to the log that was uploaded.

    Raises:
        Stop: the run turns out not to be ours.
    """
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await run.create_artifact(StorageLink(LIVE_LOG, BACKING_LOG, run.claim.task.expires))
    except Stop:
        raise
    except (SecureworkerError, TimeoutError) as error:
        logger.warning("%s: %s does not lead to the log: %s", run.claim, LIVE_LOG, str(error) or "the Queue is slow")
