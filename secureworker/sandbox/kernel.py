"""System calls that Python 3.11 does not wrap. Nothing here decides anything."""

import ctypes
import os
import platform

_CLONE_NEWNET = 0x4000_0000  # include/uapi/linux/sched.h
_PR_SET_CHILD_SUBREAPER = 36  # include/uapi/linux/prctl.h
_LANDLOCK_CREATE_RULESET = 444  # the same on every architecture since v5.13
_LANDLOCK_CREATE_RULESET_VERSION = 1  # include/uapi/linux/landlock.h
_RESOLVE_IN_ROOT = 0x10  # include/uapi/linux/openat2.h
_OPENAT2 = 437  # the same on every architecture since v5.6


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def unshare_network() -> None:
    """Move the calling thread, and no other, into a new network namespace. It can never come back: let it end."""
    _check(_libc().unshare(_CLONE_NEWNET), "unshare(CLONE_NEWNET)")


def become_subreaper() -> None:
    """Make this process the parent of every descendant whose own parent has died."""
    _check(_libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def landlock_version() -> int:
    """Give the version of the kernel's Landlock interface; 0 where there is none."""
    libc = _libc()
    ask_version = ctypes.c_uint(_LANDLOCK_CREATE_RULESET_VERSION)
    version: int = libc.syscall(ctypes.c_long(_LANDLOCK_CREATE_RULESET), None, ctypes.c_size_t(0), ask_version)
    return max(version, 0)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_in_root(root: int, path: str) -> int:
    """Find `path` as a process would whose root is the directory `root`; give a descriptor that only names it.

    Raises:
        OSError: there is no such file, or the kernel has no openat2 (ENOSYS, before 5.6).
    """
    how = _OpenHow(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    found = _libc().syscall(
        ctypes.c_long(_OPENAT2), ctypes.c_int(root), ctypes.c_char_p(os.fsencode(path)), ctypes.byref(how), size
    )
    return _check(found, path)


def kernel_version() -> tuple[int, int]:
    """Give the kernel's version, such as (6, 1); (0, 0) where it does not say."""
    major, _, rest = platform.release().partition(".")
    minor = rest.partition(".")[0].partition("-")[0]
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)
