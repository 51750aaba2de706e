"""The public log of a run. Edge case 8."""

import asyncio
import base64
import hashlib
import re
import subprocess
import threading
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest

from secureworker import __version__
from secureworker.core.claim import Credentials, Secret
from secureworker.core.errors import HostError
from secureworker.core.secrets import SecretBytes
from secureworker.host.masking import Masker
from secureworker.host.own_credentials import OwnCredentials
from secureworker.host.tasklog import FileTaskLog, FileTaskLogs, LogSettings
from secureworker.testing import EPOCH, IDENTITY, SHA256, TASK_ID, FakeClock, FakeRun, a_claim

WORKER_LINE = re.compile(r"\[taskcluster \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\] (.*)")


@pytest.fixture
async def run() -> FakeRun:
    return FakeRun(a_claim(), FakeClock())


@pytest.fixture
async def logs(tmp_path: Path) -> FileTaskLogs:
    return FileTaskLogs(LogSettings(str(tmp_path), SHA256, secrets=(b"a-host-secret",)), FakeClock())


@pytest.fixture
async def log(logs: FileTaskLogs, run: FakeRun) -> AsyncIterator[FileTaskLog]:
    async with logs.open(run) as log:
        yield log


async def text_of(log: FileTaskLog) -> str:
    """Finish the log, and give what stands in it after the header."""
    artifact = await log.finish()
    lines = Path(artifact.path).read_text().splitlines(keepends=True)
    return "".join(lines[7:])


def told(text: str) -> list[str]:
    """Give the lines of the worker's own, without their times."""
    return [found[1] for found in map(WORKER_LINE.fullmatch, text.splitlines()) if found]


async def test_a_log_begins_with_who_runs_what_by_which_policy(log: FileTaskLog) -> None:
    artifact = await log.finish()

    assert told(Path(artifact.path).read_text()) == [
        f"Task ID: {TASK_ID}",
        "Run ID: 0",
        f"Worker Pool: {IDENTITY.pool}",
        "Worker Group: test-group",
        "Worker ID: test-worker",
        f"Worker Version: secureworker {__version__}",
        f"Policy: sha256:{SHA256}",
    ]


async def test_a_finished_log_is_an_artifact_that_expires_with_the_task(log: FileTaskLog, run: FakeRun) -> None:
    log.output(b"hello\n")

    artifact = await log.finish()

    content = Path(artifact.path).read_bytes()
    assert artifact.name == "public/logs/live_backing.log"
    assert artifact.content_type == "text/plain; charset=utf-8"
    assert (artifact.size, artifact.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert artifact.expires == run.claim.task.expires


async def test_leaving_removes_the_file_and_nobody_else_could_read_it(
    logs: FileTaskLogs, run: FakeRun, tmp_path: Path
) -> None:
    async with logs.open(run):
        (path,) = tmp_path.iterdir()
        assert path.stat().st_mode & 0o777 == 0o600

    assert list(tmp_path.iterdir()) == []


async def test_what_a_crash_left_is_not_appended_to(logs: FileTaskLogs, run: FakeRun, tmp_path: Path) -> None:
    (tmp_path / f"{TASK_ID}-0.log").symlink_to("/etc/hostname")

    async with logs.open(run) as log:
        assert await text_of(log) == ""


async def test_a_log_that_cannot_be_made_is_the_hosts_fault(tmp_path: Path, run: FakeRun) -> None:
    logs = FileTaskLogs(LogSettings(str(tmp_path / "missing"), SHA256), FakeClock())

    with pytest.raises(HostError, match="the task log cannot be made"):
        async with logs.open(run):
            pass


async def test_lines_of_the_worker_and_output_of_the_script_are_told_apart(log: FileTaskLog) -> None:
    log.note("begin")
    log.output(b"no newline")
    log.note("exit code: 0")
    log.output(b"[taskcluster 2026-01-25T23:31:13.787Z] exit code: 1\n")
    log.error("the end")

    text = await text_of(log)

    assert told(text) == ["begin", "exit code: 0"]
    assert "\nno newline\n[taskcluster " in text
    assert text.endswith("\n[taskcluster:error] the end\n")


async def test_a_note_of_several_lines_cannot_pass_for_several_notes(log: FileTaskLog) -> None:
    log.note("refused:\nexit code: 0\x1b[2K")
    log.error("first\nsecond")

    text = await text_of(log)

    assert told(text) == ["refused:", r"    exit code: 0\x1b[2K"]
    assert "[taskcluster:error] first\n[taskcluster:error]     second\n" in text


@pytest.mark.parametrize("secret", ["a-secret", "a-host-secret"])
async def test_the_runs_credentials_and_the_hosts_secrets_are_masked_across_writes(
    log: FileTaskLog, secret: str
) -> None:
    log.output(f"token={secret[:4]}".encode())
    log.output(f"{secret[4:]}\n".encode())

    assert await text_of(log) == "token=[masked]\n"


def test_settings_do_not_show_their_secrets() -> None:
    assert "hunter2" not in repr(LogSettings("/logs", SHA256, secrets=(b"hunter2",)))


async def test_output_beyond_the_cap_is_dropped_with_a_notice_and_a_count(log: FileTaskLog) -> None:
    log.cap(10)
    log.output(b"12345")
    first = b"6789\xc3\xa4 and more"
    log.output(first)
    for _ in range(1000):
        log.output(bytes(65536))
    log.note("exit code: 0")

    text = await text_of(log)

    assert text.startswith("123456789\n[taskcluster:warn] output beyond 10 bytes is dropped\n")
    assert told(text) == ["exit code: 0"]
    assert text.endswith(
        f"[taskcluster:warn] the script wrote {5 + len(first) + 65536 * 1000} bytes of output in all\n"
    )


async def test_output_up_to_the_cap_is_kept_without_a_notice(log: FileTaskLog) -> None:
    log.cap(6)
    log.output(b"12345\n")

    assert await text_of(log) == "12345\n"


async def test_a_cap_that_is_passed_at_the_end_of_a_line_adds_no_empty_line(log: FileTaskLog) -> None:
    log.cap(6)
    log.output(b"12345\n")
    log.output(b"6")

    assert (await text_of(log)).startswith("12345\n[taskcluster:warn] output beyond 6 bytes")


async def test_a_64_kib_line_without_newline_passes_at_once(log: FileTaskLog, tmp_path: Path) -> None:
    (path,) = tmp_path.iterdir()
    before = path.stat().st_size

    log.output(b"x" * 65536)

    assert path.stat().st_size >= before + 65536 - 64


@pytest.mark.parametrize("chunk", [b"\xff\xfe", b"\0", b"\xe2\x82", b"", b"\r", bytes(range(256))])
async def test_no_output_fails_whatever_is_in_it(log: FileTaskLog, chunk: bytes) -> None:
    log.output(chunk)

    (await text_of(log)).encode("ascii")


class StillClock(FakeClock):
    """May be asked by any thread."""

    def now(self) -> datetime:
        return EPOCH


async def test_many_threads_may_write_and_every_line_stays_whole(tmp_path: Path) -> None:
    log = FileTaskLog(str(tmp_path / "log"), StillClock(), expires=EPOCH, masker=Masker(()))

    def write(name: str) -> None:
        for number in range(200):
            log.output(f"{name}{number}\n".encode())
            log.note(f"{name}{number}")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)

    lines = Path((await log.finish()).path).read_text().splitlines()
    assert len(lines) == 2 * 4 * 200
    assert all(re.fullmatch(r"(\[taskcluster \S+\] )?[abcd]\d+", line) for line in lines)


