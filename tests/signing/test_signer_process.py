"""The signer as a process: what it gives up, how it ends, and that no end of it lets two statements out for one run."""

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secureworker.audit.shards import origin_of
from secureworker.core.audit import AuditRecord, Event
from secureworker.core.checkpoint import NoteKey, open_checkpoint
from secureworker.core.errors import AuditError, HostError, KeyUnusable, SettingsError
from secureworker.core.happening import Appended
from secureworker.core.ids import RunId, WorkerIdentity
from secureworker.core.witness import WitnessKey
from secureworker.signer import SIGNER_UID, read_settings
from secureworker.signing.client import SignerClient, child_signer, connected_signer
from secureworker.signing.keys import SigningKey
from secureworker.testing import IDENTITY, SHA256, TASK_ID, an_artifact
from tests.signing.served import a_statement, opened, records, settings_for

pytestmark = pytest.mark.usefixtures("key")


def own(**changes: Any) -> dict[str, Any]:
    """Settings under which a child stays who it is, so that its coverage can be written."""
    return {"user": os.geteuid(), **changes}


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def test_who_watches_is_told_what_the_log_says_of_itself_after_each_record(
    tmp_path: Path, key: SigningKey
) -> None:
    told: list[Appended] = []
    async with child_signer(settings_for(tmp_path, **own()), IDENTITY, grown=told.append) as signer:
        await signer.append(AuditRecord(Event.WORKER_START))
        await signer.append(AuditRecord(Event.WORKER_STOP))

    assert [each.size for each in told] == [3, 4]
    origin = origin_of(IDENTITY, 1)
    for each in told:
        checkpoint = open_checkpoint(each.note.encode(), NoteKey(origin, key.public.raw, key.public.verifies))
        assert (checkpoint.origin, checkpoint.size, checkpoint.root.hex()) == (each.origin, each.size, each.root)


async def test_a_child_signs_and_ends_with_its_worker(tmp_path: Path, key: SigningKey) -> None:
    async with child_signer(settings_for(tmp_path, **own()), IDENTITY) as signer:
        assert signer.public_key == key.public
        assert signer.pid != os.getpid()
        await signer.append(AuditRecord(Event.WORKER_START))
        await signer.sign(a_statement())
        pid = signer.pid

    assert not Path(f"/proc/{pid}").exists()
    assert [record.event.value for record in records(tmp_path)] == [
        "signer-start",
        "key-load",
        "worker-start",
        "signature",
        "signer-stop",
    ]
    assert dict(records(tmp_path)[-1].details) == {"reason": "the worker has ended"}


async def test_signals_to_the_whole_group_leave_a_child_to_its_work(tmp_path: Path) -> None:
    async with child_signer(settings_for(tmp_path, **own()), IDENTITY) as signer:
        os.kill(signer.pid, signal.SIGTERM)
        os.kill(signer.pid, signal.SIGINT)
        await signer.check()


async def test_what_the_worker_keeps_in_its_environment_does_not_reach_the_signer(tmp_path: Path) -> None:
    os.environ["TASKCLUSTER_ACCESS_TOKEN"] = "secret"
    os.environ["LD_PRELOAD_OF_NOBODY"] = "secret"
    try:
        async with child_signer(settings_for(tmp_path, **own()), IDENTITY) as signer:
            environment = Path(f"/proc/{signer.pid}/environ").read_bytes()
    finally:
        del os.environ["TASKCLUSTER_ACCESS_TOKEN"]
        del os.environ["LD_PRELOAD_OF_NOBODY"]

    assert b"TASKCLUSTER" not in environment
    assert b"LD_PRELOAD" not in environment


async def test_nothing_that_lies_where_the_worker_was_started_is_run_by_its_signer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "socket.py").write_text("from pathlib import Path\nPath('run').touch()\nraise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path / "here")

    async with child_signer(settings_for(tmp_path, **own()), IDENTITY) as signer:
        await signer.check()

    assert not (tmp_path / "here" / "run").exists()


@pytest.mark.sandbox
async def test_a_child_of_root_gives_up_all_that_it_does_not_need(tmp_path: Path) -> None:
    async with child_signer(settings_for(tmp_path), IDENTITY) as signer:
        found = status(signer.pid)
        limits = Path(f"/proc/{signer.pid}/limits").read_text()
        networks = [os.stat(f"/proc/{pid}/ns/net").st_ino for pid in ("self", signer.pid)]
        descriptors = [os.readlink(f"/proc/{signer.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{signer.pid}/fd")]

    assert found["Uid"].split() == found["Gid"].split() == [str(SIGNER_UID)] * 4
    assert found["Groups"] == ""
    assert (found["CapEff"], found["CapPrm"], found["NoNewPrivs"], found["Seccomp"]) == ("0" * 16, "0" * 16, "1", "2")
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
    assert networks[0] != networks[1]
    assert not [name for name in descriptors if "signing" in name and "audit" not in name]


@pytest.mark.sandbox
async def test_nobody_but_root_can_look_into_the_signer_not_even_its_own_user(tmp_path: Path) -> None:
    async with child_signer(settings_for(tmp_path), IDENTITY) as signer:
        look = f"import os; os.setuid({SIGNER_UID}); os.stat('/proc/{signer.pid}'); open('/proc/{signer.pid}/mem')"
        done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)

    assert "PermissionError" in done.stderr


