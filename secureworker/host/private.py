"""Private files of this host: credentials, secrets, what a registration needs. Read strictly, replaced atomically.

Blocking: call from a thread. No error shows a file's content.
"""

import os
import stat
from contextlib import suppress
from typing import Final

from secureworker.core.errors import SettingsError
from secureworker.host import files
from secureworker.host.ownership import others_who_could_change
from secureworker.host.userns import owner

_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def read_private(path: str, what: str, *, most_bytes: int, group_may_read: bool = False) -> bytes:
    """Read a file that nobody but root and this user can read or change.

    1. It is a regular file; it is opened once, and all is found out through that descriptor.
    2. It belongs to root or to this user.
    3. Others can neither read nor change it.
    4. Nobody else could put another file in its place.
    5. It is no larger than it may be.

    Args:
        path: absolute or not; links are followed.
        what: for errors: `the credentials file`.
        most_bytes: size at most.
        group_may_read: for systemd's own files, which are 0440 in a directory that only the service can enter.

    Raises:
        SettingsError: one of these is not so.
    """
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError as error:
        raise SettingsError(
            f"{what} {path} cannot be read: {error.strerror}; put it there, with mode 0600, or say where it is"
        ) from error
    except OSError as error:
        raise SettingsError(f"{what} {path} cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        # 1.
        if not stat.S_ISREG(status.st_mode):
            raise SettingsError(f"{what} {path} is no regular file")
        # 2.
        if owner(status, descriptor) not in (0, os.geteuid()):
            raise SettingsError(f"{what} {path} belongs to uid {status.st_uid}; chown it to this user")
        # 3.
        if status.st_mode & (stat.S_IRWXO | (stat.S_IWGRP if group_may_read else stat.S_IRWXG)):
            raise SettingsError(
                f"others can read or change {what} {path} (mode {stat.S_IMODE(status.st_mode):04o}); chmod it to 0600"
            )
        # 4.
        problems = others_who_could_change(os.path.abspath(path))
        if problems:
            raise SettingsError(f"others could replace {what} {path}: {'; '.join(problems)}")
        # 5.
        content = _read_at_most(descriptor, most_bytes + 1)
    finally:
        os.close(descriptor)
    if len(content) > most_bytes:
        raise SettingsError(f"{what} {path} is larger than {most_bytes} bytes")
    return content


def _read_at_most(descriptor: int, count: int) -> bytes:
    content = b""
    while len(content) < count and (piece := os.read(descriptor, count - len(content))):
        content += piece
    return content


def replace_private(path: str, content: bytes) -> None:
    """Write a file with mode 0600, so that after a crash at any moment the old one or the new one is there.

    Raises:
        OSError: it cannot be written.
    """
    fresh = f"{path}.new"
    with suppress(FileNotFoundError):
        os.unlink(fresh)  # Of a writer that did not come to its end.
    files.write_new(fresh, content, mode=0o600)
    with files.opened(fresh, os.O_RDONLY | os.O_NOFOLLOW) as descriptor:
        os.fsync(descriptor)
    os.replace(fresh, path)
    with files.opened(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY) as directory:
        os.fsync(directory)
