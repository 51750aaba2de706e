"""A daemon, its signer and its audit log, when one of them ends, is changed, or cannot be written."""

import functools
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from secureworker.audit.inspect import STEP_COUNT, read_entries, verify_log
from secureworker.audit.shards import LogKey
from secureworker.core.audit import AuditRecord, Ending, Event
from secureworker.signing.keys import create_signing_key, load_signing_key
from secureworker.signing.publickeys import read_public_key
from tests.audit.witness_server import WitnessServer
from tests.end_to_end.daemon import POOL, Here, Worker, a_queue, eventually

pytestmark = pytest.mark.sandbox


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    tmp_path.chmod(0o755)
    async with a_queue(tmp_path, 60) as running:
        yield running
        assert running.wire.most_reports() <= 1


def records(here: Here) -> list[AuditRecord]:
    return [entry.record for entry in read_entries(str(here.directory / "state" / "audit"))]


def of(here: Here, event: Event) -> list[AuditRecord]:
    return [record for record in records(here) if record.event is event]


def assert_verified(here: Here, *retired: str) -> None:
    public = [read_public_key(str(here.directory / name)) for name in ("key.pub", *retired)]
    keys = tuple(LogKey(key.raw, key.verifies) for key in public)
    steps = verify_log(str(here.directory / "state" / "audit"), keys)
    assert [step.details for step in steps if not step.passed] == []
    assert len(steps) == STEP_COUNT


def signer_of(worker: Worker) -> int:
    found = re.search(r"the signer is process (\d+)", worker.log)
    assert found
    return int(found[1])


def has_records(here: Here, count: int) -> bool:
    return len(records(here)) >= count


def has_ended(pid: int) -> bool:
    try:
        # A dead one stays as a zombie where nobody reaps orphans: in a container, or below a subreaper.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def artifact(here: Here, task_id: str, name: str) -> bytes | None:
    url = f"{here.running.root_url}/api/queue/v1/task/{task_id}/runs/0/artifacts/{name}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.read() if answer.ok else None


async def test_everything_that_a_daemon_does_is_in_its_log(here: Here) -> None:
    worker = await here.start()
    task = await here.create()
    assert await here.resolved(task) == "completed"
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.log

    assert_verified(here)
    assert [record.event.value for record in records(here)] == [
        *("signer-start", "key-load", "worker-start", "policy-load", "self-test"),
        *("claim", "decision", "sandbox-start", "sandbox-end", "seal", "signature", "upload", "upload", "upload"),
        *("resolve", "worker-stop", "signer-stop"),
    ]
    (signature,) = of(here, Event.SIGNATURE)
    signed = await artifact(here, task, "public/chain-of-trust.json")
    assert signed is not None
    assert dict(signature.digests)["chainOfTrust"] == hashlib.sha256(signed).hexdigest()
    for secret in (json.loads((here.directory / "credentials.json").read_text())["accessToken"], "certificate"):
        for path in (here.directory / "state" / "audit").glob("*.jsonl"):
            assert secret not in path.read_text()


async def test_a_worker_whose_signer_is_killed_claims_nothing_more(here: Here) -> None:
    worker = await here.start()
    os.kill(signer_of(worker), signal.SIGKILL)
    claims = here.wire.count("claim-work")

    assert await worker.exit_code() == 1, worker.log

    assert "the signer is gone; nothing can be signed" in worker.log
    # At most the one that was under way.
    assert here.wire.count("claim-work") <= claims + 1
    assert_verified(here)


async def test_a_run_whose_signer_is_killed_is_resolved_and_nothing_of_it_is_signed(here: Here) -> None:
    worker = await here.start()
    task, waiting = await here.create({"seconds": 2, "code": 0}), await here.create()
    await here.begun(worker, task)
    os.kill(signer_of(worker), signal.SIGKILL)

    assert await worker.exit_code() == 1, worker.log

    assert (await here.runs(task))[0]["reasonResolved"] == "internal-error"
    assert (await here.runs(waiting))[0]["state"] == "pending"
    assert await artifact(here, task, "public/chain-of-trust.json") is None
    assert of(here, Event.SIGNATURE) == []
    assert_verified(here)
    # The next worker goes on, with a new signer and the same log.
    again = await here.start()
    assert await here.resolved(waiting) == "completed"
    again.signal(signal.SIGTERM)
    assert await again.exit_code() == 0


