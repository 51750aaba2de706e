"""Whose signatures count, for which worker pools, and when: the trust file's content as values.

No timestamp authority is asked: the time of a statement is what its signer says, or what the Queue said of the task.
Days of validity keep honest keys in order. Against a key that somebody stole only its revocation helps, and that goes
by positions in the pool's audit log, which the thief cannot move.
"""

import base64
import hashlib
import struct
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from typing import Final, TypeAlias

from secureworker.core.ids import WorkerPool
from secureworker.core.policy import TrustedPool

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
    last_good_log_size: int | None = None
    """Of a revoked key: how many records the pool's audit log had while the key was its owner's alone."""

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
class Signed:
    """When something was signed, as well as it is known."""

    earliest: datetime
    latest: datetime
    log_index: int | None = None
    """Of the signature's record in the pool's audit log, where that was proved."""


def why_not_trusted(trusted: Trusted, raw: bytes, worker_pool: WorkerPool, signed: Signed) -> str:
    """Say why a good signature by the key `raw` does not count; nothing where it does.

    1. The pool that the statement is about is one that the trust file has.
    2. The key is that pool's: another pool's key is as bad as a stranger's.
    3. It is not revoked, or the signature is proved to be older than its revocation.
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
    if key.state is KeyState.REVOKED and not _before_revocation(key, signed):
        return _revoked(key)
    # 4.
    return _out_of_days(key, signed)


def _out_of_days(key: TrustKey, signed: Signed) -> str:
    first, last = signed.earliest.astimezone(UTC).date(), signed.latest.astimezone(UTC).date()
    if key.valid_from is not None and last < key.valid_from:
        return f"{key.fingerprint} is valid from {key.valid_from}, and this was signed by {last}"
    if key.valid_until is not None and first > key.valid_until:
        return f"{key.fingerprint} was valid until {key.valid_until}, and this was not signed before {first}"
    return ""


def _before_revocation(key: TrustKey, signed: Signed) -> bool:
    size, index = key.last_good_log_size, signed.log_index
    return size is not None and index is not None and 0 <= index < size


def _revoked(key: TrustKey) -> str:
    if key.last_good_log_size is None:
        return f"{key.fingerprint} is revoked"
    return (
        f"{key.fingerprint} is revoked; only what is among the first {key.last_good_log_size} records of the pool's "
        "audit log counts, and this was not shown to be"
    )


def from_policy(pools: tuple[TrustedPool, ...], root_url: str) -> Trust:
    """Take over what a policy says under `trust`."""
    return Trust(
        tuple(
            TrustPool(
                pool.worker_pool,
                Implementation(pool.implementation),
                tuple(
                    TrustKey(
                        base64.b64decode(key.public),
                        KeyState.REVOKED if key.revoked else KeyState.ACTIVE,
                        valid_until=key.valid_until,
                    )
                    for key in pool.keys
                ),
            )
            for pool in pools
        ),
        root_url,
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
