"""What sealing, uploading and logging cost: `python benchmarks/artifacts.py`. Prints figures; asserts none.

The storage is a process of its own that takes PUTs and forgets them, so that its memory and its half of the copying
are not counted as the worker's. Files lie in memory where that has room, so that the program is measured and not a
disk: give a directory on one to measure that. Of several rounds the best counts: a virtual machine's memory is slow
(300 MiB/s seen) when it is touched for the first time.
"""

import argparse
import asyncio
import hashlib
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import Process
from pathlib import Path

from secureworker.artifacts.seal import SealedOutputs
from secureworker.artifacts.store import HttpArtifactStore, UploadSettings
from secureworker.core.plan import OutputRules
from secureworker.core.uploads import ArtifactRequest, PutTarget, UploadTarget
from secureworker.host.http import open_session
from secureworker.host.tasklog import FileTaskLogs, LogSettings
from secureworker.ports import Workspace
from secureworker.testing import EPOCH, SHA256, FakeClock, FakeRun, a_claim

MIB = 2**20
LARGE = 1024 * MIB
MANY = 1000
ROUNDS = 3
LOG = 256 * MIB
LINE = b"2026-01-25 23:31:13,787 - copy - INFO - copied builds/linux64/en-US/target.tar.xz to the candidates bucket\n"


class _Run(FakeRun):
    url = ""

    async def create_artifact(self, request: ArtifactRequest) -> UploadTarget:
        return PutTarget(f"{self.url}/{request.name}")


def _sink(listener: socket.socket) -> None:
    """Take PUTs on one connection after another, as cheaply as Python can."""

    class Sink(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self._space = bytearray(MIB)
            self._left = 0
            self._head = b""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self._transport = transport

        def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the protocol's
            return memoryview(self._space)

        def buffer_updated(self, nbytes: int) -> None:
            if not self._left:
                self._head += self._space[:nbytes]
                head, end, body = self._head.partition(b"\r\n\r\n")
                if not end:
                    return
                length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
                self._left = int(length.split(b":")[1])
                self._head, nbytes = b"", len(body)
            self._left -= nbytes
            if not self._left:
                self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Sink, sock=listener)
        await server.serve_forever()

    asyncio.run(serve())


@contextmanager
def _storage() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = Process(target=_sink, args=(listener,), daemon=True)
        process.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        process.terminate()
        process.join()


def _peak_kib() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _fill(path: Path, size: int) -> None:
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(block)


def _hash_alone(path: Path) -> float:
    began = time.perf_counter()
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(MIB):
            digest.update(piece)
    return time.perf_counter() - began


def _say(what: str, size: int, seconds: float, more: str = "") -> None:
    print(f"{what:50} {seconds:7.2f} s {size / MIB / seconds:8.0f} MiB/s  {more}", flush=True)


def _workspace(directory: Path) -> Workspace:
    for name in ("task/artifacts/public", "scripts", "spool", "bundle"):
        (directory / name).mkdir(parents=True)
    task, scripts, spool, bundle = (str(directory / name) for name in ("task", "scripts", "spool", "bundle"))
    return Workspace(task, scripts, spool, bundle, os.getuid())


def _empty(directory: Path) -> None:
    for file in directory.iterdir():
        file.unlink()


async def _outputs(directory: Path, url: str, make: Callable[[Path], None], title: str) -> None:
    workspace = _workspace(directory)
    public = directory / "task" / "artifacts" / "public"
    make(public)
    files = sorted(public.iterdir())
    size = sum(file.stat().st_size for file in files)
    alone = min(sum(map(_hash_alone, files)) for _ in range(ROUNDS))
    _say(f"{title}: hashing alone", size, alone)
    rules = OutputRules(("**",), LARGE, LARGE, MANY)
    run = _Run(a_claim(), FakeClock())
    run.url = url
    sealing, uploading, both, grown = [], [], [], []
    async with open_session() as session:
        store = HttpArtifactStore(session, FakeClock(), UploadSettings(url))
        for _ in range(ROUNDS):
            _forget_peak()
            before = _peak_kib()
            began = time.perf_counter()
            sealed = await SealedOutputs(FakeClock()).seal(rules, workspace, EPOCH + timedelta(1))
            between = time.perf_counter()
            await store.put(run, sealed)
            ended = time.perf_counter()
            sealing.append(between - began)
            uploading.append(ended - between)
            both.append(ended - began)
            grown.append(_peak_kib() - before)
            _empty(Path(workspace.spool))
    for what, times in (("sealing", sealing), ("uploading", uploading), ("both", both)):
        best = min(times)
        _say(f"{title}: {what}", size, best, f"{alone / best:.2f} of hashing; worst {max(times):.2f} s")
    print(f"{title}: peak RSS +{max(grown) / 1024:.0f} MiB")


async def _log(directory: Path, url: str, chunk: bytes, title: str) -> None:
    run = _Run(a_claim(), FakeClock())
    run.url = url
    logs = FileTaskLogs(LogSettings(str(directory), SHA256, secrets=(b"a-secret-of-the-host",)), FakeClock())
    writing, storing, grown = [], [], []
    for _ in range(ROUNDS):
        async with open_session() as session, logs.open(run) as log:
            log.cap(2 * LOG)
            _forget_peak()
            before = _peak_kib()
            began = time.perf_counter()
            for _ in range(LOG // len(chunk)):
                log.output(chunk)
            written = time.perf_counter()
            artifact = await log.finish()
            await HttpArtifactStore(session, FakeClock(), UploadSettings(url)).put(run, (artifact,))
            writing.append(written - began)
            storing.append(time.perf_counter() - written)
            grown.append(_peak_kib() - before)
    _say(f"{title}: written", LOG, min(writing))
    _say(f"{title}: hashed, packed, sent", LOG, min(storing), f"peak RSS +{max(grown) / 1024:.0f} MiB")


async def _all(directory: Path, url: str) -> None:
    def one(public: Path) -> None:
        _fill(public / "large.bin", LARGE)

    def many(public: Path) -> None:
        for number in range(MANY):
            _fill(public / f"{number:04d}.bin", MIB)

    await _outputs(directory / "one", url, one, "1 file of 1 GiB")
    await _outputs(directory / "many", url, many, "1,000 files of 1 MiB")
    lines = LINE * (65536 // len(LINE))
    await _log(directory, url, lines, "256 MB log")
    coloured = LINE.replace(b"INFO", b"\x1b[32mINFO\x1b[0m") * (65536 // (len(LINE) + 9))
    await _log(directory, url, coloured, "256 MB log with colours")
    await _log(directory, url, b"x" * 65536, "256 MB log without newline")


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    roomy = Path("/dev/shm")
    in_memory = roomy.exists() and shutil.disk_usage(roomy).free > 3 * LARGE
    parser.add_argument("directory", nargs="?", default=str(roomy) if in_memory else tempfile.gettempdir())
    where = parser.parse_args().directory
    print(f"in {where}")
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=where) as directory, _storage() as url:
        asyncio.run(_all(Path(directory), url))
    return 0


if __name__ == "__main__":
    sys.exit(main())
