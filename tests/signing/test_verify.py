"""A directory of artifacts is verified step by step. Each step: one good case, and every bad one."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secureworker.core.ids import RunId, TaskId, WorkerPool
from secureworker.signing.keys import SigningKey
from secureworker.signing.publickeys import PublicKey
from secureworker.signing.verify import Expected, Verdict, verify_directory
from secureworker.testing import IDENTITY, TASK_ID

ANYTHING = Expected()
BODY = "public/chain-of-trust.json"
SIGNATURE = "public/chain-of-trust.json.sig"


def failed(verdict: Verdict) -> tuple[str, str]:
    """Give the step that did not pass, and why; all before it passed."""
    assert not verdict.verified
    *passed, last = verdict.steps
    assert all(step.passed for step in passed)
    assert not last.passed
    assert [step.number for step in verdict.steps] == list(range(1, len(verdict.steps) + 1))
    return last.name, "; ".join(last.details)


def resign(directory: Path, key: SigningKey, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the body, and sign what came out, as who holds the key could."""
    body = json.loads((directory / BODY).read_bytes())
    change(body)
    written = json.dumps(body).encode()
    (directory / BODY).write_bytes(written)
    (directory / SIGNATURE).write_bytes(key.sign(written))


def test_a_good_directory_is_verified_in_twelve_steps(published: Path, key: SigningKey) -> None:
    verdict = verify_directory(str(published), key.public, ANYTHING)

    assert verdict.verified
    assert [step.name for step in verdict.steps] == [
        "files",
        "signature",
        "form",
        "subject",
        "provenance",
        "statement",
        "agreement",
        "inputs",
        "log",
        "key",
        "hashes",
        "nothing else",
    ]
    assert (verdict.task_id, verdict.run_id) == (TASK_ID, 0)
    assert "public/logs/live_backing.log" in verdict.steps[-1].details[0]


def test_what_is_expected_and_found_is_verified(published: Path, key: SigningKey) -> None:
    expected = Expected(TaskId(TASK_ID), RunId(0), IDENTITY.pool)

    assert verify_directory(str(published), key.public, expected).verified


@pytest.mark.parametrize("name", [BODY, SIGNATURE])
def test_without_a_statement_or_its_signature_nothing_is_verified(published: Path, key: SigningKey, name: str) -> None:
    (published / name).unlink()

    assert failed(verify_directory(str(published), key.public, ANYTHING)) == (
        "files",
        f"{name}: cannot be read: No such file or directory",
    )


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc/hostname"), os.mkfifo, Path.mkdir])
def test_a_signature_that_is_no_plain_file_is_not_read(
    published: Path, key: SigningKey, make: Callable[[Path], None]
) -> None:
    (published / SIGNATURE).unlink()
    make(published / SIGNATURE)

    assert failed(verify_directory(str(published), key.public, ANYTHING))[0] == "files"


def test_a_signature_that_is_too_long_is_not_read(published: Path, key: SigningKey) -> None:
    with (published / SIGNATURE).open("ab") as file:
        file.write(b"\n")

    assert failed(verify_directory(str(published), key.public, ANYTHING)) == (
        "files",
        f"{SIGNATURE}: has more than 64 bytes",
    )


@pytest.mark.parametrize("place", [0, 100, -1])
@pytest.mark.parametrize("name", [BODY, SIGNATURE])
def test_one_byte_changed_is_not_verified_and_nothing_of_it_believed(
    published: Path, key: SigningKey, name: str, place: int
) -> None:
    content = bytearray((published / name).read_bytes())
    content[place % len(content)] ^= 1
    (published / name).write_bytes(content)

    verdict = verify_directory(str(published), key.public, ANYTHING)

    assert failed(verdict)[0] == "signature"
    assert (verdict.task_id, verdict.run_id) == (None, None)


