"""Where credentials come from, that they are checked, and that nothing is claimed with credentials that end."""

import asyncio
import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from secureworker.core.claim import Credentials, Secret
from secureworker.core.errors import AccessDenied, HostError, ServiceError, SettingsError
from secureworker.core.ids import WorkerIdentity
from secureworker.core.registration import Registered
from secureworker.host.own_credentials import OwnCredentials
from secureworker.registration.expiry import watch_expiry
from secureworker.registration.source import (
    CredentialsFile,
    FromRunner,
    Held,
    Source,
    StaticProvider,
    Surroundings,
    begin,
)
from secureworker.registration.watched import LOOK_SECONDS
from secureworker.testing import IDENTITY, ROOT_URL, FakeClock
from tests.registration.threadless import run_virtual


def credentials(name: str, clock: FakeClock | None = None, minutes: float = 0) -> Credentials:
    if clock is None:
        return Credentials(name, Secret(f"canary-{name}"))
    until = round((clock.now() + timedelta(minutes=minutes)).timestamp() * 1000)
    return Credentials(name, Secret(f"canary-{name}"), Secret(json.dumps({"expiry": until})))


class Ending:
    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.begun = clock.now()
        self.told: list[str] = []

    def drain(self, reason: str) -> None:
        self.told.append(f"{(self.clock.now() - self.begun).total_seconds() / 60:g} min: {reason}")

    def now(self, reason: str) -> None:
        raise AssertionError(reason)


class Checking:
    """Notes what is checked, and refuses what it is told to."""

    def __init__(self, *problems: Exception | None) -> None:
        self.problems = list(problems)
        self.checked: list[str] = []

    async def __call__(self, fresh: Credentials) -> None:
        self.checked.append(fresh.client_id)
        problem = self.problems.pop(0) if self.problems else None
        if problem is not None:
            raise problem


class Manager:
    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    async def register(self, identity: WorkerIdentity, provider_id: str, static_secret: Secret) -> Registered:
        assert (identity, provider_id, static_secret) == (IDENTITY, "static", Secret("s" * 44))
        return Registered(credentials("registered"), self.clock.now() + timedelta(hours=1), Secret("next"))

    async def reregister(self, identity: WorkerIdentity, last: Registered) -> Registered:
        assert (identity, last.secret) == (IDENTITY, Secret("next"))
        return Registered(credentials("again"), self.clock.now() + timedelta(hours=1), Secret("after"))


def around(clock: FakeClock, check: Checking) -> Surroundings:
    return Surroundings(IDENTITY, ROOT_URL, Manager(clock), check, clock)


