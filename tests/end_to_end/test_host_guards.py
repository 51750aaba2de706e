"""A daemon on a host where something is wrong: it claims nothing, says why, and goes on by itself."""

import json
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import taskcluster

from secureworker.host.mounts import unmount_all
from secureworker.sandbox.runtime import find
from tests.end_to_end.daemon import OWNER, WORKER, Here, Worker, a_queue, eventually

pytestmark = [pytest.mark.sandbox, pytest.mark.slow]
MIB = 2**20
PATIENCE_SECONDS = 90.0
"""A look is made every 10 s; on a busy machine the rest takes its time too."""
CLAIMING_NONE = "claiming no tasks for now: "
STILL = "still claiming no tasks: "


@pytest.fixture
async def here(directory: Path) -> AsyncIterator[Here]:
    async with a_queue(directory, 60) as running:
        yield running
        assert running.wire.most_reports() <= 1


async def start_hindered(here: Here, *more: str) -> Worker:
    """Start a worker that does not come to its first claim."""
    worker = await Worker.start(here.arguments("--verbose", *more), here.directory / "worker.log")
    here.workers.append(worker)
    return worker


async def hindered(here: Here, worker: Worker, *says: str) -> str:
    """Wait until the worker claims nothing and says why; give a task that waits for it."""
    await eventually(
        lambda: worker.ended or (CLAIMING_NONE in worker.log and all(part in worker.log for part in says)),
        f"a worker that is hindered; {worker.log}",
        PATIENCE_SECONDS,
    )
    assert not worker.ended, worker.log
    return await here.create()


async def claims_nothing(here: Here, worker: Worker, task: str, looks: int = 1) -> None:
    """See that the next looks find the same, nothing is claimed, and nothing more is said."""
    asked, said = here.wire.count("claim-work"), worker.log.count(CLAIMING_NONE)
    looked = worker.log.count(STILL)
    await eventually(lambda: worker.log.count(STILL) >= looked + looks, f"another look; {worker.log}", PATIENCE_SECONDS)
    assert here.wire.count("claim-work") == asked
    assert (await here.runs(task))[0]["state"] == "pending"
    assert worker.log.count(CLAIMING_NONE) == said == 1


async def goes_on(here: Here, worker: Worker, task: str) -> None:
    assert await here.resolved(task, seconds=PATIENCE_SECONDS) == "completed", worker.log
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log
    assert "nothing keeps this worker from claiming any more" in worker.log


# Room


@pytest.fixture
def state(directory: Path) -> Iterator[Path]:
    """Give the state directory, on a small file system of its own."""
    place = directory / "state"
    place.mkdir()
    options = "size=64m,nr_inodes=2000,mode=0711"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(place)], check=True)
    try:
        yield place
    finally:
        unmount_all(str(place))


@pytest.mark.parametrize(("what", "says"), [("bytes", "MiB are free in"), ("files", "more files have room in")])
async def test_a_full_state_directory_costs_no_task(here: Here, state: Path, what: str, says: str) -> None:
    filling = state / "filling"
    filling.mkdir(mode=0o700)
    if what == "bytes":
        (filling / "0").write_bytes(b"x" * (30 * MIB))
    else:
        for number in range(1700):
            (filling / str(number)).touch()
    worker = await start_hindered(here, "--disk-per-run", "8MiB")
    task = await hindered(here, worker, says)
    await claims_nothing(here, worker, task)
    shutil.rmtree(filling)
    await goes_on(here, worker, task)


async def test_too_little_memory_costs_no_task(here: Here) -> None:
    worker = await start_hindered(here, "--memory-per-run", "1TiB")
    task = await hindered(here, worker, "MiB of memory are available in this host")
    await claims_nothing(here, worker, task)
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log
    assert (await here.runs(task))[0]["state"] == "pending"


# What runs depend on


async def test_a_runtime_that_is_gone_or_another_costs_no_task(here: Here) -> None:
    installed = find("runc")
    assert installed is not None
    runtime = here.directory / "runc"
    shutil.copy(installed, runtime)
    worker = await here.start("--verbose", "--runtime", str(runtime))
    away = here.directory / "away"
    runtime.rename(away)
    task = await hindered(here, worker, f"{runtime} cannot be used any more: No such file or directory")
    await claims_nothing(here, worker, task)
    away.rename(runtime)
    assert await here.resolved(task) == "completed", worker.log

    shutil.copy(runtime, away)
    away.write_bytes(away.read_bytes() + b"another")
    away.chmod(0o755)
    away.rename(runtime)
    task = await hindered(here, worker, "is another program than the one that was tested at the start")
    shutil.copy(installed, away)
    away.rename(runtime)
    await goes_on(here, worker, task)


