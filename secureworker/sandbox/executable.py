"""Whether the kernel could execute the script in the container that was built, found out before it is started.

The init would say so too, by exit codes 126 and 127: but so may any script, and the two must not be confused.
"""

import os
import stat
import struct

from secureworker.core.errors import SandboxError
from secureworker.sandbox import kernel

_HEAD_BYTES = 4096
_DEEPEST = 5
"""Interpreters of interpreters: the kernel's own limit (fs/exec.c)."""
_SHELL = "/bin/sh"
_PT_INTERP = 3  # elf(5)
_LITTLE_64 = b"\x7fELF\x02\x01"
_BIG_64 = b"\x7fELF\x02\x02"


def check_executable(root: int, path: str) -> None:
    """Raise SandboxError where `path` cannot be executed by a process whose root is the directory `root`."""
    wanted = path
    for _ in range(_DEEPEST + 1):
        head = _head(root, wanted, path)
        following = _interpreter(head, wanted)
        if following is None:
            return
        wanted = following
    raise SandboxError(f"the script {path} cannot be executed: its interpreters need interpreters, too many of them")


def _head(root: int, wanted: str, path: str) -> bytes:
    of = "it" if wanted == path else f"its interpreter {wanted}"
    try:
        named = kernel.open_in_root(root, wanted)
    except OSError as error:
        raise SandboxError(
            f"the script {path} cannot be executed: {of} is not in the sandbox ({os.strerror(error.errno or 0)}); "
            "install it below /usr, or mount it in the policy"
        ) from error
    try:
        status = os.fstat(named)
        if not stat.S_ISREG(status.st_mode) or not status.st_mode & stat.S_IXOTH:
            raise SandboxError(
                f"the script {path} cannot be executed: {of} is no file that everybody may execute; change its mode"
            )
        if os.fstatvfs(named).f_flag & os.ST_NOEXEC:
            raise SandboxError(
                f"the script {path} cannot be executed: {of} lies on a file system that is mounted with noexec; "
                "use a state directory, and scripts, on another one"
            )
        # A descriptor that only names a file is opened by its magic link.
        with open(f"/proc/self/fd/{named}", "rb", buffering=0) as file:
            return file.read(_HEAD_BYTES) or b""
    finally:
        os.close(named)


def _interpreter(head: bytes, path: str) -> str | None:
    """Give what the kernel executes to execute a file that begins with `head`; None: the file itself."""
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n", 1)[0].split()
        if not words or not words[0].startswith(b"/"):
            raise SandboxError(f"{path} cannot be executed: its first line names no interpreter by an absolute path")
        return os.fsdecode(words[0])
    if head.startswith(b"\x7fELF"):
        return _loader(head, path)
    # Neither: execvp, by which the init starts it, gives it to the shell, as shells do themselves.
    return None if path == _SHELL else _SHELL


def _loader(head: bytes, path: str) -> str | None:
    """Give the dynamic loader that an ELF file names (elf(5)); None where it is static, or a loader itself."""
    with open("/proc/self/exe", "rb") as own:
        mine = own.read(20)
    # Class, byte order, and machine, as this very interpreter has them. Only 64 bits: the filter allows no other.
    if head[:6] != mine[:6] or head[18:20] != mine[18:20] or head[:6] not in {_LITTLE_64, _BIG_64}:
        raise SandboxError(f"{path} cannot be executed: it is a program for another kind of machine")
    order = "<" if head.startswith(_LITTLE_64) else ">"
    try:
        (offset,) = struct.unpack_from(f"{order}Q", head, 32)
        size, count = struct.unpack_from(f"{order}HH", head, 54)
        for index in range(count):
            (kind,) = struct.unpack_from(f"{order}I", head, offset + index * size)
            if kind == _PT_INTERP:
                (start,) = struct.unpack_from(f"{order}Q", head, offset + index * size + 8)
                (length,) = struct.unpack_from(f"{order}Q", head, offset + index * size + 32)
                return os.fsdecode(head[start : start + length].rstrip(b"\0"))
    except struct.error as error:
        raise SandboxError(f"{path} cannot be executed: its ELF header is damaged") from error
    return None
