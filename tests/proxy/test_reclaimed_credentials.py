"""A real run at the embedded Taskcluster, reclaimed while its script makes requests."""

from secureworker.core.claim import Credentials
from secureworker.core.doors import Doors
from secureworker.core.ids import WorkerIdentity, WorkerPool
from secureworker.host.clock import SystemClock
from secureworker.queue.claiming import connect
from tests.localqueue.harness import A_WORKER, POOL, ROOT, WORKER, a_world
from tests.proxy.harness import doors_open, routes, say, status

ASK = b"GET /api/secrets/v1/secret/project/x/y HTTP/1.1\r\nHost: taskcluster\r\nConnection: close\r\n\r\n"


async def test_requests_are_signed_with_the_certificate_of_the_last_reclaim_and_old_ones_do_not_matter() -> None:
    identity = WorkerIdentity(WorkerPool.parse(POOL), WORKER["workerGroup"], WORKER["workerId"])
    doors = Doors(routes=routes("GET /api/secrets/v1/secret/project/x/*"), scopes=("secrets:get:project/x/*",))
    async with a_world(None) as world:
        secret = {"secret": {"is": "here"}, "expires": "2099-01-01T00:00:00.000Z"}
        await world.ask(ROOT, "set", "project/x/y", payload=secret, service="Secrets")
        await world.create(scopes=["secrets:get:project/x/*"])
        worker = Credentials(A_WORKER.client_id, A_WORKER.access_token)
        async with connect(world.root_url, identity, worker, SystemClock()) as queue:
            (run,) = await queue.claim(1)
            async with doors_open(doors, world.root_url, run=run) as opened:
                assert status(await say(opened.taskcluster, ASK)) == 200
                # The claim lasts 20 minutes; Auth lets a certificate be 5 minutes too old.
                world.clock.advance(18 * 60)
                await run.reclaim()
                world.clock.advance(10 * 60)
                assert status(await say(opened.taskcluster, ASK)) == 200
                world.clock.advance(20 * 60)
                assert status(await say(opened.taskcluster, ASK)) == 401
