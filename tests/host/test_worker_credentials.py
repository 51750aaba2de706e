"""The worker's own credentials: never from the command line, never from a file that others read."""

import json
import os
from pathlib import Path

import pytest

from secureworker.core.claim import Credentials, Secret
from secureworker.core.errors import SettingsError
from secureworker.host.credentials import load_credentials

ENVIRONMENT = {"TASKCLUSTER_CLIENT_ID": "env", "TASKCLUSTER_ACCESS_TOKEN": "SECRET"}
DOCUMENT = {"clientId": "file", "accessToken": "SECRET"}


def a_file(path: Path, content: str = json.dumps(DOCUMENT), mode: int = 0o600) -> str:
    path.write_text(content)
    path.chmod(mode)
    return str(path)


def test_credentials_of_the_environment_are_taken_out_of_it() -> None:
    environment = {**ENVIRONMENT, "TASKCLUSTER_CERTIFICATE": "{}", "OTHER": "stays"}
    assert load_credentials(None, environment) == Credentials("env", Secret("SECRET"), Secret("{}"))
    assert environment == {"OTHER": "stays"}


def test_a_file_that_is_named_comes_first_and_the_environment_is_cleaned_all_the_same(tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, "CREDENTIALS_DIRECTORY": str(tmp_path)}
    a_file(tmp_path / "taskcluster", json.dumps({**DOCUMENT, "clientId": "systemd"}))
    assert load_credentials(a_file(tmp_path / "named"), environment).client_id == "file"
    assert "TASKCLUSTER_ACCESS_TOKEN" not in environment


def test_systemds_credential_comes_before_the_environment(tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, "CREDENTIALS_DIRECTORY": str(tmp_path)}
    a_file(tmp_path / "taskcluster", json.dumps({**DOCUMENT, "clientId": "systemd"}), mode=0o440)
    assert load_credentials(None, environment).client_id == "systemd"


def test_a_credentials_directory_without_ours_is_passed_by(tmp_path: Path) -> None:
    assert load_credentials(None, {**ENVIRONMENT, "CREDENTIALS_DIRECTORY": str(tmp_path)}).client_id == "env"


@pytest.mark.parametrize("environment", [{}, {"TASKCLUSTER_CLIENT_ID": "x"}, {"TASKCLUSTER_ACCESS_TOKEN": "x"}])
def test_without_credentials_the_ways_to_give_some_are_named(environment: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="--credentials-file") as caught:
        load_credentials(None, environment)
    assert "LoadCredential" in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602])
def test_a_file_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(SettingsError, match="chmod it to 0600"):
        load_credentials(a_file(tmp_path / "file", mode=mode), {})


@pytest.mark.parametrize(
    "content",
    ["", "SECRET", '{"SECRET"', "[]", "7", '{"clientId": "SECRET"}', '{"clientId": 7, "accessToken": "SECRET"}'],
)
def test_a_file_of_another_form_is_refused_and_not_shown(tmp_path: Path, content: str) -> None:
    with pytest.raises(SettingsError, match="cannot be used") as caught:
        load_credentials(a_file(tmp_path / "file", content), {})
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load_credentials(str(tmp_path / "nothing"), {})
    with pytest.raises(SettingsError, match="no regular file"):
        load_credentials(str(tmp_path), {})
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(SettingsError, match="no regular file"):
        load_credentials(str(tmp_path / "fifo"), {})


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = a_file(tmp_path / "file")
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, 12345, 12345)
    with pytest.raises(SettingsError, match="belongs to uid 12345"):
        load_credentials(path, {})
