"""The audit log as its one writer has it: append, checkpoint, recover, rotate.

A record is written down when `append` returns: its line is on disk, and so is a checkpoint that speaks of it. What
cannot be written down may not happen: after the first failure the log takes no more records until it is opened anew.
"""

import hashlib
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from secureworker.audit import shards
from secureworker.audit.moments import Moment
from secureworker.audit.place import check_place, lock_place, open_place
from secureworker.audit.shards import LogKey, origin_of
from secureworker.core.audit import AuditRecord, BadRecord, Ending, Event, Stamp, read_record, write_record
from secureworker.core.checkpoint import Checkpoint, InclusionProof, sign_checkpoint
from secureworker.core.errors import AuditEnded, AuditError
from secureworker.core.ids import Sha256, WorkerIdentity
from secureworker.core.merkle import Tree, leaf_hash

logger = logging.getLogger(__name__)

SHARD_RECORDS: Final = 100_000
"""About 50 MB, and half a second to replay."""
JUMP: Final = timedelta(seconds=2)
"""How far wall and monotonic clock may drift apart between two records before it is a record of its own: NTP slews
at most 0.5 ms a second (adjtimex(2)), and steps beyond 128 ms."""
SET_BACK: Final = timedelta(seconds=60)
"""A clock set back by more ends the log's work: keys and claims would be judged by a time that has passed."""
SPARE_BYTES: Final = 4 * 1024 * 1024
"""Free space below which `check` lets no new work begin."""
SPARE_FILES: Final = 16
"""Free inodes below which it does not."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Where a log is, and whose."""

    directory: str
    worker: WorkerIdentity
    shard_records: int = SHARD_RECORDS
    lock_seconds: float = 10.0
    """How long to wait for an earlier signer to end."""
    opened: int | None = None
    """The directory's descriptor, where it was opened as another user. The log closes it."""


@dataclass(frozen=True, slots=True)
class LogSigner:
    """The key that signs checkpoints, and those that signed earlier ones."""

    key: LogKey
    sign: Callable[[bytes], bytes]
    retired: tuple[LogKey, ...] = ()


