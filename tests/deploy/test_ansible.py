"""The role for Ansible: valid, complete, and about the same files as the rest."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from secureworker.cli.main import cli
from secureworker.host.documents import parse

GIVEN = {"inventory_hostname", "inventory_hostname_short", "ansible_managed", "item", "name", "value"}
REQUIRED = {
    "secureworker_root_url",
    "secureworker_pool",
    "secureworker_package",
    "secureworker_policy",
    "secureworker_credentials",
}


@pytest.fixture(scope="session")
def ansible(checkout: Path) -> Path:
    return checkout / "deploy" / "ansible"


def read(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text())


def role_files(ansible: Path) -> list[Path]:
    return sorted(path for path in (ansible / "roles").rglob("*") if path.is_file())


def test_every_file_is_yaml_without_surprises(ansible: Path) -> None:
    found = sorted(ansible.rglob("*.yml"))

    assert len(found) > 4
    for path in found:
        parse(path.read_bytes(), path.name)


def test_every_variable_has_a_value_or_is_one_to_be_set(ansible: Path) -> None:
    defaults = set(read(ansible / "roles" / "secureworker" / "defaults" / "main.yml"))
    used = set[str]()
    for path in role_files(ansible):
        for expression in re.findall(r"\{\{\s*(.*?)\s*\}\}", path.read_text()):
            used.add(re.match(r"\w+", expression)[0])  # type: ignore[index] # every expression begins with a name
    hosts = read(ansible / "inventory.example.yml")["secureworkers"]["vars"]

    assert used <= defaults | REQUIRED | GIVEN
    assert set(hosts) >= REQUIRED


def test_every_notice_has_a_handler_and_every_template_is_there(ansible: Path) -> None:
    role = ansible / "roles" / "secureworker"
    tasks = read(role / "tasks" / "main.yml")
    handlers = read(role / "handlers" / "main.yml")
    known = {handler["name"] for handler in handlers} | {handler.get("listen") for handler in handlers}

    assert {task["notify"] for task in tasks if "notify" in task} <= known
    (settings,) = [task for task in tasks if "ansible.builtin.template" in task]
    assert {f"{name}.j2" for name in settings["loop"]} == {path.name for path in (role / "templates").iterdir()}


def test_credentials_are_never_shown(ansible: Path) -> None:
    tasks = read(ansible / "roles" / "secureworker" / "tasks" / "main.yml")
    (secret,) = [task for task in tasks if "secureworker_credentials" in str(task)]

    assert secret["no_log"] is True
    assert secret["diff"] is False
    assert secret["ansible.builtin.copy"]["mode"] == "0600"


def test_the_settings_are_options_of_the_program(ansible: Path) -> None:
    text = (ansible / "roles" / "secureworker" / "templates" / "worker.env.j2").read_text()
    command = cli.get_command(click.Context(cli), "run")
    assert command is not None
    known = set[str]()
    for parameter in command.params:
        known |= {parameter.envvar} if isinstance(parameter.envvar, str) else set(parameter.envvar or ())

    assert set(re.findall(r"^(SECUREWORKER_\w+)=", text, re.MULTILINE)) <= known


@pytest.mark.skipif(shutil.which("ansible-playbook") is None, reason="needs ansible-playbook: the package ansible-core")
def test_ansible_understands_the_playbook(ansible: Path) -> None:
    subprocess.run(
        ["ansible-playbook", "--syntax-check", "--inventory", "inventory.example.yml", "site.yml"],
        cwd=ansible,
        check=True,
        capture_output=True,
    )
