"""Secrets as files in memory, for one run: where they come from, who can see them, and that they are gone."""

import asyncio
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secureworker.core.claim import Json
from secureworker.core.decide import Admitted, decide
from secureworker.core.errors import HostError, ServiceError, SettingsError
from secureworker.core.plan import Plan
from secureworker.core.secrets import (
    MAX_SECRET_BYTES,
    HostFile,
    SecretBytes,
    SecretFile,
    SystemdCredential,
    TaskclusterSecret,
)
from secureworker.host.lending import LentSecrets, check_sources, memory_directory, read_source
from secureworker.host.mounts import unmount_all
from secureworker.ports import ClaimedRun, Workspace
from secureworker.testing import EPOCH, IDENTITY, FakeClock, a_claim, a_policy
from secureworker.testing.queue import FakeRun

CANARY = b"canary-7f3a9c\n"
UID = 1_900_000_001


def a_secret(path: Path, content: bytes = CANARY, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_file_of_the_host_is_read(tmp_path: Path) -> None:
    path = a_secret(tmp_path / "key")
    assert read_source(HostFile(str(path)), None) == SecretBytes(CANARY)


def test_a_credential_of_systemd_is_read_with_the_mode_that_systemd_gives(tmp_path: Path) -> None:
    a_secret(tmp_path / "autograph", mode=0o440)
    assert read_source(SystemdCredential("autograph"), str(tmp_path)) == SecretBytes(CANARY)


def test_without_systemd_there_are_no_credentials_of_it() -> None:
    with pytest.raises(SettingsError, match="LoadCredential=autograph:PATH"):
        read_source(SystemdCredential("autograph"), None)


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (CANARY, 0o644, "others can read"),
        (CANARY, 0o440, "others can read"),
        (b"", 0o600, "it is empty"),
        (b" \n", 0o600, None),
        (b"canary" * MAX_SECRET_BYTES, 0o600, "larger than 65536 bytes"),
        (b"canary-line\n%d" * 3, 0o600, None),
        (b"\n".join(b"canary-%d" % n for n in range(1000)), 0o600, "1001 lines and values"),
    ],
)
def test_what_cannot_be_kept_secret_is_refused_and_not_shown(
    tmp_path: Path, content: bytes, mode: int, says: str | None
) -> None:
    path = a_secret(tmp_path / "key", content, mode)
    if says is None:
        assert read_source(HostFile(str(path)), None).reveal() == content
        return
    with pytest.raises(SettingsError, match=says) as refusal:
        read_source(HostFile(str(path)), None)
    assert "canary" not in str(refusal.value)


def test_a_secret_that_is_not_there_is_an_error_of_the_host(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"file:.*nothing.* cannot be read: No such file"):
        read_source(HostFile(str(tmp_path / "nothing")), None)


# Lending them


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[str]:
    tmp_path.chmod(0o755)
    with memory_directory(str(tmp_path / "secrets")) as directory:
        yield directory


class Service:
    """Taskcluster's secrets, and who asked for which."""

    def __init__(self, **secrets: Any) -> None:
        self.secrets = secrets
        self.asked: list[tuple[str, str]] = []

    async def fetch(self, source: TaskclusterSecret, run: ClaimedRun) -> dict[str, Json]:
        self.asked.append((source.name, run.credentials.client_id))
        secret: dict[str, Json] = self.secrets[source.name]
        return secret


def a_run() -> FakeRun:
    clock = FakeClock()
    return FakeRun(a_claim(clock), clock)


def a_lending(memory: str, *secrets: SecretFile, service: Service | None = None) -> tuple[LentSecrets, Plan, Workspace]:
    decision = decide(a_claim(), a_policy(), IDENTITY, EPOCH)
    assert isinstance(decision, Admitted)
    plan = replace(decision.plan, secrets=secrets)
    workspace = Workspace("/t", "/s", "/p", "/b", UID, f"{memory}/{plan.task_id}.{plan.run_id}")
    return LentSecrets(memory, None, (service or Service()).fetch), plan, workspace


