"""Private Ed25519 keys: reading them with suspicion, and making them. For the signer, and for commands about keys.

They are read from a `file:` URI in one of two forms: base64 of the 32-byte seed (scriptworker's key files), or PKCS#8
PEM without a password.
"""

import base64
import binascii
import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from secureworker.core.errors import KeyUnusable
from secureworker.host.userns import owner
from secureworker.signing.publickeys import KEY_BYTES, PublicKey

_MAX_FILE_BYTES = 16 * 1024
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class SigningKey:
    """An Ed25519 private key in this process's memory. Shows only its public half."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Give the 64 bytes of the signature."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey({self.public.fingerprint})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a signing key is not pickled")


def load_signing_key(uri: str) -> SigningKey:
    """Read the private key that a `file:` URI names, if nobody but this user can have read or replaced it.

    Raises:
        KeyUnusable: there is none, others can reach it, or it is no Ed25519 key. No message holds a part of it.
    """
    scheme, colon, rest = uri.partition(":")
    if scheme != "file" or not colon:
        raise KeyUnusable(f"{uri.partition(':')[0]!r} is no scheme of a key URI: file:/path/to/key is expected")
    # file:/path and file:///path name the same (RFC 8089).
    path = rest.removeprefix("//")
    if not path.startswith("/"):
        raise KeyUnusable(f"the key URI file:{rest} has no absolute path: file:/path/to/key is expected")
    return SigningKey(_parse_private(path, read_secret(path)))


def load_credential_key(path: str) -> SigningKey:
    """Read a private key that systemd put into a unit's credentials directory.

    Where the file system has access control lists, such a file is root's, and one entry lets the unit's user read it;
    the mask of the list then shows as the group's permissions (systemd.exec(5), acl(5)).

    Raises:
        KeyUnusable: as `load_signing_key`.
    """
    return SigningKey(_parse_private(path, read_secret(path, by_list=True)))


def read_secret(path: str, what: str = "the key", *, by_list: bool = False) -> bytes:
    """Read a secret's file in numbered steps, each of which shuts out one way for others to read or replace it.

    Raises:
        KeyUnusable: it is not there, or others could have read or replaced it.
    """
    owners, forbidden = {os.geteuid()}, _OTHERS | stat.S_IXUSR
    if by_list:
        owners, forbidden = {0, os.geteuid()}, (_OTHERS & ~stat.S_IRGRP) | stat.S_IXUSR
    try:
        # 1. The directory belongs to this user or root, and nobody else can put another file in the key's place.
        parent = Path(path).parent
        directory = parent.stat()
        if owner(directory, str(parent)) not in {0, os.geteuid()} or directory.st_mode & _OTHERS_WRITE:
            raise KeyUnusable(
                f"the directory of {what} {path} can be written by others; keep it in one with mode 0700 and own uid"
            )
        # 2. The last component is no link, which its owner could turn to another file.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise KeyUnusable(f"{what} {path} cannot be read: {error.strerror}; a regular file is expected") from error
    try:
        # 3. It is a file with one name, so that its permissions are all there is to its protection.
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise KeyUnusable(f"{what} {path} is no regular file with one link")
        # 4. It belongs to this user, and is closed to all others.
        if owner(status, descriptor) not in owners:
            raise KeyUnusable(f"{what} {path} belongs to uid {status.st_uid}; chown it to {os.geteuid()}")
        if status.st_mode & forbidden:
            raise KeyUnusable(f"{what} {path} has mode {stat.S_IMODE(status.st_mode):04o}; chmod it to 0400")
        # 5. It is small: no key has 16 KiB.
        content = os.read(descriptor, _MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > _MAX_FILE_BYTES:
        raise KeyUnusable(f"{what} {path} has more than {_MAX_FILE_BYTES} bytes, and so is none")
    return content


def _parse_private(path: str, content: bytes) -> Ed25519PrivateKey:
    if content.lstrip().startswith(b"-----BEGIN"):
        try:
            key = load_pem_private_key(content, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # `from None`: the library's messages may quote what they read.
            raise KeyUnusable(f"the key {path} is no PKCS#8 PEM without a password") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyUnusable(f"the key {path} is no Ed25519 key")
        return key
    try:
        seed = base64.b64decode(content.strip(), validate=True)
    except binascii.Error:
        seed = b""
    if len(seed) != KEY_BYTES:
        raise KeyUnusable(f"the key {path} is neither base64 of a {KEY_BYTES}-byte seed nor PKCS#8 PEM")
    return Ed25519PrivateKey.from_private_bytes(seed)


def create_signing_key(path: str) -> SigningKey:
    """Make a key; write it to `path` (0400, scriptworker's form) and its public half to `path`.pub.

    Raises:
        FileExistsError: one of the two files exists; nothing was changed.
        OSError: they cannot be written; neither is left.
    """
    key = Ed25519PrivateKey.generate()
    made = SigningKey(key)
    public = f"{path}.pub"
    if os.path.lexists(public):
        raise FileExistsError(17, "exists already", public)
    _write_new(path, base64.b64encode(key.private_bytes_raw()) + b"\n", 0o400)
    try:
        _write_new(public, f"{made.public.base64}\n".encode(), 0o444)
    except BaseException:
        Path(path).unlink()
        raise
    return made


def _write_new(path: str, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
    except BaseException:
        Path(path).unlink()
        raise
