"""Reading a log as its auditors do: all of it verified in numbered steps, single records shown and proved.

Needs the public key only, and to read the files. It may be done while the signer writes: what is verified is the log
as of the checkpoint that was found.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from secureworker.audit import shards
from secureworker.audit.place import open_existing
from secureworker.audit.shards import LogKey, Replayed, origin_of
from secureworker.core.audit import AuditRecord, BadRecord, Stamp, read_record
from secureworker.core.checkpoint import (
    BadNote,
    Checkpoint,
    open_checkpoint,
)
from secureworker.core.errors import AuditError
from secureworker.core.ids import WorkerIdentity, WorkerPool
from secureworker.core.merkle import Tree, leaf_hash
from secureworker.core.witness import WitnessKey, check_cosigned

_MOST_DETAILS: Final = 20
_ATTEMPTS: Final = 10
"""To read a shard while it is written to; each takes longer than an append."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a verification."""

    number: int
    name: str
    passed: bool
    details: tuple[str, ...]
    """What was found; where it did not pass, everything that is wrong."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record, and where it is."""

    shard: int
    record: AuditRecord
    stamp: Stamp
    line: bytes


@dataclass(slots=True)
class _Shard:
    """What was found of one shard."""

    number: int
    origin: str
    note: bytes
    checkpoint: Checkpoint
    keys: tuple[LogKey, ...]
    roots: dict[int, bytes] = field(default_factory=dict)
    """The root at each size that somebody has a checkpoint of."""
    first: bytes = b""
    problems: list[str] = field(default_factory=list)
    rest: bytes = b""


class _NotVerified(Exception):
    """A step does not pass; its arguments say why."""


