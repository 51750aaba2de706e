"""Whose signatures count, for which worker pools, and when: the trust file's content as values.

No timestamp authority is asked: the time of a statement is what its signer says, or what the Queue said of the task.
Days of validity keep honest keys in order. Against a key that somebody stole only its revocation helps, and that goes
by positions in the pool's audit logs as of checkpoints that somebody else kept, which the thief cannot move. A size
alone would not do: who has the key signs another log of that size.
"""

import base64
import hashlib
import struct
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from typing import Final, TypeAlias

from secureworker.core.checkpoint import Checkpoint
from secureworker.core.ids import WorkerPool

KEY_BYTES: Final = 32
_ALGORITHM: Final = b"ssh-ed25519"
# RFC 8410: SEQUENCE { SEQUENCE { OID 1.3.101.112 }, BIT STRING of 32 bytes }, and then those.
_SPKI_HEAD: Final = bytes.fromhex("302a300506032b6570032100")


class KeyState(Enum):
    """Where in its life a key is."""

    ACTIVE = "active"
    """Signs."""
    NEXT = "next"
    """Announced, so that verifiers have it before it is first used: from its first day on, it counts."""
    RETIRED = "retired"
    """Signs no more. What it signed up to its last day counts."""
    REVOKED = "revoked"
    """Not its owner's alone any more. Only what the audit log shows to be older counts."""


class Implementation(Enum):
    """Which worker a pool runs, and so which statements it makes."""

    SECUREWORKER = "secureworker"
    SCRIPTWORKER = "scriptworker"
    GENERIC_WORKER = "generic-worker"
    DOCKER_WORKER = "docker-worker"


@dataclass(frozen=True, slots=True)
class TrustKey:
    """An Ed25519 key of a pool."""

    raw: bytes
    state: KeyState = KeyState.ACTIVE
    valid_from: date | None = None
    """First day, in UTC."""
    valid_until: date | None = None
    """Last day, in UTC."""
    last_good: tuple[Checkpoint, ...] = ()
    """Of a revoked key: what its audit logs were while the key was its owner's alone, each shard at most once."""

    def __post_init__(self) -> None:
        if len(self.raw) != KEY_BYTES:
            raise ValueError(f"an Ed25519 public key has {KEY_BYTES} bytes, not {len(self.raw)}")

    @property
    def fingerprint(self) -> str:
        """Its name."""
        return fingerprint(self.raw)


@dataclass(frozen=True, slots=True)
class TrustPool:
    """A worker pool whose statements count."""

    worker_pool: WorkerPool
    implementation: Implementation
    keys: tuple[TrustKey, ...]


@dataclass(frozen=True, slots=True)
class Trust:
    """A trust file."""

    pools: tuple[TrustPool, ...]
    root_url: str = ""
    """The only deployment whose runs count; empty: any, as far as a statement says which it is of."""

    def raw_keys(self) -> tuple[bytes, ...]:
        """Give every key once, in the order of the file."""
        return tuple(dict.fromkeys(key.raw for pool in self.pools for key in pool.keys))

    def pool(self, worker_pool: WorkerPool) -> TrustPool | None:
        """Give what is said of a pool."""
        return next((pool for pool in self.pools if pool.worker_pool == worker_pool), None)


@dataclass(frozen=True, slots=True)
class OneKey:
    """No trust file: one key that the caller vouches for, whatever pool it signs for."""

    raw: bytes

    def raw_keys(self) -> tuple[bytes, ...]:
        """Give it."""
        return (self.raw,)


Trusted: TypeAlias = Trust | OneKey


@dataclass(frozen=True, slots=True)
class Logged:
    """That a record is at `index` of the log with exactly this root: a fact of hashes, whoever signed for it."""

    checkpoint: Checkpoint
    index: int


@dataclass(frozen=True, slots=True)
class Signed:
    """When something was signed, as well as it is known."""

    earliest: datetime
    latest: datetime
    logged: Logged | None = None
    """Where the record of the signature was proved to be."""


