"""The public log of a run: a file in a private directory, and the only writer of it."""

import hashlib
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from secureworker import __version__
from secureworker.core.errors import HostError
from secureworker.core.ids import ArtifactName, Sha256
from secureworker.core.secrets import SecretBytes, parts
from secureworker.host.masking import Masker
from secureworker.host.sanitise import Sanitiser, sanitise_line
from secureworker.host.tails import log_file
from secureworker.host.threads import in_thread
from secureworker.ports import Artifact, ClaimedRun, Clock

logger = logging.getLogger(__name__)

LIVE_BACKING_LOG = ArtifactName("public/logs/live_backing.log")
CONTENT_TYPE = "text/plain; charset=utf-8"
DEFAULT_CAP_BYTES = 256 * 1024 * 1024
"""Script output kept until the plan's own limit is known."""
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What the logs of all runs have in common."""

    directory: str
    """Private to the worker; exists."""
    policy_sha256: Sha256
    secrets: tuple[bytes, ...] = ()
    """Masked in script output, beside each run's own credentials."""

    def __repr__(self) -> str:
        return f"LogSettings(directory={self.directory!r}, {len(self.secrets)} secrets)"


class FileTaskLogs:
    """Opens the logs of runs: the `TaskLogs` port."""

    def __init__(self, settings: LogSettings, clock: Clock, own: Callable[[], tuple[bytes, ...]] = lambda: ()) -> None:
        """Take the settings, the time, and what gives the worker's own credentials as they are at that moment."""
        self._settings = settings
        self._clock = clock
        self._own = own

    @asynccontextmanager
    async def open(self, run: ClaimedRun) -> AsyncIterator["FileTaskLog"]:
        """Open the log with its header; leaving closes it and removes its file.

        Raises:
            HostError: the file cannot be made.
        """
        claim = run.claim
        path = log_file(self._settings.directory, claim.task_id, claim.run_id)
        secrets = [claim.credentials.access_token, claim.credentials.certificate]
        masked = self._settings.secrets + self._own() + tuple(secret.reveal().encode() for secret in secrets if secret)
        log = FileTaskLog(path, self._clock, expires=claim.task.expires, masker=Masker(masked))
        try:
            for line in (
                f"Task ID: {claim.task_id}",
                f"Run ID: {int(claim.run_id)}",
                f"Worker Pool: {claim.worker.pool}",
                f"Worker Group: {claim.worker.worker_group}",
                f"Worker ID: {claim.worker.worker_id}",
                f"Worker Version: secureworker {__version__}",
                f"Policy: sha256:{self._settings.policy_sha256}",
            ):
                log.note(line)
            yield log
        finally:
            log.close()
            os.unlink(path)