@pytest.mark.slow
async def test_a_worker_that_is_killed_at_any_moment_leaves_a_log_that_verifies(here: Here) -> None:
    dice = random.Random(11)
    tasks = []
    for _ in range(4):
        worker = await here.start()
        tasks += [await here.create({"seconds": 0, "code": 0}) for _ in range(3)]
        count = len(records(here)) + dice.randrange(25)
        await eventually(functools.partial(has_records, here, count), f"record {count}")
        worker.signal(signal.SIGKILL)
        await worker.exit_code()
        await eventually(functools.partial(has_ended, signer_of(worker)), "the end of its signer")
        assert_verified(here)

    signatures: dict[tuple[str, int], set[str]] = {}
    for record in of(here, Event.SIGNATURE):
        assert record.run is not None
        signatures.setdefault(record.run, set()).add(dict(record.digests)["chainOfTrust"])
    assert {len(digests) for digests in signatures.values()} == {1}
    for task in tasks:
        signed = await artifact(here, task, "public/chain-of-trust.json")
        if signed is not None:
            ((digest,),) = [digests for run, digests in signatures.items() if run == (task, 0)]
            assert hashlib.sha256(signed).hexdigest() == digest


async def test_a_log_that_was_changed_keeps_the_worker_from_claiming(here: Here) -> None:
    worker = await here.start()
    worker.signal(signal.SIGTERM)
    await worker.exit_code()
    log = here.directory / "state" / "audit" / "000001.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"probes":', b'"Probes":'))
    claims = here.wire.count("claim-work")

    again = await Worker.start(here.arguments(), here.directory / "again.log")

    assert await again.exit_code() == 1
    assert "the audit log was changed" in again.log
    assert here.wire.count("claim-work") == claims


async def test_a_disk_without_room_for_the_log_keeps_the_worker_from_claiming(here: Here) -> None:
    audit = here.directory / "full"
    audit.mkdir(mode=0o750)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=750", "tmpfs", audit], check=True)
    try:
        worker = await Worker.start(here.arguments("--audit-log", str(audit)), here.directory / "full.log")
        here.workers.append(worker)
        await eventually(lambda: worker.ended or "the audit log has less than" in worker.log, "a hindrance")
        assert here.wire.count("claim-work") == 0
        subprocess.run(["mount", "-o", "remount,size=16m", audit], check=True)
        assert await here.resolved(await here.create()) == "completed", worker.log
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0, worker.log
    finally:
        subprocess.run(["umount", "--lazy", audit], check=True)


async def test_a_new_key_takes_the_old_ones_place_and_the_log_goes_on(here: Here) -> None:
    worker = await here.start("--once")
    assert await here.resolved(await here.create()) == "completed"
    assert await worker.exit_code() == 0, worker.log
    (here.directory / "key").rename(here.directory / "old")
    (here.directory / "key.pub").rename(here.directory / "old.pub")
    create_signing_key(str(here.directory / "key"))

    refused = await Worker.start(here.arguments(), here.directory / "refused.log")
    assert await refused.exit_code() == 1
    assert "the key is another one than the log was begun with" in refused.log
    wrong = await Worker.start(here.arguments("--retired-key", "nonsense"), here.directory / "wrong.log")
    assert await wrong.exit_code() == 2
    worker = await here.start("--once", "--retired-key", str(here.directory / "old.pub"))
    assert await here.resolved(await here.create()) == "completed"
    assert await worker.exit_code() == 0, worker.log

    assert_verified(here, "old.pub")
    assert len(of(here, Event.ROTATION)) == 1
    assert len({dict(record.details)["key"] for record in of(here, Event.SIGNATURE)}) == 2


