"""`secureworker keys`."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from secureworker.cli.keys import command
from secureworker.signing.keys import create_signing_key, load_signing_key, parse_public_key


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
