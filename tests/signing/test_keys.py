"""Keys: who may read them, in which forms, and that they stay hidden."""

import base64
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from secureworker.core.errors import KeyUnusable
from secureworker.signing.keys import SigningKey, create_signing_key, load_signing_key
from secureworker.signing.publickeys import PublicKey, parse_public_key, read_public_key

SEED = bytes(range(32))


def pem(
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
    encryption: KeySerializationEncryption | None = None,
) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def put(path: Path, content: bytes, mode: int = 0o400) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "content",
    [
        base64.b64encode(SEED),
        base64.b64encode(SEED) + b"\n",
        pem(ed25519.Ed25519PrivateKey.from_private_bytes(SEED)),
        b"\n" + pem(ed25519.Ed25519PrivateKey.from_private_bytes(SEED)),
    ],
)
@pytest.mark.parametrize("mode", [0o400, 0o600])
@pytest.mark.parametrize("scheme", ["file:", "file://"])
def test_a_private_key_is_read_in_each_of_its_forms(key_path: Path, content: bytes, mode: int, scheme: str) -> None:
    key = load_signing_key(f"{scheme}{put(key_path, content, mode)}")

    expected = ed25519.Ed25519PrivateKey.from_private_bytes(SEED)
    assert key.public.raw == expected.public_key().public_bytes_raw()
    assert key.sign(b"message") == expected.sign(b"message")


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o644, 0o666, 0o420, 0o402, 0o401, 0o700])
def test_a_key_that_others_may_touch_is_refused(key_path: Path, mode: int) -> None:
    put(key_path, base64.b64encode(SEED), mode)

    with pytest.raises(KeyUnusable, match=rf"has mode {mode:04o}; chmod it to 0400"):
        load_signing_key(f"file:{key_path}")


@pytest.mark.sandbox
def test_a_key_of_another_user_is_refused(key_path: Path) -> None:
    os.chown(put(key_path, base64.b64encode(SEED)), 12345, 12345)

    with pytest.raises(KeyUnusable, match="belongs to uid 12345"):
        load_signing_key(f"file:{key_path}")


@pytest.mark.sandbox
def test_a_key_in_a_directory_of_another_user_is_refused(key_path: Path) -> None:
    put(key_path, base64.b64encode(SEED))
    os.chown(key_path.parent, 12345, 12345)

    with pytest.raises(KeyUnusable, match="the directory of the key"):
        load_signing_key(f"file:{key_path}")


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_key_in_a_directory_that_others_may_write_is_refused(key_path: Path, mode: int) -> None:
    put(key_path, base64.b64encode(SEED))
    key_path.parent.chmod(mode)

    with pytest.raises(KeyUnusable, match="can be written by others"):
        load_signing_key(f"file:{key_path}")


def a_symlink(path: Path) -> None:
    path.symlink_to(put(path.with_name("target"), base64.b64encode(SEED)))


def a_second_name(path: Path) -> None:
    path.hardlink_to(put(path.with_name("target"), base64.b64encode(SEED)))


@pytest.mark.parametrize("make", [a_symlink, a_second_name, os.mkfifo, Path.mkdir])
def test_a_key_that_is_no_plain_file_is_refused(key_path: Path, make: Callable[[Path], None]) -> None:
    make(key_path)

    with pytest.raises(KeyUnusable, match="regular file"):
        load_signing_key(f"file:{key_path}")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no key at all",
        base64.b64encode(SEED[:31]),
        base64.b64encode(SEED + b"x"),
        b"A" * 20_000,
        b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0LXNlY3JldA==\n-----END PRIVATE KEY-----\n",
        pem(ec.generate_private_key(ec.SECP256R1())),
        pem(ed25519.Ed25519PrivateKey.from_private_bytes(SEED), BestAvailableEncryption(b"password")),
    ],
)
def test_what_is_no_key_is_refused_and_not_shown(key_path: Path, content: bytes) -> None:
    put(key_path, content)

    with pytest.raises(KeyUnusable) as caught:
        load_signing_key(f"file:{key_path}")

    assert "c2VjcmV0" not in str(caught.value)
    assert base64.b64encode(SEED).decode()[:8] not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("uri", ["", "/keys/signing", "pkcs11:token=a", "file:", "file:signing", "file://host/signing"])
