"""`secureworker keys`."""

import base64
import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from secureworker.cli.keys import command
from secureworker.host.trustfile import load_trust
from secureworker.signing.keys import create_signing_key, load_signing_key
from secureworker.signing.publickeys import parse_public_key


def keys(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "keys").mkdir(mode=0o700)
    return tmp_path / "keys" / "signing"


def test_new_makes_a_key_and_shows_its_public_half_in_every_form(path: Path) -> None:
    result = keys("new", path)

    public = load_signing_key(f"file:{path}").public
    assert result.exit_code == 0
    for form in (public.fingerprint, public.base64, public.openssh, public.pem):
        assert form in result.output
    assert path.read_text().strip() not in result.output


def test_show_shows_the_same_for_the_private_and_the_public_file(path: Path) -> None:
    made = keys("new", path)

    assert keys("show", path).output == keys("show", f"{path}.pub").output == made.output


@pytest.mark.parametrize("asked", ["new", "show"])
def test_json_holds_every_form(path: Path, asked: str) -> None:
    if asked == "show":
        create_signing_key(str(path))

    shown = json.loads(keys(asked, path, "--json").output)

    public = load_signing_key(f"file:{path}").public
    assert shown.pop("path") == str(path)
    assert shown.pop("fingerprint") == public.fingerprint
    assert {form: parse_public_key(text) for form, text in shown.items()} == {
        "base64": public,
        "pem": public,
        "openssh": public,
    }


def test_new_never_overwrites(path: Path) -> None:
    keys("new", path)
    before = path.read_bytes()

    result = keys("new", path)

    assert result.exit_code == 1
    assert "keys are never overwritten" in result.output
    assert path.read_bytes() == before


def test_new_says_why_it_cannot_write(tmp_path: Path) -> None:
    result = keys("new", tmp_path / "missing" / "signing")

    assert result.exit_code == 1
    assert "cannot be written: No such file or directory" in result.output


@pytest.mark.parametrize("name", ["signing", "signing.pub"])
def test_show_says_why_it_is_no_key(path: Path, name: str) -> None:
    wrong = path.with_name(name)
    wrong.write_text("no key")
    wrong.chmod(0o400)

    result = keys("show", wrong)

    assert result.exit_code == 1
    assert "Error: " in result.output
    assert "Traceback" not in result.output


@pytest.fixture
def trust_file(path: Path, tmp_path: Path) -> Path:
    create_signing_key(str(path))
    result = keys("trust", f"{path}.pub", "--worker-pool", "releng/signing", "--root-url", "https://tc.example.com")
    assert result.exit_code == 0, result.output
    (tmp_path / "trust.yml").write_text(result.output)
    return tmp_path / "trust.yml"


def test_trust_writes_a_trust_file_for_the_given_keys(path: Path, trust_file: Path) -> None:
    trust = load_trust(str(trust_file))

    (pool,) = trust.pools
    assert (str(pool.worker_pool), trust.root_url) == ("releng/signing", "https://tc.example.com")
    assert trust.raw_keys() == (load_signing_key(f"file:{path}").public.raw,)


@pytest.mark.parametrize(
    ("form", "begins"),
    [
        ("scriptworker", "ed25519_public_keys:\n"),
        ("pem", "# releng/signing SHA256:"),
        ("allowed-signers", "releng/signing namespaces="),
        ("sigstore-keys", "{"),
        ("trusted-root", "{"),
    ],
)
def test_export_writes_the_keys_in_the_form_of_others(trust_file: Path, form: str, begins: str) -> None:
    result = keys("export", trust_file, "--form", form)

    assert result.exit_code == 0
    assert result.output.startswith(begins)
    assert keys("export", trust_file, "--form", form, "--worker-pool", "releng/signing").output == result.output


@pytest.mark.parametrize(
    "wrong",
    [
        ("trust", "nonsense", "--worker-pool", "a/b"),
        ("trust", "A" * 43 + "=", "--worker-pool", "nonsense"),
        ("export", "TRUST", "--form", "pem", "--worker-pool", "a/b"),
        ("export", "TRUST", "--form", "other"),
        ("export", "/etc/hostname", "--form", "pem"),
    ],
)
def test_what_cannot_be_given_to_others_is_a_usage_error(trust_file: Path, wrong: tuple[str, ...]) -> None:
    result = keys(*(str(trust_file) if argument == "TRUST" else argument for argument in wrong))

    assert result.exit_code == 2
    assert "Error: " in result.output


def test_ssh_keygen_takes_the_exported_signers(path: Path, trust_file: Path, tmp_path: Path) -> None:
    seed = base64.b64decode(path.read_bytes())
    private = Ed25519PrivateKey.from_private_bytes(seed)
    openssh = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    (tmp_path / "id").touch(mode=0o600)
    (tmp_path / "id").write_bytes(openssh)
    (tmp_path / "signers").write_text(keys("export", trust_file, "--form", "allowed-signers").output)
    (tmp_path / "file").write_bytes(b"content")
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-f", "id", "-n", "file", "file"], cwd=tmp_path, check=True)
    argv = ["ssh-keygen", "-q", "-Y", "verify", "-f", "signers", "-I", "releng/signing", "-n", "file"]

    good = subprocess.run([*argv, "-s", "file.sig"], cwd=tmp_path, input=b"content", check=False)
    tampered = subprocess.run([*argv, "-s", "file.sig"], cwd=tmp_path, input=b"other", capture_output=True, check=False)

    assert (good.returncode, tampered.returncode) == (0, 255)
