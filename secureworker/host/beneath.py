"""Opening files below a directory that hostile code has written to, so that nothing outside is ever reached.

`openat2(2)` resolves the whole path in the kernel under rules that a path walk in user space cannot keep without
races: no symlink, no magic link, no `..` out of the root, no other file system. Where the kernel, or a seccomp filter
around this worker, does not offer it, opening fails: there is no fallback.
"""

import ctypes
import errno
import os
import platform

from secureworker.core.errors import HostError

_SYSCALL_NUMBERS = {
    # openat2 came after the kernel had unified numbers for new calls (v5.6), so that they are all alike; still listed
    # one by one: on an architecture that was not looked up (alpha, mips, x32) the number means another call.
    "x86_64": 437,  # arch/x86/entry/syscalls/syscall_64.tbl
    "aarch64": 437,  # include/uapi/asm-generic/unistd.h
    "riscv64": 437,  # include/uapi/asm-generic/unistd.h
    "loongarch64": 437,  # include/uapi/asm-generic/unistd.h
    "ppc64le": 437,  # arch/powerpc/kernel/syscalls/syscall.tbl
    "s390x": 437,  # arch/s390/kernel/syscalls/syscall.tbl
}

# include/uapi/linux/openat2.h
_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08

_RETRIES = 8
"""For EAGAIN: the kernel saw a rename race during the walk and cannot say that the path stayed beneath (openat2(2))."""


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(root: int, path: bytes, flags: int, *, machine: str = "") -> int:
    """Open `path` below the directory `root` for reading.

    No component may be a symlink or on another file system; a FIFO does not block. The descriptor is closed on exec.

    Args:
        root: a descriptor of the directory.
        path: relative; bytes, as names on disk need not be text.
        flags: of open(2), added to the safe ones.
        machine: as `platform.machine()` says it, which is the default.

    Raises:
        HostError: this kernel or architecture does not offer openat2.
        OSError: ELOOP for a link, EXDEV for a way out, ENOENT, ENXIO for a socket, EACCES, and so on.
    """
    number = _SYSCALL_NUMBERS.get(machine or platform.machine())
    if number is None:
        raise HostError(
            f"openat2 is not known for the architecture {machine or platform.machine()}: "
            "outputs cannot be taken safely; use one of " + ", ".join(_SYSCALL_NUMBERS)
        )
    how = _OpenHow(
        flags=flags | os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY,
        mode=0,
        resolve=_RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_XDEV,
    )
    # CDLL, not PyDLL: the interpreter's lock is released during the call.
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    for _ in range(_RETRIES):
        ctypes.set_errno(0)
        descriptor: int = syscall(
            ctypes.c_long(number),
            ctypes.c_int(root),
            ctypes.c_char_p(path),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if descriptor >= 0:
            return descriptor
        if ctypes.get_errno() != errno.EAGAIN:
            break
    code = ctypes.get_errno()
    if code == errno.ENOSYS:
        raise HostError("this kernel has no openat2: Linux 5.6 or later is needed to take outputs safely")
    raise OSError(code, os.strerror(code), os.fsdecode(path))