def why_not_trusted(trusted: Trusted, raw: bytes, worker_pool: WorkerPool, signed: Signed) -> str:
    """Say why a good signature by the key `raw` does not count; nothing where it does.

    1. The pool that the statement is about is one that the trust file has.
    2. The key is that pool's: another pool's key is as bad as a stranger's.
    3. It is not revoked, or the signature is proved to be in a log as the trust file knows it from before.
    4. The time of signing has a day on which the key was valid.
    """
    if isinstance(trusted, OneKey):
        return "" if raw == trusted.raw else f"{fingerprint(raw)} is not the key that was given"
    # 1.
    pool = trusted.pool(worker_pool)
    if pool is None:
        return f"the trust file has no worker pool {worker_pool}"
    # 2.
    key = next((key for key in pool.keys if key.raw == raw), None)
    if key is None:
        return f"{fingerprint(raw)} is no key of the worker pool {worker_pool}"
    # 3.
    if key.state is KeyState.REVOKED and (why := _not_from_before(key, signed.logged)):
        return f"{key.fingerprint} is revoked, and {why}"
    # 4.
    return _out_of_days(key, signed)


def _out_of_days(key: TrustKey, signed: Signed) -> str:
    first, last = signed.earliest.astimezone(UTC).date(), signed.latest.astimezone(UTC).date()
    if key.valid_from is not None and last < key.valid_from:
        return f"{key.fingerprint} is valid from {key.valid_from}, and this was signed by {last}"
    if key.valid_until is not None and first > key.valid_until:
        return f"{key.fingerprint} was valid until {key.valid_until}, and this was not signed before {first}"
    return ""


def _not_from_before(key: TrustKey, logged: Logged | None) -> str:
    """Say why a signature is not shown to be older than the revocation; nothing where it is.

    1. The trust file knows a log of the key from before.
    2. The record of the signature is proved to be in some log.
    3. It is that log, name, size and root: then its index is below that size.
    """
    # 1.
    if not key.last_good:
        return "the trust file has no checkpoint of a log from before (last-good-checkpoints)"
    # 2.
    if logged is None:
        return "no proof shows that this is in its log from before (public/audit.tlog-proof, or --log-proof)"
    shown = logged.checkpoint
    good = next((one for one in key.last_good if one.origin == shown.origin), None)
    if good is None:
        return f"the trust file has no checkpoint of {shown.origin} from before"
    # 3. The values, not the signature: that one the thief can make.
    return "" if shown == good else _another_log(logged, good)


def _another_log(logged: Logged, good: Checkpoint) -> str:
    """Say in what the log in which a record was proved to be differs from the good one of the same name."""
    shown = logged.checkpoint
    if shown.size == good.size:
        return f"the proof is of another {shown.origin} with {good.size} records: its root is not the trust file's"
    if logged.index >= good.size:
        return f"this is record {logged.index} of {shown.origin}, of which only the first {good.size} count"
    return (
        f"the proof is of {shown.origin} as it was with {shown.size} records, the trust file knows its first "
        f"{good.size}; have it proved there: secureworker audit prove --checkpoint, and verify --log-proof"
    )


def fingerprint(raw: bytes) -> str:
    """Give the OpenSSH fingerprint of an Ed25519 key: of its wire form (RFC 8709), without padding."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(wire(raw)).digest()).decode().rstrip("=")


def wire(raw: bytes) -> bytes:
    """Give a key as SSH writes it (RFC 8709 section 4)."""
    return struct.pack(">I", len(_ALGORITHM)) + _ALGORITHM + struct.pack(">I", len(raw)) + raw


def spki(raw: bytes) -> bytes:
    """Give a key as DER, SubjectPublicKeyInfo (RFC 8410)."""
    return _SPKI_HEAD + raw


def hint(raw: bytes) -> str:
    """Give sigstore's name of a key: base64 of the sha256 of its DER."""
    return base64.b64encode(hashlib.sha256(spki(raw)).digest()).decode()