class FileTaskLog:
    """One open log: the `OpenTaskLog` port. Every method may be called from any thread.

    Script output goes through the masker, then the sanitiser, then the cap. A line of the worker's own ends an
    unfinished line of the script's, so that the two never share one.
    """

    def __init__(self, path: str, clock: Clock, *, expires: datetime, masker: Masker) -> None:
        self._path = path
        self._clock = clock
        self._expires = expires
        self._masker = masker
        self._sanitiser = Sanitiser()
        self._lock = threading.Lock()
        self._cap = DEFAULT_CAP_BYTES
        self._kept = 0
        self._received = 0
        self._full = False
        self._at_line_start = True
        self._failure: OSError | None = None
        self._file: int | None = _create(path)

    @property
    def path(self) -> str:
        """The log's file."""
        return self._path

    def cap(self, output_bytes: int) -> None:
        """Keep at most this much of the script's output; the rest is dropped with a notice."""
        with self._lock:
            self._cap = output_bytes

    def mask(self, secrets: tuple[SecretBytes, ...]) -> None:
        """Keep these out of what the script writes from now on, whole and in `parts`."""
        found = tuple(part for secret in secrets for part in parts(secret))
        with self._lock:
            self._masker = self._masker.joined_by(found)

    def note(self, text: str) -> None:
        """Write a line of the worker's own; further lines of `text` are set off, and cannot be taken for first ones.

        It may quote what a script asked for, or a task's definition: so it is masked as output is.
        """
        moment = self._clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with self._lock:
            first, *more = self._masker.whole(text).split("\n")
            self._own_line(f"[taskcluster {moment}] {sanitise_line(first)}")
            for line in more:
                self._own_line(f"[taskcluster {moment}]     {sanitise_line(line)}")

    def error(self, text: str) -> None:
        """Write a line that says why the run ends badly; masked as `note` is."""
        with self._lock:
            for number, line in enumerate(self._masker.whole(text).split("\n")):
                self._own_line(f"[taskcluster:error] {'    ' if number else ''}{sanitise_line(line)}")

    def output(self, chunk: bytes) -> None:
        """Write output of the script.

        Raises:
            HostError: the disk does not take it. Never because of what is in the chunk.
        """
        with self._lock:
            self._received += len(chunk)
            # Nothing is looked at once the cap is reached: a flood costs a comparison a chunk.
            if not self._full:
                self._keep(self._sanitiser.feed(self._masker.feed(chunk)))
            failure = self._failure
        if failure is not None:
            raise HostError(f"the task log cannot be written: {failure.strerror}; check the worker's disk") from failure

    async def finish(self) -> Artifact:
        """Flush and close the log for writing; give it as the artifact `public/logs/live_backing.log`.

        What is written later is lost.

        Raises:
            HostError: the disk did not take all of it.
        """
        self.close()
        if self._failure is not None:
            raise HostError(f"the task log is not complete: {self._failure.strerror}; check the worker's disk")
        size, sha256 = await in_thread(lambda abandoned: _measure(self._path, abandoned))
        return Artifact(
            name=LIVE_BACKING_LOG,
            size=size,
            sha256=sha256,
            path=self._path,
            content_type=CONTENT_TYPE,
            expires=self._expires,
        )

    def close(self) -> None:
        """End the log, with what was held back and the size of what was dropped. Again: nothing."""
        with self._lock:
            if self._file is None:
                return
            self._end_output()
            if self._full:
                self._own_line(f"[taskcluster:warn] the script wrote {self._received} bytes of output in all")
            os.close(self._file)
            self._file = None

    def _own_line(self, line: str) -> None:
        self._end_output()
        self._write(line.encode() + b"\n")

    def _end_output(self) -> None:
        """Write what masker and sanitiser hold back, and end an unfinished line."""
        rest = self._masker.end()
        if not self._full:
            self._keep(self._sanitiser.feed(rest) + self._sanitiser.end())
        if not self._at_line_start:
            self._write(b"\n")

    def _keep(self, text: bytes) -> None:
        room = self._cap - self._kept
        if len(text) <= room:
            self._kept += len(text)
            self._write(text)
            return
        # Not in the middle of a character: UTF-8's continuation bytes are 10xxxxxx.
        while room > 0 and text[room] & 0xC0 == 0x80:  # noqa: PLR2004
            room -= 1
        room = max(room, 0)
        self._kept += room
        self._full = True
        self._write(text[:room])
        if not self._at_line_start:
            self._write(b"\n")
        self._write(f"[taskcluster:warn] output beyond {self._cap} bytes is dropped\n".encode())

    def _write(self, text: bytes) -> None:
        if not text or self._failure is not None:
            return
        if self._file is None:
            logger.debug("a line came after the task log was closed")
            return
        try:
            view = memoryview(text)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            logger.error("the task log cannot be written: %s", error)  # noqa: TRY400 - the trace says no more
            self._failure = error
            return
        self._at_line_start = text.endswith(b"\n")


def _create(path: str) -> int:
    try:
        # Left by a crash of an earlier worker, if it exists: this run is ours alone.
        if os.path.lexists(path):
            os.unlink(path)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"the task log cannot be made: {error}; check the worker's directories and disk") from error


def _measure(path: str, abandoned: threading.Event) -> tuple[int, Sha256]:
    digest = hashlib.sha256()
    size = 0
    with open(path, "rb", buffering=0) as file:
        while not abandoned.is_set() and (piece := file.read(_READ_BYTES)):
            digest.update(piece)
            size += len(piece)
    return size, Sha256(digest.hexdigest())
