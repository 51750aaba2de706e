"""Doors of a worker that an ordinary user has started: it is root of a user namespace of its own, and binds port 80."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.test_ordinary_user import give
from tests.sandbox import ordinary
from tests.sandbox.cage import a_directory

pytestmark = pytest.mark.sandbox

SCRIPT = """\
#!/bin/sh
curl -s "$TASKCLUSTER_PROXY_URL/api/queue/v1/task/$TASK_ID/status" | tr -d ' \\n'; echo
curl -s -o /dev/null -w 'elsewhere: %{http_connect}\\n' https://elsewhere.test/
python3 - <<END
import socket
for port in (80, 3128):
    try:
        socket.create_server(("127.0.0.1", port))
    except OSError as error:
        print(port, error.strerror)
END
"""
POLICY = """\
version: 1
root-url: https://tc.example.com
worker-pool: test-provisioner/ordinary
tasks:
  scheduler-ids: ["-"]
  project-ids: [none]
  scopes: {{allow: []}}
  max-run-time: 10m
scripts:
  call:
    description: Calls Taskcluster.
    command: [{script}]
    pinned: {{{script}: {sha256}}}
    payload: {{type: object, additionalProperties: false}}
    taskcluster: {{routes: ["GET /api/queue/v1/task/*"]}}
    network: {{allow: ["files.test:443"]}}
    limits: none
"""


@pytest.fixture
def user() -> Iterator[Path]:
    """Give a directory of the user's."""
    with a_directory() as directory:
        place = directory / "user"
        place.mkdir(mode=0o711, exist_ok=True)
        yield place


def test_a_script_of_an_ordinary_users_worker_has_its_doors_and_no_others(user: Path) -> None:
    give(user / "script", SCRIPT, 0o755)
    sha256 = hashlib.sha256(SCRIPT.encode()).hexdigest()
    give(user / "policy.yml", POLICY.format(script=user / "script", sha256=sha256), 0o644)
    give(user / "task.json", '{"payload": {}}', 0o644)
    arguments = ["run-local", "--json", "--runtime", "runc", "--policy", "policy.yml", "task.json"]
    told = subprocess.run(
        ordinary.command(user.parent, "-m", "secureworker", *arguments),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=ordinary.environment(),
    )
    assert told.returncode == 0, told.stderr
    log: dict[str, Any] = json.loads(told.stdout)
    for line in ('"state":"running"', "elsewhere: 403", "80 Permission denied", "3128 Address already in use"):
        assert line in log["log"], log["log"]
