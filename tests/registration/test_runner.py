"""A worker-runner at the other end of two pipes: what it says is done, and what it is told it can read."""

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from secureworker.core.claim import Credentials, Secret
from secureworker.core.errors import AccessDenied, HostError, ServiceError
from secureworker.host.clock import SystemClock
from secureworker.host.own_credentials import OwnCredentials
from secureworker.registration import runner as module
from secureworker.registration.runner import LONGEST_LINE, Runner, RunnerLog, open_runner
from secureworker.testing import FakeClock

ALL = ["error-report", "graceful-termination", "log", "new-credentials", "shutdown"]
OLD = Credentials("old", Secret("old-token"))


@dataclass
class Peer:
    """worker-runner's end."""

    to_worker: int
    from_worker: int
    heard: bytes = b""

    def say(self, **message: Any) -> None:
        os.write(self.to_worker, b"~" + json.dumps(message).encode() + b"\n")

    async def hear(self) -> dict[str, Any]:
        """Give the next message of the worker."""
        async with asyncio.timeout(10):
            while b"\n" not in self.heard:
                piece = await asyncio.to_thread(os.read, self.from_worker, 65_536)
                assert piece, "the worker said no more"
                self.heard += piece
        line, _, self.heard = self.heard.partition(b"\n")
        assert line.startswith(b"~")
        message: dict[str, Any] = json.loads(line[1:])
        return message

    def hang_up(self) -> None:
        os.close(self.to_worker)
        self.to_worker = -1


@asynccontextmanager
async def a_peer() -> AsyncIterator[tuple[Peer, Any, Any]]:
    """Give worker-runner's end, and the worker's standard input and output."""
    (incoming, to_worker), (from_worker, outgoing) = os.pipe(), os.pipe()
    peer = Peer(to_worker, from_worker)
    try:
        with open(incoming, "rb", buffering=0) as stdin, open(outgoing, "wb", buffering=0) as stdout:
            yield peer, stdin, stdout
    finally:
        for descriptor in (peer.to_worker, from_worker):
            if descriptor >= 0:
                os.close(descriptor)


@asynccontextmanager
async def agreed(*capabilities: str) -> AsyncIterator[tuple[Peer, Runner]]:
    async with a_peer() as (peer, incoming, outgoing):
        peer.say(type="welcome", capabilities=list(capabilities) or ALL)
        async with open_runner(incoming, outgoing) as runner:
            hello = await peer.hear()
            assert hello["type"] == "hello"
            yield peer, runner


@dataclass
class Worker:
    """Notes what it is told, and knows which credentials are good."""

    own: OwnCredentials = field(default_factory=lambda: OwnCredentials(OLD))
    told: list[str] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    checks: list[Exception] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)

    def drain(self, reason: str) -> None:
        self._tell(f"drain: {reason}")

    def now(self, reason: str) -> None:
        self._tell(f"now: {reason}")

    def _tell(self, what: str) -> None:
        self.told.append(what)
        self.heard.set()

    async def check(self, fresh: Credentials) -> None:
        self.checked.append(fresh.client_id)
        self.heard.set()
        if self.checks:
            raise self.checks.pop(0)

    async def hears(self) -> None:
        async with asyncio.timeout(10):
            await self.heard.wait()
        self.heard.clear()


@asynccontextmanager
async def served(runner: Runner, worker: Worker, clock: Any = None) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(runner.serve(worker.own, worker.check, worker, clock or SystemClock()))
        yield
        serving.cancel()


@pytest.mark.parametrize(
    ("offered", "taken"),
    [(ALL, ALL), ([], []), (["log", "from-the-future"], ["log"]), (["shutdown", "log"], ["log", "shutdown"])],
)
async def test_what_both_know_is_agreed_on(offered: list[str], taken: list[str]) -> None:
    async with a_peer() as (peer, incoming, outgoing):
        os.write(peer.to_worker, b"starting worker\n")
        peer.say(type="welcome", capabilities=offered)
        async with open_runner(incoming, outgoing):
            assert await peer.hear() == {"type": "hello", "capabilities": taken}


async def test_without_a_welcome_the_worker_does_not_start() -> None:
    async with a_peer() as (peer, incoming, outgoing):
        peer.say(type="graceful-termination", **{"finish-tasks": True})
        peer.hang_up()
        with pytest.raises(HostError, match="ended before worker-runner's welcome; do not use --with-worker-runner"):
            async with open_runner(incoming, outgoing):
                raise AssertionError


async def test_a_standard_input_that_is_no_pipe_is_said_to_be_none(tmp_path: Any) -> None:
    async with a_peer() as (_, _, outgoing):
        (tmp_path / "file").touch()
        with open(tmp_path / "file", "rb", buffering=0) as file, pytest.raises(HostError, match="are no pipes"):
            async with open_runner(file, outgoing):
                raise AssertionError


@pytest.mark.parametrize(
    ("finish", "told"),
    [
        (True, "drain: worker-runner asked to end when running tasks have"),
        (False, "now: worker-runner asked to end at once"),
    ],
)
async def test_graceful_termination_ends_the_worker_with_or_without_its_tasks(*, finish: bool, told: str) -> None:
    worker = Worker()
    async with agreed() as (peer, runner), served(runner, worker):
        peer.say(type="graceful-termination", **{"finish-tasks": finish})
        await worker.hears()
        assert worker.told == [told]


def offer(peer: Peer, name: str) -> None:
    peer.say(type="new-credentials", **{"client-id": name, "access-token": "t", "certificate": ""})


