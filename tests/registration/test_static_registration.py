"""Registering as a static worker: what is kept, what is renewed and when, and what happens when it is refused."""

import asyncio
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from secureworker.core.claim import Credentials, Secret
from secureworker.core.errors import AccessDenied, HostError, ServiceError, SettingsError
from secureworker.core.ids import WorkerIdentity
from secureworker.core.registration import Registered, write_registered
from secureworker.host.own_credentials import OwnCredentials
from secureworker.registration.static import RETRY_SECONDS, StaticRegistration, StaticSettings, read_static_secret
from secureworker.testing import IDENTITY, ROOT_URL, FakeClock
from tests.registration.threadless import run_virtual

STATIC = Secret("s" * 44)
HOUR = timedelta(hours=1)


class Manager:
    """A worker-manager in memory, that knows one worker by one secret, and takes each next secret once."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.asked: list[str] = []
        self.problems: list[Exception] = []
        self.next_secret = Secret("none")
        self.count = 0

    async def register(self, identity: WorkerIdentity, provider_id: str, static_secret: Secret) -> Registered:
        self._ask("register")
        assert (identity, provider_id, static_secret) == (IDENTITY, "static", STATIC)
        return self._give()

    async def reregister(self, identity: WorkerIdentity, last: Registered) -> Registered:
        self._ask("reregister")
        assert identity == IDENTITY
        if last.secret != self.next_secret:
            raise AccessDenied("used already")
        return self._give()

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.problems:
            raise self.problems.pop(0)

    def _give(self) -> Registered:
        self.count += 1
        self.next_secret = Secret(f"canary-next-{self.count}")
        credentials = Credentials(f"worker-{self.count}", Secret(f"canary-token-{self.count}"))
        return Registered(credentials, self.clock.now() + HOUR, self.next_secret)


def a_registration(directory: Path, manager: Manager) -> StaticRegistration:
    settings = StaticSettings(IDENTITY, ROOT_URL, "static", STATIC, str(directory / "registration.json"))
    return StaticRegistration(settings, manager, manager.clock)


def test_the_first_start_registers_and_keeps_what_comes_next_in_a_private_file(tmp_path: Path) -> None:
    async def scenario() -> None:
        manager = Manager(FakeClock())
        first = await a_registration(tmp_path, manager).begin()
        assert (first.client_id, manager.asked) == ("worker-1", ["register"])

    run_virtual(scenario())
    kept = tmp_path / "registration.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "canary-next-1" in kept.read_text()
    assert os.listdir(tmp_path) == ["registration.json"]


def test_a_restart_goes_on_with_what_was_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        manager = Manager(FakeClock())
        await a_registration(tmp_path, manager).begin()
        again = await a_registration(tmp_path, manager).begin()
        assert (again.client_id, manager.asked) == ("worker-2", ["register", "reregister"])

    run_virtual(scenario())
    assert "canary-next-2" in (tmp_path / "registration.json").read_text()


def test_what_was_kept_too_long_is_not_used(tmp_path: Path) -> None:
    async def scenario() -> None:
        manager = Manager(FakeClock())
        await a_registration(tmp_path, manager).begin()
        await manager.clock.sleep(3601)
        await a_registration(tmp_path, manager).begin()
        assert manager.asked == ["register", "register"]

    run_virtual(scenario())


def test_a_secret_that_was_used_already_leads_to_registering_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        manager = Manager(FakeClock())
        await a_registration(tmp_path, manager).begin()
        manager.next_secret = Secret("the answer with this one was lost")
        again = await a_registration(tmp_path, manager).begin()
        assert (again.client_id, manager.asked) == ("worker-2", ["register", "reregister", "register"])

    run_virtual(scenario())


@pytest.mark.parametrize("content", [b"", b"{}", b"canary", b"[]"])
def test_a_kept_file_that_is_none_is_no_obstacle(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "registration.json").write_bytes(content)
    (tmp_path / "registration.json").chmod(0o600)

    async def scenario() -> None:
        manager = Manager(FakeClock())
        await a_registration(tmp_path, manager).begin()
        assert manager.asked == ["register"]

    run_virtual(scenario())
    assert "canary" not in caplog.text


def test_a_kept_file_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    async def scenario() -> None:
        manager = Manager(FakeClock())
        await a_registration(tmp_path, manager).begin()
        (tmp_path / "registration.json").chmod(0o644)
        await a_registration(tmp_path, manager).begin()
        assert manager.asked == ["register", "register"]

    run_virtual(scenario())


def test_the_registration_of_another_worker_is_not_used(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        other = Registered(Credentials("a", Secret("b")), clock.now() + HOUR, Secret("c"))
        content = write_registered(other, replace(IDENTITY, worker_id="other"), ROOT_URL)
        (tmp_path / "registration.json").write_bytes(content)
        (tmp_path / "registration.json").chmod(0o600)
        manager = Manager(clock)
        await a_registration(tmp_path, manager).begin()
        assert manager.asked == ["register"]

    run_virtual(scenario())


@pytest.mark.parametrize("problem", [HostError("not known"), ServiceError("away")])
def test_a_worker_that_cannot_register_does_not_start(tmp_path: Path, problem: Exception) -> None:
    async def scenario() -> None:
        manager = Manager(FakeClock())
        manager.problems = [problem]
        with pytest.raises(type(problem)):
            await a_registration(tmp_path, manager).begin()

    run_virtual(scenario())
    assert os.listdir(tmp_path) == []


def test_a_registration_that_cannot_be_kept_is_not_used(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(HostError, match=r"cannot be kept in .*No such file"):
            await a_registration(tmp_path / "none", Manager(FakeClock())).begin()

    run_virtual(scenario())


def keep(tmp_path: Path, hours: float, *problems: Exception, wrong: tuple[str, ...] = ()) -> tuple[Manager, list[str]]:
    """Keep a registration alive for some time; give what was asked and which credentials were taken, when."""
    taken: list[str] = []

    async def scenario() -> Manager:
        clock = FakeClock()
        manager = Manager(clock)
        registration = a_registration(tmp_path, manager)
        own = OwnCredentials(await registration.begin())
        manager.problems = list(problems)

        async def check(fresh: Credentials) -> None:
            if fresh.client_id in wrong:
                raise HostError("it can do more")

        async def note() -> None:
            while True:
                await own.taken()
                taken.append(f"{own.current().client_id} after {(clock.now() - begun).total_seconds() / 60:g} min")

        begun = clock.now()
        async with asyncio.TaskGroup() as group:
            tasks = (group.create_task(registration.keep(own, check)), group.create_task(note()))
            await clock.sleep(hours * 3600)
            for task in tasks:
                task.cancel()
        return manager

    return run_virtual(scenario()), taken


def test_credentials_are_renewed_long_before_they_end(tmp_path: Path) -> None:
    manager, taken = keep(tmp_path, 1.5)
    assert taken == ["worker-2 after 36 min", "worker-3 after 72 min"]
    assert manager.asked == ["register", "reregister", "reregister"]
    assert "canary-next-3" in (tmp_path / "registration.json").read_text()


def test_while_worker_manager_cannot_be_reached_it_is_tried_again(tmp_path: Path) -> None:
    _, taken = keep(tmp_path, 1, *[ServiceError("away")] * 3)
    late = sum(RETRY_SECONDS[:3]) / 60
    assert taken == [f"worker-2 after {36 + late:g} min"]


def test_a_refusal_leads_to_registering_anew_and_that_one_to_trying_again(tmp_path: Path) -> None:
    manager, taken = keep(tmp_path, 0.7, AccessDenied("removed"), HostError("not known"))
    assert manager.asked == ["register", "reregister", "register", "reregister"]
    assert taken == [f"worker-2 after {36 + RETRY_SECONDS[0] / 60:g} min"]


def test_credentials_that_can_do_more_than_they_should_are_not_taken(tmp_path: Path) -> None:
    _, taken = keep(tmp_path, 0.7, wrong=("worker-2",))
    assert taken == [f"worker-3 after {36 + RETRY_SECONDS[0] / 60:g} min"]


# The static secret


def a_secret_file(path: Path, content: str = STATIC.reveal() + "\n", mode: int = 0o600) -> str:
    path.write_text(content)
    path.chmod(mode)
    return str(path)


def test_the_static_secret_is_read_from_a_private_file(tmp_path: Path) -> None:
    assert read_static_secret(a_secret_file(tmp_path / "a"), None) == STATIC


def test_the_static_secret_is_read_from_systemd(tmp_path: Path) -> None:
    a_secret_file(tmp_path / "worker-registration", mode=0o440)
    assert read_static_secret(None, str(tmp_path)) == STATIC


def test_without_a_static_secret_it_is_said_how_to_give_one() -> None:
    with pytest.raises(SettingsError, match=r"--registration-secret.*LoadCredential=worker-registration"):
        read_static_secret(None, None)


@pytest.mark.parametrize("content", ["", "canary", "canary" * 10, "s" * 43 + "/"])
def test_a_static_secret_of_another_form_is_refused_and_not_shown(tmp_path: Path, content: str) -> None:
    with pytest.raises(SettingsError, match="has not the form of one") as refusal:
        read_static_secret(a_secret_file(tmp_path / "a", content), None)
    assert "canary" not in str(refusal.value)


def test_a_static_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="others can read"):
        read_static_secret(a_secret_file(tmp_path / "a", mode=0o644), None)
