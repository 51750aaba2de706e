"""What a worker asks of services other than the Queue: its scopes, secrets for scripts, its registration."""

import logging
from collections.abc import Iterable
from typing import Final, final

from secureworker.core.claim import Credentials, Json, Secret
from secureworker.core.errors import AccessDenied, HostError, ServiceError
from secureworker.core.ids import WorkerIdentity
from secureworker.core.privileges import ANONYMOUS, ExtraScope, is_registered, judge
from secureworker.core.registration import Registered, parse_registered
from secureworker.core.secrets import TaskclusterSecret
from secureworker.ports import ClaimedRun
from secureworker.queue.calls import Answer, Calls, Refused

logger = logging.getLogger(__name__)

_DENIED: Final = (401, 403)
_NOT_FOUND: Final = 404


@final
class Services:
    """Auth, Secrets and worker-manager."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def check_privileges(
        self, credentials: Credentials, identity: WorkerIdentity, extra: Iterable[ExtraScope] = ()
    ) -> None:
        """See that the worker's own credentials can do its work, and nothing else.

        Raises:
            HostError: they lack something, or can do more; every scope is named.
            AccessDenied: Auth does not know them.
            ServiceError: Auth cannot be asked now.
        """
        extra = tuple(extra)
        held = await self._scopes(credentials)
        try:
            everybodys = await self._scopes(None)
        except AccessDenied:
            everybodys = (ANONYMOUS,)  # Here, nobody may ask without credentials.
        registered = is_registered(credentials.client_id, identity)
        verdict = judge(held, identity, everybodys=everybodys, extra=extra, registered=registered)
        problems = []
        if verdict.surplus:
            problems.append(
                f"the worker's credentials ({credentials.client_id}) can do more than its work: "
                f"{', '.join(verdict.surplus)}; take these scopes from the client, or list those that it must have in "
                "the policy under worker-scopes, with a reason"
            )
        if verdict.lacking:
            problems.append(
                f"the worker's credentials ({credentials.client_id}) lack {', '.join(verdict.lacking)}; "
                "give these scopes to the client"
            )
        if problems:
            raise HostError("; ".join(problems))
        logger.info("the client %s can do this worker's work, and nothing else", credentials.client_id)

    async def _scopes(self, credentials: Credentials | None) -> tuple[str, ...]:
        try:
            answer = await self._calls.of("Auth").make("currentScopes", lambda: credentials)
        except Refused as refused:
            if refused.status in _DENIED:
                who = "nobody's" if credentials is None else f"this worker's ({credentials.client_id})"
                raise AccessDenied(
                    f"Auth refuses credentials that are {who}: {refused}; give the worker others, or this client the "
                    "scope auth:current-scopes"
                ) from refused
            raise refused.as_ours() from refused
        scopes = answer.get("scopes")
        if not isinstance(scopes, list):
            raise ServiceError("currentScopes: the answer has no list of scopes")
        return tuple(str(scope) for scope in scopes)

    async def secret(self, source: TaskclusterSecret, run: ClaimedRun) -> dict[str, Json]:
        """Fetch a secret with the credentials of a run, and with no more of their scopes than it takes.

        Raises:
            ServiceError: it is not there, the run may not read it, or it cannot be had now.
        """
        calls = self._calls.of("Secrets", (source.scope,))
        try:
            answer = await calls.make("get", lambda: run.credentials, source.name)
        except Refused as refused:
            why = "there is no such secret" if refused.status == _NOT_FOUND else str(refused)
            raise ServiceError(f"the secret {source.name} of Taskcluster cannot be had: {why}") from refused
        secret = answer.get("secret")
        if not isinstance(secret, dict):
            raise ServiceError(f"the secret {source.name} of Taskcluster is no object")
        return secret

    async def register(self, identity: WorkerIdentity, provider_id: str, static_secret: Secret) -> Registered:
        """Register as a static worker (`registerWorker`).

        Raises:
            HostError: worker-manager does not know the worker, or not by this secret.
            ServiceError: not now.
        """
        body = {
            **_named(identity),
            "providerId": provider_id,
            "workerIdentityProof": {"staticSecret": static_secret.reveal()},
        }
        try:
            answer = await self._calls.of("WorkerManager").make("registerWorker", lambda: None, body)
        except Refused as refused:
            raise HostError(
                f"worker-manager does not register {identity} of the provider {provider_id}: {refused}; create the "
                "worker there with the secret that this host has"
            ) from refused
        return _registered(answer, "registerWorker")

    async def reregister(self, identity: WorkerIdentity, last: Registered) -> Registered:
        """Get new credentials for those that end (`reregisterWorker`), with the secret that came with them.

        Raises:
            AccessDenied: they are refused, or the secret was used already; only registering anew can help.
            ServiceError: not now.
        """
        body = {**_named(identity), "secret": last.secret.reveal()}
        try:
            # One attempt: were the answer lost, another one would be refused for the used secret. Who calls knows.
            answer = await self._calls.of("WorkerManager").make(
                "reregisterWorker", lambda: last.credentials, body, attempts=1
            )
        except Refused as refused:
            raise AccessDenied(f"worker-manager does not renew the registration: {refused}") from refused
        return _registered(answer, "reregisterWorker")


def _named(identity: WorkerIdentity) -> dict[str, Json]:
    return {
        "workerPoolId": str(identity.pool),
        "workerGroup": identity.worker_group,
        "workerId": identity.worker_id,
    }


def _registered(answer: Answer, call: str) -> Registered:
    try:
        return parse_registered(answer)
    except ValueError as error:
        raise ServiceError(f"{call}: the answer cannot be used: {error}") from error
