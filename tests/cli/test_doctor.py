"""`secureworker doctor`."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from secureworker.cli.doctor import command
from secureworker.host.workspace import UidRange
from secureworker.sandbox import checkup
from secureworker.sandbox.checkup import Point, State

NAMES = {"kernel", "pidfd", "openat2", "Landlock", "namespaces", "user", "control groups", "tini", "/usr", "seccomp"}


@pytest.mark.sandbox
def test_a_host_that_can_sandbox_says_so_and_exits_with_0() -> None:
    answer = CliRunner().invoke(command)
    assert answer.exit_code == 0, answer.output
    assert "This host can sandbox scripts." in answer.output
    assert "\x1b" not in answer.output


@pytest.mark.sandbox
def test_json_has_every_point() -> None:
    answer = CliRunner().invoke(command, ["--json"])
    document = json.loads(answer.output)
    assert document["able"] is True
    assert {check["name"] for check in document["checks"]} >= NAMES | {"OCI runtime", "user ids", "run directory"}
    assert {check["state"] for check in document["checks"]} <= {"ok", "note"}


AS_NOBODY = """
import os, sys
from click.testing import CliRunner
from secureworker.cli.doctor import command
CliRunner().invoke(command)  # imports what it needs: nobody may not read a checkout in root's home
os.setgroups([]); os.setgid(65534); os.setuid(65534)
answer = CliRunner().invoke(command)
print(answer.output); sys.exit(answer.exit_code)
"""


@pytest.mark.sandbox
def test_without_root_it_says_what_that_changes_and_exits_with_1() -> None:
    answer = subprocess.run([sys.executable, "-c", AS_NOBODY], capture_output=True, text=True, check=False, timeout=60)
    assert answer.returncode == 1, answer.stderr
    assert "not root" in answer.stdout
    assert "without root, " in " ".join(answer.stdout.split())
    assert "start the worker as root" in " ".join(answer.stdout.split())
    assert "This host cannot sandbox scripts: user" in answer.stdout


def test_one_missing_point_is_enough() -> None:
    good, bad = Point("a", State.NOTE, "x"), Point("b", State.MISSING, "y", "get b")
    assert checkup.able((good,))
    assert not checkup.able((good, bad))


@pytest.mark.parametrize(
    ("line", "overlaps"),
    [
        ("x:1900000000:1", True),
        ("x:100000:65536", False),
        ("x:1:2000000000", True),
        ("x:1900065536:5", False),
        ("x", False),
    ],
)
def test_ids_that_others_have_are_noticed(line: str, *, overlaps: bool) -> None:
    assert checkup._overlaps(line, UidRange()) is overlaps


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, secureworker.cli.doctor; print([m for m in ('rich', 'secureworker.sandbox') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"
