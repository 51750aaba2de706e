"""Where a key may lie: in a file, in a credential of systemd's, in a token; and nowhere else."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pkcs11
import pkcs11.exceptions
import pytest

from secureworker.core.errors import KeyUnusable
from secureworker.signing.client import child_signer
from secureworker.signing.keys import SigningKey
from secureworker.signing.keyuris import files_of, load_key
from secureworker.signing.pkcs11 import TokenKey, TokenUri, parse_uri, public_of
from secureworker.testing import IDENTITY
from tests.signing.served import a_statement, settings_for

MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so")
MESSAGE = b"what is signed"
ED25519 = bytes([0x13, 12]) + b"edwards25519"
"""The curve's name as a PrintableString (PKCS#11 3.0 section 6.3.3)."""


def test_a_key_in_a_file_is_loaded(key: SigningKey, key_path: Path) -> None:
    assert load_key(f"file:{key_path}").public == key.public
    assert files_of(f"file://{key_path}") == (str(key_path),)


@pytest.mark.parametrize("uri", ["", "/etc/key", "https://example.com/key", "vault:key", "file"])
def test_another_scheme_is_refused(uri: str) -> None:
    with pytest.raises(KeyUnusable, match="is no scheme of a key URI"):
        load_key(uri)


@pytest.fixture
def credentials(key: SigningKey, key_path: Path) -> dict[str, str]:
    return {"CREDENTIALS_DIRECTORY": str(key_path.parent)}


def test_a_credential_of_systemds_is_loaded(key: SigningKey, key_path: Path, credentials: dict[str, str]) -> None:
    assert load_key("credential:signing", credentials).public == key.public
    assert files_of("credential:signing", credentials) == (str(key_path),)


@pytest.mark.sandbox
def test_a_credential_that_only_an_access_list_opens_is_loaded(
    key: SigningKey, key_path: Path, credentials: dict[str, str]
) -> None:
    # systemd's files are root's, with an entry for the unit's user; the list's mask shows as the group's rights.
    key_path.chmod(0o440)

    assert load_key("credential:signing", credentials).public == key.public


@pytest.mark.parametrize("mode", [0o444, 0o404, 0o460, 0o500])
def test_a_credential_that_others_can_reach_is_refused(key_path: Path, credentials: dict[str, str], mode: int) -> None:
    key_path.chmod(mode)

    with pytest.raises(KeyUnusable, match="chmod it to 0400"):
        load_key("credential:signing", credentials)


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "/etc/key"])
def test_a_credential_is_a_name_and_no_path(credentials: dict[str, str], name: str) -> None:
    with pytest.raises(KeyUnusable, match="is no name of a credential"):
        load_key(f"credential:{name}", credentials)


def test_without_systemd_there_is_no_credential() -> None:
    with pytest.raises(KeyUnusable, match="start the signer by systemd, with LoadCredential="):
        load_key("credential:signing", {})


# Tokens.


def module() -> str:
    found = next((path for path in MODULES if Path(path).exists()), None)
    if found is None:
        assert "CI" not in os.environ, "SoftHSM2 is needed: apt-get install softhsm2"
        pytest.skip("SoftHSM2 is not installed: apt-get install softhsm2")
    return found


@pytest.fixture(scope="session")
def token_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a token with a user. The module reads its configuration once in a process's life."""
    module()
    home = tmp_path_factory.mktemp("softhsm")
    (home / "tokens").mkdir()
    (home / "softhsm2.conf").write_text(f"directories.tokendir = {home / 'tokens'}\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(home / "softhsm2.conf")
    tool = shutil.which("softhsm2-util")
    assert tool
    argv = [tool, "--init-token", "--free", "--label", "release", "--so-pin", "12345678", "--pin", "1234"]
    subprocess.run(argv, check=True, capture_output=True)
    (home / "pin").write_text("1234\n")
    (home / "pin").chmod(0o400)
    yield home
    del os.environ["SOFTHSM2_CONF"]


@pytest.fixture(scope="session")
def token(token_home: Path) -> str:
    """Make a key in the token; give the URI but for its label."""
    session = pkcs11.lib(module()).get_token(token_label="release").open(user_pin="1234", rw=True)
    parameters = session.create_domain_parameters(
        pkcs11.KeyType.EC_EDWARDS,
        {pkcs11.Attribute.EC_PARAMS: ED25519},
        local=True,
    )
    parameters.generate_keypair(mechanism=pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN, store=True, label="signing")
    session.close()
    return f"pkcs11:token=release;object=LABEL?module-path={module()}&pin-source=file:{token_home / 'pin'}"


def test_a_key_in_a_token_signs_and_stays_there(token: str, token_home: Path) -> None:
    key: Any = load_key(token.replace("LABEL", "signing"))

    signature = key.sign(MESSAGE)

    assert key.public.verifies(signature, MESSAGE)
    assert files_of(token) == (str(token_home / "pin"),)
    assert repr(key) == f"TokenKey({key.public.fingerprint})"
    with pytest.raises(TypeError):
        key.__reduce__()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("LABEL", "other", "the key 'other' of the token 'release' cannot be used"),
        ("token=release", "token=other", "cannot be used"),
        ("softhsm2.so", "missing.so", "cannot be used"),
        ("/pin", "/missing", "the PIN .* cannot be read"),
    ],
)
def test_a_token_that_cannot_be_used_says_why(token: str, old: str, new: str, why: str) -> None:
    with pytest.raises(KeyUnusable, match=why):
        load_key(token.replace(old, new).replace("LABEL", "signing"))


