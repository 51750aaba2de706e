"""What fetching inputs costs: `python benchmarks/inputs.py [DIRECTORY]`. Prints figures; asserts none.

100 inputs of 10 MB are fetched from a storage that is a process of its own, 8 at a time, hashed, and put into their
places; beside it, the same bytes are hashed alone, which is the speed that cannot be exceeded on one core. Give a
directory on a disk to measure that too: by default files lie in memory.
"""

import asyncio
import hashlib
import os
import resource
import shutil
import socket
import sys
import tempfile
import time
from multiprocessing import Process
from pathlib import Path

from aiohttp import web

from secureworker.artifacts.inputs import HttpInputs, InputSettings
from secureworker.core.chain import Upstream
from secureworker.core.ids import ArtifactName, RunId, Sha256, TaskId
from secureworker.core.inputs import Input, NotThere, Source
from secureworker.host.clock import SystemClock
from secureworker.host.http import open_session
from secureworker.ports import ClaimedRun, Workspace
from secureworker.testing import FakeClock, FakeRun, a_claim

COUNT = 100
SIZE = 10_000_000
ROUNDS = 3
BUILD = TaskId("TyRoGA_OS3W2QMCEuF1icw")


def serve(listener: socket.socket, content: str) -> None:
    """Give the same file whatever is asked for, until killed."""

    async def give(_: web.Request) -> web.FileResponse:
        return web.FileResponse(content)

    application = web.Application()
    application.router.add_get("/{name:.*}", give)
    web.run_app(application, sock=listener, print=None, access_log=None)


class Queue:
    """Points to the storage."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def facts(self, run: ClaimedRun, task_id: TaskId) -> Upstream:  # noqa: ARG002 - the port's
        """Know nothing."""
        return Upstream(task_id, None)

    async def locate(
        self,
        run: ClaimedRun,  # noqa: ARG002 - the port's
        task_id: TaskId,  # noqa: ARG002 - the port's
        run_id: RunId,  # noqa: ARG002 - the port's
        name: ArtifactName,
    ) -> Source | NotThere:
        """Point."""
        return Source(f"{self._url}/{name}")


def peak() -> float:
    """Give the most memory that this process had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def measure(url: str, digest: Sha256, directory: Path) -> None:
    """Fetch, several times, and say how fast the fastest was."""
    inputs = tuple(Input(BUILD, RunId(0), ArtifactName(f"public/{number}"), digest) for number in range(COUNT))
    best, before = float("inf"), peak()
    async with open_session() as session:
        fetching = HttpInputs(session, Queue(url), SystemClock(), InputSettings(url))
        run = FakeRun(a_claim(), FakeClock())
        for number in range(ROUNDS):
            place = directory / str(number)
            (place / "task" / "work").mkdir(parents=True)
            (place / "spool").mkdir()
            workspace = Workspace(str(place / "task"), "", str(place / "spool"), "", os.getuid())
            begun = time.perf_counter()
            await fetching.fetch(run, inputs, COUNT * SIZE, workspace)
            best = min(best, time.perf_counter() - begun)
            await asyncio.to_thread(shutil.rmtree, place)
    print(f"fetched  {COUNT} x {SIZE / 1e6:.0f} MB: {best:.2f} s, {COUNT * SIZE / best / 1e6:.0f} MB/s")
    print(f"memory   {before:.0f} MB before, {peak():.0f} MB at most")


def main() -> None:
    """Measure."""
    base = sys.argv[1] if len(sys.argv) > 1 else "/dev/shm"
    with tempfile.TemporaryDirectory(dir=base) as name:
        directory = Path(name)
        content = os.urandom(SIZE)
        (directory / "content").write_bytes(content)
        begun = time.perf_counter()
        for _ in range(COUNT):
            digest = hashlib.sha256(content).hexdigest()
        alone = time.perf_counter() - begun
        print(f"hashed   {COUNT} x {SIZE / 1e6:.0f} MB: {alone:.2f} s, {COUNT * SIZE / alone / 1e6:.0f} MB/s, alone")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            storage = Process(target=serve, args=(listener, str(directory / "content")), daemon=True)
            storage.start()
            try:
                asyncio.run(measure(f"http://127.0.0.1:{listener.getsockname()[1]}", Sha256(digest), directory))
            finally:
                storage.kill()
                storage.join()


if __name__ == "__main__":
    main()
