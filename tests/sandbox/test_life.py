"""How scripts begin, end and are ended (edge-cases.md, 7 and 8)."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from secureworker.core.errors import SandboxError, Stop, StopReason
from secureworker.core.ids import RunId
from secureworker.core.outcome import ExitCode, KilledBySignal
from secureworker.core.plan import MIN_MEMORY_BYTES, Mount
from secureworker.host.workspace import DirectoryWorkspaces
from tests.sandbox.cage import MIB, Cage, Heard, a_cage, some_limits

pytestmark = pytest.mark.sandbox


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - no event tells what a foreign process does
            await asyncio.sleep(0.005)


def alive(mark: str) -> list[str]:
    """Give the pids of processes of this host whose arguments have `mark` in them."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            arguments = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in arguments.split(b"\0"):
            found.append(name)
    return found


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6, 7, 8, 42, 126, 127, 241, 245, 255])
async def test_an_exit_code_comes_through_as_it_is(directory: Path, code: int) -> None:
    async with a_cage(directory, "runc") as cage:
        assert (await cage.shell(f"exit {code}")).execution.status == ExitCode(code)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
async def test_a_script_that_kills_itself_is_killed_by_that_signal(cage: Cage, number: signal.Signals) -> None:
    ran = await cage.shell(f"kill -{int(number)} $$")
    assert ran.execution.status == KilledBySignal(int(number))


async def test_an_execution_tells_times_usage_runtime_and_digests(cage: Cage) -> None:
    before = datetime.now(UTC)
    execution = (await cage.shell("exit 0")).execution
    assert before <= execution.started <= execution.finished <= datetime.now(UTC)
    assert execution.runtime == cage.sandbox.runtime
    assert execution.template_sha256 != execution.bundle_sha256
    assert execution.usage.cpu_seconds is not None
    assert 0 < execution.usage.cpu_seconds < 10
    assert execution.usage.memory_peak_bytes is not None
    assert 0 < execution.usage.memory_peak_bytes < 128 * MIB


async def test_both_outputs_arrive_in_order_and_unchanged(cage: Cage) -> None:
    ran = await cage.python(
        "import os\n"
        "os.write(1, b'one\\n'); os.write(2, b'two\\n'); os.write(1, b'\\x00\\xff'); os.write(1, b'x' * 300000)"
    )
    assert ran.output == "one\ntwo\n\0\ufffd" + "x" * 300_000


async def test_output_can_be_opened_again_and_not_truncated(cage: Cage) -> None:
    ran = await cage.shell("echo first; echo second > /dev/stdout; echo third > /dev/stderr; : > /dev/stdout")
    assert ran.output == "first\nsecond\nthird\n"


async def test_a_script_that_closes_its_output_and_goes_on_is_waited_for(cage: Cage) -> None:
    ran = await cage.shell("echo last; exec >&- 2>&-; sleep 0.2; touch went-on; exit 7")
    assert ran.execution.status == ExitCode(7)
    assert "work/went-on" in ran.files
    assert ran.output == "last\n"


async def test_children_that_left_for_their_own_session_die_with_the_script(cage: Cage) -> None:
    began = time.monotonic()
    ran = await cage.shell("setsid -f sh -c 'trap \"\" TERM HUP; echo here; exec sleep 98761'; sleep 0.1; exit 0")
    assert ran.execution.status == ExitCode(0)
    assert ran.output == "here\n"
    assert time.monotonic() - began < 10
    assert alive("98761") == []


async def stop(cage: Cage, script: str, *, times: int = 1, grace: float = 10) -> str:
    """Cancel a run once it has said something; give what it said."""
    log = Heard()
    plan = cage.plan(script, grace=timedelta(seconds=grace))
    async with cage.workspaces.open(plan) as workspace, asyncio.TaskGroup() as group:
        running = group.create_task(cage.sandbox.run(plan, workspace, log))
        await until(lambda: b"\n" in log.content)
        for _ in range(times):
            running.cancel()
            await asyncio.sleep(0.05)
        await asyncio.wait((running,))
        assert running.cancelled()
    return log.text


async def test_cancellation_lets_the_script_clean_up(cage: Cage) -> None:
    script = "#!/bin/sh\ntrap 'echo cleaned; exit 0' TERM\necho ready\nsleep 98762 & wait\n"
    assert await stop(cage, script) == "ready\ncleaned\n"
    assert alive("98762") == []


async def test_a_script_that_ignores_term_is_killed_after_the_grace(cage: Cage) -> None:
    began = time.monotonic()
    script = "#!/bin/sh\ntrap '' TERM\necho ready\nsleep 98763\necho never\n"
    assert await stop(cage, script, grace=0.3) == "ready\n"
    assert 0.3 <= time.monotonic() - began < 5
    assert alive("98763") == []


