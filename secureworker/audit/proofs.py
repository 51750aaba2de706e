"""Proofs of single records, for who has neither the log nor us: made from a log, and checked without one."""

import os
from itertools import islice

from secureworker.audit import shards
from secureworker.audit.inspect import Entry, claimed_origin
from secureworker.audit.place import open_existing
from secureworker.audit.shards import LogKey, origin_of
from secureworker.core.audit import read_record
from secureworker.core.checkpoint import BadNote, InclusionProof, check_proof, parse_checkpoint, parse_proof
from secureworker.core.errors import AuditError
from secureworker.core.merkle import BadProof, Proofs, leaf_hash
from secureworker.core.witness import WitnessKey, check_cosigned


def verify_proof(content: bytes, keys: tuple[LogKey, ...], witnesses: tuple[WitnessKey, ...] = ()) -> Entry:
    """Check a proof that was published with a task; give the record that it proves, which it holds.

    Its checkpoint must be signed by one of the keys, and cosigned by each of the witnesses.

    Raises:
        AuditError: it proves nothing.
    """
    try:
        proof = parse_proof(content)
        origin = claimed_origin(proof.note)
        number = int(origin.rpartition("/")[2])
        record, stamp = read_record(proof.extra)
    except ValueError as error:
        raise AuditError(f"this is no proof of an audit record: {error}") from error
    reasons = []
    for key in keys:
        try:
            check_proof(proof, proof.extra, key.named(origin))
        except (BadNote, BadProof) as error:
            reasons.append(str(error))
            continue
        if (stamp.index, origin_of(stamp.worker, number)) != (proof.index, origin):
            raise AuditError("the record is one of another place than the proof says")
        try:
            for witness in witnesses:
                check_cosigned(proof.note, witness)
        except BadNote as error:
            raise AuditError(f"the proof's checkpoint: {error}") from error
        return Entry(number, record, stamp, proof.extra)
    raise AuditError("; ".join(reasons))


class Prover:
    """Proves records of one shard as of one checkpoint, to who has neither the log nor us. The shard is read once."""

    def __init__(self, directory: str, shard: int, kept: bytes | None = None) -> None:
        """Read the shard.

        Args:
            directory: the log's.
            shard: which.
            kept: a checkpoint of this shard that was kept elsewhere; None: the newest.

        Raises:
            AuditError: it cannot be read, or did not grow from what the checkpoint says.
        """
        place = open_existing(directory)
        leaves: list[bytes] = []

        def visit(_: int, line: bytes) -> None:
            leaves.append(leaf_hash(line))

        try:
            self.note = shards.read_checkpoint(place, shard) if kept is None else kept
            checkpoint = parse_checkpoint(self.note.rpartition(b"\n\n")[0] + b"\n")
            if checkpoint.origin.rpartition("/")[2] != f"{shard:06d}":
                raise AuditError(f"the checkpoint is of another shard than {shard}: {checkpoint.origin[:200]!a}")
            with shards.open_records(place, shard) as file:
                # What follows the newest is at most one record; what follows an older one is of no interest.
                read = shards.replay if kept is None else shards.replay_beginning
                read(file, checkpoint, visit)
        except BadNote as error:
            raise AuditError(f"the checkpoint of shard {shard} is none: {error}") from error
        finally:
            os.close(place)
        self._leaves, self._proofs = leaves, Proofs(leaves)
        self._shard, self._when = shard, "" if kept is None else ", as of the checkpoint that was kept"

    @property
    def size(self) -> int:
        """How many records can be proved."""
        return len(self._proofs)

    def prove(self, index: int, record: bytes) -> InclusionProof:
        """Prove that `record` is at `index`.

        Raises:
            AuditError: it is not signed for yet, or was not when the checkpoint was kept.
        """
        if not 0 <= index < self.size:
            raise AuditError(
                f"shard {self._shard} has no record {index}: it has {self.size} that are signed for{self._when}"
            )
        if leaf_hash(record) != self._leaves[index]:
            raise AuditError(f"the audit log was changed while it was read: record {index} is another one now")
        return InclusionProof(index, self._proofs.inclusion(index), self.note, record)


def prove(directory: str, shard: int, index: int, kept: bytes | None = None) -> InclusionProof:
    """Prove one record, as `Prover` does.

    Raises:
        AuditError: as there.
    """
    prover = Prover(directory, shard, kept)
    return prover.prove(index, _record(directory, shard, index))


def _record(directory: str, shard: int, index: int) -> bytes:
    place = open_existing(directory)
    try:
        with shards.open_records(place, shard) as file:
            return next(islice(file, index, None), b"").removesuffix(b"\n")
    finally:
        os.close(place)
