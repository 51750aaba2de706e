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

    @property
    def path(self) -> str:
        """Host path of what is written so far, masked and sanitised; good while the log is open."""

    def mask(self, secrets: tuple[SecretBytes, ...]) -> None:
        """Keep these out of what the script writes from now on, in all the forms that they are printed in."""

    async def finish(self) -> Artifact:
        """Flush and close the log for writing; give it as the artifact `public/logs/live_backing.log`."""


class TaskLogs(Protocol):
    """Opens the log of a run, and hands it over for upload when it is closed."""

    def open(self, run: ClaimedRun) -> AbstractAsyncContextManager["OpenTaskLog"]:
        """Open the log; leaving closes it and removes its file."""


class LiveLogs(Protocol):
    """Shows logs while they are written. No run waits for whoever reads them."""

    async def show(self, run: str, path: str) -> str:
        """Show the log at `path`, of the run of that name, from now on.

        Returns:
            its address, which is a secret of those who are to read it.

        Raises:
            HostError: it cannot be shown.
        """

    def ended(self, run: str) -> bool:
        """Say that nothing more is written to a run's log; tell whether it was shown. Once is enough."""
