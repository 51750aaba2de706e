"""Opening the sandbox: what is refused, what is swept."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from secureworker.core.errors import SandboxError
from secureworker.sandbox.engine import SandboxSettings, instance_name, open_sandbox
from tests.sandbox.cage import Cage, a_cage, groups_of, own_mounts, runtime_for
from tests.sandbox.test_life import alive, until

pytestmark = pytest.mark.sandbox


async def refusal(settings: SandboxSettings) -> str:
    with pytest.raises(SandboxError) as caught:
        async with open_sandbox(settings):
            pass
    return str(caught.value)


async def test_a_runtime_that_is_not_installed_is_named_with_those_that_can_be(directory: Path) -> None:
    message = await refusal(SandboxSettings(str(directory), runtime="youki"))
    assert message == "the OCI runtime youki is not installed; take runc or crun (Debian: apt-get install runc crun)"


async def test_a_runtime_that_is_none_is_refused(directory: Path) -> None:
    assert "is neither crun nor runc" in await refusal(SandboxSettings(str(directory), runtime="/bin/echo"))
    assert "cannot be run" in await refusal(SandboxSettings(str(directory), runtime="/no/such/runtime"))


async def test_two_workers_do_not_share_a_directory(directory: Path) -> None:
    async with a_cage(directory, "runc") as cage:
        message = await refusal(SandboxSettings(str(cage.directory), runtime=cage.sandbox.runtime_path))
    assert message.startswith("another worker uses the same state directory")


async def test_a_run_directory_that_lets_nobody_pass_is_refused(directory: Path) -> None:
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    message = await refusal(SandboxSettings(str(directory), run_dir=f"{closed}/run"))
    assert message.startswith(f"{closed} lets only its owner pass")


async def test_a_run_directory_that_cannot_be_made_is_refused(directory: Path) -> None:
    (directory / "file").write_text("")
    assert "cannot be made: Not a directory" in await refusal(
        SandboxSettings(str(directory), run_dir=f"{directory}/file/run")
    )


async def test_nothing_of_the_sandbox_is_left_when_it_is_closed(directory: Path) -> None:
    async with a_cage(directory, "runc") as cage:
        await cage.shell("exit 0")
    name = instance_name(str(directory))
    assert groups_of(directory) == []
    assert not (Path("/run/secureworker") / name).exists()


async def test_the_self_test_passes_and_says_what_it_tried(cage: Cage) -> None:
    lines = await cage.sandbox.self_test()
    names = [line.partition(":")[0] for line in lines]
    assert names == [
        "secrets", "worker", "processes", "environment", "descriptors", "privileges", "system_calls", "sockets",
        "network", "names", "doors", "files", "limits", "memory", "leftovers",
    ]  # fmt: skip


async def test_a_secret_that_can_be_reached_fails_the_self_test(directory: Path) -> None:
    # Everything in /usr is readable: a key there is a mistake that the self-test must find.
    async with a_cage(directory, "runc", secrets=("/usr/bin/env", f"{directory}/key")) as cage:
        with pytest.raises(SandboxError, match="no task is claimed: secrets: Reached: /usr/bin/env"):
            await cage.sandbox.self_test()


WORKER = """
import asyncio, sys
from pathlib import Path
from tests.sandbox.cage import a_cage

async def main():
    async with a_cage(Path(sys.argv[1]), sys.argv[2]) as cage:
        await cage.shell("setsid -f sleep 98771; echo x > running; sleep 98771")

asyncio.run(main())
"""


@pytest.mark.parametrize("runtime", ["runc", "crun"])
async def test_a_killed_worker_takes_its_scripts_along_and_the_next_sweeps_the_rest(
    directory: Path, runtime: str
) -> None:
    runtime_for(runtime, directory)
    mark = str(98_772 + os.getpid())
    program = WORKER.replace("98771", mark)
    with subprocess.Popen([sys.executable, "-c", program, str(directory), runtime]) as worker:
        await until(lambda: len(alive(mark)) >= 2)
        await until(lambda: any((directory / "tasks").glob("*/task/work/running")))
        worker.send_signal(signal.SIGKILL)
    await until(lambda: not alive(mark))
    name = instance_name(str(directory))
    assert [path for path in groups_of(directory) if "/run-" in path]
    async with a_cage(directory, runtime) as cage:
        assert not [path for path in groups_of(directory) if "/run-" in path]
        assert not any((Path("/run/secureworker") / name / "roots").iterdir())
        await cage.shell("exit 0")


async def test_many_runs_leave_descriptors_threads_and_mounts_as_they_were(cage: Cage) -> None:
    def held() -> tuple[object, ...]:
        children = [task.read_text() for task in Path("/proc/self/task").glob("*/children")]
        return (
            len(os.listdir("/proc/self/fd")),
            own_mounts(cage.directory),
            "".join(children).split(),
        )

    await cage.shell("exit 0")
    before = held()
    for _ in range(5):
        await cage.shell("exit 1")
        with pytest.raises(SandboxError):
            await cage.run("#!/no/such/interpreter\n")
    await asyncio.sleep(0)
    assert held() == before
