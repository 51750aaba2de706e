"""What a worker asks of Auth, Secrets and worker-manager, over HTTP, of the embedded Taskcluster."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from secureworker.core.claim import Credentials, Secret, parse_claim
from secureworker.core.errors import AccessDenied, HostError, ServiceError
from secureworker.core.ids import WorkerIdentity, WorkerPool
from secureworker.core.privileges import ExtraScope
from secureworker.core.secrets import TaskclusterSecret
from secureworker.host.clock import SystemClock
from secureworker.localqueue.settings import ANONYMOUS_SCOPES, Role, StaticClient
from secureworker.queue.claimed import TaskclusterRun
from secureworker.queue.claiming import open_calls
from secureworker.queue.services import Services
from tests.localqueue.harness import POOL, REGISTERED, REGISTRATION_SECRET, ROOT, STATIC_POOL, World, a_client, a_world
from tests.queue.scripted import CREDENTIALS, Scripted, error

ME = WorkerIdentity(WorkerPool.parse(POOL), "tc-real-group", "w1")
STATIC = WorkerIdentity(WorkerPool.parse(REGISTERED["workerPoolId"]), REGISTERED["workerGroup"], REGISTERED["workerId"])
NEEDED = (f"queue:claim-work:{POOL}", "queue:worker-id:tc-real-group/w1")
EXACT = a_client("project/exact", *NEEDED)
WIDE = a_client("project/wide", *NEEDED, "queue:claim-work:tc-real/*", "queue:create-task:*")
POOR = a_client("project/poor", NEEDED[1])
EXTRA = a_client("project/extra", *NEEDED, "queue:get-artifact:releng/*")
ROLED = a_client("project/roled", "assume:worker-role")


@dataclass
class Asking:
    world: World
    services: Services
    calls: Any

    async def a_run(self, *scopes: str) -> TaskclusterRun:
        await self.world.create(scopes=list(scopes))
        (claim,) = await self.world.claim()
        return TaskclusterRun(parse_claim(claim, ME), self.calls)


@asynccontextmanager
async def asking(**settings: Any) -> AsyncIterator[Asking]:
    clients = (ROOT, EXACT, WIDE, POOR, EXTRA, ROLED)
    async with (
        a_world(None, clients=clients, **settings) as world,
        open_calls(world.root_url, SystemClock()) as calls,
    ):
        yield Asking(world, Services(calls), calls)


@pytest.fixture
async def here() -> AsyncIterator[Asking]:
    async with asking() as made:
        yield made


@pytest.fixture
async def closed() -> AsyncIterator[Asking]:
    """Give a Taskcluster where nobody may do anything without credentials."""
    async with asking(roles=(Role("anonymous", ()), Role("worker-role", (*NEEDED, "secrets:set:*")))) as made:
        yield made


def credentials(client: StaticClient) -> Credentials:
    return Credentials(client.client_id, client.access_token)


# Least privilege


async def test_credentials_for_the_worker_and_nothing_else_are_fine(here: Asking) -> None:
    await here.services.check_privileges(credentials(EXACT), ME)


async def test_every_surplus_scope_is_named_and_what_to_do(here: Asking) -> None:
    with pytest.raises(HostError, match=r"can do more than its work: .*worker-scopes, with a reason") as refusal:
        await here.services.check_privileges(credentials(WIDE), ME)
    assert "queue:claim-work:tc-real/*, queue:create-task:*;" in str(refusal.value)
    assert "project/wide" in str(refusal.value)
    assert WIDE.access_token.reveal() not in str(refusal.value)


async def test_root_credentials_are_refused(here: Asking) -> None:
    with pytest.raises(HostError, match=r"can do more than its work: \*;"):
        await here.services.check_privileges(credentials(ROOT), ME)


async def test_every_lacking_scope_is_named(here: Asking) -> None:
    with pytest.raises(HostError, match=f"lack {NEEDED[0]}; give these scopes"):
        await here.services.check_privileges(credentials(POOR), ME)


async def test_scopes_that_the_policy_lists_must_be_there(here: Asking) -> None:
    extra = (ExtraScope("queue:get-artifact:releng/*", "inputs are private"),)
    await here.services.check_privileges(credentials(EXTRA), ME, extra)
    with pytest.raises(HostError, match="can do more"):
        await here.services.check_privileges(credentials(EXTRA), ME)
    with pytest.raises(HostError, match=r"lack queue:get-artifact:releng/\*"):
        await here.services.check_privileges(credentials(EXACT), ME, extra)


async def test_where_a_role_stands_for_more_that_is_a_surplus(closed: Asking) -> None:
    held = await closed.world.ask(ROOT, "currentScopes", service="Auth")
    assert held.status == 200
    with pytest.raises(AccessDenied):  # nobody may ask there but who has a scope for it
        await closed.services.check_privileges(credentials(ROLED), ME)


async def test_where_nobody_may_ask_without_credentials_everybody_has_nothing() -> None:
    role = Role("worker-role", (*NEEDED, "auth:current-scopes", "secrets:set:*"))
    async with asking(roles=(Role("anonymous", ()), role)) as made:
        with pytest.raises(HostError, match=r"more than its work: assume:worker-role, auth:current-scopes, secrets:se"):
            await made.services.check_privileges(credentials(ROLED), ME)


async def test_wrong_credentials_are_denied(here: Asking) -> None:
    with pytest.raises(AccessDenied, match="401"):
        await here.services.check_privileges(Credentials("project/exact", Secret("wrong")), ME)


async def test_an_auth_that_answers_nonsense_is_not_believed(server: Scripted) -> None:
    server.then({"scopes": "all"})
    with pytest.raises(ServiceError, match="no list of scopes"):
        await Services(server.calls).check_privileges(CREDENTIALS, ME)


async def test_a_registered_workers_credentials_are_fine(here: Asking) -> None:
    registered = await here.services.register(STATIC, "static", Secret(REGISTRATION_SECRET))
    await here.services.check_privileges(registered.credentials, STATIC)


async def test_a_registered_worker_whose_role_stands_for_more_is_refused() -> None:
    roles = (Role("anonymous", ANONYMOUS_SCOPES), Role("worker-pool:tc-real/static", ("queue:create-task:*",)))
    async with asking(roles=roles) as made:
        registered = await made.services.register(STATIC, "static", Secret(REGISTRATION_SECRET))
        with pytest.raises(HostError, match=r"can do more than its work: queue:create-task:\*;"):
            await made.services.check_privileges(registered.credentials, STATIC)


# Secrets


async def store(world: World, name: str, **secret: Any) -> None:
    until = world.clock().replace(year=world.clock().year + 1).isoformat()
    payload = {"secret": secret, "expires": until}
    assert (await world.ask(ROOT, "set", name, payload=payload, service="Secrets")).status == 200


async def test_a_secret_is_fetched_as_the_run(here: Asking) -> None:
    await store(here.world, "project/a/b", password="hunter2")
    run = await here.a_run("secrets:get:project/a/*")
    assert await here.services.secret(TaskclusterSecret("project/a/b", None), run) == {"password": "hunter2"}


async def test_a_secret_is_asked_for_with_no_more_than_it_takes(server: Scripted) -> None:
    server.then({"secret": {}, "expires": "2026-11-23T12:00:00Z"})
    await Services(server.calls).secret(TaskclusterSecret("a/b", "key"), _Run())  # type: ignore[arg-type] # all it needs
    (method, path, body), (ext,) = server.asked[0], server.certificates
    assert (method, path, body) == ("GET", "/api/secrets/v1/secret/a%2Fb", None)
    assert ext["authorizedScopes"] == ["secrets:get:a/b"]


class _Run:
    credentials = CREDENTIALS


async def test_a_secret_that_the_run_may_not_read_is_not_had(here: Asking) -> None:
    await store(here.world, "project/a/b", password="hunter2")
    run = await here.a_run("secrets:get:project/other/*")
    with pytest.raises(ServiceError, match="secret project/a/b of Taskcluster cannot be had: get: 401"):
        await here.services.secret(TaskclusterSecret("project/a/b", None), run)


async def test_a_secret_that_does_not_exist_is_said_so(here: Asking) -> None:
    run = await here.a_run("secrets:get:project/a/*")
    with pytest.raises(ServiceError, match="there is no such secret"):
        await here.services.secret(TaskclusterSecret("project/a/b", None), run)


async def test_a_secret_that_is_none_is_not_believed_nor_shown(server: Scripted) -> None:
    server.then({"secret": "hunter2"})
    with pytest.raises(ServiceError, match="is no object") as refusal:
        await Services(server.calls).secret(TaskclusterSecret("a", None), _Run())  # type: ignore[arg-type] # all it needs
    assert "hunter2" not in str(refusal.value)


# Registration


async def test_a_worker_registers_and_registers_again(here: Asking) -> None:
    first = await here.services.register(STATIC, "static", Secret(REGISTRATION_SECRET))
    second = await here.services.reregister(STATIC, first)
    third = await here.services.reregister(STATIC, second)
    assert len({first.secret, second.secret, third.secret}) == 3
    assert third.credentials.client_id == f"worker/static/{STATIC}"
    with pytest.raises(AccessDenied, match=r"does not renew the registration: .*for this secret"):
        await here.services.reregister(STATIC, first)


async def test_a_worker_that_is_not_known_is_told_what_to_do(here: Asking) -> None:
    with pytest.raises(HostError, match=r"does not register .*bad staticSecret.*create the worker there") as refusal:
        await here.services.register(STATIC, "static", Secret("x" * 44))
    assert "x" * 44 not in str(refusal.value)
    with pytest.raises(HostError, match="does not exist"):
        await here.services.register(ME, "static", Secret(REGISTRATION_SECRET))


async def test_an_answer_without_what_comes_next_is_not_believed(server: Scripted) -> None:
    server.then({"credentials": {}, "secret": "s"})
    with pytest.raises(ServiceError, match="registerWorker: the answer cannot be used"):
        await Services(server.calls).register(STATIC, "static", Secret(REGISTRATION_SECRET))


async def test_registering_again_is_tried_once_for_its_secret_is_good_once(server: Scripted) -> None:
    server.then(error(500))
    last = await _registered()
    with pytest.raises(ServiceError, match="reregisterWorker: 500"):
        await Services(server.calls).reregister(STATIC, last)
    assert len(server.asked) == 1


async def _registered() -> Any:
    async with asking(worker_pools=(STATIC_POOL,)) as made:
        return await made.services.register(STATIC, "static", Secret(REGISTRATION_SECRET))
