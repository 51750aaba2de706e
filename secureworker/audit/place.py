"""The directory of a log: making it, giving it to the signer's user, and having it alone."""

import fcntl
import os
import stat
import time
from typing import Final

from secureworker.audit import shards
from secureworker.core.errors import AuditError
from secureworker.host.userns import owner

_LOCK_POLL_SECONDS: Final = 0.02
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def open_place(directory: str) -> int:
    """Open the directory, made where it is missing; all that is done in it later is done by the descriptor.

    Raises:
        AuditError: it cannot be used.
    """
    try:
        os.makedirs(directory, mode=0o750, exist_ok=True)
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise AuditError(f"the audit log's directory {directory} cannot be used: {error.strerror}") from error


def open_existing(directory: str) -> int:
    """Open the directory of a log to read in it.

    Raises:
        AuditError: it cannot be read.
    """
    try:
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise AuditError(f"the directory {directory} cannot be read: {error.strerror}") from error


def give(place: int, uid: int, gid: int) -> None:
    """Make another user the owner of the directory and of the log's files in it. For root, before it becomes that user.

    Raises:
        AuditError: it is not possible, or a file in it is not one of a log.
    """
    try:
        for name in os.listdir(place):
            descriptor = shards.open_file(name, os.O_RDONLY, place)
            try:
                os.fchown(descriptor, uid, gid)
            finally:
                os.close(descriptor)
        os.fchown(place, uid, gid)
    except OSError as error:
        raise AuditError(f"the audit log cannot be given to uid {uid}: {error.strerror}") from error


def check_place(place: int, directory: str) -> None:
    """See that nobody else can put files there.

    Raises:
        AuditError: others can.
    """
    status = os.fstat(place)
    if owner(status, place) not in {0, os.geteuid()} or status.st_mode & _OTHERS_WRITE:
        raise AuditError(
            f"the audit log's directory {directory} can be written by others; make it the signer's own, mode 0750"
        )


def lock_place(place: int, directory: str, seconds: float) -> int:
    """Take the lock of a log; give the descriptor that holds it.

    Raises:
        AuditError: another process has it, and did not end in time.
    """
    lock = shards.open_file(shards.LOCK, os.O_RDWR | os.O_CREAT, place)
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(lock)
                raise AuditError(
                    f"another signer writes to {directory}; stop it, or give each its own directory"
                ) from None
            time.sleep(_LOCK_POLL_SECONDS)
        else:
            return lock
