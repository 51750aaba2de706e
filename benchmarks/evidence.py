"""How long signer and audit log take: `python benchmarks/evidence.py [DIRECTORY]`. Prints figures; asserts nothing.

DIRECTORY is on the disk that is to be measured: an append waits for it three times. Statements without the signer are
in benchmarks/statements.py.
"""

import asyncio
import functools
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

from secureworker.audit.inspect import verify_log
from secureworker.audit.log import Log, LogSettings, LogSigner, open_log
from secureworker.audit.moments import SystemMoments
from secureworker.audit.shards import LogKey
from secureworker.core.audit import AuditRecord, Event
from secureworker.core.outcome import ExitCode
from secureworker.ports import Statement
from secureworker.signing.client import child_settings, child_signer
from secureworker.signing.keys import SigningKey, create_signing_key
from secureworker.testing import IDENTITY, ROOT_URL, SHA256, a_claim, an_artifact, an_execution

ROUNDS = 300
RECORDS = 20_000
A_RECORD = AuditRecord(Event.POLICY_LOAD, digests=(("policy", SHA256),), details=(("scripts", 3),))


def milliseconds(times: list[float]) -> str:
    """Give median and 99th percentile."""
    ordered = sorted(times)
    return f"{statistics.median(ordered) * 1000:8.2f} ms median, {ordered[len(ordered) * 99 // 100] * 1000:8.2f} ms p99"


async def repeat(action: Callable[[], Awaitable[object]], rounds: int = ROUNDS) -> str:
    times = []
    for _ in range(rounds):
        begun = perf_counter()
        await action()
        times.append(perf_counter() - begun)
    return milliseconds(times)


def a_log(directory: Path, key: SigningKey) -> Log:
    signer = LogSigner(LogKey(key.public.raw, key.public.verifies), key.sign)
    return open_log(LogSettings(str(directory), IDENTITY), signer, SystemMoments().now, lambda _: None)


def measure_log(directory: Path, key: SigningKey) -> None:
    times = []
    with a_log(directory, key) as log:
        for _ in range(ROUNDS):
            begun = perf_counter()
            log.append(A_RECORD, "worker")
            times.append(perf_counter() - begun)
    print(f"append to the log, with checkpoint  {milliseconds(times)}")


def measure_replay(key: SigningKey) -> None:
    # In memory: what is measured is the replay, not how the log came about.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        with a_log(Path(made, "audit"), key) as log:
            for _ in range(RECORDS):
                log.append(A_RECORD, "worker")
        begun = perf_counter()
        a_log(Path(made, "audit"), key).close()
        replayed = perf_counter()
        verify_log(str(Path(made, "audit")), (LogKey(key.public.raw, key.public.verifies),))
        verified = perf_counter()
    print(f"replay {RECORDS} records at start      {(replayed - begun) * 1000:8.2f} ms")
    print(f"verify {RECORDS} records               {(verified - replayed) * 1000:8.2f} ms")


async def measure_signer(directory: Path, key: Path) -> None:
    settings = child_settings(IDENTITY, f"file:{key}", str(directory), root_url=ROOT_URL, user=None)
    begun = perf_counter()
    async with child_signer(settings, IDENTITY) as signer:
        print(f"start of a signer                   {(perf_counter() - begun) * 1000:8.2f} ms")
        await signer.append(A_RECORD)
        print(f"signer round trip                   {await repeat(signer.check)}")
        print(f"a record by way of the signer       {await repeat(lambda: signer.append(A_RECORD))}")
        for count, task_id, rounds in ((1, "ddVaxIRdRAaAAr5ryHnORA", ROUNDS), (1000, "ddVaxIRdRAaAAr5ryHnORQ", 20)):
            artifacts = tuple(an_artifact(f"public/file-{number:06}.bin", b"") for number in range(count))
            execution = an_execution(ExitCode(0))
            asked = Statement(a_claim(task_id=task_id), execution, artifacts, SHA256, "build", SHA256, ROOT_URL)
            told = await repeat(functools.partial(signer.sign, asked), rounds)
            print(f"statements over {count:4} artifacts        {told}")


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as made:
        key = create_signing_key(f"{made}/key")
        measure_log(Path(made, "audit"), key)
        measure_replay(key)
        asyncio.run(measure_signer(Path(made, "signer"), Path(made, "key")))


if __name__ == "__main__":
    main()