@pytest.mark.sandbox
async def test_a_child_of_root_becomes_the_user_that_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir(mode=0o750)
    (tmp_path / "audit" / "lock").write_text("")
    os.chown(tmp_path / "keys", 54321, 54321)
    os.chown(tmp_path / "keys" / "signing", 54321, 54321)
    for directory in (tmp_path, *tmp_path.parents[:-1]):
        if directory.stat().st_uid == 0 and not directory.stat().st_mode & 1:
            directory.chmod(directory.stat().st_mode | 1)

    async with child_signer(settings_for(tmp_path, user=54321), IDENTITY) as signer:
        assert status(signer.pid)["Uid"].split() == ["54321"] * 4
        await signer.sign(a_statement())

    assert {path.stat().st_uid for path in (tmp_path / "audit").iterdir()} == {54321}


async def test_a_worker_is_told_why_its_signer_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "keys" / "signing").chmod(0o440)

    with pytest.raises(KeyUnusable, match="has mode 0440; chmod it to 0400"):
        async with child_signer(settings_for(tmp_path, **own()), IDENTITY):
            pass


async def test_a_changed_log_keeps_the_worker_from_starting(tmp_path: Path) -> None:
    async with child_signer(settings_for(tmp_path, **own()), IDENTITY):
        pass
    path = tmp_path / "audit" / "000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"worker"', b'"Worker"', 1))

    with pytest.raises(AuditError, match="the audit log was changed"):
        async with child_signer(settings_for(tmp_path, **own()), IDENTITY):
            pass


async def test_a_signer_that_is_killed_fails_every_request(tmp_path: Path) -> None:
    async with child_signer(settings_for(tmp_path, **own()), IDENTITY) as signer:
        os.kill(signer.pid, signal.SIGKILL)
        with pytest.raises(HostError, match="nothing can be signed"):
            await signer.check()
        with pytest.raises(HostError, match="nothing can be signed"):
            await signer.sign(a_statement())


async def test_a_request_that_is_cancelled_leaves_the_conversation_in_step(tmp_path: Path) -> None:
    async with child_signer(settings_for(tmp_path, **own()), IDENTITY) as signer:
        for _ in range(5):
            signing = asyncio.ensure_future(signer.sign(a_statement()))
            await asyncio.sleep(0)
            signing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await signing
            await signer.check()
        assert len(await signer.sign(a_statement())) == 3


@pytest.mark.slow
async def test_killed_at_any_moment_a_signer_leaves_a_log_that_verifies_and_no_run_with_two_statements(
    tmp_path: Path, key: SigningKey
) -> None:
    """Several statements are asked for each of a few runs, while the signer is killed and started again."""
    dice = random.Random(5)
    out: dict[tuple[str, int], set[bytes]] = {}
    for _ in range(6):
        async with child_signer(settings_for(tmp_path, **own()), IDENTITY) as signer, asyncio.TaskGroup() as group:
            group.create_task(_kill_later(signer.pid, dice.uniform(0, 0.15)))
            for _ in range(3):
                group.create_task(_ask_for_much(signer, dice, out))

    with opened(tmp_path / "audit", key) as (_, signed):
        assert {len(bodies) for bodies in out.values()} == {1}
        for (task_id, run_id), bodies in out.items():
            run = next(run for run in signed._digests if run == (task_id, run_id))
            assert json.loads(next(iter(bodies)))["runId"] == run[1]
    # And it goes on.
    async with child_signer(settings_for(tmp_path, **own()), IDENTITY) as signer:
        await signer.check()


async def _kill_later(pid: int, seconds: float) -> None:
    await asyncio.sleep(seconds)
    os.kill(pid, signal.SIGKILL)


