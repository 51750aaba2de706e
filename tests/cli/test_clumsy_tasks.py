"""What is no task definition, given to the commands that take one: said with its name, and never as a traceback."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from secureworker.cli.main import cli
from tests.policyfile.policies import write


def ask(command: str, policy: str, task: str, text: bytes | None = None) -> Result:
    """Run a command in this process."""
    result = CliRunner().invoke(cli, [command, "--policy", policy, task], input=text)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_explain_of_a_file_that_is_not_there_is_not_a_refusal(tmp_path: Path) -> None:
    result = ask("explain", write(tmp_path), str(tmp_path / "nope.json"))
    assert result.exit_code == 2
    assert "nope.json cannot be read: No such file or directory; a file with a task definition" in result.output


def test_explain_of_a_directory_is_not_a_refusal(tmp_path: Path) -> None:
    result = ask("explain", write(tmp_path), str(tmp_path))
    assert result.exit_code == 2
    assert "cannot be read: Is a directory" in result.output


@pytest.mark.parametrize("command", ["explain", "run-local"])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"payload": ', ":1: not JSON: Expecting value"),
        (b"\xff\xfe", ": not UTF-8 at byte 0"),
        (b'{"payload": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", ": nested deeper than can be read"),
        (b'{"payload": {"a": ' + b"9" * 5000 + b"}}", ": not JSON: a number has 5000 digits, and 4000 can be read"),
        (b'{"payload": {}, "payload": {}}', ': not JSON: the key "payload" is in one object twice'),
        (b"[]", " holds no "),
    ],
)
def test_what_is_no_task_is_named_with_what_is_wrong(
    tmp_path: Path, command: str, content: bytes, sentence: str
) -> None:
    path = tmp_path / "task.json"
    path.write_bytes(content)
    result = ask(command, write(tmp_path), str(path))
    assert result.exit_code == 2
    assert f"task.json{sentence}" in result.output


def test_a_plan_is_told_without_words_of_python(tmp_path: Path) -> None:
    result = ask("explain", write(tmp_path), "-", b'{"scopes": ["project:x:action:sign"], "payload": {}}')
    assert result.exit_code == 0
    assert "repeatable:  true" in result.output
