"""The port `Secrets`: what is lent in memory and the fake keep the same promises."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from secureworker.core.claim import Json
from secureworker.core.decide import Admitted, decide
from secureworker.core.errors import HostError, ServiceError
from secureworker.core.plan import Plan
from secureworker.core.secrets import HostFile, SecretFile, TaskclusterSecret
from secureworker.host.lending import LentSecrets, memory_directory
from secureworker.ports import ClaimedRun, Secrets, Workspace
from secureworker.testing import EPOCH, IDENTITY, FakeClock, FakeRun, FakeSecrets, a_claim, a_policy

pytestmark = pytest.mark.sandbox

UID = 1_900_000_001


class Place:
    """A plan with secrets, and where they go."""

    def __init__(self, directory: Path) -> None:
        decision = decide(a_claim(), a_policy(), IDENTITY, EPOCH)
        assert isinstance(decision, Admitted)
        key = directory / "key"
        key.touch(mode=0o600)
        key.write_text(FakeSecrets.SECRET.reveal().decode())
        self.plain = decision.plan
        self.plan = replace(self.plain, secrets=(SecretFile("a", HostFile(str(key))),))
        self.memory = f"{directory}/secrets"
        self.workspace = Workspace("/t", "/s", "/p", "/b", UID, f"{self.memory}/run")
        clock = FakeClock()
        self.run = FakeRun(a_claim(clock), clock)


async def no_service(source: TaskclusterSecret, run: ClaimedRun) -> dict[str, Json]:
    raise ServiceError(f"{source} of {run.claim} cannot be had now")


@asynccontextmanager
async def the_real_one(place: Place) -> AsyncIterator[Secrets]:
    with memory_directory(place.memory) as memory:
        yield LentSecrets(memory, None, no_service)


@asynccontextmanager
async def the_fake(place: Place) -> AsyncIterator[Secrets]:
    fake = FakeSecrets()
    yield fake
    assert fake.lent_now == 0


Make = Callable[[Place], AbstractAsyncContextManager[Secrets]]
each = pytest.mark.parametrize("make", [the_real_one, the_fake])


async def lend(secrets: Secrets, place: Place, plan: Plan) -> int:
    async with secrets.lend(plan, place.run, place.workspace) as lent:
        assert all(secret == FakeSecrets.SECRET for secret in lent)
        return len(lent)


@each
async def test_what_the_plan_names_is_lent_and_given_to_be_masked(make: Make, tmp_path: Path) -> None:
    place = Place(tmp_path)
    async with make(place) as secrets:
        assert await lend(secrets, place, place.plan) == 1
        assert await lend(secrets, place, place.plain) == 0
        assert await lend(secrets, place, place.plan) == 1


@each
async def test_an_error_of_the_run_comes_out_as_it_is(make: Make, tmp_path: Path) -> None:
    place = Place(tmp_path)
    async with make(place) as secrets:
        with pytest.raises(HostError, match="of the run"):
            async with secrets.lend(place.plan, place.run, place.workspace):
                raise HostError("of the run")
        assert await lend(secrets, place, place.plan) == 1


async def test_what_a_service_cannot_give_is_not_lent(tmp_path: Path) -> None:
    place = Place(tmp_path)
    remote = replace(place.plan, secrets=(SecretFile("a", TaskclusterSecret("x", None)),))
    fake = FakeSecrets()
    fake.failures.add("lend", ServiceError("taskcluster:x cannot be had now"))
    async with the_real_one(place) as real:
        for secrets in (real, fake):
            with pytest.raises(ServiceError, match=r"taskcluster:x .*cannot be had now"):
                await lend(secrets, place, remote)