async def _ask_for_much(signer: SignerClient, dice: random.Random, out: dict[tuple[str, int], set[bytes]]) -> None:
    while True:
        statement = a_statement(an_artifact("public/a", dice.randbytes(1)))
        run_id = RunId(dice.randrange(10))
        try:
            files = await signer.sign(replace(statement, claim=replace(statement.claim, run_id=run_id)))
        except HostError as error:
            if "already signed" in str(error):
                continue
            return
        out.setdefault((TASK_ID, run_id), set()).add(files[0].content)


async def test_a_signer_that_does_not_end_is_killed(tmp_path: Path) -> None:
    async with child_signer(settings_for(tmp_path, **own()), IDENTITY) as signer:
        pid = signer.pid
        os.kill(pid, signal.SIGSTOP)

    assert not Path(f"/proc/{pid}").exists()


async def test_an_error_of_the_signers_own_reaches_its_worker(tmp_path: Path) -> None:
    # A directory that is given for the key's file: nothing foresees a path with a NUL in it.
    with pytest.raises(HostError, match="the signer cannot start: ValueError; its own log says more"):
        async with child_signer(settings_for(tmp_path, key="file:/a\0b", **own()), IDENTITY):
            pass


async def test_an_end_that_cannot_be_written_down_is_an_end(tmp_path: Path) -> None:
    async with child_signer(settings_for(tmp_path, **own()), IDENTITY) as signer:
        (tmp_path / "audit" / "checkpoint.new").mkdir()
        pid = signer.pid

    assert not Path(f"/proc/{pid}").exists()
    assert records(tmp_path)[-1].event is not Event.SIGNER_START


# As a unit of its own.


@asynccontextmanager
async def unit(directory: Path, **changes: Any) -> AsyncIterator["subprocess.Popen[bytes]"]:
    config = directory / "signer.yml"
    settings = settings_for(directory, socket=str(directory / "socket"), **own(**changes))
    config.write_text(json.dumps(settings))
    process = subprocess.Popen([sys.executable, "-m", "secureworker", "signer", "--config", config])
    try:
        async with asyncio.timeout(20):
            while not answers(directory / "socket"):  # noqa: ASYNC110 - a foreign process, without an event for us
                await asyncio.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait(10)


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as trial:
        return trial.connect_ex(str(path)) == 0


async def test_a_signer_of_its_own_serves_one_worker_after_the_other_and_ends_with_sigterm(tmp_path: Path) -> None:
    async with unit(tmp_path) as process:
        for _ in range(2):
            async with connected_signer(str(tmp_path / "socket"), IDENTITY) as signer:
                await signer.sign(a_statement())
        process.terminate()
        assert process.wait(10) == 0

    assert dict(records(tmp_path)[-1].details) == {"reason": "it was told to end"}
    # Its socket is left behind, and is no obstacle.
    async with unit(tmp_path), connected_signer(str(tmp_path / "socket"), IDENTITY) as signer:
        await signer.check()


async def test_a_worker_that_is_another_one_is_not_served(tmp_path: Path) -> None:
    other = WorkerIdentity(IDENTITY.pool, "test-group", "other")
    async with unit(tmp_path):
        with pytest.raises(HostError, match="correct one of them"):
            async with connected_signer(str(tmp_path / "socket"), other):
                pass


@pytest.mark.sandbox
async def test_a_user_who_is_no_client_is_refused(tmp_path: Path) -> None:
    async with unit(tmp_path, clients=[54321]):
        with pytest.raises(HostError, match="nothing can be signed"):
            async with connected_signer(str(tmp_path / "socket"), IDENTITY):
                pass


async def test_where_no_signer_listens_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"no signer answers at .*; start it: secureworker signer"):
        async with connected_signer(str(tmp_path / "socket"), IDENTITY):
            pass


async def test_a_second_signer_does_not_take_the_first_ones_place(tmp_path: Path) -> None:
    async with unit(tmp_path):
        second = subprocess.run(
            [sys.executable, "-m", "secureworker", "signer", "--config", tmp_path / "signer.yml"],
            capture_output=True,
            text=True,
            check=False,
        )
        async with connected_signer(str(tmp_path / "socket"), IDENTITY) as signer:
            await signer.check()

    assert second.returncode == 1
    assert "cannot listen on" in second.stderr


