"""What operators read is complete: every error, every exit code, every incident, every file."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from secureworker.cli.main import SUMMARIES, cli
from secureworker.core import errors


def test_the_reference_of_errors_is_current(checkout: Path) -> None:
    made = subprocess.run(
        [sys.executable, "scripts/error_reference.py"], cwd=checkout, capture_output=True, text=True, check=True
    )

    assert (checkout / "docs" / "errors.md").read_text() == made.stdout, (
        "run `python scripts/error_reference.py > docs/errors.md`"
    )


def test_every_class_of_errors_says_what_is_to_be_done(checkout: Path) -> None:
    text = (checkout / "docs" / "errors.md").read_text()
    classes = [name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]

    assert classes
    assert [name for name in classes if not re.search(rf"^## {name}\n\n\S", text, re.MULTILINE)] == []


def test_every_error_in_the_reference_says_what_to_do(checkout: Path) -> None:
    rows = [line for line in (checkout / "docs" / "errors.md").read_text().splitlines() if line.startswith("| `")]

    assert len(rows) > 100
    assert [row for row in rows if row.endswith("|  |")] == []


OTHERS = ("UNWISE", "INVALID", "REFUSED", "UNUSABLE", "NOT_READY", "FAILED")
"""Names of exit codes that do not begin as such."""


def _exit_codes(checkout: Path, name: str) -> set[int]:
    """Give the codes that a command's module names, beside 0, and 2 for its command line."""
    codes = {0, 2}
    module = checkout / "secureworker" / "cli" / f"{name.replace('-', '_')}.py"
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            names = [item.id for item in getattr(target, "elts", [target]) if isinstance(item, ast.Name)]
            values = ast.literal_eval(node.value) if _is_literal(node.value) else ()
            for constant, value in zip(names, values if isinstance(values, tuple) else (values,), strict=False):
                if constant.startswith(("EXIT_", *OTHERS)) and isinstance(value, int):
                    codes.add(value)
    return codes


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def _told(checkout: Path) -> dict[str, list[str]]:
    section = (
        (checkout / "docs" / "operator-guide.md").read_text().partition("### Exit codes\n")[2].partition("\n## ")[0]
    )
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")
    ]
    return {row[0].strip("`"): row for row in rows}


@pytest.mark.parametrize("name", SUMMARIES)
def test_every_exit_code_of_a_command_is_in_the_operators_guide(checkout: Path, name: str) -> None:
    row = _told(checkout)[name]

    for code in _exit_codes(checkout, name):
        assert row[code + 1].strip(), f"{name} {code}"


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_guide_has_the_exit_codes_that_a_command_tells_in_its_help(checkout: Path, name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    told = f"{command.help}\n{command.epilog}".partition("Exit codes:")[2].partition("\n\n")[0]
    codes = {int(code) for code in re.findall(r"^\s+(\d+)  ", told, re.MULTILINE)}

    row = _told(checkout)[name]
    assert [code for code in codes if not row[code + 1].strip()] == []


@pytest.mark.parametrize(
    "incident",
    [
        "A task is stuck",
        "A key leaked",
        "A host is lost",
        "The clock is wrong",
        "The disk is full",
        "Taskcluster is unreachable",
        "The worker is quarantined",
        "The policy refuses everything",
        "The audit log was changed",
    ],
)
def test_the_runbook_has_an_incident_with_steps(checkout: Path, incident: str) -> None:
    section = (checkout / "docs" / "runbook.md").read_text().partition(f"\n## {incident}\n")[2].partition("\n## ")[0]

    assert "\n1. " in section


def test_options_of_the_program_that_operators_are_told_to_use_exist(checkout: Path) -> None:
    missing = []
    for document in ("operator-guide.md", "runbook.md"):
        text = (checkout / "docs" / document).read_text()
        for line in re.findall(r"^\s*(secureworker .*)$", text.replace("\\\n", " "), re.MULTILINE):
            words = line.partition("#")[0].partition("|")[0].split()
            command: click.Command = cli
            context = click.Context(cli)
            while len(words) > 1 and isinstance(command, click.Group):
                words = words[1:]
                found = command.get_command(context, words[0])
                assert found is not None, line
                command = found
            known = {option for parameter in command.params for option in parameter.opts}
            missing += [f"{document}: {line}" for word in words if word.startswith("--") and word not in known]

    assert missing == []
