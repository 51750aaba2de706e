"""`secureworker run`, where something is not as it must be: a clear message, an exit code, and no task claimed."""

import asyncio
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from secureworker.signing.keys import create_signing_key
from tests.end_to_end.daemon import sweep

POLICY = """\
version: 1
root-url: {root_url}
worker-pool: test-provisioner/test-pool
tasks:
  scheduler-ids: ["-"]
  project-ids: [none]
  scopes: {{allow: ["project:test:*"]}}
  max-run-time: 10m
scripts:
  nothing:
    description: Does nothing.
    command: [{script}]
    pinned: {{{script}: {sha256}}}
    payload: {{type: object}}
    config: {{}}
    limits: {{run-time: 10m, memory: 64MiB, processes: 16, disk: 1MiB, files: 100}}
"""
SCRIPT = "#!/bin/sh\n"
MEASURED = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
"""What makes coverage measure child processes too."""


@dataclass
class Place:
    """All that a worker is started with, in good order until a test spoils it."""

    directory: Path

    def options(self, **changes: str | None) -> list[str]:
        given: dict[str, str | None] = {
            "policy": str(self.directory / "policy.yml"),
            "worker-group": "test-group",
            # Of one identity there is one worker on a host, and these tests run beside each other.
            "worker-id": f"worker-{hashlib.sha256(bytes(self.directory)).hexdigest()[:8]}",
            "credentials-file": str(self.directory / "credentials.json"),
            "key": f"file:{self.directory / 'key'}",
            "state-dir": str(self.directory / "state"),
        }
        given |= {name.replace("_", "-"): value for name, value in changes.items()}
        return [part for name, value in given.items() if value is not None for part in (f"--{name}", value)]

    def run(self, arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "secureworker", "run", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **MEASURED, **environment},
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    tmp_path.chmod(0o755)
    script = tmp_path / "nothing"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    write_policy(tmp_path)
    create_signing_key(str(tmp_path / "key"))
    credentials = tmp_path / "credentials.json"
    credentials.touch(mode=0o600)
    credentials.write_text(json.dumps({"clientId": "worker", "accessToken": "SECRET" * 8}))
    return Place(tmp_path)


def write_policy(directory: Path, root_url: str = "http://127.0.0.1:9") -> None:
    policy = directory / "policy.yml"
    sha256 = hashlib.sha256(SCRIPT.encode()).hexdigest()
    policy.write_text(POLICY.format(root_url=root_url, script=directory / "nothing", sha256=sha256))
    policy.chmod(0o644)


def fails(place: Place, code: int, message: str, arguments: list[str], **environment: str) -> None:
    done = place.run(arguments, **environment)
    assert done.returncode == code, done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert "SECRET" not in done.stderr


def test_a_policy_that_is_not_there_is_named(place: Place) -> None:
    (place.directory / "policy.yml").unlink()
    fails(place, 2, r"policy\.yml: .*No such file", place.options())


def test_every_problem_of_a_policy_is_told_with_its_line(place: Place) -> None:
    policy = place.directory / "policy.yml"
    policy.write_text(policy.read_text().replace("worker-pool", "worker-pol").replace("version: 1", "version: 7"))
    done = place.run(place.options())
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if "ERROR" in line]
    assert len(lines) >= 2
    assert all("policy.yml:" in line for line in lines)


def test_a_script_that_was_changed_is_refused(place: Place) -> None:
    (place.directory / "nothing").write_text("#!/bin/sh\nexit 1\n")
    fails(place, 2, "sha256", place.options())


def test_a_root_url_that_is_not_the_policys_is_refused(place: Place) -> None:
    fails(place, 2, r"root URL is set to https://other.*policy for http://127", place.options(root_url="https://other"))


def test_a_root_url_that_agrees_is_taken_with_or_without_its_last_slash(place: Place) -> None:
    # The key is looked at next.
    (place.directory / "key").unlink()
    fails(place, 1, "the key", place.options(root_url="http://127.0.0.1:9/"))


def test_without_credentials_the_ways_to_give_some_are_named(place: Place) -> None:
    fails(place, 2, "LoadCredential", place.options(credentials_file=None))


def test_credentials_that_others_can_read_are_refused(place: Place) -> None:
    (place.directory / "credentials.json").chmod(0o644)
    fails(place, 2, "chmod it to 0600", place.options())