async def keep(held: Held, ending: Ending, clock: FakeClock, *steps: tuple[float, Callable[[], Any]]) -> None:
    """Run the keepers beside steps: after so many seconds, do this."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(keeper) for keeper in held.keepers(ending)]
        for seconds, step in steps:
            await clock.sleep(seconds)
            step()
        for task in tasks:
            task.cancel()


def nothing() -> None:
    """Let time pass."""


# Ends


def test_the_worker_drains_before_its_credentials_end() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        ending = Ending(clock)
        held = await begin(credentials("w", clock, 120), around(clock, Checking()))
        await keep(held, ending, clock, (3 * 3600, nothing))
        (told,) = ending.told
        assert told.startswith("115 min: the worker's credentials end at ")
        assert "canary" not in told

    run_virtual(scenario())


def test_credentials_that_do_not_end_drain_nothing() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        ending = Ending(clock)
        held = await begin(credentials("w"), around(clock, Checking()))
        await keep(held, ending, clock, (10 * 24 * 3600, nothing))
        assert ending.told == []

    run_virtual(scenario())


def test_others_that_come_in_time_go_on_without_a_pause() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        ending = Ending(clock)
        own = OwnCredentials(credentials("a", clock, 60))
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch_expiry(own, clock, ending.drain))
            await clock.sleep(50 * 60)
            own.take(credentials("b", clock, 60))
            await clock.sleep(50 * 60)
            own.take(credentials("c"))
            await clock.sleep(50 * 60)
            assert ending.told == []
            own.take(credentials("d", clock, 10))
            await clock.sleep(50 * 60)
            watching.cancel()
        (told,) = ending.told
        assert told.startswith("159 min: ")

    run_virtual(scenario())


# A file


def put(path: Path, name: str, mode: int = 0o600) -> None:
    fresh = path.with_suffix(".fresh")
    fresh.write_text(json.dumps({"clientId": name, "accessToken": f"canary-{name}"}))
    fresh.chmod(mode)
    os.replace(fresh, path)


def watched(tmp_path: Path, check: Checking, *steps: tuple[float, Callable[[], Any]]) -> tuple[OwnCredentials, Ending]:
    async def scenario() -> tuple[OwnCredentials, Ending]:
        clock = FakeClock()
        ending = Ending(clock)
        held = await begin(CredentialsFile(str(tmp_path / "c.json")), around(clock, check))
        await keep(held, ending, clock, *steps)
        return held.own, ending

    return run_virtual(scenario())


def test_a_file_that_is_replaced_is_taken_over_within_seconds(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    put(path, "one")
    check = Checking()
    own, ending = watched(tmp_path, check, (100, lambda: put(path, "two")), (LOOK_SECONDS + 1, nothing))
    assert own.current().client_id == "two"
    assert check.checked == ["one", "two"]
    assert ending.told == []
    assert set(own.masked()) == {b"canary-one", b"canary-two"}


def test_a_file_that_is_written_again_with_the_same_credentials_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    put(path, "one")
    check = Checking()
    watched(tmp_path, check, (100, lambda: put(path, "one")), (LOOK_SECONDS + 1, nothing))
    assert check.checked == ["one"]


@pytest.mark.parametrize("problem", [HostError("they can do more"), AccessDenied("unknown")])
def test_a_file_with_the_wrong_credentials_is_looked_at_once_and_the_old_ones_stay(
    tmp_path: Path, problem: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c.json"
    put(path, "one")
    check = Checking(None, problem)
    own, _ = watched(tmp_path, check, (100, lambda: put(path, "two")), (1000, nothing))
    assert own.current().client_id == "one"
    assert check.checked == ["one", "two"]
    assert "the old ones stay" in caplog.text
    assert "canary" not in caplog.text


def test_a_file_that_cannot_be_checked_now_is_checked_again(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    put(path, "one")
    check = Checking(None, ServiceError("away"), ServiceError("away"))
    own, _ = watched(tmp_path, check, (100, lambda: put(path, "two")), (100, nothing))
    assert own.current().client_id == "two"
    assert check.checked == ["one", "two", "two", "two"]


@pytest.mark.parametrize("spoil", ["mode", "content", "gone"])
def test_a_file_that_is_spoiled_changes_nothing(tmp_path: Path, spoil: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "c.json"
    put(path, "one")

    def do() -> None:
        if spoil == "mode":
            put(path, "two", 0o644)
        elif spoil == "content":
            path.write_text("canary")
        else:
            path.unlink()

    own, _ = watched(tmp_path, Checking(), (100, do), (100, nothing), (0, lambda: put(path, "three")), (100, nothing))
    assert own.current().client_id == "three"
    assert "the old ones stay" in caplog.text
    assert "canary" not in caplog.text


# Beginning


def test_credentials_that_are_not_those_that_are_needed_start_nothing(tmp_path: Path) -> None:
    put(tmp_path / "c.json", "one")

    async def scenario() -> None:
        clock = FakeClock()
        sources: tuple[Source, ...] = (
            credentials("w"),
            CredentialsFile(str(tmp_path / "c.json")),
            StaticProvider("static", Secret("s" * 44), str(tmp_path / "kept")),
        )
        for source in sources:
            with pytest.raises(HostError, match="too much"):
                await begin(source, around(clock, Checking(HostError("too much"))))

    run_virtual(scenario())


def test_a_file_that_is_not_there_starts_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(SettingsError):
            await begin(CredentialsFile(str(tmp_path / "none")), around(FakeClock(), Checking()))

    run_virtual(scenario())


def test_a_registered_worker_renews_its_registration(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        check = Checking()
        held = await begin(StaticProvider("static", Secret("s" * 44), str(tmp_path / "kept")), around(clock, check))
        assert held.own.current().client_id == "registered"
        await keep(held, Ending(clock), clock, (3000, nothing))
        assert held.own.current().client_id == "again"
        assert check.checked == ["registered", "again"]

    run_virtual(scenario())


class BrokenRunner:
    """A worker-runner whose handling has a defect."""

    async def serve(self, *_: Any) -> None:
        raise ZeroDivisionError


def test_a_defect_in_keeping_credentials_ends_no_run_but_drains(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        ending = Ending(clock)
        source = FromRunner(BrokenRunner(), OwnCredentials(credentials("w")))  # type: ignore[arg-type] # has a defect
        held = await begin(source, around(clock, Checking()))
        await keep(held, ending, clock, (10, nothing))
        assert ending.told == ["0 min: the worker's credentials are not kept any more"]

    run_virtual(scenario())
    assert "ZeroDivisionError" in caplog.text


def test_a_change_of_policy_goes_on_with_the_newest_of_worker_runner() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        source = FromRunner(BrokenRunner(), OwnCredentials(credentials("w")))  # type: ignore[arg-type] # not asked
        (await begin(source, around(clock, Checking()))).own.take(credentials("newer"))
        check = Checking()
        assert (await begin(source, around(clock, check))).own.current().client_id == "newer"
        assert check.checked == ["newer"]

    run_virtual(scenario())