class _Verification:
    """What the steps find out, each for those after it."""

    def __init__(
        self, place: int, keys: tuple[LogKey, ...], earlier: tuple[bytes, ...], witnesses: tuple[WitnessKey, ...]
    ) -> None:
        self._place = place
        self._keys = keys
        self._earlier = earlier
        self._witnesses = witnesses
        self._numbers: tuple[int, ...] = ()
        self._worker: WorkerIdentity
        self._shards: list[_Shard] = []
        self._checkpoints: list[Checkpoint] = []

    def files(self) -> str:
        """1. The shards are there, numbered from 1 without a gap."""
        self._numbers = shards.list_shards(self._place)
        if not self._numbers:
            raise _NotVerified("there is no log in this directory")
        return f"{len(self._numbers)} shards"

    def checkpoints(self) -> str:
        """2. Each shard's checkpoint is signed by one of the given keys, and is this worker's and that shard's."""
        claimed = claimed_origin(shards.read_checkpoint(self._place, 1))
        self._worker = _worker_of(claimed)
        for number in self._numbers:
            self._shards.append(self._open(number))
        newest = self._shards[-1].checkpoint
        return f"the log of {self._worker}, {newest.size} records in its newest shard"

    def earlier(self) -> str:
        """3. Each checkpoint that somebody kept is signed, and of this log; by the demanded witnesses too."""
        if self._witnesses and not self._earlier:
            raise _NotVerified("a witness is demanded, and no checkpoint that it could have signed is given")
        for note in self._earlier:
            origin = claimed_origin(note)
            if origin not in {shard.origin for shard in self._shards}:
                raise _NotVerified(f"a checkpoint that was kept is of {origin[:200]!a}, which is none of these shards")
            self._checkpoints.append(_trusted(note, origin, self._keys))
            for witness in self._witnesses:
                _check_witness(note, witness)
        by = "".join(f", cosigned by {witness.name}" for witness in self._witnesses)
        return f"{len(self._checkpoints)} checkpoints that were kept elsewhere{by}"

    def records(self) -> str:
        """4. The records of each shard come to exactly its checkpoint, and nothing follows but what is under way."""
        for shard in self._shards:
            self._replay(shard)
        count = sum(shard.checkpoint.size for shard in self._shards)
        unfinished = self._shards[-1].rest
        return f"{count} records" + (f"; {len(unfinished)} bytes of one more, not signed for yet" if unfinished else "")

    def form(self) -> str:
        """5. Every record is in its one form, in its place, by this worker."""
        problems = [problem for shard in self._shards for problem in shard.problems]
        if problems:
            raise _NotVerified(*problems[:_MOST_DETAILS])
        return "each is in its canonical form, in its place"

    def links(self) -> str:
        """6. Each shard begins with what the one before ended with."""
        for before, after in zip(self._shards, self._shards[1:], strict=False):
            # A shard that was begun has its first record at the signer's next start.
            if after.checkpoint.size:
                shards.check_link(after.first, before.checkpoint)
        return f"{len(self._shards) - 1} links between shards"

    def kept(self) -> str:
        """7. The log has only grown since each of the checkpoints that were kept."""
        by_origin = {shard.origin: shard for shard in self._shards}
        for checkpoint in self._checkpoints:
            root = by_origin[checkpoint.origin].roots.get(checkpoint.size)
            if root != checkpoint.root:
                now = "the root there is another" if root is not None else "now it has fewer"
                raise _NotVerified(
                    f"a checkpoint that was kept says that {checkpoint.origin} had {checkpoint.size} records; {now}"
                )
        if not self._checkpoints:
            return "none was given"
        newest = self._shards[-1]
        covered = max((one.size for one in self._checkpoints if one.origin == newest.origin), default=0)
        if self._witnesses and newest.checkpoint.size and not covered:
            raise _NotVerified(
                f"no checkpoint of {newest.origin} is cosigned, and it has {newest.checkpoint.size} records"
            )
        return (
            "all of them are the beginning of this log; "
            f"they hold {covered} of the {newest.checkpoint.size} records of its newest shard"
        )

    def _open(self, number: int) -> _Shard:
        origin = origin_of(self._worker, number)
        note = shards.read_checkpoint(self._place, number)
        checkpoint, _ = shards.trusted_checkpoint(note, number, origin, self._keys)
        return _Shard(number, origin, note, checkpoint, self._keys)

    def _replay(self, shard: _Shard) -> None:
        newest = shard.number == self._numbers[-1]
        for _ in range(_ATTEMPTS):
            try:
                replayed = self._read(shard)
            except AuditError as error:
                if not newest or shards.read_checkpoint(self._place, shard.number) == shard.note:
                    raise _NotVerified(str(error), *shard.problems[:_MOST_DETAILS]) from error
            else:
                shard.rest = replayed.rest
                if not replayed.rest or shards.read_checkpoint(self._place, shard.number) == shard.note:
                    break
            # The signer has written meanwhile.
            fresh = self._open(shard.number)
            shard.note, shard.checkpoint = fresh.note, fresh.checkpoint
        if shard.rest and not newest:
            raise _NotVerified(f"something follows the last record of {shard.origin}")
        if not newest and not shard.checkpoint.size:
            raise _NotVerified(f"{shard.origin} is empty, and is not the newest")

    def _read(self, shard: _Shard) -> Replayed:
        wanted = {checkpoint.size for checkpoint in self._checkpoints if checkpoint.origin == shard.origin}
        shard.roots, shard.problems = {0: Tree().root}, []
        # A tree of its own beside that of `replay`, only where somebody asks for its earlier roots.
        tree = Tree()

        def visit(index: int, line: bytes) -> None:
            nonlocal tree
            if wanted:
                tree = tree.grow(leaf_hash(line))
                if tree.size in wanted:
                    shard.roots[tree.size] = tree.root
            if index == 0:
                shard.first = line
            problem = _problem(line, index, self._worker)
            if problem and len(shard.problems) < _MOST_DETAILS:
                shard.problems.append(f"record {index} of {shard.origin}: {problem}")

        with shards.open_records(self._place, shard.number) as file:
            return shards.replay(file, shard.checkpoint, visit)