class Log:
    """Made by `open_log`. Not for several threads at once."""

    def __init__(self, settings: LogSettings, signer: LogSigner, now: Callable[[], Moment]) -> None:
        self._settings = settings
        self._signer = signer
        self._now = now
        self._stack = ExitStack()
        self._stack.callback(self._close_records)
        self._directory = -1
        self._records = -1
        self._shard = 0
        self._end = 0
        self._tree = Tree()
        self._last: Moment | None = None
        self._ended: tuple[str, Tree] | None = None
        """What the shard before ended with, until that is written down."""
        self._fault = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files, and of the lock."""
        self._fault = self._fault or "it is closed"
        self._stack.close()

    @property
    def origin(self) -> str:
        """The name of the shard that is written to."""
        return origin_of(self._settings.worker, self._shard)

    @property
    def shard(self) -> int:
        """The number of the shard that is written to."""
        return self._shard

    @property
    def size(self) -> int:
        """How many records it has."""
        return self._tree.size

    def check(self) -> None:
        """See that the next record can most likely be written.

        Raises:
            AuditEnded: it cannot, nor any other by this process.
            AuditError: it cannot; no new work may begin until what is in the way is gone.
        """
        if self._fault:
            raise AuditEnded(f"the audit log takes no more records: {self._fault}")
        directory = self._settings.directory
        space = os.fstatvfs(self._directory)
        if space.f_bavail * space.f_frsize < SPARE_BYTES:
            raise AuditError(f"the audit log has less than {SPARE_BYTES} bytes of space in {directory}; make room")
        # Some file systems have inodes without end, and say that they have none.
        if space.f_files and space.f_favail < SPARE_FILES:
            raise AuditError(f"the audit log has room for less than {SPARE_FILES} files in {directory}; make room")
        # Each record makes a file, its checkpoint, that takes the place of the last.
        writable = os.access(".", os.W_OK | os.X_OK, dir_fd=self._directory, effective_ids=True)
        if space.f_flag & os.ST_RDONLY or not writable:
            raise AuditError(f"the signer may not write in {directory}, where the audit log is; let it")

    def append(self, record: AuditRecord, writer: str) -> InclusionProof:
        """Write a record down; it and a checkpoint of it are on disk when this returns.

        Returns:
            the proof, with the record in `extra`.

        Raises:
            AuditEnded: it could not be written. Nothing that it speaks of may happen, and no record follows.
        """
        self._link()
        self._check_clock()
        if self._tree.size >= self._settings.shard_records:
            self._rotate()
        self._link()
        return self._append(record, writer)

    def _append(self, record: AuditRecord, writer: str) -> InclusionProof:
        if self._fault:
            raise AuditEnded(f"the audit log takes no more records: {self._fault}")
        moment = self._now()
        stamp = Stamp(self._tree.size, moment.time, moment.monotonic_ms, moment.boot, writer, self._settings.worker)
        line = write_record(record, stamp)
        proof, tree = self._tree.next_proof, self._tree.grow(leaf_hash(line))
        note = self._note(tree, self._shard)
        try:
            self._write_line(line + b"\n")
            self._replace_checkpoint(note)
        except OSError as error:
            self._fault = f"a record could not be written: {error.strerror}; make sure of room and rights, and restart"
            raise AuditEnded(f"the audit log takes no more records: {self._fault}") from error
        self._tree, self._last = tree, moment
        self._end += len(line) + 1
        return InclusionProof(tree.size - 1, proof, note, line)

    def _note(self, tree: Tree, shard: int) -> bytes:
        origin = origin_of(self._settings.worker, shard)
        return sign_checkpoint(
            Checkpoint(origin, tree.size, tree.root), self._signer.key.named(origin), self._signer.sign
        )

    def _write_line(self, line: bytes) -> None:
        # Somebody else who writes here would make every later checkpoint one of what nobody said.
        if os.fstat(self._records).st_size != self._end:
            self._fault = "somebody else changed its file; keep it, and find out who did"
            raise AuditEnded(f"the audit log takes no more records: {self._fault}")
        view = memoryview(line)
        while view:
            view = view[os.write(self._records, view) :]
        os.fdatasync(self._records)

    def _replace_checkpoint(self, note: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        descriptor = shards.open_file(shards.NEW_CHECKPOINT, flags, self._directory)
        try:
            view = memoryview(note)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        name = shards.checkpoint_file(self._shard)
        os.rename(shards.NEW_CHECKPOINT, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        # The name too: a checkpoint that is older than a signature that has left would let it be forgotten.
        os.fsync(self._directory)

    def _check_clock(self) -> None:
        """Compare the wall clock with the time that has passed; write down where they differ.

        Raises:
            AuditEnded: it was set back by more than `SET_BACK`.
        """
        if self._last is None:
            return
        moment = self._now()
        jump = moment.jump_since(self._last)
        if abs(jump) <= JUMP:
            return
        set_back = jump < -SET_BACK and moment.boot == self._last.boot
        since = self._last.time.isoformat(timespec="milliseconds")
        details = (("milliseconds", jump // timedelta(milliseconds=1)), ("since", since))
        self._append(AuditRecord(Event.CLOCK_JUMP, Ending.FAILED if set_back else Ending.OK, details=details), "signer")
        if set_back:
            self._fault = f"the host's clock was set back by {-jump.total_seconds():.0f} s; correct it, and restart"
            raise AuditEnded(f"the audit log takes no more records: {self._fault}")

    def _rotate(self) -> None:
        """Begin the next shard; its first record will say what this one ended with."""
        ended = self.origin, self._tree
        try:
            self._begin(self._shard + 1)
        except OSError as error:
            self._fault = f"its next shard could not be begun: {error.strerror}"
            raise AuditEnded(f"the audit log takes no more records: {self._fault}") from error
        self._ended = ended

    def _link(self) -> None:
        """Write down what the shard before ended with, where that has not been done. Nothing may come before it.

        It is tried again with every record: a key in a device, or in a Vault, may be away for a while in between.
        """
        if self._ended is None:
            return
        origin, tree = self._ended
        root = Sha256(tree.root.hex())
        details = (("origin", origin), ("size", tree.size))
        self._append(AuditRecord(Event.ROTATION, digests=(("previousRoot", root),), details=details), "signer")
        self._ended = None

    def _begin(self, shard: int) -> None:
        """Make a shard: its checkpoint first, so that records without one are never an honest state."""
        # The signature before all else: a key that is away leaves everything as it was.
        note = self._note(Tree(), shard)
        self._shard, self._tree, self._end = shard, Tree(), 0
        self._replace_checkpoint(note)
        self._open_records()

    def _open_records(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        records = shards.open_file(shards.records_file(self._shard), flags, self._directory)
        self._close_records()
        self._records = records
        os.fsync(self._directory)

    def _close_records(self) -> None:
        if self._records >= 0:
            os.close(self._records)
            self._records = -1

    def open(self, visit: Callable[[bytes], None]) -> None:
        """Take the lock, replay all shards, mend what the last stop left. See `open_log`."""
        self._open_directory()
        numbers = shards.list_shards(self._directory)
        if not numbers:
            self._begin(1)
            return
        keys = (self._signer.key, *self._signer.retired)
        previous = replayed = None
        for shard in numbers:
            previous = replayed
            replayed = self._replay(shard, keys, visit, previous, newest=shard == numbers[-1])
        assert replayed is not None
        if replayed.rest:
            logger.warning("audit log: the last stop left %d bytes of an unfinished record", len(replayed.rest))
            os.ftruncate(self._records, replayed.end)
            os.fsync(self._records)
        if previous is not None and replayed.tree.size == 0:
            # The last stop came between the beginning of a shard and its first record.
            self._ended = origin_of(self._settings.worker, self._shard - 1), previous.tree
            self._link()
        if replayed.rest:
            self.append(_recovery(replayed.rest), "signer")
        if replayed.key is not self._signer.key:
            self._rotate()
            self._link()

    def _replay(
        self,
        shard: int,
        keys: tuple[LogKey, ...],
        visit: Callable[[bytes], None],
        previous: "_ReplayedShard | None",
        *,
        newest: bool,
    ) -> "_ReplayedShard":
        origin = origin_of(self._settings.worker, shard)
        note = shards.read_checkpoint(self._directory, shard)
        checkpoint, key = shards.trusted_checkpoint(note, shard, origin, keys)
        self._shard = shard
        if newest and checkpoint.size == 0:
            # It may have been begun, and stopped before this file was made.
            self._open_records()
        first = b""

        def look(index: int, line: bytes) -> None:
            nonlocal first
            first = line if index == 0 else first
            visit(line)

        try:
            file = os.fdopen(shards.open_file(shards.records_file(shard), os.O_RDONLY, self._directory), "rb")
        except OSError as error:
            name = shards.records_file(shard)
            raise AuditError(f"{name} of the audit log cannot be read: {error.strerror}; restore it") from error
        with file:
            replayed = shards.replay(file, checkpoint, look)
        if not newest and (replayed.rest or not replayed.tree.size):
            raise AuditError(
                f"the audit log was changed: {origin} does not end with its checkpoint, and is not the newest"
            )
        if previous is not None and first:
            shards.check_link(
                first,
                Checkpoint(origin_of(self._settings.worker, shard - 1), previous.tree.size, previous.tree.root),
            )
        self._tree, self._end = replayed.tree, replayed.end
        if replayed.last:
            self._last = _moment_of(replayed.last)
        if newest and checkpoint.size:
            self._open_records()
        return _ReplayedShard(replayed.tree, replayed.end, replayed.rest, key)

    def _open_directory(self) -> None:
        settings = self._settings
        opened = settings.opened if settings.opened is not None else open_place(settings.directory)
        self._stack.callback(os.close, opened)
        self._directory = opened
        check_place(opened, settings.directory)
        self._stack.callback(os.close, lock_place(opened, settings.directory, settings.lock_seconds))


@dataclass(frozen=True, slots=True)
class _ReplayedShard:
    tree: Tree
    end: int
    rest: bytes
    key: LogKey


def _recovery(dropped: bytes) -> AuditRecord:
    """Say that a record was removed which the last stop caught before its checkpoint: nothing it speaks of happened.

    It is not kept: whoever can write to the file could have put it there, and we would sign it.
    """
    digest = Sha256(hashlib.sha256(dropped).hexdigest())
    details = (("bytes", len(dropped)), ("lines", dropped.count(b"\n")))
    return AuditRecord(Event.RECOVERY, digests=(("dropped", digest),), details=details)


def _moment_of(line: bytes) -> Moment:
    try:
        _, stamp = read_record(line)
    except BadRecord as error:
        raise AuditError(f"the audit log's last record is of another version of this program: {error}") from error
    return Moment(stamp.time, stamp.monotonic_ms, stamp.boot)


def open_log(
    settings: LogSettings, signer: LogSigner, now: Callable[[], Moment], visit: Callable[[bytes], None]
) -> Log:
    """Open a log, or begin one where the directory is empty.

    1. Nobody else writes to it, now or later.
    2. Each shard's checkpoint is signed by our key, or by a retired one.
    3. Its records come to exactly that checkpoint.
    4. After the newest, at most one record without a checkpoint is left: it is removed, and that is written down.

    Args:
        settings: where, and whose.
        signer: the keys.
        now: the clocks.
        visit: is given every record, oldest first. Believe what it was given only when this has returned.

    Raises:
        AuditError: any of these does not hold. Nothing was changed.
    """
    log = Log(settings, signer, now)
    try:
        log.open(visit)
    except OSError as error:
        log.close()
        raise AuditError(f"the audit log in {settings.directory} cannot be opened: {error.strerror}") from error
    except BaseException:
        log.close()
        raise
    return log
