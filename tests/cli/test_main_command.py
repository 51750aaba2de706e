"""The command line's top."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from secureworker import __version__
from secureworker.cli.main import SUMMARIES, cli


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, arguments, prog_name="secureworker")
    return result.exit_code, result.output


def test_help_names_every_command_that_is_there_with_examples() -> None:
    code, output = invoke("--help")
    assert code == 0
    for name in ("run", "keys", "verify", "local-queue", "demo"):
        assert re.search(rf"^  {name} ", output, re.MULTILINE)
    assert "Examples:" in output


def test_every_command_explains_itself() -> None:
    for name in cli.list_commands(click.Context(cli)):
        code, output = invoke(name, "--help")
        assert code == 0, name
        assert "Usage: secureworker" in output


def test_every_summary_is_of_a_module_with_a_command() -> None:
    for name in cli.list_commands(click.Context(cli)):
        assert name in SUMMARIES
        module = importlib.import_module(f"secureworker.cli.{name.replace('-', '_')}")
        assert isinstance(module.command, click.Command)


@pytest.mark.parametrize("argument", ["--version"])
def test_the_version_is_told(argument: str) -> None:
    assert invoke(argument) == (0, f"secureworker {__version__}\n")


@pytest.mark.parametrize(
    ("wrong", "right"), [("rum", "run"), ("veryfi", "verify"), ("local-que", "local-queue"), ("key", "keys")]
)
def test_a_misspelt_command_gets_the_nearest_one(wrong: str, right: str) -> None:
    code, output = invoke(wrong)
    assert code == 2
    assert "did you mean" in output
    assert f"'{right}'" in output
    assert "secureworker --help" in output


def test_a_command_like_no_other_gets_the_list() -> None:
    code, output = invoke("xyzzy" * 100)
    assert code == 2
    assert "there are run," in output
    assert len(output) < 400


@pytest.mark.parametrize("arguments", [("run", "--polcy", "x"), ("--polcy", "x")])
def test_a_misspelt_option_gets_the_nearest_one(arguments: tuple[str, ...]) -> None:
    code, output = invoke(*arguments)
    assert code == 2
    assert "--policy" in output
    assert "secureworker run --help" in output


def test_options_without_a_command_are_runs() -> None:
    code, output = invoke("--policy", "x.yml")
    assert code == 2
    assert "secureworker run" in output
    assert "--worker-group" in output


def test_without_anything_it_helps() -> None:
    code, output = invoke()
    assert code == 2
    assert "Usage: secureworker" in output


def test_the_module_and_the_program_are_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "secureworker", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"secureworker {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("--help",),
        ("keys", "--help"),
        ("schema", "policy"),
        ("keys", "show", "KEY"),
        ("keys", "show", "KEY", "--json"),
        ("keys", "trust", "KEY", "--worker-pool", "a/b"),
    ],
)
def test_where_output_cannot_be_written_that_is_said_in_a_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    public = tmp_path / "key.pub"
    public.write_text("A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=\n")
    argv = [sys.executable, "-m", "secureworker", *(str(public) if one == "KEY" else one for one in arguments)]

    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr == "Error: the output cannot be written: No space left on device\n"


def test_a_file_that_cannot_be_written_is_not_taken_for_the_output(tmp_path: Path) -> None:
    fails = "import os, click, sys; from secureworker.cli.main import LazyGroup\n"
    fails += "cli = click.command(cls=LazyGroup, invoke_without_command=True)(lambda: CODE)\ncli([])"
    for code, ended in (
        ("os.write(os.open('/dev/full', os.O_WRONLY), b'x')", "OSError: [Errno 28] No space left on device"),
        ("click.echo('x' * 100_000)", "Error: the output cannot be written: No space left on device"),
    ):
        with Path("/dev/full").open("wb") as full:
            argv = [sys.executable, "-c", fails.replace("CODE", code)]
            done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == ended
