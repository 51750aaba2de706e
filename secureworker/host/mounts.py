"""Mounting a file system in memory. System calls that Python does not wrap; nothing here decides what lies in it."""

import ctypes
import errno
import os
from typing import Final

_NOSUID, _NODEV, _NOEXEC = 0x2, 0x4, 0x8  # include/uapi/linux/mount.h
_DETACH, _NOFOLLOW = 0x2, 0x8  # umount2(2): MNT_DETACH, UMOUNT_NOFOLLOW
_MOST_LEFTOVERS: Final = 64


def mount_memory(path: str, *, size: int, inodes: int, mode: int) -> None:
    """Mount a tmpfs on the directory `path`, which is not written to swap where the kernel can promise that.

    Raises:
        OSError: it cannot be mounted; EPERM where this process may not mount.
    """
    options = f"size={size},nr_inodes={inodes},mode={mode:o}"
    try:
        _mount(path, f"{options},noswap")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        _mount(path, options)  # Linux before 6.4 does not know the option.


def _mount(path: str, options: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    flags = ctypes.c_ulong(_NOSUID | _NODEV | _NOEXEC)
    if libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", flags, options.encode()) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)


def unmount_all(path: str) -> int:
    """Take away whatever is mounted on `path`, and count it; what is still open there lives until it is closed."""
    libc = ctypes.CDLL(None, use_errno=True)
    for count in range(_MOST_LEFTOVERS):
        if libc.umount2(os.fsencode(path), _DETACH | _NOFOLLOW) < 0:
            code = ctypes.get_errno()
            if code in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):  # Nothing is mounted there, or no such directory.
                return count
            raise OSError(code, os.strerror(code), path)
    raise OSError(errno.EBUSY, "more file systems are mounted there than this program mounts", path)