def test_another_key_does_not_verify(published: Path) -> None:
    other = PublicKey(bytes(31) + b"\1")

    assert failed(verify_directory(str(published), other, ANYTHING))[0] == "signature"


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.pop("environment"),
        lambda body: body.update(more=1),
        lambda body: body.update(chainOfTrustVersion=2),
        lambda body: body.update(chainOfTrustVersion=True),
        lambda body: body.update(chainOfTrustVersion="1"),
        lambda body: body.update(runId="0"),
        lambda body: body.update(runId=False),
        lambda body: body.update(runId=-1),
        lambda body: body.update(taskId="../../etc"),
        lambda body: body.update(taskId=None),
        lambda body: body.update(workerId="\x1b[31m"),
        lambda body: body.update(workerGroup=None),
        lambda body: body.update(task=[]),
        lambda body: [body["task"].pop(name) for name in ("workerType", "taskQueueId")],
        lambda body: body["task"].update(taskQueueId="other/pool"),
        lambda body: body.update(artifacts=[]),
        lambda body: body.update(artifacts={"../outside": {"sha256": "a" * 64}}),
        lambda body: body.update(artifacts={"/etc/hostname": {"sha256": "a" * 64}}),
        lambda body: body.update(artifacts={"a": {"sha256": "A" * 64}}),
        lambda body: body.update(artifacts={"a": {"sha512": "a" * 128}}),
        lambda body: body.update(artifacts={"a": {}}),
        lambda body: body.update(artifacts={"a": "a" * 64}),
        lambda body: body.update(artifacts={"a": {"sha256": None}}),
    ],
)
def test_a_signed_body_of_another_form_is_not_verified(
    published: Path, key: SigningKey, change: Callable[[dict[str, Any]], object]
) -> None:
    resign(published, key, change)

    name, why = failed(verify_directory(str(published), key.public, ANYTHING))

    assert name == "form"
    assert why.isprintable()


@pytest.mark.parametrize(
    "written",
    [b"", b"[]", b"1", b"nonsense", b"\xff", b'{"a": 1, "a": 1}', b"[" * 100_000, b'{"artifacts": NaN}'],
)
def test_a_signed_body_that_is_no_object_is_not_verified(published: Path, key: SigningKey, written: bytes) -> None:
    (published / BODY).write_bytes(written)
    (published / SIGNATURE).write_bytes(key.sign(written))

    assert failed(verify_directory(str(published), key.public, ANYTHING))[0] == "form"


@pytest.mark.parametrize(
    ("expected", "why"),
    [
        (Expected(task_id=TaskId("TyRoGA_OS3W2QMCEuF1icw")), f"the task {TASK_ID}, not TyRoGA_OS3W2QMCEuF1icw"),
        (Expected(run_id=RunId(1)), "the run 0, not 1"),
        (Expected(worker_pool=WorkerPool("a", "b")), f"the pool {IDENTITY.pool}, not a/b"),
    ],
)
def test_a_good_statement_about_something_else_is_not_verified(
    published: Path, key: SigningKey, expected: Expected, why: str
) -> None:
    assert failed(verify_directory(str(published), key.public, expected)) == ("subject", f"it is about {why}")


def test_a_statement_whose_worker_is_not_of_its_tasks_pool_is_not_verified(published: Path, key: SigningKey) -> None:
    resign(published, key, lambda body: body.update(workerType="other"))

    assert failed(verify_directory(str(published), key.public, ANYTHING))[0] == "subject"


def test_all_artifacts_that_differ_are_named(published: Path, key: SigningKey) -> None:
    (published / "public" / "a.txt").write_bytes(b"content of b")
    (published / "public" / "build" / "b.bin").unlink()

    name, why = failed(verify_directory(str(published), key.public, ANYTHING))

    assert name == "hashes"
    assert "public/a.txt: has the sha256" in why
    assert "public/build/b.bin: cannot be read: No such file" in why


def test_a_link_to_the_right_content_is_not_the_artifact(published: Path, key: SigningKey) -> None:
    artifact = published / "public" / "a.txt"
    artifact.rename(published / "public" / "logs" / "a.txt")
    artifact.symlink_to("logs/a.txt")

    assert failed(verify_directory(str(published), key.public, ANYTHING))[0] == "hashes"


@pytest.mark.parametrize("name", ["public/more.txt", ".hidden", "public/logs-of-mine", "new\nline"])
def test_a_file_that_is_not_listed_is_not_verified(published: Path, key: SigningKey, name: str) -> None:
    (published / name).touch()

    name_of_step, why = failed(verify_directory(str(published), key.public, ANYTHING))

    assert name_of_step == "nothing else"
    assert "is not in the chain of trust" in why
    assert why.isprintable()


def test_a_linked_directory_is_not_verified(published: Path, key: SigningKey) -> None:
    (published / "linked").symlink_to("public")

    assert failed(verify_directory(str(published), key.public, ANYTHING))[0] == "nothing else"


def test_a_missing_directory_is_an_error(tmp_path: Path, key: SigningKey) -> None:
    with pytest.raises(FileNotFoundError):
        verify_directory(str(tmp_path / "missing"), key.public, ANYTHING)


def test_a_body_of_incredible_size_is_not_read(published: Path, key: SigningKey) -> None:
    with (published / BODY).open("wb") as file:
        file.truncate(65 * 1024 * 1024)

    assert failed(verify_directory(str(published), key.public, ANYTHING))[0] == "files"
