"""Copying a file once, hashing on the way: what is signed and uploaded later is this copy and nothing else."""

import hashlib
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from secureworker.core.ids import Sha256
from secureworker.host.threads import Abandoned

BUFFER_BYTES = 2 * 1024 * 1024
"""Between 1 and 4 MiB sealing is fastest here: smaller ones cost calls, larger ones fall out of the cache."""
_INLINE_BYTES = 2 * BUFFER_BYTES
"""Up to this size a helper thread costs more than it saves; several files are copied at a time anyway."""


class Changed(Exception):
    """The source is not what it was when it was measured."""


class _Digest(Protocol):
    def update(self, data: memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Copy:
    """What was written to the spool."""

    size: int
    sha256: Sha256


def copy_hashed(source: int, target: int, size: int, abandoned: threading.Event) -> Copy:
    """Copy `size` bytes from one descriptor to the other.

    Reading, writing and hashing release the interpreter's lock, so that hashing in a helper thread about doubles the
    speed of a large file (1.4 GB/s against 0.68 on two cores).

    Raises:
        Changed: the source has more bytes, or fewer.
        Abandoned: nobody waits for the copy.
        OSError: of read(2) and write(2).
    """
    digest = hashlib.sha256()
    if size <= _INLINE_BYTES:
        copied = _copy_inline(source, target, size, digest)
    else:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="hash") as helper:
            copied = _copy_beside(source, target, size, digest, (helper, abandoned))
    if copied != size:
        raise Changed
    return Copy(copied, Sha256(digest.hexdigest()))


def _copy_inline(source: int, target: int, size: int, digest: _Digest) -> int:
    # One byte more than expected: a file that has grown shows itself.
    view = memoryview(bytearray(min(size + 1, BUFFER_BYTES)))
    copied = 0
    while count := os.readv(source, [view]):
        copied += count
        if copied > size:
            raise Changed
        digest.update(view[:count])
        _write_all(target, view[:count])
    return copied


def _copy_beside(
    source: int, target: int, size: int, digest: _Digest, beside: tuple[ThreadPoolExecutor, threading.Event]
) -> int:
    helper, abandoned = beside
    views = [memoryview(bytearray(BUFFER_BYTES)) for _ in range(2)]
    hashing: list[Future[None] | None] = [None, None]
    copied = 0
    slot = 0
    while True:
        if abandoned.is_set():
            raise Abandoned
        if (before := hashing[slot]) is not None:
            before.result()
        count = os.readv(source, [views[slot]])
        if not count:
            # The helper ends, with all that it was given, when its `with` is left.
            return copied
        copied += count
        if copied > size:
            raise Changed
        hashing[slot] = helper.submit(digest.update, views[slot][:count])
        _write_all(target, views[slot][:count])
        slot = 1 - slot


def _write_all(target: int, view: memoryview) -> None:
    while view:
        view = view[os.write(target, view) :]
