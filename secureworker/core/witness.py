"""What passes between a log and its witness: requests and cosignatures, as bytes. Nothing here is sent.

A witness keeps the newest checkpoint that it saw of a log, and signs a newer one only if that log has grown from it
(c2sp.org/tlog-witness). Its cosignature (c2sp.org/tlog-cosignature) is a line below the log's own in the checkpoint; it
says that this witness has signed for no other log of that name.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from secureworker.core.checkpoint import MAX_NOTE_BYTES, BadNote

_ED25519_COSIGNATURE: Final = b"\x04"  # c2sp.org/signed-note, signature types
_KEY_ID_BYTES: Final = 4
_TIME_BYTES: Final = 8
_SIGNATURE_BYTES: Final = 64
_KEY_BYTES: Final = 32
_DASH: Final = "\u2014 "
_LAST_SECOND: Final = 253_402_300_799
"""Of the year 9999: beyond it a time is none."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,15})\n?")


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """The public key of a witness, and its name."""

    name: str
    raw: bytes
    verifies: Callable[[bytes, bytes], bool]
    """(signature, message) -> whether the one was made over the other."""

    @property
    def id(self) -> bytes:
        """What signature lines know the key by: a hint, not a promise."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519_COSIGNATURE + self.raw).digest()[:_KEY_ID_BYTES]

    @property
    def vkey(self) -> str:
        """The one word in which witnesses publish their keys."""
        encoded = base64.b64encode(_ED25519_COSIGNATURE + self.raw).decode()
        return f"{self.name}+{self.id.hex()}+{encoded}"


def parse_vkey(text: str, verifier: Callable[[bytes], Callable[[bytes, bytes], bool]]) -> WitnessKey:
    """Read the word in which a witness publishes its key.

    Args:
        text: name, key id and key, with a plus between them.
        verifier: gives what checks signatures by the 32 bytes of an Ed25519 key.

    Raises:
        ValueError: it is none, or one of another kind of signature.
    """
    try:
        name, key_id, encoded = text.strip().split("+", 2)
        blob = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise ValueError("a witness' key is one word: name+id+base64, as the witness publishes it") from error
    if not name or any(character.isspace() for character in name):
        raise ValueError("a witness' key begins with its name")
    if blob[:1] != _ED25519_COSIGNATURE or len(blob) != 1 + _KEY_BYTES:
        raise ValueError(f"the key of {name} is none for Ed25519 cosignatures (type 4); others are not taken")
    key = WitnessKey(name, blob[1:], verifier(blob[1:]))
    if key.id.hex() != key_id:
        raise ValueError(f"the key of {name} has the id {key.id.hex()}, and {key_id[:20]!r} is written; copy it anew")
    return key


def cosignature_message(text: bytes, seconds: int) -> bytes:
    """Give the bytes that a cosignature is made over."""
    return f"cosignature/v1\ntime {seconds}\n".encode() + text


def check_cosigned(note: bytes, witness: WitnessKey) -> datetime:
    """Check that a checkpoint is cosigned by a witness; give the time at which it says that it did so.

    1. The note is of a credible size, and has signature lines after its last blank line.
    2. One of them is by this witness; the first such one decides.
    3. It is a cosignature of exactly the text, and of its own time.

    Raises:
        BadNote: it is not.
    """
    # 1.
    text, blank, lines = note.rpartition(b"\n\n")
    if len(note) > MAX_NOTE_BYTES or not blank:
        raise BadNote("the checkpoint is no signed note of a credible size")
    return _check_lines(text + b"\n", lines, witness)[1]


def _check_lines(text: bytes, lines: bytes, witness: WitnessKey) -> tuple[str, datetime]:
    # 2.
    try:
        line, blob = next(filter(None, (_by(witness, line) for line in lines.decode().split("\n") if line)), ("", b""))
    except ValueError as error:
        raise BadNote(f"what should be signature lines, one of them by the witness {witness.name}, are none") from error
    if not line:
        raise BadNote(f"it is not cosigned by the witness {witness.name}")
    # 3.
    if len(blob) != _TIME_BYTES + _SIGNATURE_BYTES:
        raise BadNote(f"the cosignature by {witness.name} has another length than such have")
    seconds = int.from_bytes(blob[:_TIME_BYTES], "big")
    if not 0 < seconds <= _LAST_SECOND:
        raise BadNote(f"the cosignature by {witness.name} is of no time that there is")
    if not witness.verifies(blob[_TIME_BYTES:], cosignature_message(text, seconds)):
        raise BadNote(f"the cosignature by {witness.name} is not one over this checkpoint")
    return line, _EPOCH + timedelta(seconds=seconds)


def _by(witness: WitnessKey, line: str) -> tuple[str, bytes] | None:
    """Give a signature line and what it holds; None where it is another's."""
    if not line.startswith(_DASH):
        raise ValueError("no signature line")
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error
    if base64.b64encode(blob).decode() != encoded:
        # The last character may have bits that no byte holds: another spelling of the same line.
        raise ValueError("not the one spelling in base64")
    return (line, blob[_KEY_ID_BYTES:]) if name == witness.name and blob[:_KEY_ID_BYTES] == witness.id else None


def with_cosignature(note: bytes, answer: bytes, witness: WitnessKey) -> bytes:
    """Put the witness' line of its answer below a checkpoint; nothing else of the answer is kept.

    Raises:
        BadNote: the answer holds no cosignature of this checkpoint by this witness.
    """
    if len(answer) > MAX_NOTE_BYTES:
        raise BadNote(f"the witness {witness.name} answers with more than {MAX_NOTE_BYTES} bytes")
    line, _ = _check_lines(note.rpartition(b"\n\n")[0] + b"\n", answer, witness)
    return note + f"{line}\n".encode()


def write_request(old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
    """Write what a witness is asked: to take `note` in the place of the checkpoint of `old_size` records."""
    return "\n".join([f"old {old_size}", *(base64.b64encode(one).decode() for one in proof), "", ""]).encode() + note


def read_conflict(body: bytes) -> int:
    """Read how many records the witness knows, where that is not what was asked.

    Raises:
        BadNote: it does not say.
    """
    size = _SIZE.fullmatch(body)
    if size is None:
        raise BadNote("the witness knows another size of the log, and does not say which")
    return int(size[1])
