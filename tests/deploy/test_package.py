"""The Debian package: what its recipe names is there, and its scripts are POSIX shell. The build itself is `build`."""

import os
import re
import subprocess
from pathlib import Path

import pytest

SCRIPTS = ["build", "postinst", "prerm", "postrm"]


@pytest.fixture(scope="session")
def debian(checkout: Path) -> Path:
    return checkout / "deploy" / "debian"


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_of_the_package_is_posix_shell_and_can_be_executed(debian: Path, name: str) -> None:
    script = debian / name

    subprocess.run(["sh", "-n", script], check=True)
    assert script.read_text().startswith("#!/bin/sh\n")
    assert "\nset -e" in script.read_text()
    assert os.access(script, os.X_OK)


def test_every_script_is_checked_by_lint(checkout: Path) -> None:
    lint = (checkout / "tox.ini").read_text()

    assert [name for name in SCRIPTS if f"deploy/debian/{name}" not in lint] == []


def test_the_package_installs_files_that_are_there_where_systemd_and_man_look(checkout: Path, debian: Path) -> None:
    recipe = (debian / "build").read_text()
    copied = dict(re.findall(r"^copy 0644 (\S+) (/\S+)$", recipe, re.MULTILINE))

    assert [source for source in copied if not (checkout / source).is_file()] == []
    assert copied["deploy/systemd/secureworker.service"] == "/usr/lib/systemd/system/secureworker.service"
    assert copied["deploy/systemd/secureworker.sysusers"] == "/usr/lib/sysusers.d/secureworker.conf"
    assert copied["docs/secureworker.1"] == "/usr/share/man/man1/secureworker.1"


def test_dependencies_are_taken_by_hash_and_as_wheels_only(debian: Path) -> None:
    installs = re.findall(r"^(?:pip_install|install_there) (.*)$", (debian / "build").read_text(), re.MULTILINE)

    assert len(installs) == 3
    for arguments in installs:
        assert "--require-hashes --only-binary :all: -r requirements/" in arguments or "--no-index" in arguments


def test_every_gap_in_the_control_file_is_filled(debian: Path) -> None:
    gaps = set(re.findall(r"@\w+@", (debian / "control.in").read_text()))

    assert gaps
    assert [gap for gap in gaps if f"s/{gap}/" not in (debian / "build").read_text()] == []


def test_removing_the_package_leaves_settings_keys_and_evidence(debian: Path) -> None:
    removed = re.findall(r"rm -rf? (.*)", (debian / "postrm").read_text() + (debian / "prerm").read_text())

    assert removed == ["/opt/secureworker"]


def test_the_package_wants_what_the_program_needs(checkout: Path, debian: Path) -> None:
    (wants,) = re.findall(r"^Depends: (.*)$", (debian / "control.in").read_text(), re.MULTILINE)
    guide = (checkout / "docs" / "operator-guide.md").read_text()

    for package in ("runc | crun", "tini", "python3"):
        assert package in wants
    assert "apt-get install ./secureworker_" in guide