@pytest.mark.sandbox
async def test_a_secret_is_a_file_in_memory_that_only_the_scripts_user_can_read(memory: str, tmp_path: Path) -> None:
    source = HostFile(str(a_secret(tmp_path / "key")))
    lending, plan, workspace = a_lending(memory, SecretFile("key.pem", source))
    async with lending.lend(plan, a_run(), workspace) as lent:
        assert lent == (SecretBytes(CANARY),)
        place = Path(workspace.secrets)
        assert [entry.name for entry in place.iterdir()] == ["key.pem"]
        found = (place / "key.pem").stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o400, UID, UID)
        assert (place / "key.pem").read_bytes() == CANARY
        above = place.stat()
        assert (stat.S_IMODE(above.st_mode), above.st_uid) == (0o500, UID)
        assert found.st_dev != tmp_path.stat().st_dev
        assert f" {memory} " in Path("/proc/self/mountinfo").read_text()
        (line,) = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {memory} " in line]
        assert " - tmpfs " in line
        assert {"nosuid", "nodev", "noexec"} <= set(line.split()[5].split(","))
    assert os.listdir(memory) == []


@pytest.mark.sandbox
async def test_a_plan_without_secrets_makes_nothing(memory: str) -> None:
    lending, plan, workspace = a_lending(memory)
    async with lending.lend(plan, a_run(), workspace) as lent:
        assert lent == ()
        assert os.listdir(memory) == []


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "end", [None, ServiceError("the run ends"), asyncio.CancelledError(), RuntimeError("a bug"), KeyboardInterrupt()]
)
async def test_secrets_are_gone_however_the_run_ends(memory: str, tmp_path: Path, end: BaseException | None) -> None:
    source = HostFile(str(a_secret(tmp_path / "key")))
    lending, plan, workspace = a_lending(memory, SecretFile("a", source), SecretFile("b", source))
    with suppress(*(() if end is None else (type(end),))):
        async with lending.lend(plan, a_run(), workspace):
            assert os.listdir(memory) != []
            if end is not None:
                raise end
    assert os.listdir(memory) == []


@pytest.mark.sandbox
async def test_two_runs_have_directories_of_their_own(memory: str, tmp_path: Path) -> None:
    source = HostFile(str(a_secret(tmp_path / "key")))
    lending, plan, workspace = a_lending(memory, SecretFile("a", source))
    other = replace(workspace, secrets=f"{memory}/other", uid=UID + 2)
    async with lending.lend(plan, a_run(), workspace):
        async with lending.lend(plan, a_run(), other):
            assert len(os.listdir(memory)) == 2
        assert os.listdir(workspace.secrets) == ["a"]


@pytest.mark.sandbox
async def test_a_secret_of_taskcluster_is_asked_for_as_the_run(memory: str) -> None:
    service = Service(**{"project/a": {"password": "hunter2hunter2", "n": 1}})
    secrets = (
        SecretFile("password", TaskclusterSecret("project/a", "password")),
        SecretFile("all.json", TaskclusterSecret("project/a", None)),
    )
    lending, plan, workspace = a_lending(memory, *secrets, service=service)
    run = a_run()
    await run.reclaim()
    async with lending.lend(plan, run, workspace) as lent:
        assert (Path(workspace.secrets) / "password").read_bytes() == b"hunter2hunter2"
        assert b'"n": 1' in (Path(workspace.secrets) / "all.json").read_bytes()
        assert len(lent) == 2
    assert service.asked == [("project/a", run.credentials.client_id)] * 2


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("source", "says"),
    [
        (TaskclusterSecret("project/a", "missing"), "has no key 'missing'"),
        (TaskclusterSecret("project/a", "empty"), "it is empty"),
        (TaskclusterSecret("project/a", "long"), "lines and values"),
    ],
)
async def test_a_secret_of_taskcluster_that_cannot_be_used_is_no_fault_of_this_host(
    memory: str, source: TaskclusterSecret, says: str
) -> None:
    service = Service(**{"project/a": {"empty": "", "long": "\n".join(f"canary-{n}" for n in range(600))}})
    lending, plan, workspace = a_lending(memory, SecretFile("a", source), service=service)
    with pytest.raises(ServiceError, match=says) as failure:
        async with lending.lend(plan, a_run(), workspace):
            raise AssertionError
    assert "canary" not in str(failure.value)
    assert os.listdir(memory) == []


