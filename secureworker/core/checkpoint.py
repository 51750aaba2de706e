"""Checkpoints of logs and proofs about them, in the forms that transparency logs and their witnesses exchange.

Signed notes (c2sp.org/signed-note), checkpoints (c2sp.org/tlog-checkpoint) and inclusion proofs (c2sp.org/tlog-proof).
Only Ed25519, and one signature where something is written; signatures of keys that are not known are ignored where
something is read, so that witnesses may add theirs.
"""

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from secureworker.core.merkle import HASH_BYTES, check_inclusion, leaf_hash

MAX_NOTE_BYTES: Final = 64 * 1024
"""A checkpoint with 16 witnesses' signatures has 3 KiB."""
_PROOF_HEADER: Final = "c2sp.org/tlog-proof@v1"
_ED25519: Final = b"\x01"
_KEY_ID_BYTES: Final = 4
_DASH: Final = "\u2014 "
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")
_MOST_HASHES: Final = 64


class BadNote(ValueError):
    """A signed note, checkpoint or proof is not what it should be."""


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A public key under a name, as notes know it."""

    name: str
    raw: bytes
    """The 32 bytes of the Ed25519 public key."""
    verifies: Callable[[bytes, bytes], bool]
    """(signature, message) -> whether the one was made over the other."""

    def __post_init__(self) -> None:
        if not self.name or any(character.isspace() or character == "+" for character in self.name):
            raise ValueError(f"{self.name[:80]!r} is no name of a key: it is empty, or has a space or a plus in it")

    @property
    def id(self) -> bytes:
        """What signature lines know the key by: a hint, not a promise."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.raw).digest()[:_KEY_ID_BYTES]

    @property
    def vkey(self) -> str:
        """The form that witnesses and Go's `note` package take: name, key id and key in one word."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(_ED25519 + self.raw).decode()}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself at one moment."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> bytes:
        """The bytes that are signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """That one record is in a log, verifiable without the log."""

    index: int
    hashes: tuple[bytes, ...]
    note: bytes
    """The checkpoint, signed."""
    extra: bytes = b""
    """Here: the record itself. Nothing vouches for it but the proof."""


def sign_checkpoint(checkpoint: Checkpoint, key: NoteKey, sign: Callable[[bytes], bytes]) -> bytes:
    """Write a checkpoint as a note with one signature by `key`, whose private half is behind `sign`."""
    signature = base64.b64encode(key.id + sign(checkpoint.text)).decode()
    return checkpoint.text + f"\n{_DASH}{key.name} {signature}\n".encode()


def open_checkpoint(note: bytes, key: NoteKey) -> Checkpoint:
    """Read a checkpoint that `key` has signed.

    1. The note is text of a credible size, with signature lines after its last blank line.
    2. One of them is by this name and key id; the first such one decides.
    3. It is a signature of exactly the text.
    4. The text is a checkpoint, and of the log that the key is the key of.

    Raises:
        BadNote: it is not; nothing in it may be believed.
    """
    # 1.
    if len(note) > MAX_NOTE_BYTES:
        raise BadNote(f"the checkpoint has more than {MAX_NOTE_BYTES} bytes")
    text, blank, signatures = note.rpartition(b"\n\n")
    if not blank:
        raise BadNote("the checkpoint is no signed note: it has no blank line before its signatures")
    text += b"\n"
    # 2.
    try:
        lines = signatures.decode().removesuffix("\n").split("\n")
        blob = next(filter(None, [_signature(line, key) for line in lines]), b"")
    except ValueError as error:
        raise BadNote("the checkpoint is no signed note: its signatures have another form") from error
    if not blob:
        raise BadNote(f"the checkpoint is not signed by {key.name} with the given key")
    # 3.
    if not key.verifies(blob, text):
        raise BadNote(f"the checkpoint's signature by {key.name} is not one over its text")
    # 4.
    checkpoint = parse_checkpoint(text)
    if checkpoint.origin != key.name:
        raise BadNote(f"the checkpoint is one of the log {checkpoint.origin[:200]!r}, and {key.name} is expected")
    return checkpoint


def _signature(line: str, key: NoteKey) -> bytes | None:
    """Give the signature that a line holds; None where it is another key's."""
    if not line.startswith(_DASH):
        raise ValueError("no signature line")
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    blob = base64.b64decode(encoded, validate=True)
    if base64.b64encode(blob).decode() != encoded:
        raise ValueError("not the one spelling in base64")
    return blob[_KEY_ID_BYTES:] if name == key.name and blob[:_KEY_ID_BYTES] == key.id else None


def parse_checkpoint(text: bytes) -> Checkpoint:
    """Read the text of a checkpoint; who has signed it is for the caller to know. Lines after the third are refused.

    Raises:
        BadNote: it is none.
    """
    try:
        origin, size, root, end = text.decode().split("\n")
        decoded = _hash(root)
    except ValueError as error:
        raise BadNote("it is no checkpoint: three lines are expected, origin, size and root") from error
    if not origin or end or not _SIZE.fullmatch(size):
        raise BadNote("it is no checkpoint: origin or size has another form")
    return Checkpoint(origin, int(size), decoded)


def _hash(encoded: str) -> bytes:
    decoded = base64.b64decode(encoded, validate=True)
    # Canonical only: one proof, one text.
    if len(decoded) != HASH_BYTES or base64.b64encode(decoded).decode() != encoded:
        raise ValueError("no hash in base64")
    return decoded


def write_proof(proof: InclusionProof) -> bytes:
    """Write a `.tlog-proof`."""
    lines = [_PROOF_HEADER]
    if proof.extra:
        lines.append(f"extra {base64.b64encode(proof.extra).decode()}")
    lines.append(f"index {proof.index}")
    lines += (base64.b64encode(sibling).decode() for sibling in proof.hashes)
    return "\n".join([*lines, "", ""]).encode() + proof.note


def parse_proof(content: bytes) -> InclusionProof:
    """Read a `.tlog-proof`; it proves nothing before it was checked.

    Raises:
        BadNote: it is none.
    """
    head, _, note = content.partition(b"\n\n")
    try:
        header, *lines = head.decode().split("\n")
        extra = b""
        if lines and lines[0].startswith("extra "):
            extra = base64.b64decode(lines.pop(0).removeprefix("extra "), validate=True)
        word, _, index = lines.pop(0).partition(" ")
        hashes = tuple(map(_hash, lines))
    except (ValueError, IndexError) as error:
        raise BadNote("it is no proof in the form of c2sp.org/tlog-proof") from error
    if header != _PROOF_HEADER or word != "index" or not _SIZE.fullmatch(index) or len(hashes) > _MOST_HASHES:
        raise BadNote("it is no proof in the form of c2sp.org/tlog-proof")
    return InclusionProof(int(index), hashes, note, extra)


def check_proof(proof: InclusionProof, record: bytes, key: NoteKey) -> Checkpoint:
    """Check that `record` is in the log whose checkpoint the proof holds; give that checkpoint.

    Raises:
        BadNote: the checkpoint is not signed by `key`.
        BadProof: the record is not in it.
    """
    checkpoint = open_checkpoint(proof.note, key)
    check_inclusion(leaf_hash(record), proof.index, checkpoint.size, checkpoint.root, proof.hashes)
    return checkpoint
