"""A log in a directory of its own, with a key and a clock that a test can set."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from secureworker.audit.log import Log, LogSettings, LogSigner, open_log
from secureworker.audit.moments import Moment
from secureworker.audit.shards import LogKey
from secureworker.core.audit import AuditRecord, Event
from secureworker.core.errors import KeyUnusable
from secureworker.signing.keys import SigningKey
from secureworker.testing import EPOCH, IDENTITY

BOOT = "1b9a5c2e-6f0d-4c3b-9a44-0d1e2f3a4b5c"


def a_key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate())


def log_key(key: SigningKey) -> LogKey:
    return LogKey(key.public.raw, key.public.verifies)


@dataclass
class Clocks:
    """Both clocks, which a test moves."""

    moment: Moment = field(default_factory=lambda: Moment(EPOCH, 1000, BOOT))

    def now(self) -> Moment:
        return self.moment

    def pass_time(self, seconds: float) -> None:
        passed = timedelta(seconds=seconds)
        milliseconds = self.moment.monotonic_ms + passed // timedelta(milliseconds=1)
        self.moment = replace(self.moment, time=self.moment.time + passed, monotonic_ms=milliseconds)

    def set_wall_clock(self, seconds: float) -> None:
        self.moment = replace(self.moment, time=self.moment.time + timedelta(seconds=seconds))


@dataclass
class Place:
    """Where a log is, and how it is opened."""

    directory: Path
    key: SigningKey = field(default_factory=a_key)
    clocks: Clocks = field(default_factory=Clocks)
    shard_records: int = 1000
    retired: tuple[SigningKey, ...] = ()
    signatures: int = 0
    """How many were asked for."""
    away: frozenset[int] = frozenset()
    """Which of them, from 1, the key does not give."""

    def open(self, visit: Callable[[bytes], None] = lambda _: None) -> Log:
        settings = LogSettings(str(self.directory), IDENTITY, self.shard_records, lock_seconds=0.1)
        signer = LogSigner(log_key(self.key), self.sign, tuple(map(log_key, self.retired)))
        return open_log(settings, signer, self.clocks.now, visit)

    def sign(self, message: bytes) -> bytes:
        """Sign, unless the key is one of a device that is away just now."""
        self.signatures += 1
        if self.signatures in self.away:
            raise KeyUnusable("the device is away")
        return self.key.sign(message)

    def records(self, shard: int = 1) -> Path:
        return self.directory / f"{shard:06d}.jsonl"

    def checkpoint(self, shard: int = 1) -> Path:
        return self.directory / f"{shard:06d}.checkpoint"

    def lines(self, shard: int = 1) -> list[bytes]:
        return self.records(shard).read_bytes().splitlines()

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.directory.iterdir()}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "audit")


def a_record(number: int = 0) -> AuditRecord:
    return AuditRecord(Event.WORKER_START, details=(("pid", number), ("version", "1")))


def fill(place: Place, count: int) -> None:
    with place.open() as log:
        for number in range(count):
            log.append(a_record(number), "worker")
