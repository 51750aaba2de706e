"""`secureworker verify`."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from secureworker.cli.verify import command
from secureworker.core.outcome import ExitCode
from secureworker.ports import Statement
from secureworker.signing.keys import create_signing_key, load_signing_key
from secureworker.signing.publickeys import PublicKey
from secureworker.signing.signer import InProcessSigner
from secureworker.testing import IDENTITY, ROOT_URL, SHA256, TASK_ID, a_claim, an_artifact, an_execution


def verify(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture
def key(tmp_path: Path) -> PublicKey:
    return create_signing_key(str(tmp_path / "signing")).public


@pytest.fixture
def published(tmp_path: Path, key: PublicKey) -> Path:
    directory = tmp_path / "published"
    (directory / "public").mkdir(parents=True)
    (directory / "public" / "a").write_bytes(b"content")
    signer = InProcessSigner(load_signing_key(f"file:{tmp_path / 'signing'}"), IDENTITY, SHA256, root_url=ROOT_URL)
    artifacts = (an_artifact("public/a", b"content"),)
    statement = Statement(a_claim(), an_execution(ExitCode(0)), artifacts, SHA256, "build", SHA256, ROOT_URL)
    for file in asyncio.run(signer.sign(statement)):
        (directory / file.name).write_bytes(file.content)
    return directory


def test_a_good_directory_is_verified_with_a_line_for_each_step(published: Path, key: PublicKey) -> None:
    result = verify(published, "--key", key.base64)

    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert [line[:7] for line in lines[:-1]] == [f"{number:>2} ok  " for number in range(1, 13)]
    assert lines[-1] == "verified"


@pytest.mark.parametrize("form", ["base64", "pem", "openssh"])
def test_the_key_may_be_a_file_in_any_form(published: Path, key: PublicKey, tmp_path: Path, form: str) -> None:
    (tmp_path / "public").write_text(getattr(key, form))

    assert verify(published, "--key", tmp_path / "public").exit_code == 0


def test_what_it_must_be_about_can_be_said(published: Path, key: PublicKey) -> None:
    asked = ("--task-id", TASK_ID, "--run-id", 0, "--worker-pool", IDENTITY.pool)

    assert verify(published, "--key", key.base64, *asked).exit_code == 0


def test_what_is_not_as_it_was_signed_is_not_verified(published: Path, key: PublicKey) -> None:
    (published / "public" / "a").write_bytes(b"other")

    result = verify(published, "--key", key.base64, "--run-id", 0)

    assert result.exit_code == 1
    assert "11 FAIL hashes: public/a: has the sha256" in result.output
    assert result.output.endswith("\nnot verified\n")


@pytest.mark.parametrize("good", [True, False])
def test_json_says_the_same(published: Path, key: PublicKey, *, good: bool) -> None:
    if not good:
        (published / "public" / "more").touch()

    result = verify(published, "--key", key.base64, "--json")

    shown = json.loads(result.output)
    assert result.exit_code == (0 if good else 1)
    assert shown["verified"] is good
    assert (shown["key"], shown["taskId"], shown["runId"]) == (key.fingerprint, TASK_ID, 0)
    assert [step["number"] for step in shown["steps"]] == list(range(1, 13))
    assert shown["steps"][-1]["passed"] is good


@pytest.mark.parametrize(
    "wrong",
    [
        ("--key", "nonsense"),
        ("--key", "/nonexistent"),
        (),
        ("--key", "A" * 43 + "=", "--task-id", "nonsense"),
        ("--key", "A" * 43 + "=", "--run-id", "-1"),
        ("--key", "A" * 43 + "=", "--worker-pool", "nonsense"),
    ],
)
def test_what_cannot_be_asked_is_a_usage_error(published: Path, wrong: tuple[str, ...]) -> None:
    result = verify(published, *wrong)

    assert result.exit_code == 2
    assert "Error: " in result.output


def test_a_missing_directory_is_a_usage_error(tmp_path: Path, key: PublicKey) -> None:
    assert verify(tmp_path / "missing", "--key", key.base64).exit_code == 2
