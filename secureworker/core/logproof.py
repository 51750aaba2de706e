"""That a run's signature is in its signer's audit log: the proof which is published beside the statements.

Whoever holds the key can write a log of their own; what the proof adds is that they had to, and that this log can be
compared with the checkpoints that others kept. Nothing here reads a file.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Final

from secureworker.core.audit import BadRecord, Ending, Event, read_record
from secureworker.core.checkpoint import BadNote, NoteKey, check_proof, parse_proof
from secureworker.core.evidence import ChainOfTrust, ProvenanceFacts
from secureworker.core.ids import ArtifactName
from secureworker.core.merkle import BadProof
from secureworker.core.trust import Logged

LOG_PROOF: Final = ArtifactName("public/audit.tlog-proof")
MAX_PROOF_BYTES: Final = 1024 * 1024
_ORIGIN = re.compile(r"secureworker/(.+)/[0-9]{6}")


class NotLogged(ValueError):
    """The proof does not prove this signature."""


def check_logged(
    content: bytes,
    key: tuple[bytes, Callable[[bytes, bytes], bool]],
    about: ChainOfTrust | ProvenanceFacts,
    bodies: Mapping[str, bytes | None],
) -> Logged:
    """Check a proof against the statements that it was published with.

    1. It has the form of c2sp.org/tlog-proof, and carries a record of ours.
    2. The record is in the log, whose checkpoint the key of the statements has signed.
    3. The log is that of the worker that the statements name, and the record is in its own place.
    4. It is the record of a signature for this run, of exactly these statements.

    Args:
        content: the file.
        key: the public key whose signature of the statements was found good, and what checks its signatures.
        about: what the statements say, of which run and worker.
        bodies: what was signed, by the names that the record has for it; None: the record must have none either.

    Raises:
        NotLogged: a step does not pass.
    """
    # 1.
    try:
        proof = parse_proof(content)
        record, stamp = read_record(proof.extra)
        origin = proof.note.split(b"\n", 1)[0].decode()
        # 2.
        checkpoint = check_proof(proof, proof.extra, NoteKey(origin, *key))
    except (BadNote, BadProof, BadRecord, ValueError) as error:
        raise NotLogged(str(error)) from error
    # 3.
    named = _ORIGIN.fullmatch(origin)
    if named is None or {named[1], str(stamp.worker)} != {str(about.worker)} or stamp.index != proof.index:
        raise NotLogged("the log is another worker's, or the record is one of another place")
    # 4.
    digests = dict(record.digests)
    if (record.event, record.ending) != (Event.SIGNATURE, Ending.OK):
        raise NotLogged("the record is none of a signature")
    if record.run != (about.task_id, about.run_id):
        raise NotLogged("the record is one of another run")
    signed = {name: None if body is None else hashlib.sha256(body).hexdigest() for name, body in bodies.items()}
    if signed != {name: digests.get(name) for name in signed}:
        raise NotLogged("the record is one of other statements")
    return Logged(checkpoint, proof.index)
