"""The units agree with the program, with each other, and with what the documents say of them."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from secureworker.app import DEFAULT_DRAIN_SECONDS
from secureworker.cli.main import cli
from secureworker.cli.run import EXIT_FAULT, EXIT_USAGE
from secureworker.sandbox import seccomp
from secureworker.starter import texts
from tests.deploy.unitfiles import read_unit, seconds, words

UNITS = ("secureworker.service", "secureworker-signer.service")
TOLERANCE = 0.1
"""What `systemd-analyze security` may differ by from one version of systemd to another."""


@pytest.fixture(scope="session")
def systemd(checkout: Path) -> Path:
    return checkout / "deploy" / "systemd"


def command_of(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_starts_a_command_that_exists_with_options_that_it_has(systemd: Path, name: str) -> None:
    (start,) = read_unit(systemd / name)["Service"]["ExecStart"]
    program, command, *arguments = start.split()

    assert program == "/opt/secureworker/bin/secureworker"
    known = {option for parameter in command_of(command).params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("-")} <= known


def test_every_variable_of_the_settings_is_one_of_an_option(systemd: Path) -> None:
    identity: Any = type("Identity", (), {"worker_group": "g", "worker_id": "w"})()
    known = set[str]()
    for parameter in command_of("run").params:
        known |= {parameter.envvar} if isinstance(parameter.envvar, str) else set(parameter.envvar or ())
    for units in (True, False):
        text = texts.worker_settings(texts.Worker(identity, "https://tc.example.com", "/etc/s", "/var/lib/s", units))
        assert set(re.findall(r"^(\w+)=", text, re.MULTILINE)) <= known


def test_a_usage_error_is_not_tried_again_and_a_fault_is(systemd: Path) -> None:
    service = read_unit(systemd / "secureworker.service")["Service"]

    assert service["Restart"] == ["on-failure"]
    assert service["RestartPreventExitStatus"] == [str(EXIT_USAGE)]
    assert str(EXIT_FAULT) not in service["RestartPreventExitStatus"]


def test_systemd_waits_longer_than_the_worker_drains(systemd: Path) -> None:
    (limit,) = read_unit(systemd / "secureworker.service")["Service"]["TimeoutStopSec"]

    assert seconds(limit) > max(texts.DRAIN_SECONDS, DEFAULT_DRAIN_SECONDS) + 120


def test_the_worker_finds_its_signer_where_that_listens(systemd: Path) -> None:
    signer = read_unit(systemd / "secureworker-signer.service")
    worker = read_unit(systemd / "secureworker.service")
    user = (systemd / "secureworker.sysusers").read_text()

    assert texts.SOCKET.startswith(f"/run/{signer['Service']['RuntimeDirectory'][0]}/")
    assert texts.SIGNER_LOG.startswith(f"/var/lib/{signer['Service']['StateDirectory'][0]}/")
    assert words(signer, "LoadCredential")[0].startswith(f"{texts.SIGNER_CREDENTIAL}:")
    assert "secureworker-signer.service" in words(worker, "After", "Unit")
    assert f"u {signer['Service']['User'][0]} " in user


def test_paths_of_units_are_those_of_tmpfiles_and_of_the_manual(systemd: Path, checkout: Path) -> None:
    tmpfiles = (systemd / "secureworker.tmpfiles").read_text()
    page = (checkout / "docs" / "secureworker.1").read_text().replace("\\-", "-")
    for name in UNITS:
        text = (systemd / name).read_text()
        for path in {found.rstrip(".") for found in re.findall(r"/etc/secureworker/[\w.]+", text)}:
            assert f".I {path}\n" in page, path
        for credential in words(read_unit(systemd / name), "LoadCredential"):
            path = credential.partition(":")[2]
            assert re.search(rf"^z {path} 0[46]00 root root -$", tmpfiles, re.MULTILINE), path
    assert "d /run/secureworker 0711 root root -" in tmpfiles
    assert read_unit(systemd / "secureworker.service")["Service"]["RuntimeDirectoryMode"] == ["0711"]


def test_the_signer_has_no_right_no_network_and_nothing_of_the_workers(systemd: Path) -> None:
    signer = read_unit(systemd / "secureworker-signer.service")

    assert words(signer, "CapabilityBoundingSet") == words(signer, "AmbientCapabilities") == []
    assert words(signer, "RestrictAddressFamilies") == ["AF_UNIX"]
    assert words(signer, "PrivateNetwork") == words(signer, "NoNewPrivileges") == ["yes"]
    assert words(signer, "User") != ["root"]
    assert "-/etc/secureworker/taskcluster.json" in words(signer, "InaccessiblePaths")


def test_the_worker_cannot_read_the_key_and_has_no_right_that_it_does_not_need(systemd: Path) -> None:
    worker = read_unit(systemd / "secureworker.service")

    assert "-/etc/secureworker/signing.key" in words(worker, "InaccessiblePaths")
    assert words(worker, "AmbientCapabilities") == []
    text = (systemd / "secureworker.service").read_text()
    explained = " ".join(re.findall(r"^#   ([A-Z_, ]+?)  ", text, re.MULTILINE)).replace(",", "").split()
    assert sorted(words(worker, "CapabilityBoundingSet")) == sorted(f"CAP_{right}" for right in explained)


def test_a_script_that_is_killed_for_its_memory_does_not_take_the_worker_with_it(systemd: Path) -> None:
    service = read_unit(systemd / "secureworker.service")["Service"]

    assert service["OOMPolicy"] == ["continue"]
    assert service["Delegate"] == ["yes"]
    assert service["KillMode"] == ["mixed"]


def test_nothing_keeps_a_worker_without_root_from_mapping_its_ids(systemd: Path) -> None:
    # systemd.exec(5), NoNewPrivileges=: each of these implies it for a unit whose user is not root.
    implying = {
        *("SystemCallFilter", "SystemCallArchitectures", "RestrictAddressFamilies", "RestrictRealtime"),
        *("RestrictNamespaces", "RestrictSUIDSGID", "LockPersonality", "MemoryDenyWriteExecute", "PrivateDevices"),
        *("ProtectClock", "ProtectKernelModules", "ProtectKernelTunables", "ProtectKernelLogs", "ProtectHostname"),
    }
    worker = read_unit(systemd / "secureworker.service")["Service"]
    dropped = read_unit(systemd / "rootless.conf")["Service"]

    assert dropped["NoNewPrivileges"] == ["no"]
    for key in implying & set(worker):
        assert dropped[key] in (["no"], []), key


def _calls_of(groups: list[str], known: str) -> set[str]:
    listed: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in known.splitlines():
        if line.startswith("@"):
            lines = listed.setdefault(line.strip(), [])
        elif line.startswith("    ") and not line.lstrip().startswith("#"):
            lines.append(line.strip())
    found, left = set[str](), list(groups)
    while left:
        name = left.pop()
        if name.startswith("@"):
            left += listed[name]
        else:
            found.add(name)
    return found


NEWER = {"futex_requeue", "futex_wait", "futex_wake", "map_shadow_stack", "mseal"}
"""System calls that systemd of Debian 12 does not know: it answers ENOSYS, and libraries do without."""


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze: the package systemd")
def test_the_filter_of_the_unit_allows_what_that_of_scripts_does(systemd: Path) -> None:
    known = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, check=True
    ).stdout
    allowed = _calls_of(words(read_unit(systemd / "secureworker.service"), "SystemCallFilter"), known)
    scripts = {
        name
        for entry in seccomp.oci(seccomp.load(), "x86_64")["syscalls"]
        if entry["action"] == "SCMP_ACT_ALLOW"
        for name in entry["names"]
    }

    assert scripts - allowed <= NEWER


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze: the package systemd")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_every_line_of_a_unit(systemd: Path, tmp_path: Path, name: str) -> None:
    # The program and the manual are where the package puts them, not where the tests run.
    text = (systemd / name).read_text().replace("/opt/secureworker/bin/secureworker", "/bin/true")
    text = re.sub(r"^(Documentation|Wants|After|Before)=.*\n", "", text, flags=re.MULTILINE)
    (tmp_path / name).write_text(text)

    done = subprocess.run(["systemd-analyze", "verify", tmp_path / name], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze: the package systemd")
@pytest.mark.parametrize("name", UNITS)
def test_the_score_of_a_unit_is_the_one_in_the_operators_guide(systemd: Path, checkout: Path, name: str) -> None:
    said = re.search(
        rf"^\| `{re.escape(name)}` \| (\d\.\d) ", (checkout / "docs" / "operator-guide.md").read_text(), re.MULTILINE
    )
    assert said

    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", systemd / name],
        capture_output=True,
        text=True,
        check=False,
    )

    score = re.search(r"Overall exposure level for \S+: (\d\.\d)", done.stdout)
    assert score
    # A newer systemd knows more settings, and weighs them otherwise.
    assert abs(float(score[1]) - float(said[1])) <= TOLERANCE