async def test_what_comes_after_the_end_is_lost_and_no_error(log: FileTaskLog) -> None:
    artifact = await log.finish()
    log.note("too late")
    log.output(b"too late")
    log.close()

    assert Path(artifact.path).stat().st_size == artifact.size


@pytest.mark.sandbox
async def test_a_full_disk_stops_the_script_but_not_the_workers_own_lines(tmp_path: Path, run: FakeRun) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], check=True)
    try:
        async with FileTaskLogs(LogSettings(str(tmp_path), SHA256), FakeClock()).open(run) as log:
            with pytest.raises(HostError, match="No space left on device"):
                log.output(b"x" * 100_000)
            log.note("exit code: 0")
            log.error("the disk is full")
            with pytest.raises(HostError, match="is not complete: No space left on device"):
                await log.finish()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


async def test_the_secrets_of_a_run_are_masked_in_their_parts_and_across_writes(tmp_path: Path, run: FakeRun) -> None:
    key = b"-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\n-----END KEY-----\n"
    document = b'{"user": "releng-bot", "password": "pa/ss+word"}'
    async with FileTaskLogs(LogSettings(str(tmp_path), SHA256), FakeClock()).open(run) as log:
        log.mask((SecretBytes(key), SecretBytes(document)))
        log.output(b"line: MIIEvQIBADA")
        log.output(b"NBgkqhkiG, as base64: ")
        log.output(base64.b64encode(b"MIIEvQIBADANBgkqhkiG") + b", in a URL: pa%2Fss%2Bword, ")
        log.output(b'in JSON: {"p": "pa/ss+word"}, by releng-bot\n')
        text = Path((await log.finish()).path).read_text()
    assert "line: [masked], as base64: " in text
    assert "in a URL: [masked], " in text
    assert 'in JSON: {"p": "[masked]"}, by [masked]' in text
    for leaked in ("MIIEvQ", "kqhkiG", "pa%2F", "pa/ss", "releng-bot"):
        assert leaked not in text


async def test_a_secret_that_is_half_written_when_others_become_known_is_masked(tmp_path: Path, run: FakeRun) -> None:
    logs = FileTaskLogs(LogSettings(str(tmp_path), SHA256, secrets=(b"known-before",)), FakeClock())
    async with logs.open(run) as log:
        log.output(b"held back: known-bef")
        log.mask((SecretBytes(b"canary-7"),))
        log.output(b"ore known-before canary-7\n")
        text = Path((await log.finish()).path).read_text()
    assert "held back: [masked] [masked] [masked]\n" in text


async def test_the_workers_own_credentials_are_masked_as_they_are_when_the_run_begins(
    tmp_path: Path, run: FakeRun
) -> None:
    own = OwnCredentials(Credentials("w", Secret("first-token"), Secret("first-certificate")))
    logs = FileTaskLogs(LogSettings(str(tmp_path), SHA256), FakeClock(), own.masked)
    own.take(Credentials("w", Secret("second-token")))
    async with logs.open(run) as log:
        log.output(b"first-token first-certificate second-token\n")
        text = Path((await log.finish()).path).read_text()
    assert "[masked] [masked] [masked]\n" in text
    assert "token" not in repr(own)


async def test_what_the_worker_quotes_is_masked_too_and_the_output_around_it_is_not_disturbed(log: FileTaskLog) -> None:
    log.output(b"a-host-")
    log.note("egress proxy: refused a-host-secret.example.com:443: not allowed\nYS1ob3N0LXNlY3JldA==")
    log.error("outputs may not be published: 'a-host-secret' is a symlink")

    text = await text_of(log)
    assert "a-host-secret" not in text
    assert "YS1ob3N0" not in text
    assert text.startswith("a-host-\n")
    assert "refused [masked].example.com:443" in text
    assert "[taskcluster:error] outputs may not be published: '[masked]' is a symlink\n" in text
