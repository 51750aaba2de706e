"""The files of a log, and reading them: what writes the log and what verifies it share nothing else.

A log is a directory. Each shard is a tree of its own, in two files: `000001.jsonl` with a record per line, and
`000001.checkpoint`, a signed note over the root of all its records. `lock` is held by the signer that writes.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from secureworker.core.audit import MAX_LINE_BYTES, BadRecord, Event, read_record
from secureworker.core.checkpoint import MAX_NOTE_BYTES, BadNote, Checkpoint, NoteKey, open_checkpoint
from secureworker.core.errors import AuditError
from secureworker.core.ids import WorkerIdentity
from secureworker.core.merkle import Tree, leaf_hash

LOCK: Final = "lock"
NEW_CHECKPOINT: Final = "checkpoint.new"
"""Written first, then renamed: a checkpoint is there as a whole or not at all."""
_SHARD = re.compile(r"([0-9]{6})\.(jsonl|checkpoint)")
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class LogKey:
    """The public key of a log. Each shard knows it under its own name."""

    raw: bytes
    verifies: Callable[[bytes, bytes], bool]
    """(signature, message) -> whether it is good."""

    def named(self, origin: str) -> NoteKey:
        """Give the key as the notes of one shard know it."""
        return NoteKey(origin, self.raw, self.verifies)


def origin_of(worker: WorkerIdentity, shard: int) -> str:
    """Name a shard: what its checkpoints begin with, and the name of the key in their signatures."""
    return f"secureworker/{worker}/{shard:06d}"


def records_file(shard: int) -> str:
    """Name the file of a shard's records."""
    return f"{shard:06d}.jsonl"


def checkpoint_file(shard: int) -> str:
    """Name the file of a shard's checkpoint."""
    return f"{shard:06d}.checkpoint"


def list_shards(directory: str | int) -> tuple[int, ...]:
    """Give the numbers of the shards in a log's directory, ascending.

    Raises:
        AuditError: one is missing: numbers run from 1 without a gap.
    """
    found = {int(match[1]) for name in os.listdir(directory) if (match := _SHARD.fullmatch(name))}
    missing = sorted(set(range(1, max(found, default=0) + 1)) - found)
    if missing or 0 in found:
        raise AuditError(
            f"the audit log lacks its shards {', '.join(map(str, missing[:10])) or '1 and on'}; restore them"
        )
    return tuple(sorted(found))


def open_file(name: str, flags: int, directory: int) -> int:
    """Open a file of the log, which is a regular file with one name, and no link."""
    descriptor = os.open(name, flags | _OPEN, 0o640, dir_fd=directory)
    status = os.fstat(descriptor)
    # What is only read may have been replaced since it was opened, and then has no name any more.
    fewest = 0 if flags == os.O_RDONLY else 1
    if not stat.S_ISREG(status.st_mode) or not fewest <= status.st_nlink <= 1:
        os.close(descriptor)
        raise AuditError(
            f"{name} of the audit log is no regular file with one link; somebody put something in its place"
        )
    return descriptor


def open_records(directory: int, shard: int) -> BinaryIO:
    """Open the records of a shard to read them.

    Raises:
        AuditError: they cannot be read.
    """
    name = records_file(shard)
    try:
        return os.fdopen(open_file(name, os.O_RDONLY, directory), "rb")
    except OSError as error:
        raise AuditError(f"{name} of the audit log cannot be read: {error.strerror}") from error


