"""Files and trees of this host, handled so that what a script left behind can neither mislead nor stop the worker.

Blocking: call from a thread. Nothing here follows a symbolic link in its last component.
"""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from secureworker.core.ids import Sha256

CHUNK_BYTES = 1024 * 1024
"""A read of 1 MiB: hashing gets no faster with more."""

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OPEN_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK_BYTES = 512
"""The unit of `st_blocks` (stat(2)), whatever the file system's own is."""
_HELD_LEVELS = 128
"""Directories of a descent held open; deeper ones are found again by `..`, so that no depth exhausts descriptors."""


class TreeMoved(Exception):
    """The tree was rearranged while it was measured, so that the way back up is lost."""


@contextmanager
def opened(path: str, flags: int, *, dir_fd: int | None = None) -> Iterator[int]:
    """Open for the duration of a block; the descriptor is not inherited. A file that is made has mode 0600."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def write_new(path: str, content: bytes, *, mode: int, owner: int | None = None) -> None:
    """Write a file that must not exist yet, with exactly `mode`, owned by `owner` (as user and group)."""
    with opened(path, _OPEN_NEW) as descriptor:
        _write_all(descriptor, content)
        # Ownership before mode: a change of owner may clear bits of the mode (chown(2)).
        if owner is not None:
            os.fchown(descriptor, owner, owner)
        os.fchmod(descriptor, mode)


def make_directory(path: str, *, mode: int, owner: int | None = None) -> None:
    """Make a directory that must not exist yet, with exactly `mode` whatever the umask is."""
    os.mkdir(path, 0o700)
    with opened(path, _OPEN_DIRECTORY) as descriptor:
        if owner is not None:
            os.fchown(descriptor, owner, owner)
        os.fchmod(descriptor, mode)


def as_json(value: Any) -> bytes:
    """Give `value` as the script contract writes JSON: indent 2, sorted keys, one newline at the end."""
    return json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"


def copy_hashed(source: str, target: str, *, mode: int) -> Sha256:
    """Copy a regular file through one descriptor and give the digest of the copy's bytes.

    The digest is that of the bytes as they were written, so a `source` that changes meanwhile cannot be
    checked as one thing and run as another. Links in `source` are followed: the digest is what counts.

    Raises:
        OSError: `source` is missing or no regular file, or `target` exists.
    """
    digest = hashlib.sha256()
    with opened(source, _OPEN_FILE & ~os.O_NOFOLLOW) as reading, opened(target, _OPEN_NEW) as writing:
        if not stat.S_ISREG(os.fstat(reading).st_mode):
            raise OSError(errno.EINVAL, "no regular file", source)
        while chunk := os.read(reading, CHUNK_BYTES):
            digest.update(chunk)
            _write_all(writing, chunk)
        os.fchmod(writing, mode)
    return Sha256(digest.hexdigest())


def remove_tree(path: str) -> None:
    """Remove `path` and all below it, whatever a script made of it; fine if there is nothing.

    Directories are moved into one flat sibling before they are emptied: no recursion, no path longer than two
    names, two descriptors, at any depth. `shutil.rmtree` fails at some 1,000 levels, silently with `ignore_errors`.
    Call it only when nothing is alive that could still write there.
    """
    flat = f"{path}.removing"
    try:
        os.mkdir(flat, 0o700)
    except FileExistsError:
        pass  # A removal was interrupted: what it had moved there goes with the rest.
    except FileNotFoundError:
        return  # Not even the parent is there.
    with opened(flat, _OPEN_DIRECTORY) as top:
        last = max((int(name) for name in os.listdir(top)), default=0)
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(os.lstat(path).st_mode):
                last += 1
                os.rename(path, str(last), dst_dir_fd=top)
            else:
                os.unlink(path)
        _empty(top, last)
    os.rmdir(flat)


def _empty(top: int, last: int) -> None:
    """Remove all directories in `top`, which have numbers up to `last` for names."""
    pending = os.listdir(top)
    while pending:
        name = pending.pop()
        # Owners may have taken their own permissions away; that stops a worker that is not root.
        os.chmod(name, 0o700, dir_fd=top)
        with opened(name, _OPEN_DIRECTORY, dir_fd=top) as current:
            # A list, not the iterator: removing while a directory is read may skip entries (readdir(3)).
            with os.scandir(current) as found:
                entries = list(found)
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    # Most are empty: mount points of generated roots all are. One call then, instead of seven.
                    if _is_removed(entry.name, current):
                        continue
                    last += 1
                    os.rename(entry.name, str(last), src_dir_fd=current, dst_dir_fd=top)
                    pending.append(str(last))
                else:
                    os.unlink(entry.name, dir_fd=current)
        os.rmdir(name, dir_fd=top)


def _is_removed(name: str, parent: int) -> bool:
    """Remove a directory if it is empty. What else is in the way, moving it will say."""
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class TreeSize:
    """What lies below a directory, itself not counted."""

    allocated_bytes: int
    """On disk: a sparse file counts as what it takes, each hard link's file once per link."""
    files: int
    """Entries of any kind, directories included."""