def test_a_key_uri_names_a_file_by_its_absolute_path(uri: str) -> None:
    with pytest.raises(KeyUnusable):
        load_signing_key(uri)


def test_a_missing_key_is_named(key_path: Path) -> None:
    with pytest.raises(KeyUnusable, match=f"the key {key_path} cannot be read: No such file"):
        load_signing_key(f"file:{key_path}")


def test_a_made_key_can_be_loaded_and_is_readable_by_nobody_else(key_path: Path) -> None:
    made = create_signing_key(str(key_path))

    assert load_signing_key(f"file:{key_path}").public == made.public
    assert key_path.stat().st_mode & 0o777 == 0o400
    assert read_public_key(f"{key_path}.pub") == made.public


@pytest.mark.parametrize("existing", ["signing", "signing.pub"])
def test_making_a_key_overwrites_nothing_and_leaves_nothing(key_path: Path, existing: str) -> None:
    (key_path.parent / existing).write_text("precious")

    with pytest.raises(FileExistsError):
        create_signing_key(str(key_path))

    (left,) = key_path.parent.iterdir()
    assert left.read_text() == "precious"


@pytest.mark.sandbox
def test_a_disk_that_is_full_leaves_no_half_a_key(key_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=2", "none", key_path.parent], check=True)
    try:
        with pytest.raises(OSError, match="No space left"):
            create_signing_key(str(key_path))
        assert list(key_path.parent.iterdir()) == []
    finally:
        subprocess.run(["umount", key_path.parent], check=True)


def test_a_key_shows_only_its_fingerprint(key: SigningKey) -> None:
    assert repr(key) == f"SigningKey({key.public.fingerprint})"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(key)


def test_every_form_of_a_public_key_is_read_back(key: SigningKey, tmp_path: Path) -> None:
    public = key.public
    commented = (f"{public.openssh} a comment\n", f"# a comment\n{public.pem}")
    for form in (public.base64, public.pem, public.openssh, *commented):
        assert parse_public_key(form) == key.public
        (tmp_path / "public").write_text(form)
        assert read_public_key(str(tmp_path / "public")) == key.public
    assert read_public_key(key.public.base64) == key.public


def test_the_fingerprint_is_the_one_that_ssh_keygen_shows(key: SigningKey, tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(key.public.openssh + "\n")

    shown = subprocess.run(["ssh-keygen", "-lf", tmp_path / "key.pub"], capture_output=True, text=True, check=True)

    assert shown.stdout.split()[1] == key.public.fingerprint


def test_a_public_key_verifies_what_was_signed_and_nothing_else(key: SigningKey) -> None:
    signature = key.sign(b"message")

    assert key.public.verifies(signature, b"message")
    assert not key.public.verifies(signature, b"massage")
    assert not key.public.verifies(signature[:-1], b"message")
    assert not PublicKey(bytes(32)).verifies(signature, b"message")


@pytest.mark.parametrize("form", ["pem", "openssh"])
def test_of_several_public_keys_none_is_chosen_silently(key: SigningKey, form: str) -> None:
    with pytest.raises(ValueError, match="more than one public key"):
        parse_public_key(f"{getattr(key.public, form)}\n{getattr(key.public, form)}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        base64.b64encode(bytes(31)).decode(),
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        "ssh-ed25519 AAAA",
        "ssh-rsa nonsense",
        "ecdsa",
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        .decode(),
    ],
)
def test_what_is_no_public_key_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="public key"):
        parse_public_key(text)
    (tmp_path / "public").write_text(text)
    with pytest.raises(ValueError, match="public key"):
        read_public_key(str(tmp_path / "public"))


def test_a_file_that_is_no_text_is_no_public_key(tmp_path: Path) -> None:
    (tmp_path / "public").write_bytes(b"\xff\xfe")

    with pytest.raises(ValueError, match="public: "):
        read_public_key(str(tmp_path / "public"))
