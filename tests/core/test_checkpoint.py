"""Signed notes, checkpoints and proofs, in the forms of others."""

import base64
from dataclasses import replace

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from secureworker.core.checkpoint import (
    MAX_NOTE_BYTES,
    BadNote,
    Checkpoint,
    InclusionProof,
    NoteKey,
    check_proof,
    open_checkpoint,
    parse_checkpoint,
    parse_proof,
    sign_checkpoint,
    write_proof,
)
from secureworker.core.merkle import BadProof, leaf_hash, tree_of

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(32))
ORIGIN = "secureworker/test/1"
RECORDS = (b"one", b"two", b"three")
TREE = tree_of([leaf_hash(record) for record in RECORDS])
CHECKPOINT = Checkpoint(ORIGIN, TREE.size, TREE.root)


def note_key(name: str, raw: bytes) -> NoteKey:
    def verifies(signature: bytes, message: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True

    return NoteKey(name, raw, verifies)


KEY = note_key(ORIGIN, PRIVATE.public_key().public_bytes_raw())
NOTE = sign_checkpoint(CHECKPOINT, KEY, PRIVATE.sign)


def test_a_key_is_known_as_gos_note_package_knows_it() -> None:
    # The example key of golang.org/x/mod/sumdb/note.
    vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"

    assert note_key("PeterNeumann", base64.b64decode(vkey.split("+", 2)[2])[1:]).vkey == vkey


def test_a_signature_line_of_gos_note_package_is_good() -> None:
    text = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    line = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    key = note_key("PeterNeumann", base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")[1:])
    blob = base64.b64decode(line)

    assert blob[:4] == key.id
    assert key.verifies(blob[4:], text)
    # A good signature, and still no checkpoint.
    with pytest.raises(BadNote, match="three lines are expected"):
        open_checkpoint(text + f"\n\u2014 PeterNeumann {line}\n".encode(), key)


def test_a_signed_checkpoint_is_read_as_it_was_written() -> None:
    assert NOTE.decode().splitlines()[:2] == [ORIGIN, "3"]
    assert open_checkpoint(NOTE, KEY) == CHECKPOINT


def test_signatures_of_unknown_keys_are_ignored() -> None:
    text, _, line = NOTE.partition(b"\n\n")
    witness = "\u2014 witness.example " + base64.b64encode(bytes(76)).decode()

    assert open_checkpoint(text + b"\n\n" + witness.encode() + b"\n" + line, KEY) == CHECKPOINT


@pytest.mark.parametrize(
    ("note", "why"),
    [
        (NOTE.replace(b"\n3\n", b"\n4\n"), "is not one over its text"),
        (NOTE.replace(b"\n\n", b"\n"), "no blank line"),
        (NOTE.replace("\u2014".encode(), b"--"), "another form"),
        (NOTE + b"x\n", "another form"),
        (NOTE[:-20] + b"\xff\n", "another form"),
        (CHECKPOINT.text + b"\n\xe2\x80\x94 other AAAAAAAA\n", "not signed by"),
        (NOTE + bytes(MAX_NOTE_BYTES), "more than"),
        (b"", "no blank line"),
    ],
)
def test_what_is_no_checkpoint_of_this_log_is_refused(note: bytes, why: str) -> None:
    with pytest.raises(BadNote, match=why):
        open_checkpoint(note, KEY)


def test_a_signature_has_one_spelling_only() -> None:
    # 68 bytes leave four bits of the last character without a meaning.
    line = NOTE.decode().removesuffix("=\n")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = line[:-1] + alphabet[alphabet.index(line[-1]) + 1] + "=\n"
    assert base64.b64decode(other.rpartition(" ")[2]) == base64.b64decode(NOTE.decode().rpartition(" ")[2])

    with pytest.raises(BadNote, match="another form"):
        open_checkpoint(other.encode(), KEY)


def test_a_checkpoint_of_another_log_of_the_same_key_is_refused() -> None:
    other = Checkpoint("secureworker/test/2", 3, TREE.root)

    with pytest.raises(BadNote, match="one of the log 'secureworker/test/2'"):
        open_checkpoint(sign_checkpoint(other, KEY, PRIVATE.sign), KEY)


@pytest.mark.parametrize(
    "text",
    [
        b"o\n03\n" + base64.b64encode(TREE.root) + b"\n",
        b"o\n-1\n" + base64.b64encode(TREE.root) + b"\n",
        b"\n3\n" + base64.b64encode(TREE.root) + b"\n",
        b"o\n3\n" + base64.b64encode(TREE.root) + b"\nextension\n",
        b"o\n3\n" + base64.b64encode(TREE.root),
        b"o\n3\n" + base64.b64encode(TREE.root[1:]) + b"\n",
        b"o\n3\nno base64\n",
        b"\xff\n3\n\n",
    ],
)
def test_what_is_written_otherwise_is_no_checkpoint(text: bytes) -> None:
    with pytest.raises(BadNote):
        parse_checkpoint(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b"])
def test_a_name_that_notes_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a key"):
        replace(KEY, name=name)


PROOF = InclusionProof(2, (tree_of([leaf_hash(record) for record in RECORDS[:2]]).root,), NOTE, b"three")


def test_a_proof_is_read_as_it_was_written_and_holds() -> None:
    content = write_proof(PROOF)

    assert content.startswith(b"c2sp.org/tlog-proof@v1\nextra dGhyZWU=\nindex 2\n")
    assert parse_proof(content) == PROOF
    assert check_proof(parse_proof(content), b"three", KEY) == CHECKPOINT


def test_a_proof_needs_no_extra_data() -> None:
    bare = replace(PROOF, extra=b"")

    assert parse_proof(write_proof(bare)) == bare


def test_a_proof_of_another_record_does_not_hold() -> None:
    with pytest.raises(BadProof, match="not the one that was logged"):
        check_proof(PROOF, b"four", KEY)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        write_proof(PROOF).replace(b"@v1", b"@v2"),
        write_proof(PROOF).replace(b"index 2", b"index 02"),
        write_proof(PROOF).replace(b"index 2", b"place 2"),
        write_proof(PROOF).replace(b"extra dGhyZWU=", b"extra !"),
        b"c2sp.org/tlog-proof@v1\nextra dGhyZWU=\n\n",
        write_proof(replace(PROOF, hashes=PROOF.hashes * 65)),
        write_proof(replace(PROOF, hashes=(b"short",))),
        b"\xff",
    ],
)
def test_what_is_written_otherwise_is_no_proof(content: bytes) -> None:
    with pytest.raises(BadNote, match="no proof in the form"):
        parse_proof(content)
