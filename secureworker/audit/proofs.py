"""Proofs of single records, for who has neither the log nor us: made from a log, and checked without one."""

import os

from secureworker.audit import shards
from secureworker.audit.inspect import Entry, claimed_origin
from secureworker.audit.place import open_existing
from secureworker.audit.shards import LogKey, origin_of
from secureworker.core.audit import read_record
from secureworker.core.checkpoint import BadNote, InclusionProof, check_proof, parse_checkpoint, parse_proof
from secureworker.core.errors import AuditError
from secureworker.core.merkle import BadProof, inclusion_proof, leaf_hash
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


def prove(directory: str, shard: int, index: int, kept: bytes | None = None) -> InclusionProof:
    """Prove that a record is in the log, for who has neither the log nor us.

    Args:
        directory: the log's.
        shard: of the record.
        index: in the shard.
        kept: a checkpoint of this shard that was kept elsewhere, as of which it is to be proved; None: the newest.

    Raises:
        AuditError: there is no such record, it is not signed for yet, or was not when the checkpoint was kept; or the
            log did not grow from what the checkpoint says.
    """
    place = open_existing(directory)
    leaves: list[bytes] = []
    record = b""

    def visit(position: int, line: bytes) -> None:
        nonlocal record
        leaves.append(leaf_hash(line))
        record = line if position == index else record

    try:
        note = shards.read_checkpoint(place, shard) if kept is None else kept
        checkpoint = parse_checkpoint(note.rpartition(b"\n\n")[0] + b"\n")
        if checkpoint.origin.rpartition("/")[2] != f"{shard:06d}":
            raise AuditError(f"the checkpoint is of another shard than {shard}: {checkpoint.origin[:200]!a}")
        with shards.open_records(place, shard) as file:
            if kept is None:
                shards.replay(file, checkpoint, visit)
            else:
                shards.replay_beginning(file, checkpoint, visit)
    except BadNote as error:
        raise AuditError(f"the checkpoint of shard {shard} is none: {error}") from error
    finally:
        os.close(place)
    if not 0 <= index < len(leaves):
        when = "" if kept is None else ", as of the checkpoint that was kept"
        raise AuditError(f"shard {shard} has no record {index}: it has {len(leaves)} that are signed for{when}")
    return InclusionProof(index, inclusion_proof(leaves, index), note, record)
