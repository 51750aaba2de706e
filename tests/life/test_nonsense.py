"""A Queue that answers nonsense: each answer is bounded, logged, and asked for again or refused; the worker lives."""

import functools
import signal
from pathlib import Path

import pytest

from tests.end_to_end.daemon import Worker, eventually
from tests.life.faults import Fault, Flood, Reset, Says, Stall, Torn
from tests.life.world import World, a_world

pytestmark = pytest.mark.sandbox

_NONSENSE: dict[str, Fault] = {
    "HTML": Says(200, b"<html><body><h1>It works!</h1></body></html>", "text/html"),
    "HTML that says it is JSON": Says(200, b"<html>"),
    "torn JSON": Torn(),
    "a list": Says(200, b"[]"),
    "null": Says(200, b"null"),
    "nothing at all": Says(200, b""),
    "no content": Says(204, b""),
    "wrong types": Says(200, b'{"tasks": {"a": 1}, "status": [], "takenUntil": 1, "putUrl": 2, "storageType": []}'),
    "200 with an error": Says(200, b'{"code": "InternalServerError", "message": "no", "requestInfo": {}}'),
    "deep": Says(200, b'{"tasks": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "not UTF-8": Says(200, b'{"tasks": "\xff\xfe"}'),
    "NaN": Says(200, b'{"tasks": NaN}'),
    "an unknown encoding": Says(200, b"{}", headers=(("Content-Encoding", "br, gzip"),)),
    "gzip that is none": Says(200, b"{}", headers=(("Content-Encoding", "gzip"),)),
    "an unknown charset": Says(200, b"{}", "application/json; charset=klingon"),
    "a redirect to elsewhere": Says(302, b"", headers=(("Location", "http://169.254.169.254/latest/"),)),
    "a redirect to itself": Says(307, b"", headers=(("Location", "/"),)),
    "10 GB": Flood(),
    "half an answer": Reset("middle"),
    "a stall in its middle": Stall(1.0, after_headers=True),
    "an unheard-of status": Says(799, b"{}"),
}
_FOR_STORAGE = [_NONSENSE[what] for what in ("half an answer", "an unheard-of status")]
_SHORT = (
    "HTML",
    "torn JSON",
    "wrong types",
    "200 with an error",
    "deep",
    "gzip that is none",
    "a redirect to elsewhere",
    "10 GB",
    "a stall in its middle",
)
_MEMORY_KIB = 400_000
_ALL = [pytest.param(_SHORT, id="some"), pytest.param(tuple(_NONSENSE), id="all", marks=pytest.mark.long)]


def _memory(pid: int) -> int:
    """Give the most memory that a process had, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _moved_on(world: World, worker: Worker, claims: int) -> bool:
    """Say whether a claim was answered with nonsense, and the next one as it should be."""
    return worker.ended or world.faults.count("claimWork") >= claims + 3


@pytest.mark.parametrize("which", _ALL)
async def test_nonsense_for_a_claim_costs_a_pause_and_nothing_else(which: tuple[str, ...]) -> None:
    async with a_world(long_poll=0.1) as world:
        worker = await world.begin()
        for what in which:
            claims = world.faults.count("claimWork")
            world.faults.on("claimWork", _NONSENSE[what])
            await eventually(functools.partial(_moved_on, world, worker, claims), what)
            assert not worker.ended, f"{what}: {worker.log}"
        assert await world.resolved(await world.task()) == "completed", worker.log
        assert "Traceback" not in worker.log, worker.log
        assert max(world.faults.flooded) < 200_000_000
        assert _memory(worker.process.pid) < _MEMORY_KIB
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0, worker.log


@pytest.mark.parametrize("which", _ALL)
async def test_nonsense_in_the_middle_of_a_run_is_asked_for_again_and_the_run_completes(which: tuple[str, ...]) -> None:
    async with a_world() as world:
        worker = await world.begin()
        for what in which:
            world.faults.as_usual()
            for call in ("status", "createArtifact", "upload", "reportCompleted"):
                # What storage says beside its status is nobody's business.
                if call != "upload" or _NONSENSE[what] in _FOR_STORAGE:
                    world.faults.on(call, _NONSENSE[what])
            task = await world.task()
            assert await world.resolved(task) == "completed", f"{what}: {worker.log}"
            await eventually(functools.partial(_logged, worker, f"{task}/0: resolved completed"), what)
        assert "Traceback" not in worker.log, worker.log
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0, worker.log


def _logged(worker: Worker, words: str) -> bool:
    return words in worker.log