@pytest.mark.sandbox
async def test_without_the_file_system_in_memory_nothing_is_written(memory: str, tmp_path: Path) -> None:
    source = HostFile(str(a_secret(tmp_path / "key")))
    lending, plan, workspace = a_lending(memory, SecretFile("a", source))
    unmount_all(memory)
    with pytest.raises(HostError, match="somebody unmounted it"):
        async with lending.lend(plan, a_run(), workspace):
            raise AssertionError
    assert os.listdir(memory) == []


@pytest.mark.sandbox
async def test_a_directory_that_is_there_already_is_an_error_that_shows_nothing(memory: str, tmp_path: Path) -> None:
    source = HostFile(str(a_secret(tmp_path / "key")))
    lending, plan, workspace = a_lending(memory, SecretFile("a/b", source))
    with pytest.raises(HostError, match="cannot be laid out in memory: No such file"):
        async with lending.lend(plan, a_run(), workspace):
            raise AssertionError
    assert os.listdir(memory) == []


@pytest.mark.sandbox
def test_each_run_has_room_of_its_own_in_memory(tmp_path: Path) -> None:
    room = []
    for runs in (1, 4):
        with memory_directory(str(tmp_path / "secrets"), runs) as directory:
            status = os.statvfs(directory)
            room.append((status.f_blocks * status.f_frsize, status.f_files))
    assert room[1] == (4 * room[0][0], 4 * room[0][1])


@pytest.mark.sandbox
def test_what_a_crashed_worker_left_in_memory_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "secrets"
    crashed = [memory_directory(str(path)) for _ in range(2)]
    for each in crashed:
        each.__enter__()
        (path / "left").write_bytes(CANARY)
    with memory_directory(str(path)) as directory:
        assert os.listdir(directory) == []
        mounts = Path("/proc/self/mountinfo").read_text()
        assert mounts.count(f" {path} ") == 1
    assert not path.exists()
    assert str(path) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.sandbox
def test_where_it_cannot_be_mounted_the_error_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(HostError, match=r"cannot be mounted on .*CAP_SYS_ADMIN"),
        memory_directory(f"{tmp_path}/file/a"),
    ):
        raise AssertionError


def test_all_secrets_of_the_host_are_looked_at_before_the_first_claim(tmp_path: Path) -> None:
    good = HostFile(str(a_secret(tmp_path / "good")))
    bad = HostFile(str(a_secret(tmp_path / "bad", mode=0o644)))
    remote = TaskclusterSecret("project/a", None)
    check_sources((good, remote), None)
    with pytest.raises(SettingsError, match=r"others can read .*bad"):
        check_sources((good, remote, bad), None)


async def test_who_has_no_place_for_secrets_lends_none(tmp_path: Path) -> None:
    _, plan, workspace = a_lending(str(tmp_path), SecretFile("a", HostFile(str(a_secret(tmp_path / "key")))))
    lending = LentSecrets(None, None, Service().fetch)
    async with lending.lend(replace(plan, secrets=()), a_run(), workspace) as lent:
        assert lent == ()
    with pytest.raises(HostError, match="is gone"):
        async with lending.lend(plan, a_run(), workspace):
            raise AssertionError
    assert not Path(workspace.secrets).exists()


@pytest.mark.sandbox
async def test_secrets_are_gone_whenever_the_run_is_cancelled(memory: str, tmp_path: Path) -> None:
    lending, plan, workspace = a_lending(memory, SecretFile("key", HostFile(str(a_secret(tmp_path / "key")))))

    async def use(number: int) -> None:
        async with lending.lend(plan, a_run(), replace(workspace, secrets=f"{memory}/{number}")):
            await asyncio.Event().wait()

    for number in range(600):
        using = asyncio.ensure_future(use(number))
        for _ in range(number % 60):
            await asyncio.sleep(0)
        using.cancel()
        await asyncio.wait((using,))
    # Whatever a thread was still about to do, it has done by now.
    await asyncio.get_running_loop().shutdown_default_executor()
    assert os.listdir(memory) == []