# Settings.


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": 2}, "version"),
        ({"worker-pool": "none"}, "is no worker pool"),
        ({"policies": []}, "policies"),
        ({"keys": "x"}, "is not a known key; did you mean 'key'"),
        ({"retired-keys": ["x"]}, "a public key is"),
        ({"audit-log": "relative"}, "audit-log"),
    ],
)
def test_settings_that_are_wrong_are_said_to_be(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        read_settings(json.dumps(settings_for(tmp_path, **changes)).encode(), "signer.yml")


def test_settings_are_yaml_or_json(tmp_path: Path, key: SigningKey) -> None:
    given = {**settings_for(tmp_path), "retired-keys": [key.public.base64]}
    text = "\n".join(f"{name}: {json.dumps(value)}" for name, value in given.items())

    settings = read_settings(text.encode(), "signer.yml")

    assert settings.bounds.worker == IDENTITY
    assert settings.bounds.policies == frozenset({SHA256})
    assert settings.retired == (key.public,)
    with pytest.raises(SettingsError, match="not JSON"):
        read_settings(b"{", "signer.json")


def signer_command(*arguments: object) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "secureworker", "signer", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_a_signer_without_settings_says_so() -> None:
    for arguments in ((), ("--config-fd", 3), ("--channel-fd", 3)):
        done = signer_command(*arguments)

        assert done.returncode == 2
        assert "a signer needs its settings; give them with --config" in done.stderr


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "the settings name no socket"),
        ({"socket": "/nonexistent/socket"}, "cannot listen on /nonexistent/socket"),
        ({"socket": "SOCKET", "user": "no-such-user"}, "there is no user 'no-such-user'"),
        ({"socket": "SOCKET", "key": "https://example.com"}, "is no scheme of a key URI"),
    ],
)
def test_a_signer_that_cannot_start_says_why(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    settings = {key: str(tmp_path / "socket") if value == "SOCKET" else value for key, value in changes.items()}
    config = tmp_path / "signer.yml"
    config.write_text(json.dumps(settings_for(tmp_path, **settings)))

    done = signer_command("--config", config)

    assert done.returncode == 1
    assert why in done.stderr


def test_a_descriptor_that_is_no_socket_is_said_to_be_none(tmp_path: Path) -> None:
    with (tmp_path / "config").open("w+") as config:
        config.write(json.dumps(settings_for(tmp_path)))
        config.flush()
        config.seek(0)
        argv = ["--config-fd", config.fileno(), "--channel-fd", config.fileno()]
        done = subprocess.run(
            [sys.executable, "-m", "secureworker", "signer", *map(str, argv)],
            pass_fds=[config.fileno()],
            capture_output=True,
            text=True,
            check=False,
        )

    assert done.returncode == 1
    assert "is no socket" in done.stderr


# With a witness that is required.


async def check_without_end(signer: SignerClient) -> None:
    async with asyncio.timeout(20):
        while True:
            await signer.check()


async def test_a_signer_whose_witness_does_not_keep_up_lets_nothing_begin_and_signs_what_has_begun(
    tmp_path: Path,
) -> None:
    witness = WitnessKey("witness.example.org/w1", bytes(32), lambda _, __: False).vkey
    required = {"key": witness, "store": str(tmp_path / "witnessed"), "seconds": 0.001}
    async with unit(tmp_path, witness=required), connected_signer(str(tmp_path / "socket"), IDENTITY) as signer:
        with pytest.raises(AuditError, match=r"has signed for 0 records of .*see what `secureworker audit push` says"):
            await check_without_end(signer)

        assert await signer.sign(a_statement())


@pytest.mark.parametrize(
    ("witness", "why"),
    [
        ({"key": "nonsense", "store": "/x"}, "one word"),
        ({"key": "w+00000000+AAAA", "store": "/x"}, "none for Ed25519 cosignatures"),
        ({"store": "/x"}, "key"),
        ({"key": "k", "store": "relative"}, "store"),
        ({"key": "k", "store": "/x", "seconds": 0}, "seconds"),
    ],
)
def test_a_witness_that_cannot_be_required_is_said_to_be(tmp_path: Path, witness: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        read_settings(json.dumps(settings_for(tmp_path, witness=witness)).encode(), "signer.yml")


@pytest.mark.parametrize("uri", ["file:/a", "credential:a", "pkcs11:token=a;object=b", "hv:a/1"])
def test_what_a_key_takes_is_imported_before_its_reader_becomes_another_user(uri: str) -> None:
    """Python may lie where only who started the signer can read it: as another user it could not load them."""
    code = (
        "import sys\n"
        "from secureworker.signing.keyuris import import_for\n"
        "assert 'cryptography' not in sys.modules\n"
        f"import_for({uri!r})\n"
        "assert 'cryptography.hazmat.primitives.asymmetric.ed25519' in sys.modules\n"
        "assert 'cryptography.exceptions' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
