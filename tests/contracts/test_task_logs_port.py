"""The ports `TaskLogs` and `OpenTaskLog`: the file and the fake keep the same promises."""

from collections.abc import Callable
from pathlib import Path

import pytest

from secureworker.core.secrets import SecretBytes
from secureworker.host.tasklog import FileTaskLogs, LogSettings
from secureworker.ports import Artifact, TaskLogs
from secureworker.testing import SHA256, FakeClock, FakeRun, FakeTaskLogs, a_claim

Make = Callable[[Path], TaskLogs]


def the_real_one(directory: Path) -> TaskLogs:
    return FileTaskLogs(LogSettings(str(directory), SHA256), FakeClock())


def the_fake(directory: Path) -> TaskLogs:
    return FakeTaskLogs()


each = pytest.mark.parametrize("make", [the_real_one, the_fake])


def a_run() -> FakeRun:
    return FakeRun(a_claim(), FakeClock())


@each
async def test_a_finished_log_is_the_artifact_of_its_name(make: Make, tmp_path: Path) -> None:
    async with make(tmp_path).open(a_run()) as log:
        log.note("begin")
        log.cap(1024)
        log.output(b"\xff\0 output")
        log.error("end")
        artifact = await log.finish()

    assert isinstance(artifact, Artifact)
    assert artifact.name == "public/logs/live_backing.log"
    assert artifact.content_type.startswith("text/plain")
    assert artifact.size > 0


@each
async def test_what_comes_after_the_finish_is_lost(make: Make, tmp_path: Path) -> None:
    async with make(tmp_path).open(a_run()) as log:
        finished = await log.finish()
        log.note("late")
        log.error("late")
        log.output(b"late")
        again = await log.finish()

    assert again == finished


@each
async def test_a_log_can_be_left_unfinished(make: Make, tmp_path: Path) -> None:
    async with make(tmp_path).open(a_run()) as log:
        log.output(b"output")

    assert list(tmp_path.iterdir()) == []


@each
async def test_what_is_masked_is_not_in_what_the_script_writes_from_then_on(make: Make, tmp_path: Path) -> None:
    async with make(tmp_path).open(a_run()) as log:
        log.mask((SecretBytes(b"canary-one"),))
        log.mask((SecretBytes(b"canary-two"),))
        log.output(b"one: canary-one, two: canary-two.\n")
        artifact = await log.finish()
        text = Path(artifact.path).read_text() if Path(artifact.path).exists() else getattr(log, "text", "")
    assert "one: [masked], two: [masked]." in text
    assert "canary" not in text
