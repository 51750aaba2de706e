"""The worker's own credentials, in whole workers: no more than it needs, replaced, ending, registered."""

import json
import os
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import taskcluster

from secureworker.core.claim import Secret
from secureworker.localqueue.settings import StaticClient, StaticPool, StaticWorker
from tests.end_to_end.daemon import OWNER, POOL, WORKER, Here, Worker, a_queue, eventually

pytestmark = pytest.mark.sandbox

SECOND = StaticClient("worker-2", Secret("v" * 44), WORKER.scopes)
STATIC_SECRET = "canary-static-secret-4f1d8b0c2e6a9753-abcdef"
POOLS = (
    StaticPool(POOL, (StaticWorker("test-group", "test-worker", Secret(STATIC_SECRET)),), reregistration_timeout=3600),
)


@pytest.fixture
async def here(directory: Path) -> AsyncIterator[Here]:
    async with a_queue(directory, clients=(WORKER, SECOND, OWNER), worker_pools=POOLS) as running:
        yield running


def put_credentials(here: Here, client: StaticClient, **more: str) -> None:
    """Replace the worker's credentials file, as a secret store's agent would."""
    fresh = here.directory / "credentials.fresh"
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps({"clientId": client.client_id, "accessToken": client.access_token.reveal()} | more))
    os.replace(fresh, here.directory / "credentials.json")


async def ended_at_start(here: Here, arguments: list[str]) -> Worker:
    worker = await Worker.start(arguments, here.directory / "worker.log")
    here.workers.append(worker)
    await worker.exit_code()
    return worker


async def test_a_worker_whose_credentials_can_do_more_than_its_work_does_not_start(here: Here) -> None:
    put_credentials(here, OWNER)
    worker = await ended_at_start(here, here.arguments())
    assert worker.process.returncode == 1
    assert "the worker's credentials (owner) can do more than its work: *; take these scopes from" in worker.log
    assert here.wire.count("claim-work") == 0
    assert OWNER.access_token.reveal() not in worker.log


async def test_new_credentials_in_the_file_are_used_without_a_pause(here: Here) -> None:
    worker = await here.start()
    put_credentials(here, SECOND)
    await eventually(lambda: "using the new credentials of worker-2" in worker.log, "new credentials")
    assert await here.resolved(await here.create()) == "completed"
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log


async def test_credentials_that_end_end_the_worker_in_time_and_it_says_why(here: Here) -> None:
    now = datetime.now(UTC)
    made = taskcluster.createTemporaryCredentials(
        OWNER.client_id,
        OWNER.access_token.reveal(),
        now - timedelta(minutes=1),
        now + timedelta(seconds=30),
        list(WORKER.scopes),
        name="short-lived",
    )
    token, certificate = (
        value.decode() if isinstance(value, bytes) else value for value in (made["accessToken"], made["certificate"])
    )
    # In variables, which nobody can replace; a file that may yet be is in test_host_guards.
    variables = {
        "TASKCLUSTER_CLIENT_ID": "short-lived",
        "TASKCLUSTER_ACCESS_TOKEN": token,
        "TASKCLUSTER_CERTIFICATE": certificate,
    }
    worker = await Worker.start(without_credentials(here), here.directory / "worker.log", **variables)
    here.workers.append(worker)
    assert await worker.exit_code() == 1, worker.log
    assert "the worker's credentials end at" in worker.log
    assert "give this worker new ones" in worker.log
    assert datetime.now(UTC) < now + timedelta(seconds=30)


@pytest.mark.slow
@pytest.mark.parametrize("status", [401, 403])
async def test_credentials_that_are_refused_again_and_again_end_a_worker_with_the_reason(
    here: Here, status: int
) -> None:
    """A client that was removed or changed while its worker ran."""
    worker = await here.start()
    assert await here.resolved(await here.create()) == "completed"
    here.wire.refuses = status
    refused = here.wire.count("claim-work")
    assert await worker.exit_code() == 1, worker.log
    assert 2 <= here.wire.count("claim-work") - refused <= 6
    assert f"{status}" in worker.log
    assert "credentials" in worker.log.splitlines()[-1]
    assert WORKER.access_token.reveal() not in worker.log


def without_credentials(here: Here) -> list[str]:
    return [each for each in here.arguments() if "credentials" not in each]


def registering(here: Here) -> list[str]:
    secret = here.directory / "registration-secret"
    secret.touch(mode=0o600)
    secret.write_text(STATIC_SECRET)
    return [*without_credentials(here), "--register", "static", "--registration-secret", str(secret), "--verbose"]


async def test_a_static_worker_registers_works_and_goes_on_after_a_restart(here: Here) -> None:
    for asked in ("/worker/register", "/worker/reregister"):
        worker = await Worker.start(registering(here), here.directory / "worker.log")
        here.workers.append(worker)
        assert await here.resolved(await here.create()) == "completed", worker.log
        assert here.wire.count(asked) == 1
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0, worker.log
        kept = here.directory / "state" / "registration.json"
        assert kept.stat().st_mode & 0o777 == 0o600
        assert "canary" not in worker.log
        assert json.loads(kept.read_text())["secret"] not in worker.log
    assert here.wire.count("/worker/register") == 1


async def test_a_worker_that_worker_manager_does_not_know_does_not_start(here: Here) -> None:
    arguments = registering(here)
    arguments[arguments.index("--register") + 1] = "google"
    worker = await ended_at_start(here, arguments)
    assert worker.process.returncode == 1
    assert "Provider google does not exist; create the worker there" in worker.log
    assert here.wire.count("claim-work") == 0
