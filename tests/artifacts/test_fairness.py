"""Several runs that upload at once, and one of them that has much more than the others: real HTTP, no time."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from secureworker.artifacts.store import HttpArtifactStore, UploadSettings
from secureworker.host.http import DEFAULT_LIMITS, open_session
from secureworker.host.threads import in_thread, threads_for
from secureworker.ports import Artifact
from tests.artifacts.conftest import Sealed
from tests.artifacts.storage import S3, HurriedClock, UploadRun

RUNS = 8
PATIENCE_SECONDS = 20.0
"""For what must not wait at all; only a test that fails takes so long."""


@asynccontextmanager
async def a_store(runs: int) -> AsyncIterator[HttpArtifactStore]:
    """Give a store as the worker makes it for so many runs."""
    async with open_session(DEFAULT_LIMITS.shared_by(runs)) as session:
        yield HttpArtifactStore(session, HurriedClock(), UploadSettings("https://tc.example.com"))


def hold(storage: S3, prefix: str, wanted: int = 1) -> asyncio.Event:
    """Let the storage answer nothing for these names until it is released; give what says that it holds so many."""
    held, store = asyncio.Event(), storage.store
    left = iter(range(wanted - 1, -1, -1))

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.match_info["name"].startswith(prefix):
            if not next(left, 0):
                held.set()
            await storage.released.wait()
        return await store(request)

    storage.next.extend([answer] * 10_000)
    return held


def many(sealed: Sealed, run: int, count: int) -> tuple[Artifact, ...]:
    return tuple(sealed(f"many/{run}/{number}", b"x") for number in range(count))


async def test_a_single_file_passes_a_thousand_of_another_run_that_the_storage_holds_up(
    storage: S3, sealed: Sealed
) -> None:
    held = hold(storage, "many/")
    async with a_store(2) as store, asyncio.TaskGroup() as group:
        thousand = group.create_task(store.put(UploadRun(storage), many(sealed, 0, 1000)))
        await held.wait()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await store.put(UploadRun(storage), (sealed("single", b"alone"),))
        assert storage.stored == {"single": b"alone"}
        assert not thousand.done()
        storage.released.set()
    assert len(storage.stored) == 1001


async def test_a_run_is_not_held_up_by_all_others_at_once(storage: S3, sealed: Sealed) -> None:
    held = hold(storage, "many/", wanted=4 * (RUNS - 1))
    async with a_store(RUNS) as store, asyncio.TaskGroup() as group:
        for run in range(RUNS - 1):
            group.create_task(store.put(UploadRun(storage), many(sealed, run, 20)))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await held.wait()
            await store.put(UploadRun(storage), (sealed("single", b"alone"),))
        assert storage.stored == {"single": b"alone"}
        storage.released.set()


async def test_no_run_has_more_than_its_share_of_connections(storage: S3, sealed: Sealed) -> None:
    held = hold(storage, "many/")
    async with a_store(RUNS) as store, asyncio.TaskGroup() as group:
        group.create_task(store.put(UploadRun(storage), many(sealed, 0, 1000)))
        await held.wait()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await store.put(UploadRun(storage), (sealed("single", b"alone"),))
        assert storage.busy <= 4
        storage.released.set()


@pytest.fixture
def threads() -> ThreadPoolExecutor:
    return threads_for(RUNS)


async def test_blocked_threads_of_all_other_runs_hold_nobody_up(
    storage: S3, sealed: Sealed, threads: ThreadPoolExecutor
) -> None:
    """As where a disk hangs under seven runs, each with as many threads as it can have."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(threads)
    release, begun, most = threading.Event(), asyncio.Semaphore(0), 12 * (RUNS - 1)

    def block(_: threading.Event) -> None:
        loop.call_soon_threadsafe(begun.release)
        release.wait(PATIENCE_SECONDS)

    async with a_store(RUNS) as store, asyncio.TaskGroup() as group:
        for _ in range(most):
            group.create_task(in_thread(block))
        async with asyncio.timeout(PATIENCE_SECONDS):
            for _ in range(most):
                await begun.acquire()
            text = b"the same line again\n" * 10_000
            await store.put(UploadRun(storage), (sealed("single.txt", text, "text/plain"),))
        release.set()
    assert hashlib.sha256(storage.decoded("single.txt")).digest() == hashlib.sha256(text).digest()
    assert not list(Path(sealed("other", b"").path).parent.glob("*.gz"))