async def test_a_second_cancellation_does_not_wait_for_the_grace(cage: Cage) -> None:
    began = time.monotonic()
    script = "#!/bin/sh\ntrap '' TERM\necho ready\nsleep 98764\n"
    assert await stop(cage, script, times=2, grace=60) == "ready\n"
    assert time.monotonic() - began < 10
    assert alive("98764") == []


async def test_a_run_that_is_cancelled_before_it_begins_starts_nothing(cage: Cage) -> None:
    plan = cage.plan("#!/bin/sh\ntouch ran\n")
    async with cage.workspaces.open(plan) as workspace, asyncio.TaskGroup() as group:
        running = group.create_task(cage.sandbox.run(plan, workspace, Heard()))
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait((running,))
        assert running.cancelled()
        assert not (Path(workspace.task) / "work" / "ran").exists()


async def test_memory_beyond_the_limit_ends_the_run_and_says_why(cage: Cage) -> None:
    ran = await cage.python("x = b'x' * (1 << 30)", limits=some_limits(memory_bytes=32 * MIB))
    assert ran.execution.status == KilledBySignal(signal.SIGKILL, out_of_memory=True)


async def test_a_script_whose_child_was_out_of_memory_does_not_go_on(cage: Cage) -> None:
    ran = await cage.shell(
        "/usr/bin/python3 -c 'x = b\"x\" * (1 << 30)'; sleep 98765; echo never",
        limits=some_limits(memory_bytes=32 * MIB),
    )
    assert ran.execution.status == KilledBySignal(signal.SIGKILL, out_of_memory=True)
    assert "never" not in ran.output


async def test_a_fork_bomb_stays_within_its_limit_and_is_cleared_away(cage: Cage) -> None:
    ran = await cage.shell(
        "bomb() { sleep 98766 & bomb; }; bomb 2>/dev/null; exit 9",
        limits=some_limits(processes=20, memory_bytes=64 * MIB),
    )
    assert ran.execution.status in {ExitCode(2), ExitCode(9)}
    peak = ran.execution.usage.processes_peak
    assert peak is None or peak <= 64
    assert alive("98766") == []


async def test_the_processor_is_shared_out(cage: Cage) -> None:
    began = time.monotonic()
    ran = await cage.python("import time\nwhile time.process_time() < 0.2: pass", limits=some_limits(cpus=0.25))
    assert ran.execution.status == ExitCode(0)
    assert time.monotonic() - began > 0.4


@pytest.mark.parametrize(
    ("script", "limits"),
    [
        (
            "for i in 1 2 3 4; do head -c 1000000 /dev/zero > f$i; done; echo full; exec sleep 98767",
            {"disk_bytes": 2_000_000},
        ),
        ("i=0; while [ $i -lt 60 ]; do : > f$i; i=$((i+1)); done; echo full; exec sleep 98767", {"files": 40}),
    ],
)
async def test_what_is_kept_on_disk_beyond_the_limit_stops_the_run(
    cage: Cage, script: str, limits: dict[str, int]
) -> None:
    with pytest.raises(Stop, match="the script keeps more than") as caught:
        await cage.shell(script, limits=some_limits(**limits))
    assert caught.value.reason is StopReason.DISK_LIMIT
    assert alive("98767") == []


async def test_what_a_script_left_at_its_end_counts_too(cage: Cage) -> None:
    with pytest.raises(Stop, match="more than 40 files"):
        await cage.shell("i=0; while [ $i -lt 60 ]; do : > f$i; i=$((i+1)); done", limits=some_limits(files=40))


async def test_a_file_beyond_the_limit_cannot_be_written(cage: Cage) -> None:
    ran = await cage.shell(
        "head -c 3000000 /dev/zero > large; stat -c %s large; rm large", limits=some_limits(disk_bytes=2_000_000)
    )
    assert "2000000\n" in ran.output


async def test_a_tree_of_4000_levels_does_no_harm(cage: Cage) -> None:
    ran = await cage.python(
        "import os\nfor _ in range(4000):\n    os.mkdir('d'); os.chdir('d')\nos.chmod('.', 0)",
        limits=some_limits(files=5000),
    )
    assert ran.execution.status == ExitCode(0)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("#!/usr/bin/no-such-thing\n", "its interpreter /usr/bin/no-such-thing is not in the sandbox"),
        ("#!/etc/passwd\n", "its interpreter /etc/passwd is no file that everybody may execute"),
        ("#!sh\n", "names no interpreter by an absolute path"),
        ("\x7fELF", "for another kind of machine"),
    ],
)
async def test_a_script_that_cannot_be_executed_is_an_error_and_no_failure(
    cage: Cage, script: str, message: str
) -> None:
    with pytest.raises(SandboxError, match=message):
        await cage.run(script)


