"""Signs of life: to the service manager, in files, in log lines, and only while there is life."""

import asyncio
import json
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from secureworker.core.happening import Claimed, Hindrance, Phase, PhaseEntered, SelfTested, State, StateEntered
from secureworker.core.ids import RunId, TaskId
from secureworker.host.clock import SystemClock
from secureworker.host.published import replace_file
from secureworker.operation.around import OperationSettings, operated
from secureworker.operation.files import HEARTBEAT_SECONDS, heartbeat, write_every
from secureworker.operation.heart import LONGEST_ROUND_SECONDS, Heart
from secureworker.operation.notices import Announcer, Notices, show_life
from secureworker.operation.server_http import Request
from secureworker.operation.worker_metrics import Whereabouts, WorkerMetricsLines
from secureworker.testing import IDENTITY, TASK_ID, FakeClock, run_virtual

RUN = (TaskId(TASK_ID), RunId(1))
ASKED = Request("GET", "/", {}, {})


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a thread does."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - files and log lines set no event
            await asyncio.sleep(0.01)


class Manager:
    """A service manager: takes notices at a socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.channel.setblocking(False)  # noqa: FBT003 - the socket's own signature
        self.channel.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def told(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self.channel.recv(4096).decode())
            except BlockingIOError:
                return found


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify") if request.param == "path" else f"@secureworker-test-{os.getpid()}")
    yield made
    made.channel.close()


# Notices


def test_notices_reach_the_service_manager(manager: Manager) -> None:
    notices = Notices(manager.address)
    notices.ready()
    notices.reloading()
    notices.stopping()
    ready, reloading, stopping = manager.told()
    assert ready == "READY=1"
    first, second = reloading.split("\n")
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")
    assert int(second.partition("=")[2]) > 0
    assert stopping == "STOPPING=1"


def test_what_the_service_manager_says_is_taken_out_of_the_environment(manager: Manager) -> None:
    environment = {
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": "3000000",
        "WATCHDOG_PID": str(os.getpid()),
        "PATH": "/bin",
    }
    notices = Notices.taken(environment)
    assert environment == {"PATH": "/bin"}
    assert notices.watchdog_seconds == 3
    notices.ready()
    assert manager.told() == ["READY=1"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "3000000"},
        {"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "3000000"},
        {"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "x"},
    ],
)
def test_where_nobody_waits_nobody_is_told(environment: dict[str, str]) -> None:
    notices = Notices.taken(environment)
    notices.ready()
    assert notices.watchdog_seconds is None
    assert environment == {}


@pytest.mark.parametrize(("pid", "microseconds"), [("1", "3000000"), ("", "0"), ("", "soon")])
def test_a_watchdog_that_is_not_ours_is_not_fed(tmp_path: Path, pid: str, microseconds: str) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": microseconds, "WATCHDOG_PID": pid}
    assert Notices.taken(environment).watchdog_seconds is None


def test_a_service_manager_that_is_gone_or_does_not_listen_ends_nothing(tmp_path: Path) -> None:
    Notices(str(tmp_path / "none")).ready()
    deaf = Manager(str(tmp_path / "deaf"))
    notices = Notices(deaf.address)
    for _ in range(10_000):
        notices.send("x" * 1000)
    deaf.channel.close()


def test_the_status_line_says_what_the_worker_is_at(manager: Manager) -> None:
    announcer = Announcer(Notices(manager.address))
    announcer.saw(StateEntered(State.CLAIMING))
    announcer.saw(Claimed(*RUN, "name\nREADY=1\nMAINPID=1"))
    announcer.saw(PhaseEntered(*RUN, Phase.RUNNING))
    announcer.saw(SelfTested(3))
    announcer.saw(PhaseEntered(*RUN, Phase.ENDED))
    announcer.saw(StateEntered(State.UNANSWERED, "no\nREADY=1\n" + "x" * 1000))
    told = manager.told()
    assert told[:3] == ["STATUS=claiming, 0 runs", "STATUS=claiming, 1 run", "STATUS=claiming, 0 runs"]
    assert told[3].startswith("STATUS=unanswered, 0 runs: no READY=1 xxx")
    assert "\n" not in told[3]
    assert len(told[3]) < 600


def test_no_error_keeps_the_service_manager_from_being_told(manager: Manager) -> None:
    # JSON may hold half of a character, which no encoding has, and a NUL, at which systemd drops a notice.
    Announcer(Notices(manager.address)).saw(StateEntered(State.UNANSWERED, "500: \ud800\x00\x1b[2J"))
    assert manager.told() == ["STATUS=unanswered, 0 runs: 500: \\ud800\\x00\\x1b[2J"]


# The heart


def alive_in(state: State, seconds: float) -> bool:
    async def main() -> bool:
        clock = FakeClock()
        heart = Heart(clock)
        heart.saw(StateEntered(state))
        await clock.sleep(seconds)
        return heart.stuck_seconds == 0

    return run_virtual(main())


@pytest.mark.parametrize("state", list(State))
def test_a_loop_that_should_come_round_and_does_not_is_stuck(state: State) -> None:
    rounds = {State.CLAIMING, State.HINDERED, State.UNANSWERED}
    assert alive_in(state, LONGEST_ROUND_SECONDS - 1)
    assert alive_in(state, LONGEST_ROUND_SECONDS + 1) is (state not in rounds)


def test_each_look_before_a_claim_is_a_sign_of_life() -> None:
    async def main() -> None:
        clock, rounds = FakeClock(), []
        heart = Heart(clock, lambda: rounds.append(clock.monotonic()))
        heart.saw(StateEntered(State.CLAIMING))
        heart.saw(SelfTested(1))
        for _ in range(10):
            await clock.sleep(LONGEST_ROUND_SECONDS - 1)
            assert await heart.hindrances(1) == ()
            assert heart.able
        assert len(rounds) == 11
        for happening, running in ((Claimed(*RUN, "a task"), 1), (PhaseEntered(*RUN, Phase.ENDED), 0)):
            heart.saw(happening)
            assert heart.running == running
        heart.saw(StateEntered(State.HINDERED, "full", (Hindrance("disk", "full"),)))
        assert not heart.able

    run_virtual(main())


def test_the_watchdog_is_fed_twice_in_its_time_and_only_while_there_is_life(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = Manager(str(tmp_path / "notify"))

    async def main() -> None:
        clock = FakeClock()
        heart = Heart(clock)
        heart.saw(StateEntered(State.CLAIMING))
        feeding = asyncio.ensure_future(show_life(Notices(manager.address, 30.0), heart, clock))
        await clock.sleep(59)
        assert manager.told() == ["WATCHDOG=1"] * 4
        await clock.sleep(LONGEST_ROUND_SECONDS)
        manager.told()
        await clock.sleep(60)
        assert manager.told() == []
        await heart.hindrances(1)
        await clock.sleep(60)
        assert manager.told() == ["WATCHDOG=1"] * 4
        feeding.cancel()

    run_virtual(main())
    manager.channel.close()
    assert "the claim loop has not come round" in caplog.text


# Files


def test_a_file_is_replaced_as_a_whole_for_everybody_to_read(tmp_path: Path) -> None:
    path = tmp_path / "secureworker.prom"
    for content in (b"first", b"second"):
        replace_file(str(path), content)
        assert path.read_bytes() == content
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_what_cannot_be_put_in_its_place_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(str(path), b"content")
    assert [each.name for each in tmp_path.iterdir()] == ["taken"]


async def test_a_file_that_cannot_be_written_is_said_once_and_written_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "later" / "file"
    turns = asyncio.Queue[float]()

    class Turns:
        async def sleep(self, seconds: float) -> None:
            turns.put_nowait(seconds)
            await asyncio.sleep(0.001)

    writing = asyncio.ensure_future(write_every(5, str(path), lambda: b"x", Turns()))  # type: ignore[arg-type] # sleeps
    for _ in range(3):
        assert await turns.get() == 5
    path.parent.mkdir()
    while "is written again" not in caplog.text:
        await turns.get()
    writing.cancel()
    assert caplog.text.count("cannot be written: No such file or directory") == 1
    assert path.read_bytes() == b"x"


def test_a_stuck_worker_lets_its_heartbeat_become_old() -> None:
    async def main() -> None:
        clock = FakeClock()
        heart = Heart(clock)
        heart.saw(StateEntered(State.CLAIMING))
        beat = heartbeat(heart, clock)
        assert beat is not None
        told = json.loads(beat)
        assert (told["state"], told["able"], told["alive"]) == ("claiming", True, True)
        await clock.sleep(LONGEST_ROUND_SECONDS + 1)
        assert heartbeat(heart, clock) is None

    run_virtual(main())


# All together


async def test_everything_that_looks_begins_and_ends_with_the_worker(
    tmp_path: Path, manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    textfile, beat = tmp_path / "worker.prom", tmp_path / "heartbeat"
    caplog.set_level(logging.INFO)
    settings = OperationSettings(Notices(manager.address, 20.0), str(textfile), str(beat), worker_metrics=True)
    async with operated(settings, IDENTITY, SystemClock()) as operation:
        for watcher in operation.watchers:
            watcher.saw(StateEntered(State.HINDERED, "full", (Hindrance("disk", "full"),)))
        await until(lambda: textfile.exists() and beat.exists())
        health = operation.routes["/health"](ASKED)
        assert health.status == 503
        assert json.loads(health.body)["hindrances"] == [{"what": "disk", "why": "full"}]
        metrics = operation.routes["/metrics"](ASKED)
        assert metrics.content_type.startswith("text/plain; version=")
        assert b'secureworker_hindrance{what="disk"} 1.0' in metrics.body
        operation.heart.saw(StateEntered(State.CLAIMING))
        assert operation.routes["/health"](ASKED).status == 200
    booted = json.loads(caplog.messages[0].removeprefix("WORKER_METRICS "))
    assert booted["eventType"] == "instanceBoot"
    assert 0 < booted["timestamp"] <= datetime.now(UTC).timestamp()
    told = manager.told()
    assert told[0] == "STATUS=starting"
    assert "WATCHDOG=1" in told
    assert "STATUS=hindered, 0 runs: full" in told
    assert told[-1] == "STOPPING=1"
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_error_in_looking_ends_nothing_and_one_of_the_worker_is_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        now = staticmethod(SystemClock().now)
        monotonic = staticmethod(SystemClock().monotonic)

        async def sleep(self, seconds: float) -> None:
            raise RuntimeError(f"cannot sleep for {seconds}")

    settings = OperationSettings(heartbeat=str(tmp_path / "heartbeat"))

    async def work() -> None:
        async with operated(settings, IDENTITY, Broken()):
            await until(lambda: "it goes on" in caplog.text)
            raise KeyError("the worker's own")

    with pytest.raises(KeyError, match="the worker's own"):
        await work()
    assert f"cannot sleep for {HEARTBEAT_SECONDS}" in caplog.text


# Lines as generic-worker writes them


def test_lines_are_as_generic_worker_writes_them() -> None:
    lines: list[str] = []

    async def main() -> None:
        clock = FakeClock()
        watcher = WorkerMetricsLines(IDENTITY, clock, Whereabouts("dc1", "hsm-2"), lines.append)
        watcher.boot(datetime(2026, 1, 1, tzinfo=UTC))
        for _ in range(2):
            watcher.saw(StateEntered(State.CLAIMING))
        watcher.saw(StateEntered(State.FULL))
        watcher.saw(Claimed(*RUN, "a hostile name", datetime(2026, 1, 31, 11, tzinfo=UTC)))
        watcher.saw(PhaseEntered(*RUN, Phase.RUNNING))
        watcher.saw(PhaseEntered(*RUN, Phase.ENDED))
        watcher.saw(Claimed(*RUN, "of an odd definition"))

    run_virtual(main())
    assert all(line.startswith("WORKER_METRICS {") for line in lines)
    told = [json.loads(line.removeprefix("WORKER_METRICS ")) for line in lines]
    noon = 1769860800
    assert [(each["eventType"], each["timestamp"]) for each in told] == [
        ("instanceBoot", 1767225600),
        ("workerReady", noon),
        ("taskQueued", noon - 3600),
        ("taskStart", noon),
        ("taskFinish", noon),
        ("taskStart", noon),
    ]
    of_all = {
        "worker": "secureworker",
        "workerPoolId": str(IDENTITY.pool),
        "workerId": IDENTITY.worker_id,
        "region": "dc1",
        "instanceType": "hsm-2",
    }
    assert all(of_all.items() <= each.items() for each in told)
    assert set(told[0]) == {*of_all, "eventType", "timestamp"}
    assert (told[3]["taskId"], told[3]["runId"]) == (TASK_ID, 1)
    assert not any("hostile" in line for line in lines)
