"""The commands of the README are POSIX sh, and can be called from anywhere."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = ["scripts/demo", "scripts/lock", "scripts/test", "scripts/tox", ".ci/run"]


@pytest.mark.parametrize("script", [*SCRIPTS, "scripts/prepare.sh"])
def test_a_script_is_posix_shell(checkout: Path, script: str) -> None:
    subprocess.run(["sh", "-n", checkout / script], check=True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_can_be_executed_and_names_its_shell(checkout: Path, script: str) -> None:
    assert (checkout / script).read_text().startswith("#!/bin/sh\n")
    assert os.access(checkout / script, os.X_OK)


def test_ci_runs_what_a_newcomer_runs_and_nothing_weaker(checkout: Path) -> None:
    commands = [line for line in (checkout / ".ci/run").read_text().splitlines() if line and not line.startswith("#")]

    assert commands == ["set -eu", 'exec sh "$(dirname "$0")/../scripts/test"']


@pytest.fixture
def other_system(checkout: Path, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Give a copy of the scripts and an environment in which `command -v` finds nearly nothing."""
    (tmp_path / "scripts").mkdir()
    for name in ("prepare.sh", "demo"):
        (tmp_path / "scripts" / name).write_bytes((checkout / "scripts" / name).read_bytes())
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "dirname", "basename", "env", "id"):
        (tools / name).symlink_to(Path("/usr/bin") / name)
    prepare = tmp_path / "scripts" / "prepare.sh"
    prepare.write_text(prepare.read_text().replace(":/usr/local/sbin:/usr/sbin:/sbin", ""))
    return tmp_path, {"PATH": str(tools)}


def test_on_a_system_without_apt_the_demo_says_what_is_missing(other_system: tuple[Path, dict[str, str]]) -> None:
    place, environment = other_system

    done = subprocess.run(
        ["/bin/sh", place / "scripts" / "demo"], env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "demo: missing on this system: runc tini openssl" in done.stderr
    assert "Debian's packages: runc tini openssl" in done.stderr