async def test_new_credentials_are_used_once_they_are_checked() -> None:
    worker = Worker()
    async with agreed() as (peer, runner), served(runner, worker):
        async with asyncio.TaskGroup() as group:
            taken = group.create_task(worker.own.taken())
            offer(peer, "new")
            async with asyncio.timeout(10):
                await taken
        assert worker.checked == ["new"]
        assert worker.own.current() == Credentials("new", Secret("t"))


@pytest.mark.parametrize("problem", [HostError("they can do more"), AccessDenied("unknown")])
async def test_new_credentials_that_are_not_right_are_not_used(
    problem: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(checks=[problem])
    async with agreed() as (peer, runner), served(runner, worker):
        offer(peer, "wrong")
        await worker.hears()
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(worker.own.taken())
            offer(peer, "right")
    assert worker.own.current().client_id == "right"
    assert "are not used: " in caplog.text


async def test_new_credentials_that_cannot_be_checked_now_are_checked_again() -> None:
    worker = Worker(checks=[ServiceError("away"), ServiceError("away")])
    clock = _Patience()
    async with agreed() as (peer, runner), served(runner, worker, clock), asyncio.TaskGroup() as group:
        taken = group.create_task(worker.own.taken())
        offer(peer, "new")
        async with asyncio.timeout(10):
            await taken
    assert worker.checked == ["new", "new", "new"]
    assert clock.slept == [module.CHECK_AGAIN_SECONDS] * 2


class _Patience(FakeClock):
    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def test_when_worker_runner_goes_away_the_worker_drains() -> None:
    worker = Worker()
    async with agreed() as (peer, runner), served(runner, worker):
        peer.hang_up()
        await worker.hears()
        assert worker.told == ["drain: worker-runner is gone"]


async def test_what_is_not_understood_is_skipped_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()
    caplog.set_level(logging.DEBUG)
    async with agreed() as (peer, runner), served(runner, worker):
        os.write(peer.to_worker, b'canary of a log\n~{canary\n~{"type": "x"}\r\n')
        peer.say(type="welcome", capabilities=[])
        peer.say(type="graceful-termination", **{"finish-tasks": True})
        await worker.hears()
    assert worker.told == ["drain: worker-runner asked to end when running tasks have"]
    assert "a message is no JSON" in caplog.text
    assert "says 'x', which" in caplog.text
    assert "says welcome again" in caplog.text
    assert "canary" not in caplog.text


async def test_a_line_without_end_is_skipped() -> None:
    worker = Worker()
    async with agreed() as (peer, runner), served(runner, worker):
        flood = b"~{" + b"x" * (3 * LONGEST_LINE) + b"\n"
        await asyncio.to_thread(_write_all, peer.to_worker, flood)
        peer.say(type="graceful-termination", **{"finish-tasks": True})
        await worker.hears()
        assert len(worker.told) == 1


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


async def test_errors_logs_and_the_end_are_told() -> None:
    async with agreed() as (peer, runner):
        runner.report_error("t" * 200, "d", {"n": 1})
        runner.log({"textPayload": "hello"})
        runner.remove_worker()
        report = await peer.hear()
        assert (report["type"], report["kind"], len(report["title"])) == ("error-report", "worker-error", 128)
        assert (report["description"], report["extra"]) == ("d", {"n": 1})
        assert await peer.hear() == {"type": "log", "body": {"textPayload": "hello"}}
        assert await peer.hear() == {"type": "shutdown"}


async def test_what_was_not_agreed_on_is_not_told() -> None:
    async with agreed("log") as (peer, runner):
        runner.report_error("t", "d", {})
        runner.remove_worker()
        runner.log({"textPayload": "last"})
        assert (await peer.hear())["body"] == {"textPayload": "last"}


async def test_the_workers_log_is_handed_over_from_any_thread() -> None:
    async with agreed() as (peer, runner):
        handler = RunnerLog(runner, asyncio.get_running_loop())
        record = logging.LogRecord("secureworker.a", logging.WARNING, "", 0, "name\x1b %s", ("here",), None)
        await asyncio.to_thread(handler.emit, record)
        body = (await peer.hear())["body"]
    assert body == {"textPayload": "name\\x1b here", "level": "warning", "logger": "secureworker.a"}


async def test_a_worker_runner_that_does_not_read_gets_no_more_logs_and_holds_nothing_up() -> None:
    async with a_peer() as (peer, incoming, outgoing):
        peer.say(type="welcome", capabilities=ALL)
        async with open_runner(incoming, outgoing) as runner:
            for _ in range(1000):
                runner.log({"textPayload": "x" * 10_000})
            assert runner._writer.get_write_buffer_size() < module.MOST_UNSENT + 20_000
            peer_reads = asyncio.to_thread(_read_all, peer.from_worker)
            async with asyncio.TaskGroup() as group:
                group.create_task(peer_reads)
                await runner.flush()
                runner._writer.close()


def _read_all(descriptor: int) -> int:
    count = 0
    while piece := os.read(descriptor, 1 << 20):
        count += len(piece)
    return count


async def test_a_worker_runner_that_closed_its_ear_is_no_error() -> None:
    async with a_peer() as (peer, incoming, outgoing):
        peer.say(type="welcome", capabilities=ALL)
        async with open_runner(incoming, outgoing) as runner:
            await peer.hear()
            os.close(peer.from_worker)
            peer.from_worker = os.open("/dev/null", os.O_RDONLY)
            for _ in range(3):
                runner.log({"textPayload": "is anybody there"})
                await asyncio.sleep(0)
            await runner.flush()