def read_checkpoint(directory: int, shard: int) -> bytes:
    """Give the bytes of a shard's checkpoint.

    Raises:
        AuditError: there is none, although the shard has begun: it is the first file of a shard that is made.
    """
    name = checkpoint_file(shard)
    try:
        descriptor = open_file(name, os.O_RDONLY, directory)
    except OSError as error:
        raise AuditError(
            f"the checkpoint {name} of the audit log cannot be read: {error.strerror}; without it nobody can say "
            "whether records are missing: restore it"
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        return file.read(MAX_NOTE_BYTES + 1)


def trusted_checkpoint(note: bytes, shard: int, origin: str, keys: tuple[LogKey, ...]) -> tuple[Checkpoint, LogKey]:
    """Open the checkpoint of a shard with the one of `keys` that signed it.

    Raises:
        AuditError: none of them did, or it is another shard's.
    """
    reasons = []
    for key in keys:
        try:
            return open_checkpoint(note, key.named(origin)), key
        except BadNote as error:
            reasons.append(str(error))
    raise AuditError(
        f"the checkpoint {checkpoint_file(shard)} of the audit log is not its own: {reasons[0]}; "
        "it was replaced, or the key is another one than the log was begun with "
        "(after a change of keys, name the old one as well)"
    )


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the records of a shard come to, up to its checkpoint."""

    tree: Tree
    end: int
    """Bytes up to there."""
    rest: bytes
    """What follows: nothing, or what a stop in the middle of an append left."""
    last: bytes
    """The last record; empty where there is none."""


def replay(
    file: BinaryIO, checkpoint: Checkpoint, visit: Callable[[int, bytes], None] = lambda _, __: None
) -> Replayed:
    """Read as many records as the checkpoint speaks of, and hold them against its root.

    1. There are as many lines as the checkpoint says.
    2. Their root is its root: each is as it was, and where it was.
    3. What follows is at most one record, whole or torn: the signer writes the next only after the checkpoint.

    Args:
        file: the records, from the beginning.
        checkpoint: what they must come to.
        visit: given the index and the bytes of each record, before it is known whether they can be trusted.

    Raises:
        AuditError: they do not; says in which way.
    """
    # 1. and 2.
    name = checkpoint.origin
    tree, end, last = replay_beginning(file, checkpoint, visit)
    # 3.
    rest = file.read(MAX_LINE_BYTES + 1)
    if len(rest) > MAX_LINE_BYTES or b"\n" in rest[:-1]:
        raise AuditError(
            f"the audit log was changed: more than one record follows the {tree.size} that the checkpoint of {name} "
            "speaks of; the checkpoint was set back, or lines were added"
        )
    return Replayed(tree, end, rest, last)


def replay_beginning(
    file: BinaryIO, checkpoint: Checkpoint, visit: Callable[[int, bytes], None]
) -> tuple[Tree, int, bytes]:
    """Read as many records as a checkpoint speaks of, hold them against its root, and leave what follows unread.

    Returns:
        their tree, how many bytes they have, and the last of them.

    Raises:
        AuditError: they do not come to it.
    """
    tree, end, last = Tree(), 0, b""
    for line in lines(file, checkpoint.size, checkpoint.origin):
        last = line[:-1]
        tree = tree.grow(leaf_hash(last))
        visit(tree.size - 1, last)
        end += len(line)
    if tree.root != checkpoint.root:
        raise AuditError(
            f"the audit log was changed: the {tree.size} records of {checkpoint.origin} do not lead to the root that "
            "was signed; keep the files, and find out who did it"
        )
    return tree, end, last


def check_link(first: bytes, before: Checkpoint) -> None:
    """See that a shard's first record says what the shard before ended with.

    Raises:
        AuditError: it does not: one of the two was exchanged.
    """
    try:
        record, _ = read_record(first)
    except BadRecord as error:
        raise AuditError(f"the shard after {before.origin} does not begin with a record: {error}") from error
    said = dict(record.details), dict(record.digests)
    if record.event is not Event.ROTATION or said != (
        {"origin": before.origin, "size": before.size},
        {"previousRoot": before.root.hex()},
    ):
        raise AuditError(
            f"the audit log was changed: the shard after {before.origin} does not go on where that one ends"
        )


def lines(file: BinaryIO, count: int, name: str) -> Iterator[bytes]:
    """Give as many whole lines, each with its end.

    Raises:
        AuditError: there are fewer, or one is longer than any record.
    """
    for number in range(count):
        line = file.readline(MAX_LINE_BYTES + 1)
        if not line.endswith(b"\n"):
            what = "a line is longer than any record" if len(line) > MAX_LINE_BYTES else "it ends before them"
            raise AuditError(
                f"the audit log was changed: {name} has {number} whole records, and its checkpoint speaks of {count}: "
                f"{what}"
            )
        yield line
