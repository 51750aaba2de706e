"""What looking costs the worker: how late its loop is while nobody looks, one looks each second, 16 look all the time.

Run it by `python benchmarks/status.py`. The standing is full: 20 decisions, resolutions and errors, a running task with
a log of 10 MB. The lag is how much later than asked for a sleep of 1 ms ends: what a renewal of a claim would wait.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from secureworker.core.happening import Began, Claimed, Decided, Faulted, Happening, Phase, PhaseEntered, Resolved
from secureworker.core.ids import RunId, Sha256, TaskId
from secureworker.core.outcome import Reason, Refused, Resolution
from secureworker.host.clock import SystemClock
from secureworker.operation.board import Board
from secureworker.operation.view_open import Places, StatusSettings, open_status
from secureworker.testing import IDENTITY, TASK_ID

SECONDS = 5.0
LOOKERS = 16
FLOODERS = 2
FLOOD = """
import socket, sys, time
count, until = 0, time.time() + float(sys.argv[2])
while time.time() < until:
    try:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(sys.argv[1])
            channel.send(b"GET /status.json HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
            count += 1
    except OSError:
        continue
print(count)
"""


def happenings() -> list[Happening]:
    """Fill a standing."""
    told: list[Happening] = []
    for number in range(20):
        run = (TaskId(TASK_ID), RunId(number))
        told += [
            Claimed(*run, f"a task <{number}>"),
            Decided(*run, "", tuple(Reason("tasks.scopes.allow", "x" * 200) for _ in range(5))),
            *(PhaseEntered(*run, phase) for phase in Phase if phase is not Phase.ENDED),
            Resolved(*run, Refused(()), Resolution.MALFORMED_PAYLOAD, reported=True, summary="y" * 200),
            PhaseEntered(*run, Phase.ENDED),
            Faulted("warning", f"{number} " + "z" * 200),
        ]
    return [
        *told,
        Claimed(TaskId(TASK_ID), RunId(99), "the last"),
        PhaseEntered(TaskId(TASK_ID), RunId(99), Phase.RUNNING),
    ]


@asynccontextmanager
async def lookers(path: str, count: int, pause: float, times: list[float]) -> AsyncIterator[None]:
    """Look at the page while the block runs."""

    async def look() -> None:
        while True:
            began = time.perf_counter()
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.read()
            writer.close()
            times.append(time.perf_counter() - began)
            await asyncio.sleep(pause)

    async with asyncio.TaskGroup() as group:
        looking = [group.create_task(look()) for _ in range(count)]
        try:
            yield
        finally:
            for one in looking:
                one.cancel()


async def lag() -> list[float]:
    """Measure how late sleeps end, in milliseconds."""
    found = []
    until = time.perf_counter() + SECONDS
    while (began := time.perf_counter()) < until:
        await asyncio.sleep(0.001)
        found.append(1000 * (time.perf_counter() - began - 0.001))
    return sorted(found)


async def flooded(place: str) -> str:
    """Measure while other processes do nothing but connect, ask, and leave."""
    run = (sys.executable, "-c", FLOOD, place, str(SECONDS))
    flooders = [await asyncio.create_subprocess_exec(*run, stdout=asyncio.subprocess.PIPE) for _ in range(FLOODERS)]
    late = await lag()
    made = sum([int((await flooder.communicate())[0]) for flooder in flooders])
    return f"{FLOODERS} processes flood it, {made / SECONDS:.0f} connections/s: {summary(late)}"


def summary(late: list[float]) -> str:
    """Sum up how late the loop was."""
    return (
        f"lag of the loop: median {statistics.median(late):5.2f} ms, 99 % {late[int(len(late) * 0.99)]:5.2f} ms, "
        f"most {late[-1]:5.2f} ms"
    )


def told_by(board: Board, count: int) -> float:
    """Measure what a happening costs the worker, in microseconds."""
    each = happenings()
    began = time.perf_counter()
    for number in range(count):
        board.saw(each[number % len(each)])
    return 1e6 * (time.perf_counter() - began) / count


async def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as directory:
        place = str(Path(directory) / "s")
        log = Path(directory) / f"{TASK_ID}-99.log"
        log.write_text("a line of a log with some length, as logs have <them> & more\n" * 160_000)
        began = Began(IDENTITY, "1", "https://tc.example.com", Sha256("5f" * 32))
        async with open_status(began, SystemClock(), StatusSettings(Places(place), directory)) as board:
            for happening in happenings():
                board.saw(happening)
            for name, count, pause in (
                ("nobody looks", 0, 0.0),
                ("one looks each second", 1, 1.0),
                (f"{LOOKERS} look all the time", LOOKERS, 0.0),
            ):
                times: list[float] = []
                async with lookers(place, count, pause, times):
                    late = await lag()
                answers = f"{len(times) / SECONDS:6.1f} pages/s" if times else "              "
                print(f"{name:24} {answers}  {summary(late)}")
            print(await flooded(place))
            print(f"a happening, told to the board: {told_by(board, 20_000):.1f} us")
    print(f"measured {datetime.now(UTC):%Y-%m-%d}")


asyncio.run(main())
