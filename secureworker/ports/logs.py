"""The public log of a run."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from secureworker.core.secrets import SecretBytes
from secureworker.ports.evidence import Artifact
from secureworker.ports.queue import ClaimedRun
from secureworker.ports.surroundings import TaskLog


class OpenTaskLog(TaskLog, Protocol):
    """A log that can be turned into an artifact."""

    def cap(self, output_bytes: int) -> None:
        """Keep at most this much of the script's output (`Limits.log_bytes`); the rest is dropped with a notice."""

    def mask(self, secrets: tuple[SecretBytes, ...]) -> None:
        """Keep these out of what the script writes from now on, in all the forms that they are printed in."""

    async def finish(self) -> Artifact:
        """Flush and close the log for writing; give it as the artifact `public/logs/live_backing.log`."""


class TaskLogs(Protocol):
    """Opens the log of a run, and hands it over for upload when it is closed."""

    def open(self, run: ClaimedRun) -> AbstractAsyncContextManager["OpenTaskLog"]:
        """Open the log; leaving closes it and removes its file."""
