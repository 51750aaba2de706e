"""A signer's server in a thread, and the child as workers start it."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secureworker.audit.log import Log, LogSettings, LogSigner, open_log
from secureworker.audit.moments import SystemMoments
from secureworker.audit.shards import LogKey
from secureworker.core.audit import AuditRecord, read_record
from secureworker.core.checkpoint import InclusionProof
from secureworker.core.outcome import ExitCode
from secureworker.ports import Artifact, Statement
from secureworker.signing.client import SignerClient, child_settings
from secureworker.signing.desk import Bounds, SignedRuns
from secureworker.signing.keys import SigningKey
from secureworker.signing.process import Server, requests
from secureworker.testing import IDENTITY, ROOT_URL, SHA256, a_claim, an_execution

BOUNDS = Bounds(IDENTITY, frozenset({SHA256}), ROOT_URL)


def a_statement(*artifacts: Artifact, **task: Any) -> Statement:
    return Statement(a_claim(**task), an_execution(ExitCode(0)), artifacts, SHA256, "build", SHA256, ROOT_URL)


@dataclass
class LogTrail:
    """A real log."""

    log: Log

    def write(self, record: AuditRecord, writer: str) -> InclusionProof:
        return self.log.append(record, writer)

    def check(self) -> None:
        self.log.check()


def log_settings(directory: Path) -> LogSettings:
    return LogSettings(str(directory), IDENTITY)


@contextmanager
def opened(directory: Path, key: SigningKey) -> Iterator[tuple[LogTrail, SignedRuns]]:
    """Open a log, and learn from it what was signed, as the process does."""
    signed = SignedRuns()
    signer = LogSigner(LogKey(key.public.raw, key.public.verifies), key.sign)
    with open_log(
        log_settings(directory), signer, SystemMoments().now, lambda line: signed.learn(read_record(line)[0])
    ) as log:
        yield LogTrail(log), signed


@contextmanager
def serving(
    trail: LogTrail, signed: SignedRuns, key: SigningKey, bounds: Bounds = BOUNDS, **changes: Any
) -> Iterator[socket.socket]:
    """Serve one client in a thread; give its socket."""
    ours, its = socket.socketpair()
    server = Server(requests(key, bounds, trail, signed), **{"allowed_uids": frozenset({0, 1000}), **changes})
    thread = threading.Thread(target=server.serve, args=(its,))
    thread.start()
    try:
        with ours:
            yield ours
    finally:
        thread.join(20)
        its.close()
    assert not thread.is_alive()


@contextmanager
def client_of(trail: LogTrail, signed: SignedRuns, key: SigningKey, bounds: Bounds = BOUNDS) -> Iterator[SignerClient]:
    with serving(trail, signed, key, bounds) as channel:
        client = SignerClient(channel)
        yield client
        client.close()


def settings_for(directory: Path, **changes: Any) -> Mapping[str, Any]:
    """Give the settings of a child whose key and log lie in `directory`."""
    made = child_settings(
        IDENTITY,
        f"file:{directory / 'keys' / 'signing'}",
        str(directory / "audit"),
        root_url=ROOT_URL,
        user=None,
    )
    return {**made, "policies": [SHA256], **changes}


def records(directory: Path) -> list[AuditRecord]:
    lines = (directory / "audit" / "000001.jsonl").read_bytes().splitlines()
    return [read_record(line)[0] for line in lines]