def _problem(line: bytes, index: int, worker: WorkerIdentity) -> str:
    try:
        _, stamp = read_record(line)
    except BadRecord as error:
        return str(error)
    if stamp.index != index:
        return f"it says that it is record {stamp.index}"
    return "" if stamp.worker == worker else f"it is one of {stamp.worker}"


def claimed_origin(note: bytes) -> str:
    """Give what a checkpoint says it is of, before anything is known of its signature."""
    return note.partition(b"\n")[0].decode("utf-8", "replace")


def _worker_of(origin: str) -> WorkerIdentity:
    try:
        program, provisioner, worker_type, group, worker_id, _ = origin.split("/")
        worker = WorkerIdentity(WorkerPool(provisioner, worker_type), group, worker_id)
    except ValueError as error:
        raise _NotVerified(f"the checkpoint is of {origin[:200]!a}, and that is no log of a worker") from error
    if program != "secureworker":
        raise _NotVerified(f"the checkpoint is of {origin[:200]!a}, and that is no log of a worker")
    return worker


def _trusted(note: bytes, origin: str, keys: tuple[LogKey, ...]) -> Checkpoint:
    reasons = []
    for key in keys:
        try:
            return open_checkpoint(note, key.named(origin))
        except (BadNote, ValueError) as error:
            reasons.append(str(error))
    raise _NotVerified(*reasons)


_STEPS: Final = (
    ("files", _Verification.files),
    ("checkpoints", _Verification.checkpoints),
    ("kept checkpoints", _Verification.earlier),
    ("records", _Verification.records),
    ("form", _Verification.form),
    ("links", _Verification.links),
    ("growth", _Verification.kept),
)
STEP_COUNT: Final = len(_STEPS)


def _check_witness(note: bytes, witness: WitnessKey) -> None:
    try:
        check_cosigned(note, witness)
    except BadNote as error:
        raise _NotVerified(f"a checkpoint that was kept, of {claimed_origin(note)[:200]!a}: {error}") from error


def verify_log(
    directory: str,
    keys: tuple[LogKey, ...],
    earlier: tuple[bytes, ...] = (),
    witnesses: tuple[WitnessKey, ...] = (),
) -> tuple[Step, ...]:
    """Take the steps in their order, up to the first that does not pass. All passed: the log is verified.

    Args:
        directory: the log's.
        keys: the public keys that it may be signed with.
        earlier: checkpoints that were kept elsewhere: with artifacts, by a witness.
        witnesses: who must have cosigned each of those, of which at least one is then of the newest shard.

    Raises:
        AuditError: the directory cannot be read.
    """
    place = open_existing(directory)
    try:
        return tuple(_take(_Verification(place, keys, earlier, witnesses)))
    finally:
        os.close(place)


def _take(verification: _Verification) -> Iterator[Step]:
    for number, (name, step) in enumerate(_STEPS, start=1):
        try:
            yield Step(number, name, passed=True, details=(step(verification),))
        except _NotVerified as error:
            yield Step(number, name, passed=False, details=error.args)
            return
        except (AuditError, OSError) as error:
            yield Step(number, name, passed=False, details=(str(error),))
            return


def read_entries(directory: str) -> Iterator[Entry]:
    """Give every record of a log, oldest first, and verify nothing but their form.

    Raises:
        AuditError: a file cannot be read, or a line is no record.
    """
    place = open_existing(directory)
    try:
        for shard in shards.list_shards(place):
            with shards.open_records(place, shard) as file:
                for number, line in enumerate(file):
                    if not line.endswith(b"\n"):
                        # Under way, or torn: not a record yet.
                        return
                    try:
                        record, stamp = read_record(line[:-1])
                    except BadRecord as error:
                        raise AuditError(f"record {number} of shard {shard}: {error}") from error
                    yield Entry(shard, record, stamp, line[:-1])
    finally:
        os.close(place)
