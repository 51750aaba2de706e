"""Two runs at once: what the script of one tries on the other, knowing all that can be known of it."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from secureworker.core.ids import RunId, TaskId
from secureworker.core.outcome import Execution, ExitCode
from secureworker.ports import Workspace
from tests.sandbox.cage import TASK_ID, Cage, Heard, groups_of, own_mounts
from tests.sandbox.test_life import alive

pytestmark = pytest.mark.sandbox

OTHER_ID = TaskId("ddVaxIRdRAaAAr5ryHnORA")


@dataclass
class Victim:
    """A run that is under way, whose script has a mark to be found by, a file, a socket and shared memory."""

    mark: str
    workspace: Workspace
    running: "asyncio.Future[Execution]"


@asynccontextmanager
async def a_victim(cage: Cage, **changes: object) -> AsyncIterator[Victim]:
    """Run a script that waits to be ended by a file of ours, and see at the end that nothing has happened to it."""
    mark = f"8{os.getpid()}{len(changes)}7"
    program = f"""#!/usr/bin/python3 -I
import ctypes, os, socket, subprocess, sys, time
os.umask(0)
open("unreleased", "w").write("the victim's file")
os.chmod("unreleased", 0o666)
listener = socket.socket(socket.AF_UNIX)
listener.bind("\\0victim")
listener.listen()
tcp = socket.socket()
tcp.bind(("127.0.0.1", 4444))
tcp.listen()
open("/dev/shm/victim", "w").write("the victim's memory")
open("/tmp/victim", "w").write("the victim's tmp")
child = subprocess.Popen(["sleep", "{mark}"])
print("victim at work", flush=True)
while not os.path.exists("over"):
    assert child.poll() is None, "the child was killed"
    time.sleep(0.02)
child.kill()
assert open("unreleased").read() == "the victim's file"
assert sorted(os.listdir("/dev/shm")) == ["victim"], os.listdir("/dev/shm")
print("untouched")
"""
    plan = cage.plan(program, **{"task_id": TASK_ID, "run_id": RunId(1), **changes})
    log = Heard()
    async with cage.workspaces.open(plan) as workspace:
        running = asyncio.ensure_future(cage.sandbox.run(plan, workspace, log))
        try:
            async with asyncio.timeout(60):
                while "victim at work" not in log.text:
                    assert not running.done(), log.text
                    await asyncio.sleep(0.01)
            yield Victim(mark, workspace, running)
            assert alive(mark) != []
        finally:
            with open(f"{workspace.task}/work/over", "w"):
                pass
            execution = await running
        assert execution.status == ExitCode(0), log.text
        assert "untouched" in log.text


@pytest.mark.parametrize(
    "same",
    [
        pytest.param({"task_id": TASK_ID, "run_id": RunId(2)}, id="another run of its task"),
        pytest.param({"task_id": OTHER_ID, "run_id": RunId(1)}, id="a run of another task"),
    ],
)
async def test_a_script_finds_nothing_of_a_run_beside_it(cage: Cage, same: dict[str, object]) -> None:
    async with a_victim(cage) as victim:
        place = victim.workspace
        attack = f"""
import os, signal, socket
print("uid", os.getuid())
found = []
# 1. Processes: seen, or signalled, by whatever number.
for name in os.listdir("/proc"):
    if name.isdigit():
        try:
            if {victim.mark!r} in open(f"/proc/{{name}}/cmdline").read():
                found.append("its process")
        except OSError:
            pass
for pid in {list(map(int, alive(victim.mark)))!r}:
    try:
        os.kill(pid, signal.SIGKILL)
        found.append("a process of that number")
    except OSError:
        pass
try:
    os.kill(-1, 0)
    os.kill(-1, signal.SIGCONT)
except OSError:
    pass
# 2. Files: by the paths that anybody can guess who knows its task.
for path in ({place.task!r}, {place.spool!r}, {place.scripts!r}, {place.bundle!r}):
    for name in ("", "/work/unreleased", "/0", "/config.json", "/work"):
        try:
            os.stat(path + name)
            found.append(path + name)
        except OSError:
            pass
for path in ("/dev/shm/victim", "/tmp/victim", "/proc/1/root{place.task}/work/unreleased"):
    if os.path.exists(path):
        found.append(path)
# 3. Sockets: in the abstract namespace, and on loopback.
for family, address in ((socket.AF_UNIX, "\\0victim"), (socket.AF_INET, ("127.0.0.1", 4444))):
    try:
        socket.socket(family).connect(address)
        found.append(str(address))
    except OSError:
        pass
# 4. By filling what might be shared: shared memory, semaphores, the number of processes of a user.
open("/dev/shm/attacker", "wb").write(bytes(1 << 20))
children = []
try:
    for _ in range(200):
        children.append(os.fork())
        if not children[-1]:
            signal.pause()
except OSError:
    pass
print("found", found)
"""
        ran = await cage.python(attack, **same)
        assert "found []" in ran.output, ran.output
        assert not victim.running.done()
    assert not [path for path in groups_of(cage.directory) if "/run-" in path]
    assert list((cage.directory / "tasks").iterdir()) == []
    assert [line for line in own_mounts(cage.directory) if "/run-" in line] == []


async def test_a_run_that_uses_up_its_limits_leaves_those_of_the_run_beside_it(cage: Cage) -> None:
    async with a_victim(cage) as victim:
        hungry = await cage.python("hoard = [bytearray(1 << 20) for _ in range(4096)]", task_id=OTHER_ID)
        assert getattr(hungry.execution.status, "out_of_memory", False)
        bomb = await cage.shell("bomb() { bomb | bomb & }; bomb; sleep 0.2", task_id=OTHER_ID)
        assert bomb.execution.usage.processes_peak is None or bomb.execution.usage.processes_peak <= 70
        assert not victim.running.done()


async def test_users_of_runs_beside_each_other_differ_and_can_be_had_again_afterwards(cage: Cage) -> None:
    async with a_victim(cage) as one, a_victim(cage, task_id=OTHER_ID) as other:
        assert abs(one.workspace.uid - other.workspace.uid) >= 2
        first = one.workspace.uid, other.workspace.uid
    async with a_victim(cage) as again:
        assert again.workspace.uid in first
