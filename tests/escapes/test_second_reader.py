"""Attacks of a second reader: what a script, or a local user beside it, tries on the worker and its host."""

import asyncio
import os
import subprocess
from datetime import timedelta

import pytest

from secureworker.core.errors import Stop
from secureworker.core.outcome import ExitCode
from tests.sandbox.cage import MIB, Cage, Heard, groups_of, some_limits
from tests.sandbox.test_life import alive

pytestmark = pytest.mark.sandbox


@pytest.mark.parametrize("way", ["open", "mapped"])
async def test_files_without_a_name_count_as_what_is_kept_on_disk(cage: Cage, way: str) -> None:
    program = f"""
import mmap, os, time
held = []
for number in range(16):
    name = f"file-{{number}}"
    file = os.open(name, os.O_RDWR | os.O_CREAT)
    os.unlink(name)
    os.write(file, bytes(4 * 1024 * 1024))
    if {way == "mapped"}:
        held.append(mmap.mmap(file, 4096))
        os.close(file)
    else:
        held.append(file)
print("held", flush=True)
time.sleep(8)
"""
    with pytest.raises(Stop, match=r"keeps more than .* bytes on disk"):
        await cage.python(program, limits=some_limits(disk_bytes=16 * MIB))


async def test_another_user_of_the_host_sees_nothing_of_a_run(cage: Cage) -> None:
    plan = cage.plan("#!/bin/sh\numask 0; echo unreleased > artifacts-of-mine; sleep 0.1\n")
    async with cage.workspaces.open(plan) as workspace:
        execution = await cage.sandbox.run(plan, workspace, Heard())
        assert execution.status == ExitCode(0)
        places = (
            f"{workspace.task}/work/artifacts-of-mine",
            f"{workspace.task}/work/task.json",
            f"{workspace.scripts}/0",
            f"{workspace.bundle}/config.json",
        )
        for place in places:
            done = subprocess.run(
                ["/bin/cat", place], user=65534, group=65534, extra_groups=(), capture_output=True, check=False
            )
            assert (done.returncode, done.stdout) == (1, b""), place


async def test_cancelled_at_whatever_moment_a_run_leaves_nothing(cage: Cage) -> None:
    for moment in range(0, 80, 7):
        mark = f"9{os.getpid()}{moment:03d}"
        script = f"setsid sleep {mark} & sleep {mark}"
        running = asyncio.ensure_future(cage.shell(script, grace=timedelta(milliseconds=50)))
        # Not an event: the moments are those between the worker's own steps, which nobody is told of.
        await asyncio.wait((running,), timeout=moment / 1000)
        running.cancel()
        await asyncio.wait((running,))
        assert running.cancelled()
        assert alive(mark) == []
        assert not [path for path in groups_of(cage.directory) if "/run-" in path]
        assert list((cage.directory / "tasks").iterdir()) == []
