"""Worker-manager, as far as a static worker talks to it: register, register again, ask whether to end, report, leave.

Pools and workers are settings; what a real deployment's administrators would create. The secret that the next
`reregisterWorker` needs is kept with the rest, so that it survives a restart.
"""

import hmac
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from secureworker.core.ids import WorkerIdentity, WorkerPool
from secureworker.core.privileges import by_registration, needed
from secureworker.localqueue import credentials
from secureworker.localqueue.calls import Call, Endpoint, Reply
from secureworker.localqueue.database import Database
from secureworker.localqueue.errors import bad_input, not_found
from secureworker.localqueue.settings import StaticClient, StaticPool, StaticWorker
from secureworker.localqueue.times import javascript, slugid

WORKER_MANAGER_CLIENT = "static/taskcluster/worker-manager"
"""Who issues the credentials of registered workers."""
_BACKDATED = timedelta(minutes=15)
"""How long before its making a registered worker's certificate begins: for hosts whose clock is behind."""
_SERVICE = "worker-manager"
_REMOVED = ""
"""In place of a secret: the worker was removed, and may not come back."""


class WorkerManagerEndpoints:
    """The worker-manager service."""

    def __init__(self, database: Database, pools: tuple[StaticPool, ...], issuer: StaticClient) -> None:
        self._db = database
        self._pools: Mapping[str, StaticPool] = {pool.worker_pool: pool for pool in pools}
        self._issuer = issuer

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Name what is served."""
        worker = "<workerPoolId>/<workerGroup>/<workerId>"
        route = f"/workers/{worker}"
        register, again, report = (
            f"worker-manager/v1/{name}-request.json#"
            for name in ("register-worker", "reregister-worker", "report-worker-error")
        )
        reporting = {"AllOf": ["assume:worker-pool:<workerPoolId>", "assume:worker-id:<workerGroup>/<workerId>"]}
        terminate = f"worker-manager:should-worker-terminate:{worker}"
        return (
            Endpoint(_SERVICE, "registerWorker", "POST", "/worker/register", self._register, None, register),
            Endpoint(
                _SERVICE,
                "reregisterWorker",
                "POST",
                "/worker/reregister",
                self._reregister,
                f"worker-manager:reregister-worker:{worker}",
                again,
                deferred=True,
            ),
            Endpoint(
                _SERVICE,
                "reportWorkerError",
                "POST",
                "/worker-pool-errors/<workerPoolId>",
                self._report,
                reporting,
                report,
                deferred=True,
            ),
            Endpoint(
                _SERVICE, "shouldWorkerTerminate", "GET", f"{route}/should-terminate", self._should_terminate, terminate
            ),
            Endpoint(_SERVICE, "removeWorker", "DELETE", route, self._remove, f"worker-manager:remove-worker:{worker}"),
        )

    async def _register(self, call: Call) -> Reply:
        """Trust nothing of the request but what the proof proves; so the checks come in this order."""
        asked = call.payload
        name, provider = asked["workerPoolId"], asked["providerId"]
        pool = self._pools.get(name)
        if pool is None:
            raise not_found(f"Worker pool {name} does not exist")
        if provider not in {known.provider_id for known in self._pools.values()}:
            raise not_found(f"Provider {provider} does not exist")
        if provider != pool.provider_id:
            raise bad_input(f"Worker pool {name} not associated with provider {provider}")
        worker = self._find(pool, asked)
        if worker is None:
            raise not_found(f"Worker {asked['workerGroup']}/{asked['workerId']} in worker pool {name} does not exist")
        given = asked["workerIdentityProof"].get("staticSecret", "")
        if not hmac.compare_digest(given, worker.secret.reveal()):
            raise bad_input("bad staticSecret")
        return self._credentials(call, pool, worker, {"workerConfig": json.loads(pool.worker_config)})

    async def _reregister(self, call: Call) -> Reply:
        asked = call.payload
        call.authorize({key: asked[key] for key in ("workerPoolId", "workerGroup", "workerId")})
        pool = self._pools.get(asked["workerPoolId"])
        worker = self._find(pool, asked) if pool else None
        if pool is None or worker is None or not hmac.compare_digest(self._next_secret(asked), asked["secret"]):
            raise bad_input("Could not generate credentials for this secret")
        return self._credentials(call, pool, worker, {})

    async def _report(self, call: Call) -> Reply:
        asked, pool = call.payload, call.params["workerPoolId"]
        call.authorize({key: asked[key] for key in ("workerGroup", "workerId")})
        if pool not in self._pools:
            raise not_found("Worker pool does not exist")
        who = {key: asked[key] for key in ("workerGroup", "workerId")}
        return Reply(
            {key: asked[key] for key in ("kind", "title", "description")}
            | {
                "workerPoolId": pool,
                "errorId": slugid(),
                "reported": javascript(call.now),
                "extra": {**asked["extra"], **who},
            }
        )

    async def _should_terminate(self, call: Call) -> Reply:
        removed = self._next_secret(call.params) == _REMOVED
        return Reply({"terminate": removed, "reason": "worker was removed" if removed else "needed"})

    async def _remove(self, call: Call) -> Reply:
        pool = self._pools.get(call.params["workerPoolId"])
        if pool is None or self._find(pool, call.params) is None:
            raise not_found("Worker not found")
        self._keep(call.params, _REMOVED)
        return Reply(None)

    def _find(self, pool: StaticPool, named: Mapping[str, Any]) -> StaticWorker | None:
        wanted = (named["workerGroup"], named["workerId"])
        found = [worker for worker in pool.workers if (worker.worker_group, worker.worker_id) == wanted]
        return found[0] if found and self._next_secret(named) != _REMOVED else None

    def _credentials(self, call: Call, pool: StaticPool, worker: StaticWorker, more: dict[str, Any]) -> Reply:
        """Make credentials for this worker alone, and the secret that the next ones take."""
        identity = WorkerIdentity(WorkerPool.parse(pool.worker_pool), worker.worker_group, worker.worker_id)
        claims, who = needed(identity)
        roles, secrets, own = (by_registration(identity)[part] for part in (slice(0, 3), slice(3, 5), slice(5, 8)))
        expires = call.now + timedelta(seconds=pool.reregistration_timeout)
        made = credentials.temporary(
            self._issuer,
            f"worker/{pool.provider_id}/{identity}",
            (*roles, who, *secrets, claims, *own),
            call.now - _BACKDATED,
            expires,
        )
        secret = slugid() + slugid()
        self._keep(
            {"workerPoolId": pool.worker_pool, "workerGroup": worker.worker_group, "workerId": worker.worker_id}, secret
        )
        return Reply({"expires": javascript(expires), "credentials": credentials.wire(made), **more, "secret": secret})

    def _next_secret(self, named: Mapping[str, Any]) -> str:
        """Give the secret that `reregisterWorker` takes next; something that none is where there is none."""
        rows = self._db.execute("SELECT secret FROM registrations WHERE worker = ?", (_key(named),))
        return str(rows[0][0]) if rows else "none"

    def _keep(self, named: Mapping[str, Any], secret: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO registrations VALUES (?, ?)", (_key(named), secret))


def _key(named: Mapping[str, Any]) -> str:
    return f"{named['workerPoolId']}/{named['workerGroup']}/{named['workerId']}"
