"""Which policies a worker starts with: signed ones where a key is given; and which it goes on with."""

from pathlib import Path

import pytest

from secureworker.app import Reloading, load_policy
from secureworker.core.errors import PolicyError, SettingsError
from secureworker.operation.notices import Notices
from secureworker.policyfile import load
from secureworker.policyfile.manifest import manifest
from secureworker.signing.keys import create_signing_key
from secureworker.signing.policies import sign_policy
from tests.policyfile.policies import TEXT, write


def sign(path: str, key: Path) -> str:
    """Sign a policy with a new key; give the public key's file."""
    made = create_signing_key(str(key))
    Path(f"{path}.sig").write_text(sign_policy(manifest(path, load(path)), made))
    return f"{key}.pub"


def test_a_signed_policy_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert load_policy(path, "https://tc.example.com/", sign(path, tmp_path / "key")).scripts


def test_an_unsigned_policy_is_refused_where_a_key_is_given(tmp_path: Path) -> None:
    path = write(tmp_path)
    create_signing_key(str(tmp_path / "key"))
    with pytest.raises(PolicyError, match="a signature is required"):
        load_policy(path, None, str(tmp_path / "key.pub"))


def test_a_changed_policy_is_refused(tmp_path: Path) -> None:
    key = sign(write(tmp_path), tmp_path / "key")
    with pytest.raises(PolicyError, match="is not what was signed"):
        load_policy(write(tmp_path, f"{TEXT}\n"), None, key)


def test_a_policy_signed_by_another_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    sign(path, tmp_path / "key")
    create_signing_key(str(tmp_path / "other"))
    with pytest.raises(PolicyError, match="only its signature counts"):
        load_policy(path, None, str(tmp_path / "other.pub"))


def test_a_key_that_is_none_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="the policy key cannot be used"):
        load_policy(write(tmp_path), None, str(tmp_path / "none"))


def test_a_policy_for_another_taskcluster_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="the root URL is set to"):
        load_policy(write(tmp_path), "https://other.example.com")


async def test_only_another_policy_for_the_same_pool_is_gone_on_with(tmp_path: Path) -> None:
    path = write(tmp_path)
    reloading = Reloading(load(path), lambda: load(path), Notices())
    first = reloading.policy
    assert not await reloading.again()
    write(tmp_path, TEXT.replace("version: 1", "version: 2"))
    assert not await reloading.again()
    write(tmp_path, TEXT.replace("releng/signing", "releng/other"))
    assert not await reloading.again()
    write(tmp_path, TEXT.replace("tc.example.com", "other.example.com"))
    assert not await reloading.again()
    assert reloading.policy == first
    write(tmp_path, f"{TEXT}# reviewed\n")
    assert await reloading.again()
    assert reloading.policy.sha256 != first.sha256


async def test_each_problem_of_a_policy_that_is_read_again_is_a_line_of_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path)
    reloading = Reloading(load(path), lambda: load(path), Notices())
    write(tmp_path, TEXT.replace("version: 1", "version: 2\nversoin: 1"))
    assert not await reloading.again()
    said = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(said) == 2
    for line in said:
        assert line.startswith(f"the policy cannot be used, so the old one stays: {path}:")
        assert "\n" not in line


async def test_another_schema_makes_another_policy(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT.replace("{type: object}", "{$ref: payload.json}"))
    schema = tmp_path / "payload.json"
    schema.write_text("{}")
    schema.chmod(0o644)
    reloading = Reloading(load(path), lambda: load(path), Notices())
    assert not await reloading.again()
    schema.write_text('{"type": "object"}')
    assert await reloading.again()
