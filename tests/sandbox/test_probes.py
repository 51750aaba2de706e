"""The self-test's probes tell the truth: outside of a sandbox, every one of them gets through."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from secureworker.core.errors import SandboxError
from secureworker.core.outcome import Execution
from secureworker.core.plan import Plan
from secureworker.ports import TaskLog, Workspace
from secureworker.sandbox import selftest
from tests.sandbox.cage import Cage

pytestmark = pytest.mark.sandbox

UNCONFINED = """
import os, resource, sys
sys.path.insert(0, {checkout!r})
from secureworker.sandbox import probe
os.dup2(1, 9)
resource.setrlimit(resource.RLIMIT_CORE, (0, resource.RLIM_INFINITY))
# Nobody: so that what gets through does no harm to this host.
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(probe.main({config!r}))
"""


def unconfined(directory: Path, checkout: Path, config: dict[str, object]) -> dict[str, dict[str, object]]:
    """Run all probes in a process of their own, as nobody; give their answers by name."""
    (directory / "config").write_text(json.dumps(config))
    (directory / "config").chmod(0o644)
    program = UNCONFINED.format(checkout=str(checkout), config=str(directory / "config"))
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=directory, timeout=60
    )
    return {line["probe"]: line for line in map(json.loads, answer.stdout.splitlines())}


def test_without_a_sandbox_every_probe_gets_through(directory: Path, checkout: Path) -> None:
    (directory / "secret").write_text("x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = {
            "secrets": [str(directory / "secret")],
            "worker": os.getpid(),
            "port": server.getsockname()[1],
            "abstract": "secureworker-nobody-listens",
            "doors": [server.getsockname()[1]],
            "environment": [],
            "tmp": [],
            "disk_bytes": 1000,
            "processes": 4,
            "unlimited": False,
        }
        answers = unconfined(directory, checkout, config)
    assert list(answers) == list(selftest.PROBE_NAMES)
    assert [name for name, answer in answers.items() if answer["passed"]] == []
    assert answers["secrets"]["says"] == f"Reached: {directory}/secret"


def test_a_probe_that_breaks_has_not_passed(directory: Path, checkout: Path) -> None:
    answers = unconfined(directory, checkout, {})
    assert answers["secrets"]["says"] == "KeyError: 'worker'"
    assert not any(answer["passed"] for answer in answers.values())


async def test_probes_that_do_not_answer_fail_the_self_test(cage: Cage, directory: Path) -> None:
    async def silent(plan: Plan, workspace: Workspace, log: TaskLog) -> Execution:
        class Deaf:
            def note(self, text: str) -> None: ...

            def error(self, text: str) -> None: ...

            def output(self, chunk: bytes) -> None: ...

        return await cage.sandbox.run(plan, workspace, Deaf())

    with pytest.raises(SandboxError, match="secrets: no answer; worker: no answer"):
        await selftest.self_test(silent, str(directory / "test"), ())
    assert not (directory / "test").exists()