async def test_a_script_without_a_first_line_is_the_shells(cage: Cage) -> None:
    assert (await cage.run("echo plain\n")).output == "plain\n"


async def test_a_script_gets_its_config_file_as_its_argument(cage: Cage) -> None:
    ran = await cage.shell('echo $# "$1"; cat "$1"', config={"verbose": True, "url": "x"})
    assert ran.output.startswith("1 /task/config.json\n{\n")
    assert '"artifact_dir": "/task/artifacts"' in ran.output
    assert '"verbose": true' in ran.output


async def test_mounts_of_the_policy_are_there_with_their_flags(cage: Cage, directory: Path) -> None:
    source = directory / "source"
    source.mkdir()
    (source / "file").write_text("content\n")
    source.chmod(0o777)
    mounts = (
        Mount(str(source), "/data/ro"),
        Mount(str(source), "/data/rw", read_only=False),
        Mount(f"{source}/file", "/one"),
    )
    ran = await cage.shell("cat /data/ro/file /one; touch /data/ro/x; touch /data/rw/y; : > /one", mounts=mounts)
    assert ran.output.startswith("content\ncontent\n")
    assert ran.output.count("Read-only file system") == 2
    assert sorted(path.name for path in source.iterdir()) == ["file", "y"]


async def test_a_mount_whose_source_is_missing_is_an_error(cage: Cage) -> None:
    with pytest.raises(SandboxError, match="create failed"):
        await cage.shell("exit 0", mounts=(Mount("/no/such/place", "/data"),))


async def test_a_mount_within_a_mount_needs_a_place(cage: Cage) -> None:
    with pytest.raises(SandboxError, match="/usr/no-such-place cannot be mounted: it lies in the mount /usr"):
        await cage.shell("exit 0", mounts=(Mount("/opt", "/usr/no-such-place"),))


async def test_the_template_is_the_same_for_every_task_and_the_bundle_is_not(cage: Cage) -> None:
    first, second = await cage.shell("exit 0"), await cage.shell("exit 0", task_group_id="gN1SbArXTPSVFUUvaOlinQ")
    assert first.execution.template_sha256 == second.execution.template_sha256
    assert first.execution.bundle_sha256 != second.execution.bundle_sha256


async def test_runs_beside_each_other_do_not_meet(cage: Cage) -> None:
    script = "id -u; cat /tmp/* 2>/dev/null; echo mine > /tmp/x; sleep 0.2; ls /proc | grep -c '^[0-9]'; kill -9 -1"
    runs = await asyncio.gather(*(cage.shell(script, run_id=RunId(number)) for number in range(4)))
    assert {ran.output.split("\n")[0] for ran in runs} == {"1000"}
    assert all("mine" not in ran.output for ran in runs)


async def test_the_least_memory_and_processes_are_enough_for_the_runtime(cage: Cage) -> None:
    ran = await cage.shell("echo ran", limits=some_limits(memory_bytes=MIN_MEMORY_BYTES, processes=2))
    assert ran.execution.status == ExitCode(0)
    assert ran.output == "ran\n"


async def test_a_workspace_below_a_closed_directory_works(cage: Cage, directory: Path) -> None:
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    workspaces = DirectoryWorkspaces(f"{closed}/tasks")
    await workspaces.sweep()
    plan, log = cage.plan("#!/bin/sh\necho ran; touch x\n"), Heard()
    async with workspaces.open(plan) as workspace:
        assert (await cage.sandbox.run(plan, workspace, log)).status == ExitCode(0)
    assert log.text == "ran\n"


async def test_a_plan_without_limits_may_use_what_the_host_has_and_is_counted_all_the_same(cage: Cage) -> None:
    limits = some_limits(disk_bytes=1_000_000, processes=2, files=16, memory_bytes=MIN_MEMORY_BYTES)
    ran = await cage.python(
        "import os\n"
        "held = b'x' * (64 << 20)\n"
        "open('large', 'wb').write(held[:3_000_000])\n"
        "[os.fork() or os._exit(0) for _ in range(8)]\n"
        "[open(str(n), 'w') for n in range(50)]\n",
        limits=limits,
        unlimited=True,
    )
    assert (ran.execution.status, ran.execution.unlimited) == (ExitCode(0), True), ran.output
    assert (ran.execution.usage.memory_peak_bytes or 0) > 64 * MIB