async def test_a_runtime_that_was_upgraded_is_tested_and_used(here: Here) -> None:
    installed = find("runc")
    assert installed is not None
    runtime, new = here.directory / "runc", here.directory / "new"
    shutil.copy(installed, runtime)
    worker = await here.start("--verbose", "--runtime", str(runtime))
    shutil.copy(installed, new)
    with new.open("ab") as file:
        file.write(b"of another version")
    new.rename(runtime)
    task = await hindered(here, worker, "is another program than the one that was tested at the start")
    await claims_nothing(here, worker, task)
    assert await here.resolved(task, seconds=120) == "completed", worker.log
    assert worker.log.count("failed to get out") == 2, "the sandbox was tested with the new one"
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log


async def test_a_script_that_changed_costs_no_task(here: Here) -> None:
    worker = await here.start("--verbose")
    script = here.directory / "sleeper"
    content = script.read_bytes()
    script.write_bytes(content + b"# changed\n")
    task = await hindered(here, worker, f"{script} has sha256", "review the change and pin the new digest")
    await claims_nothing(here, worker, task)
    script.write_bytes(content)
    await goes_on(here, worker, task)


async def test_an_audit_log_that_cannot_be_written_costs_no_task(here: Here) -> None:
    worker = await here.start("--verbose")
    log = here.directory / "state" / "audit"
    mode = log.stat().st_mode & 0o777
    log.chmod(0o500)
    task = await hindered(here, worker, "the signer may not write in")
    await claims_nothing(here, worker, task)
    log.chmod(mode)
    await goes_on(here, worker, task)


async def test_a_clock_that_is_wrong_costs_no_task(here: Here) -> None:
    """Far ahead, every claim would have ended when it arrives: the worker would eat the queue."""
    worker = await here.start("--verbose")
    here.wire.says = timedelta(minutes=-30)
    task = await hindered(here, worker, "s ahead of the Queue's; set it right (NTP)")
    await claims_nothing(here, worker, task)
    here.wire.says = timedelta(0)
    assert await here.resolved(task) == "completed", worker.log
    here.wire.says = timedelta(minutes=2)
    task = await hindered(here, worker, "s behind the Queue's")
    here.wire.says = timedelta(seconds=2)
    await goes_on(here, worker, task)


async def test_a_clock_that_is_wrong_from_the_start_costs_no_task(here: Here) -> None:
    here.wire.says = timedelta(days=-1)
    worker = await start_hindered(here)
    task = await hindered(here, worker, "s ahead of the Queue's")
    await claims_nothing(here, worker, task)
    here.wire.says = timedelta(0)
    await goes_on(here, worker, task)


def put(here: Here, client_id: str, token: str, certificate: str | None = None) -> None:
    new = here.directory / "new.json"
    new.touch(mode=0o600)
    given = {"clientId": client_id, "accessToken": token}
    new.write_text(json.dumps(given if certificate is None else {**given, "certificate": certificate}))
    new.rename(here.directory / "credentials.json")


async def test_credentials_that_end_cost_no_task_and_are_replaced(here: Here) -> None:
    now = datetime.now(UTC)
    made = taskcluster.createTemporaryCredentials(
        *(OWNER.client_id, OWNER.access_token.reveal()),
        *(now - timedelta(minutes=1), now + timedelta(seconds=15), list(WORKER.scopes)),
        name="short-lived",
    )
    token, certificate = (
        value.decode() if isinstance(value, bytes) else value for value in (made["accessToken"], made["certificate"])
    )
    put(here, "short-lived", token, certificate)
    worker = await here.start("--verbose")
    task = await hindered(here, worker, "this worker's credentials end at", "give it new ones")
    await claims_nothing(here, worker, task)
    # They have ended by now.
    put(here, "worker", WORKER.access_token.reveal())
    await goes_on(here, worker, task)


# What cannot be seen before


async def test_a_run_that_the_host_failed_costs_one_task_and_a_new_self_test(here: Here) -> None:
    """Nobody looks at the directory of workspaces before a run wants one there: the run fails, and the worker waits."""
    worker = await here.start("--verbose")
    workspaces = here.directory / "state" / "workspaces"
    workspaces.rmdir()
    workspaces.touch()
    failed = await here.create()
    assert await here.resolved(failed) == "internal-error"
    task = await hindered(here, worker, "this host is not in order", "a run failed of it")
    await claims_nothing(here, worker, task)
    workspaces.unlink()
    workspaces.mkdir(mode=0o711)
    assert await here.resolved(task, seconds=120) == "completed", worker.log
    assert "failed to get out again; claiming" in worker.log
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log