async def test_a_worker_uses_a_signer_that_somebody_else_has_started(here: Here) -> None:
    config, path = here.directory / "signer.yml", here.directory / "signer.sock"
    settings = {
        "version": 1,
        "worker-pool": POOL,
        "worker-group": "test-group",
        "worker-id": "test-worker",
        "key": f"file:{here.directory / 'key'}",
        "audit-log": str(here.directory / "state" / "audit"),
        "socket": str(path),
    }
    config.write_text(json.dumps(settings))
    signer = subprocess.Popen([sys.executable, "-m", "secureworker", "signer", "--config", config])
    try:
        await eventually(path.exists, "the signer's socket")
        arguments = here.arguments("--signer", f"unix:{path}")
        at = arguments.index("--key")
        del arguments[at : at + 2]
        worker = await Worker.start([*arguments, "--once"], here.directory / "worker.log")
        task = await here.create()
        assert await here.resolved(task) == "completed"
        assert await worker.exit_code() == 0, worker.log
    finally:
        signer.terminate()
        signer.wait(10)

    assert_verified(here)
    assert len(of(here, Event.SIGNATURE)) == 1
    assert of(here, Event.SIGNER_STOP)[-1].ending is Ending.OK


async def test_a_signer_is_a_unix_socket_or_none(here: Here) -> None:
    arguments = here.arguments("--signer", "tcp:localhost:1")
    at = arguments.index("--key")
    del arguments[at : at + 2]
    worker = await Worker.start(arguments, here.directory / "worker.log")

    assert await worker.exit_code() == 2
    assert "unix:/path/to/socket is expected" in worker.log


@pytest.mark.slow
async def test_a_worker_whose_signer_requires_a_witness_claims_nothing_until_it_has_signed(here: Here) -> None:
    config, path, store = here.directory / "signer.yml", here.directory / "signer.sock", here.directory / "witnessed"
    witness = WitnessServer(load_signing_key(f"file:{here.directory / 'key'}"))
    settings = {
        "version": 1,
        "worker-pool": POOL,
        "worker-group": "test-group",
        "worker-id": "test-worker",
        "key": f"file:{here.directory / 'key'}",
        "audit-log": str(here.directory / "state" / "audit"),
        "socket": str(path),
        # Another user would not get through pytest's directories to the store.
        "user": os.geteuid(),
        "witness": {"key": witness.witness_key.vkey, "store": str(store), "seconds": 0.2},
    }
    config.write_text(json.dumps(settings))
    argv = [sys.executable, "-m", "secureworker", "signer", "--config", str(config)]
    said = here.directory / "signer.log"
    with said.open("wb") as log:
        signer = subprocess.Popen(argv, stderr=log)
    try:
        await eventually(path.exists, "the signer's socket")
        arguments = here.arguments("--signer", f"unix:{path}")
        at = arguments.index("--key")
        del arguments[at : at + 2]
        worker = await Worker.start(arguments, here.directory / "worker.log")
        # What was asked for before is waited for; nothing more is.
        assert await here.resolved(await here.create()) == "completed"
        await eventually(lambda: "has signed for 0 records" in worker.log, "the worker to miss the witness")
        claims, task = here.wire.count("claim-work"), await here.create()
        await eventually(lambda: said.read_text().count("has signed for 0 records") > 1, "it to ask again")
        assert (await here.runs(task))[0]["state"] == "pending"
        assert here.wire.count("claim-work") == claims

        store.mkdir()
        note = (here.directory / "state" / "audit" / "000001.checkpoint").read_bytes()
        (store / "000001.checkpoint").write_bytes(witness.cosign(note))

        assert await here.resolved(task) == "completed"
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0, worker.log
    finally:
        signer.terminate()
        signer.wait(10)
    assert_verified(here)
