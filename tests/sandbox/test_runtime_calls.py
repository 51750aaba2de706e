"""How often the runtime is called, and what becomes of a call that fails."""

import os
import time
from pathlib import Path

import pytest

from secureworker.core.errors import SandboxError
from secureworker.sandbox.runtime import Containers, Runtime
from tests.sandbox.cage import a_cage, groups_of, runtime_for
from tests.sandbox.test_life import until

pytestmark = pytest.mark.sandbox

TELLING = """\
#!/bin/sh
for word in "$@"; do
    case "$word" in create|start|delete|state|kill) echo "$word" >> {calls}; break;; esac
done
{runtime} "$@" || exit $?
{after}
"""


def telling(directory: Path, name: str, after: str = "") -> tuple[str, Path]:
    """Give a runtime that writes down what it is called for."""
    calls, path = directory / "calls", directory / "telling"
    path.write_text(TELLING.format(calls=calls, runtime=runtime_for(name, directory), after=after))
    path.chmod(0o755)
    return str(path), calls


def books(directory: Path) -> list[str]:
    """Give what is in the runtime's books of the worker."""
    return [entry for place in directory.glob("run/*/containers") for entry in os.listdir(place)]


@pytest.mark.parametrize("name", ["runc", "crun"])
async def test_a_run_costs_two_calls_of_the_runtime_and_leaves_its_books_empty(directory: Path, name: str) -> None:
    runtime, calls = telling(directory, name)
    async with a_cage(directory, runtime, run_dir=f"{directory}/run") as cage:
        for _ in range(2):
            await cage.shell("sleep 1000 & exit 0")
            assert books(directory) == []
            assert not [path for path in groups_of(directory) if "/run-" in path]
        assert calls.read_text().split() == ["create", "start"] * 2


async def test_a_container_that_was_only_half_made_is_removed_by_its_runtime(directory: Path) -> None:
    # All is made, and then the call fails: the worker was never told of the init, and has reaped nothing.
    runtime, calls = telling(directory, "runc", after='case "$*" in *create*) exit 1;; esac')
    async with a_cage(directory, runtime, run_dir=f"{directory}/run") as cage:
        with pytest.raises(SandboxError, match="create failed"):
            await cage.shell("exit 0")
        assert calls.read_text().split() == ["create", "delete"]
        assert books(directory) == []
        assert not [path for path in groups_of(directory) if "/run-" in path]


def containers(tmp_path: Path, script: str, seconds: float = 60) -> Containers:
    path = tmp_path / "runtime"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Containers(Runtime(str(path), "runc", "1.1"), str(tmp_path), seconds)


async def test_a_call_that_does_not_come_to_its_end_is_killed_and_is_an_error(tmp_path: Path) -> None:
    hanging = containers(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 1000", seconds=0.5)
    began = time.monotonic()
    with pytest.raises(SandboxError, match=r"runc start did not work for run-1: .* timed out after 0.5 seconds"):
        hanging.start("run-1", str(tmp_path))
    assert time.monotonic() - began < 30
    pid = tmp_path / "pid"
    # It may have been killed before it wrote that.
    assert not pid.exists() or not pid.read_text() or not Path(f"/proc/{pid.read_text().strip()}").exists()


async def test_a_call_that_ends_while_others_of_its_group_go_on_is_over(tmp_path: Path) -> None:
    # As `create` does: it leaves the init behind.
    leaving = containers(tmp_path, f"sleep 1000 & echo $! > {tmp_path}/left")
    leaving.start("run-1", str(tmp_path))
    left = int((tmp_path / "left").read_text())
    os.kill(left, 9)
    await until(lambda: not Path(f"/proc/{left}").exists() or "Z" in Path(f"/proc/{left}/stat").read_text())
