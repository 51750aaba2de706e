"""The embedded Taskcluster as an asynchronous context: wires everything in this package together and serves it."""

import asyncio
import logging
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from secureworker.core.claim import Secret
from secureworker.localqueue.artifact_reads import ArtifactReads
from secureworker.localqueue.artifact_rows import ArtifactRows, BlobRows, ObjectRows
from secureworker.localqueue.auth import AuthEndpoints, monitoring
from secureworker.localqueue.blobs import Blobs
from secureworker.localqueue.calls import Router
from secureworker.localqueue.credentials import Clients
from secureworker.localqueue.database import Database
from secureworker.localqueue.front import Front
from secureworker.localqueue.journal import Journal
from secureworker.localqueue.objects import ObjectEndpoints
from secureworker.localqueue.queue_artifacts import ArtifactEndpoints
from secureworker.localqueue.queue_runs import RunEndpoints
from secureworker.localqueue.queue_tasks import TaskEndpoints
from secureworker.localqueue.queue_workers import WorkerEndpoints, WorkerRows
from secureworker.localqueue.resolvers import Resolvers
from secureworker.localqueue.secret_store import SecretEndpoints
from secureworker.localqueue.settings import Settings, StaticClient
from secureworker.localqueue.task_rows import TaskRows
from secureworker.localqueue.wakeups import Wakeups
from secureworker.localqueue.worker_manager import WORKER_MANAGER_CLIENT, WorkerManagerEndpoints

logger = logging.getLogger(__name__)

QUEUE_CLIENT = "static/taskcluster/queue"
"""Who issues the credentials of runs."""
BEHAVES_AS = "106"
"""The release whose behaviour is copied; what `__version__` says."""
_READ_BUFFER_BYTES = 1 << 20
_SHUTDOWN_SECONDS = 2.0
_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    root_url: str
    resolvers: Resolvers
    """For who does not want to wait for their next interval."""


@asynccontextmanager
async def serve(settings: Settings, *, middlewares: Sequence[Middleware] = ()) -> AsyncIterator[Running]:
    """Serve Queue, Auth, Object, Secrets and worker-manager until the context is left.

    On leaving, polls that hang are answered with no tasks, other requests get two seconds, and everything is closed.

    Args:
        settings: what to serve, and where.
        middlewares: see every request and answer; for tests.

    Raises:
        OSError: the port is taken, or the data directory cannot be made.
        database.UnusableData: the data directory holds something else, or is in use.
    """
    with ExitStack() as stack:
        directory = _blob_directory(settings.data, stack)
        database = Database(settings.data)
        stack.callback(database.close)
        listener = stack.enter_context(socket.create_server((settings.host, settings.port), backlog=_BACKLOG))
        root_url = f"http://{settings.host}:{listener.getsockname()[1]}"
        wakeups = Wakeups(settings.hint_interval)
        front, resolvers = _wire(settings, database, directory, wakeups, root_url)
        application = web.Application(client_max_size=settings.max_body_bytes, middlewares=middlewares)
        application.router.add_route("*", "/{path:.*}", front.handle)
        runner = web.AppRunner(
            application,
            handler_cancellation=True,  # a poll whose caller is gone must not take a task
            auto_decompress=False,  # gzipped artifacts are stored as they came
            access_log=None,
            read_bufsize=_READ_BUFFER_BYTES,
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            failed: Exception | None = None
            async with asyncio.TaskGroup() as group:
                running = resolvers.start(group, settings)
                logger.info("serving Taskcluster on %s", root_url)
                try:
                    yield Running(root_url, resolvers)
                except Exception as problem:  # noqa: BLE001 raised below: the group would wrap what is not its own
                    failed = problem
                finally:
                    for task in running:
                        task.cancel()
            if failed is not None:
                raise failed
        finally:
            wakeups.close()
            await runner.cleanup()


def _blob_directory(data: str | None, stack: ExitStack) -> Path:
    if data is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="local-queue-")))
    blobs = Path(data) / "blobs"
    blobs.mkdir(mode=0o700, parents=True, exist_ok=True)
    return blobs


def _wire(
    settings: Settings, database: Database, directory: Path, wakeups: Wakeups, root_url: str
) -> tuple[Front, Resolvers]:
    token = database.remembered("access token of the queue's client", secrets.token_urlsafe(32))
    url_key = database.remembered("key of presigned URLs", secrets.token_urlsafe(32))
    issuer = StaticClient(QUEUE_CLIENT, Secret(token), ("*",))
    registrar_token = database.remembered("access token of worker-manager's client", secrets.token_urlsafe(32))
    registrar = StaticClient(WORKER_MANAGER_CLIENT, Secret(registrar_token), ("*",))
    clients = Clients(settings, (issuer, registrar))
    journal = Journal(settings.journal, settings.clock)
    blobs = Blobs(directory, BlobRows(database), url_key, journal)
    tasks, workers = TaskRows(database, wakeups.changed, journal), WorkerRows(database)
    artifacts, objects = ArtifactRows(database), ObjectRows(database)
    router = Router(
        (
            *TaskEndpoints(database, tasks).endpoints(),
            *RunEndpoints(database, tasks, workers, wakeups, issuer).endpoints(settings),
            *WorkerEndpoints(workers).endpoints(),
            *ArtifactEndpoints(tasks, (artifacts, objects), blobs, issuer, journal).endpoints(settings, root_url),
            *ArtifactReads(tasks, artifacts, blobs, issuer).endpoints(root_url, settings.get_url_lifetime),
            *ObjectEndpoints(objects, blobs, settings, root_url).endpoints(),
            *SecretEndpoints(database).endpoints(),
            *WorkerManagerEndpoints(database, settings.worker_pools, registrar).endpoints(),
            *AuthEndpoints(clients).endpoints(),
            *monitoring(BEHAVES_AS),
        )
    )
    return Front(router, clients, blobs, root_url, settings.clock), Resolvers(database, tasks, wakeups, settings)