def test_a_missing_key_is_named(place: Place) -> None:
    (place.directory / "key").unlink()
    fails(place, 1, r"key .*No such file", place.options())


def test_a_key_that_others_can_read_is_refused(place: Place) -> None:
    (place.directory / "key").chmod(0o444)
    fails(place, 1, "mode 0444", place.options())


@pytest.mark.parametrize("option", ["worker_group", "worker_id"])
def test_a_name_the_queue_would_not_take_is_refused(place: Place, option: str) -> None:
    fails(place, 2, "correct --worker-group or --worker-id", place.options(**{option: "not a name"}))


@pytest.mark.parametrize("missing", ["policy", "worker-group", "worker-id", "key"])
def test_each_option_can_come_from_the_environment(place: Place, missing: str) -> None:
    (place.directory / "key").chmod(0o444)
    options = place.options()
    where = options.index(f"--{missing}")
    value = options[where + 1]
    without = options[:where] + options[where + 2 :]
    done = place.run(without)
    assert done.returncode == 2
    assert f"Missing option '--{missing}'" in done.stderr
    fails(place, 1, "mode 0444", without, **{f"SECUREWORKER_{missing.upper().replace('-', '_')}": value})


def test_a_state_directory_that_cannot_be_made_is_named(place: Place) -> None:
    (place.directory / "state").write_text("a file")
    fails(place, 2, r"the state directory .* cannot be used", place.options())


def test_the_log_can_be_read_by_machines(place: Place) -> None:
    (place.directory / "key").unlink()
    done = place.run([*place.options(), "--log-format", "json"])
    levels = [json.loads(line)["level"] for line in done.stderr.splitlines()]
    # It begins by saying where its status is shown.
    assert sorted(set(levels)) == ["error", "info"]


@pytest.mark.parametrize(
    "wrong",
    [
        ("--drain-seconds", "-1"),
        ("--tasks", "0"),
        ("--storage-type", "tape"),
        ("--log-format", "xml"),
        ("--access-token", "x"),
        ("--key", "/etc/signing.key"),
        ("--key", "files:/etc/signing.key"),
    ],
)
def test_wrong_values_of_options_are_refused(place: Place, wrong: tuple[str, str]) -> None:
    fails(place, 2, "Usage: secureworker run", [*place.options(), *wrong])


@pytest.mark.sandbox
def test_a_missing_runtime_is_named(place: Place) -> None:
    fails(place, 1, "no-such-runtime", place.options(runtime="no-such-runtime"))


@pytest.mark.sandbox
@pytest.mark.slow
def test_a_queue_that_cannot_be_reached_is_named(place: Place) -> None:
    fails(place, 1, "ping: no connection", place.options())


@pytest.fixture
def server() -> Iterator[str]:
    """Serve the embedded Taskcluster, which does not know the worker's credentials."""
    process = subprocess.Popen(
        [sys.executable, "-m", "secureworker", "local-queue", "--json"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())["rootUrl"]
    process.terminate()
    process.wait()
    process.stdout.close()


@pytest.mark.sandbox
def test_refused_credentials_end_the_worker_with_the_queues_own_words(place: Place, server: str) -> None:
    write_policy(place.directory, server)
    fails(
        place,
        1,
        r"Auth refuses credentials that are this worker's \(worker\): currentScopes: 401: Client with",
        place.options(),
    )


@pytest.mark.sandbox
def test_a_second_worker_in_the_same_state_directory_is_refused(place: Place) -> None:
    # The first one waits for a Queue that never answers, with everything else in its hands.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        write_policy(place.directory, f"http://127.0.0.1:{silent.getsockname()[1]}")
        first = subprocess.Popen(
            [sys.executable, "-m", "secureworker", "run", *place.options()], stderr=subprocess.PIPE, text=True
        )
        assert first.stderr is not None
        while "self-test" not in first.stderr.readline():
            assert first.poll() is None
        # The first one's status answers, before its lock is come to; with its own turned off, it is the lock.
        fails(place, 2, "is a worker with this state directory running already", place.options())
        fails(place, 1, "another worker uses the same state directory", [*place.options(), "--status", "none"])
        first.kill()
        first.wait()
        first.stderr.close()
    asyncio.run(sweep(place.directory / "state"))