def measure(path: str, *, most_bytes: int, most_files: int) -> TreeSize:
    """Count what lies below the directory `path` while a script may be changing it; stop soon after `most_…`.

    All is reached by descriptors, no link is followed, and no depth exhausts stack, path length or descriptors.
    What vanishes meanwhile is not counted.

    Raises:
        TreeMoved: more than 128 levels down, a directory was moved while it was being read; try again.
    """
    walk = _Walk(most_bytes, most_files)
    try:
        walk.enter(path, None)
        while walk.levels and not walk.beyond:
            pending = walk.levels[-1].pending
            if pending:
                walk.descend(pending.pop())
            else:
                walk.leave()
    finally:
        for level in walk.levels:
            level.close()
    return TreeSize(walk.size, walk.files)


class _Level:
    """A directory on the way down, not read yet in full. `descriptor` is -1 where it was closed to spare some."""

    __slots__ = ("descriptor", "identity", "pending")

    def __init__(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self.descriptor = descriptor
        self.identity = (status.st_dev, status.st_ino)
        self.pending: list[str] = []

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class _Walk:
    """Depth first, with an explicit stack."""

    def __init__(self, most_bytes: int, most_files: int) -> None:
        self.levels: list[_Level] = []
        self.size = 0
        self.files = 0
        self._most_bytes = most_bytes
        self._most_files = most_files

    @property
    def beyond(self) -> bool:
        return self.size > self._most_bytes or self.files > self._most_files

    def enter(self, name: str, dir_fd: int | None) -> None:
        level = _Level(os.open(name, _OPEN_DIRECTORY, dir_fd=dir_fd))
        self.levels.append(level)
        with os.scandir(level.descriptor) as entries:
            for entry in entries:
                self.files += 1
                if entry.is_dir(follow_symlinks=False):
                    level.pending.append(entry.name)
                else:
                    with suppress(FileNotFoundError):
                        self.size += entry.stat(follow_symlinks=False).st_blocks * _BLOCK_BYTES
                if self.beyond:
                    return

    def descend(self, name: str) -> None:
        # Gone, or replaced by a link or file since it was listed: then there is nothing to count there.
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            self.enter(name, self.levels[-1].descriptor)
            if len(self.levels) - 1 > _HELD_LEVELS:
                self.levels[-2].close()

    def leave(self) -> None:
        left = self.levels.pop()
        try:
            if self.levels and self.levels[-1].descriptor < 0:
                self.levels[-1].descriptor = os.open("..", _OPEN_DIRECTORY, dir_fd=left.descriptor)
                status = os.fstat(self.levels[-1].descriptor)
                if self.levels[-1].identity != (status.st_dev, status.st_ino):
                    raise TreeMoved
        finally:
            left.close()