def test_a_pin_that_others_can_read_is_refused(token: str, tmp_path: Path, token_home: Path) -> None:
    (tmp_path / "pin").write_text("1234")
    (tmp_path / "pin").chmod(0o444)

    with pytest.raises(KeyUnusable, match=r"the PIN .* has mode 0444"):
        load_key(token.replace("LABEL", "signing").replace(str(token_home), str(tmp_path)))


def test_a_wrong_pin_opens_nothing(token: str, tmp_path: Path, token_home: Path) -> None:
    (tmp_path / "pin").write_text("4321")
    (tmp_path / "pin").chmod(0o400)

    with pytest.raises(KeyUnusable, match="is the token there, the PIN right") as raised:
        load_key(token.replace("LABEL", "signing").replace(str(token_home), str(tmp_path)))
    assert "4321" not in str(raised.value)


def test_the_parts_of_a_uri_are_read() -> None:
    uri = "pkcs11:token=My%20token;object=a;?module-path=/m.so&pin-source=file:///run/pin".replace(";?", "?")

    assert parse_uri(uri) == TokenUri("My token", "a", "/m.so", "/run/pin")


@pytest.mark.parametrize(
    "uri",
    [
        "pkcs11:",
        "pkcs11:token=a;object=b",
        "pkcs11:token=a;object=b?module-path=/m.so",
        "pkcs11:token=a;object=b?module-path=m.so&pin-source=file:/pin",
        "pkcs11:token=a;object=b?module-path=/m.so&pin-source=/pin",
        "pkcs11:token=a;object=b?module-path=/m.so&pin-value=1234",
        "pkcs11:token=a;token=a;object=b?module-path=/m.so&pin-source=file:/pin",
        "pkcs11:token=;object=b?module-path=/m.so&pin-source=file:/pin",
    ],
)
def test_a_uri_of_another_form_is_refused(uri: str) -> None:
    with pytest.raises(KeyUnusable, match="is expected") as raised:
        load_key(uri)
    assert "1234" not in str(raised.value)


async def test_a_signer_signs_with_a_key_in_a_token(token: str, tmp_path: Path) -> None:
    async with child_signer(settings_for(tmp_path, key=token.replace("LABEL", "signing")), IDENTITY) as signer:
        body, signature, *_ = await signer.sign(a_statement())

    assert signer.public_key.verifies(signature.content, body.content)


class BrokenKey:
    """A token's key that gives what it should not."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer = answer

    def sign(self, _: bytes, **__: object) -> bytes:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("answer", [b"", bytes(64), pkcs11.exceptions.DeviceRemoved()])
def test_a_token_that_signs_wrongly_or_not_at_all_is_not_used(key: SigningKey, answer: bytes | Exception) -> None:
    broken = TokenKey(None, BrokenKey(answer), key.public, None)

    with pytest.raises(KeyUnusable, match="the token"):
        broken.sign(MESSAGE)


def test_a_public_key_is_read_in_both_forms_that_tokens_have(key: SigningKey) -> None:
    raw = key.public.raw

    assert public_of(raw) == public_of(bytes([4, 32]) + raw) == key.public
    with pytest.raises(KeyUnusable, match="is no Ed25519 key"):
        public_of(raw[1:])
