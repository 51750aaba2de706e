"""The commands of the README are POSIX sh, and can be called from anywhere."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = ["scripts/demo", "scripts/documents", "scripts/lock", "scripts/test", "scripts/tox", ".ci/run"]


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


def _prepare(place: Path, commands: str) -> subprocess.CompletedProcess[str]:
    script = f"set -eu; . scripts/prepare.sh; {commands}"
    return subprocess.run(["/bin/sh", "-c", script], cwd=place, capture_output=True, text=True, check=False)


def test_an_environment_is_made_once_and_again_when_its_lock_changes(checkout: Path, tmp_path: Path) -> None:
    shutil.copytree(checkout / "scripts", tmp_path / "scripts")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "lock.txt").touch()
    make = "if make_environment env lock.txt; then finish_environment env lock.txt; echo made; else echo kept; fi"

    first, second = _prepare(tmp_path, make), _prepare(tmp_path, make)
    (tmp_path / "lock.txt").write_text("# changed\n")
    third = _prepare(tmp_path, make)

    assert [done.stdout for done in (first, second, third)] == ["made\n", "kept\n", "made\n"], first.stderr
    assert (tmp_path / "env" / "bin" / "python").exists()


def test_a_failed_installation_is_shown_and_the_environment_does_not_count_as_made(
    checkout: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkout / "scripts", tmp_path / "scripts")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "lock.txt").write_text(f"not-there==1.0 --hash=sha256:{'0' * 64}\n")

    done = _prepare(
        tmp_path,
        "export PIP_NO_INDEX=1; make_environment env lock.txt && finish_environment env lock.txt && echo made",
    )

    assert done.returncode == 1
    assert "not-there==1.0" in done.stderr
    assert "pip could not install into env" in done.stderr
    assert not (tmp_path / "env" / "stamp").exists()
