"""The real Queue as one worker of one pool: the port `Queue`."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, final

from secureworker.core.claim import Credentials, Json, parse_claim, parse_credentials, parse_run
from secureworker.core.errors import SecureworkerError, ServiceError, SettingsError
from secureworker.core.ids import WorkerIdentity
from secureworker.host.http import HttpLimits, open_session
from secureworker.ports import Clock
from secureworker.queue.answers import read_json
from secureworker.queue.calls import Calls, Refused
from secureworker.queue.claimed import TaskclusterRun

logger = logging.getLogger(__name__)

CLAIM_TIMEOUT_SECONDS = 60.0
"""The Queue holds an empty answer back for 20 s; one that is given up on may hold a claim, so this is generous."""
PING_SECONDS = 5.0
"""For an answer that is only wanted for its time."""
LIMITS: Final = HttpLimits(answer_bytes=40_000_000)
CLAIM_BYTES: Final = 11_000_000
"""A task definition is at most 10 MB at the Queue, and claimWork gives as many as are asked for. An answer that is too
large is lost with all its claims: that must not be in the hands of who creates tasks."""
_UNAUTHORIZED = (401, 403)


async def check_queue(calls: Calls) -> None:
    """See that there is a Queue at the root URL, before anything relies on it.

    Raises:
        ServiceError: it cannot be reached.
        SettingsError: something else answers.
    """
    try:
        answer = await calls.make("ping", lambda: None)
    except Refused as refused:
        raise SettingsError(f"there is no Taskcluster at the policy's root URL: {refused}") from refused
    except ServiceError as error:
        raise ServiceError(
            f"the Taskcluster at the policy's root URL does not answer ({error}); start the worker when it does, or "
            "correct the policy"
        ) from error
    if answer.get("alive") is not True:
        raise SettingsError("there is no Taskcluster at the policy's root URL: ping is not answered as by one")


async def ask_time(calls: Calls) -> None:
    """Have the Queue answer something, once, for the time that its answer tells.

    Raises:
        ServiceError: it does not answer now.
        SettingsError: something else does.
    """
    try:
        await calls.make("ping", lambda: None, timeout=PING_SECONDS, attempts=1)
    except Refused as refused:
        raise SettingsError(f"there is no Taskcluster at the policy's root URL any more: {refused}") from refused


@final
class TaskclusterQueue:
    """Claims tasks of one pool as one worker."""

    def __init__(self, identity: WorkerIdentity, credentials: Callable[[], Credentials], calls: Calls) -> None:
        """Take who claims, what gives the worker's newest credentials, and how calls are made."""
        self._identity = identity
        self._own_credentials = credentials
        self._calls = calls

    async def claim(self, count: int) -> tuple[TaskclusterRun, ...]:
        """Long-poll for tasks. A claim that cannot be understood is resolved here, and not given.

        Raises:
            AccessDenied: the worker's credentials are refused.
            SettingsError: the Queue says that pool, group or id are malformed.
            ServiceError: not now.
        """
        body = {"workerGroup": self._identity.worker_group, "workerId": self._identity.worker_id, "tasks": count}
        try:
            # One attempt: a second one would make an operator's request to end wait for both.
            answer = await self._calls.make(
                "claimWork",
                self._own_credentials,
                str(self._identity.pool),
                body,
                timeout=CLAIM_TIMEOUT_SECONDS,
                attempts=1,
            )
        except Refused as refused:
            if refused.status in _UNAUTHORIZED:
                raise refused.as_ours() from refused
            raise SettingsError(f"the Queue does not take this worker's requests: {refused}") from refused
        tasks = answer.get("tasks")
        if not isinstance(tasks, list):
            raise ServiceError("claimWork: the answer has no list of tasks")
        return tuple([run for task in tasks if (run := await self._take(task)) is not None])

    async def _take(self, task: Json) -> TaskclusterRun | None:
        document = task if isinstance(task, dict) else {}
        try:
            claim = parse_claim(document, self._identity)
        except ValueError as error:
            logger.error("a claim cannot be understood: %s", error)  # noqa: TRY400 - the sentence says it all
            await self._resolve_unread(document)
            return None
        return TaskclusterRun(claim, self._calls)

    async def _resolve_unread(self, document: dict[str, Json]) -> None:
        """Resolve a run of which nothing is known but its number and credentials: claimed is not forgotten."""
        try:
            task_id, run_id = parse_run(document)
            given = document.get("credentials")
            credentials = parse_credentials(given if isinstance(given, dict) else {})
            await self._calls.make(
                "reportException", lambda: credentials, str(task_id), str(int(run_id)), {"reason": "internal-error"}
            )
            logger.error("%s/%d: resolved internal-error, as its claim could not be understood", task_id, run_id)
        except (ValueError, Refused, SecureworkerError) as error:
            logger.error("a claim could neither be understood nor resolved, it will expire: %s", error)  # noqa: TRY400 - the sentence says it all


@asynccontextmanager
async def open_calls(
    root_url: str, clock: Clock, heard: Callable[[Mapping[str, str]], None] | None = None, *, runs: int = 1
) -> AsyncIterator[Calls]:
    """Give the way to the Taskcluster at `root_url`, with connections that end with this context. Nothing is asked.

    Args:
        root_url: of the deployment.
        clock: what is waited on.
        heard: told the headers of every answer.
        runs: how many there are at once, at most.
    """
    limits = replace(LIMITS.shared_by(runs), answer_bytes=max(LIMITS.answer_bytes, runs * CLAIM_BYTES))
    async with open_session(limits, read_json, heard) as session:
        yield Calls(root_url, session, clock)


@asynccontextmanager
async def connect(
    root_url: str, identity: WorkerIdentity, credentials: Credentials, clock: Clock
) -> AsyncIterator[TaskclusterQueue]:
    """Give the Queue at `root_url` to who has credentials that do not change."""
    async with open_calls(root_url, clock) as calls:
        yield TaskclusterQueue(identity, lambda: credentials, calls)
