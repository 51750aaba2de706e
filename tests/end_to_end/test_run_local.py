"""`secureworker run-local` as an author of scripts and policies uses it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.sandbox

POLICIES = Path(__file__).parent.parent.parent / "policies"


def run_local(task: object, *options: str, policy: Path = POLICIES / "minimal.yml") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "secureworker", "run-local", "--policy", str(policy), "-", *options],
        input=task if isinstance(task, str) else json.dumps(task),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_bare_payload_is_run_and_its_artifacts_are_written(tmp_path: Path) -> None:
    told = run_local({"payload": {}}, "--artifacts", str(tmp_path / "out"))

    assert told.returncode == 0, told.stderr
    assert "hello from task" in told.stdout
    assert "taken releng" in told.stderr
    assert "completed / completed; artifacts: 6" in told.stderr
    assert (tmp_path / "out/public/hello.txt").read_text().startswith("hello from task")
    assert (tmp_path / "out/public/chain-of-trust.json.sig").stat().st_size == 64


def test_a_task_that_the_policy_refuses_ends_with_1_and_says_every_reason() -> None:
    told = run_local({"payload": {"colour": "blue"}, "scopes": ["project:other"]}, "--json")

    assert told.returncode == 1
    result: dict[str, Any] = json.loads(told.stdout)
    assert (result["state"], result["reason"]) == ("exception", "malformed-payload")
    assert result["artifacts"] == ["public/logs/live_backing.log"]
    assert "payload.colour" in result["log"]
    assert "project:other" in result["log"]


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("{", "not JSON"),
        ("[]", "no JSON object"),
        ("[" * 100_000, "nested deeper than can be read"),
        ({"scopes": []}, 'no "payload" object'),
        ({"payload": {}, "taskQueueId": "other/pool"}, "the policy is one for releng-hardened/hello"),
        ({"payload": {}, "provisionerId": "other", "workerType": "pool"}, "for the pool other/pool"),
        (
            {"payload": {"upstreamArtifacts": [{"taskId": "KTLKBP2AQUqN4vgojSa7cg", "taskType": "b", "paths": ["a"]}]}},
            "payload.upstreamArtifacts wants artifacts of other tasks",
        ),
        ({"payload": {}, "priority": "sometimes"}, "the Queue does not take the task"),
    ],
)
def test_what_is_no_task_is_refused_before_anything_runs(task: object, says: str) -> None:
    told = run_local(task)

    assert told.returncode == 2
    assert says in told.stderr
    assert "Traceback" not in told.stderr
    assert told.stdout == ""


def test_a_policy_that_cannot_be_used_is_refused_with_its_lines(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yml"
    policy.write_text("version: 1\nroot_url: https://tc.example.com\n")
    policy.chmod(0o644)

    told = run_local({"payload": {}}, policy=policy)

    assert told.returncode == 2
    assert f"{policy}:2: root_url" in told.stderr
    assert "root-url" in told.stderr


def test_artifacts_are_not_written_into_a_directory_that_has_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()

    told = run_local({"payload": {}}, "--artifacts", str(tmp_path))

    assert told.returncode == 2
    assert "is not empty; name a new directory" in told.stderr


def test_a_host_without_the_runtime_that_is_asked_for_cannot_run_it() -> None:
    told = run_local({"payload": {}}, "--runtime", "no-such-runtime")

    assert told.returncode == 1
    assert "no-such-runtime" in told.stderr
    assert "secureworker doctor" in told.stderr
    assert os.path.basename(told.args[0]) not in told.stdout
