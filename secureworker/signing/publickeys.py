"""Ed25519 keys as everybody knows them: public ones, their forms, and what a private one can be asked for.

The forms are base64 of 32 bytes (scriptworker's), PEM and OpenSSH. What a worker needs of keys is mostly their names.
So cryptography is imported where something is verified, and a worker that verifies nothing saves 8 MB.
"""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

KEY_BYTES: Final = 32
_MAX_FILE_BYTES: Final = 16 * 1024
_DER: Final = bytes.fromhex("302a300506032b6570032100")
"""SubjectPublicKeyInfo of an Ed25519 key, up to the key (RFC 8410, section 4)."""
_BLOB: Final = b"\0\0\0\x0bssh-ed25519\0\0\0 "
"""An OpenSSH key's wire format, up to the key: two strings, each after its length (RFC 8709, section 4)."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != KEY_BYTES:
            raise ValueError(f"an Ed25519 public key has {KEY_BYTES} bytes, not {len(self.raw)}")

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` was made over exactly `message` with this key's private half."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True

    @property
    def base64(self) -> str:
        """The form of scriptworker's public key files."""
        return base64.b64encode(self.raw).decode()

    @property
    def pem(self) -> str:
        """SubjectPublicKeyInfo, which openssl and cosign take; ends with a newline."""
        return f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(self._der).decode()}\n-----END PUBLIC KEY-----\n"

    @property
    def openssh(self) -> str:
        """A line as in `authorized_keys`, without a comment."""
        return f"ssh-ed25519 {base64.b64encode(self._blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """What `ssh-keygen -l` shows: `SHA256:` and base64 without padding. The key's name everywhere."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self._blob).digest()).decode().rstrip("=")

    @property
    def hint(self) -> str:
        """How sigstore's bundles name a key: base64 of the sha256 of its DER (SubjectPublicKeyInfo)."""
        return base64.b64encode(hashlib.sha256(self._der).digest()).decode()

    @property
    def _der(self) -> bytes:
        return _DER + self.raw

    @property
    def _blob(self) -> bytes:
        return _BLOB + self.raw


class Key(Protocol):
    """An Ed25519 private key, wherever it is."""

    @property
    def public(self) -> PublicKey:
        """Its public half."""

    def sign(self, message: bytes) -> bytes:
        """Give the 64 bytes of the signature.

        Raises:
            KeyUnusable: it cannot sign any more: it lies in a device, and the device is gone.
        """


def parse_public_key(text: str) -> PublicKey:
    """Read base64 of the 32 bytes, PEM, or a line of OpenSSH's; lines that begin with `#` are comments.

    Raises:
        ValueError: it is none of them, or more than one key.
    """
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#")).strip()
    if text.count("-----BEGIN") > 1 or text.count("ssh-ed25519 ") > 1:
        raise ValueError("there is more than one public key; give one, or a trust file")
    if text.startswith(("-----BEGIN", "ssh-")):
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key

        load = load_pem_public_key if text.startswith("-----") else load_ssh_public_key
        try:
            key = load(text.encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ValueError("the public key is damaged, or of a kind that is not supported") from error
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("the public key is no Ed25519 key")
        return PublicKey(key.public_bytes_raw())
    try:
        return PublicKey(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise ValueError("a public key is base64 of 32 bytes, PEM, or a line of OpenSSH's") from error


def read_public_key(key: str) -> PublicKey:
    """Read a public key that is given as itself (base64 or OpenSSH), or else as the path of a file that holds it.

    Raises:
        ValueError: it is neither.
    """
    try:
        return parse_public_key(key)
    except ValueError:
        pass
    if not key.endswith(".pub") and Path(f"{key}.pub").is_file():
        # A private key is 32 bytes of base64 as well: nothing would ever verify, and nobody would know why.
        raise ValueError(f"{key} has a public half, {key}.pub, and so is a private key; give the public one")
    try:
        with Path(key).open(encoding="utf-8") as file:
            return parse_public_key(file.read(_MAX_FILE_BYTES))
    except OSError as error:
        raise ValueError(f"{key!r} is no public key, and no file: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
