"""Who the worker is and where its credentials come from, by the options of `run`."""

import json
from pathlib import Path
from typing import Any

import click
import pytest

from secureworker.cli.own import Own, read_own
from secureworker.cli.run import command
from secureworker.core.claim import Credentials, Secret
from secureworker.core.errors import SettingsError
from secureworker.registration.source import CredentialsFile, StaticProvider

NOTHING: dict[str, Any] = {
    "worker_group": "dc1",
    "worker_id": "signer-1",
    "credentials_file": None,
    "register": None,
    "registration_secret": None,
    "config": None,
    "with_worker_runner": False,
    "state_dir": "/var/lib/secureworker",
}
BY_RUNNER: dict[str, Any] = {"worker_group": None, "worker_id": None, "with_worker_runner": True}
VARIABLES = {"TASKCLUSTER_CLIENT_ID": "env", "TASKCLUSTER_ACCESS_TOKEN": "canary"}


def own(environment: dict[str, str] | None = None, **options: Any) -> Own:
    return read_own({**NOTHING, **options}, {} if environment is None else environment)


def private(path: Path, content: str, mode: int = 0o600) -> str:
    path.write_text(content)
    path.chmod(mode)
    return str(path)


def test_variables_are_all_that_the_worker_will_have_and_are_taken_away() -> None:
    environment = dict(VARIABLES)
    found = own(environment)
    assert (found.source, found.files) == (Credentials("env", Secret("canary")), ())
    assert environment == {}
    assert "canary" not in repr(found)


def test_a_file_is_watched_and_out_of_reach_for_scripts(tmp_path: Path) -> None:
    path = private(tmp_path / "c.json", json.dumps({"clientId": "a", "accessToken": "canary"}))
    found = own(credentials_file=path)
    assert (found.source, found.files) == (CredentialsFile(path), (path,))


def test_a_credential_of_systemd_is_watched_too(tmp_path: Path) -> None:
    path = private(tmp_path / "taskcluster", json.dumps({"clientId": "a", "accessToken": "canary"}), 0o440)
    assert own({"CREDENTIALS_DIRECTORY": str(tmp_path)}).source == CredentialsFile(path)


def test_registering_takes_a_secret_and_keeps_what_comes_next_in_the_state_directory(tmp_path: Path) -> None:
    path = private(tmp_path / "secret", "s" * 44)
    environment = dict(VARIABLES)
    found = own(environment, register="static", registration_secret=path)
    kept = "/var/lib/secureworker/registration.json"
    assert found.source == StaticProvider("static", Secret("s" * 44), kept)
    assert found.files == (kept, path)
    assert environment == {}
    assert "ssss" not in repr(found)


def test_registering_takes_its_secret_from_systemd(tmp_path: Path) -> None:
    private(tmp_path / "worker-registration", "s" * 44, 0o440)
    found = own({"CREDENTIALS_DIRECTORY": str(tmp_path)}, register="static")
    assert found.files == ("/var/lib/secureworker/registration.json",)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"worker_group": None}, "Missing option '--worker-group'"),
        ({"worker_id": None}, "Missing option '--worker-id'"),
        ({"config": "/x"}, "--config and --with-worker-runner go together"),
        ({"with_worker_runner": True}, "--config and --with-worker-runner go together"),
        ({"config": "/x", "with_worker_runner": True}, "--config and --worker-group do not go together"),
        ({**BY_RUNNER, "config": "/x", "register": "static"}, "--config and --register do not go together"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(click.UsageError, match=says):
        own(**options)


def test_registering_and_a_file_do_not_go_together() -> None:
    with pytest.raises(click.UsageError, match="--register and --credentials-file do not go together"):
        own(register="static", credentials_file="/x")


CONFIG = {
    "rootURL": "https://tc.example.com",
    "clientId": "worker/static/x",
    "accessToken": "canary-token",
    "certificate": "canary-certificate",
    "provisionerId": "releng",
    "workerType": "signing",
    "workerGroup": "dc1",
    "workerId": "signer-1",
    "policy": "/etc/shadow",
}


def test_worker_runner_says_who_the_worker_is_and_nothing_more(tmp_path: Path) -> None:
    path = private(tmp_path / "config.json", json.dumps(CONFIG))
    environment = dict(VARIABLES)
    found = own(environment, **BY_RUNNER, config=path)
    assert (found.worker_group, found.worker_id, found.source, found.files) == ("dc1", "signer-1", None, (path,))
    assert found.runner is not None
    assert found.runner.credentials == Credentials(
        "worker/static/x", Secret("canary-token"), Secret("canary-certificate")
    )
    assert environment == {}
    assert "canary" not in repr(found)
    assert "shadow" not in repr(found)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("canary", "is no JSON"),
        ('["canary"]', "is no JSON object"),
        (json.dumps({**CONFIG, "accessToken": ["canary"]}), "accessToken is missing, or no text"),
        (json.dumps({**CONFIG, "certificate": {"canary": 1}}), "certificate must be"),
        (json.dumps({**CONFIG, "workerType": "Not/One"}), "is no worker type"),
        (json.dumps({key: value for key, value in CONFIG.items() if key != "rootURL"}), "rootURL is missing"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_said_to_be_so_and_not_shown(
    tmp_path: Path, content: str, says: str
) -> None:
    path = private(tmp_path / "config.json", content)
    with pytest.raises(SettingsError, match=says) as refusal:
        own(**BY_RUNNER, config=path)
    assert "canary" not in str(refusal.value)


def test_a_configuration_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = private(tmp_path / "config.json", json.dumps(CONFIG), 0o644)
    with pytest.raises(SettingsError, match="others can read"):
        own(**BY_RUNNER, config=path)


def test_no_option_overlooks_what_the_workers_credentials_should_not_be_able_to_do() -> None:
    names = {name for option in command.params for name in option.opts}
    assert "--credentials-file" in names
    assert not [name for name in names for word in ("surplus", "scope", "allow", "insecure", "force") if word in name]


@pytest.mark.parametrize(
    "option", [each for each in command.params if each.envvar], ids=lambda option: str(option.name)
)
def test_the_variable_of_an_option_has_the_options_name(option: click.Parameter) -> None:
    names = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())
    flag = max(option.opts, key=len).removeprefix("--")
    assert names[0] == f"SECUREWORKER_{flag.replace('-', '_').upper()}"
