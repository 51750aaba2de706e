"""Taking away from a process of our own what it does not need: its user's rights, network, cores, system calls.

Nothing here can be undone by the process itself. Only for Linux, and only called by the processes that the worker
starts beside scripts: the signer, and whoever shows logs to the world.
"""

import ctypes
import os
import platform
import resource
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from secureworker.core.errors import HostError

_CLONE_NEWNET: Final = 0x4000_0000  # include/uapi/linux/sched.h
_PR_SET_DUMPABLE: Final = 4  # include/uapi/linux/prctl.h, as the next three
_PR_GET_DUMPABLE: Final = 3
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2  # include/uapi/linux/seccomp.h, as the actions
_KILL_PROCESS: Final = 0x8000_0000
_ERRNO_EPERM: Final = 0x0005_0001
_ALLOW: Final = 0x7FFF_0000
# Classic BPF, include/uapi/linux/bpf_common.h: load a word, jump if equal, jump if greater or equal, return.
_LOAD, _JEQ, _JGE, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCH_AT = 0, 4  # struct seccomp_data
_X32_BIT: Final = 0x4000_0000

_DENIED: Final[Mapping[str, tuple[int, Mapping[str, int]]]] = {
    # AUDIT_ARCH_* of include/uapi/linux/audit.h, and numbers of arch/x86/entry/syscalls/syscall_64.tbl.
    "x86_64": (
        0xC000_003E,
        {
            "socket": 41,
            "connect": 42,
            "bind": 49,
            "listen": 50,
            "socketpair": 53,
            "fork": 57,
            "vfork": 58,
            "execve": 59,
            "ptrace": 101,
            "mount": 165,
            "unshare": 272,
            "open_by_handle_at": 304,
            "setns": 308,
            "process_vm_readv": 310,
            "process_vm_writev": 311,
            "bpf": 321,
            "execveat": 322,
            "io_uring_setup": 425,
        },
    ),
    # include/uapi/asm-generic/unistd.h
    "aarch64": (
        0xC000_00B7,
        {
            "mount": 40,
            "unshare": 97,
            "ptrace": 117,
            "socket": 198,
            "socketpair": 199,
            "bind": 200,
            "listen": 201,
            "connect": 203,
            "execve": 221,
            "open_by_handle_at": 265,
            "setns": 268,
            "process_vm_readv": 270,
            "process_vm_writev": 271,
            "bpf": 280,
            "execveat": 281,
            "io_uring_setup": 425,
        },
    ),
}
"""What such a process never does once it has begun: open a connection, start a program, look into a process."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """What could be taken away on this host."""

    uid: int
    network_left: bool
    """Whether the process is in a network namespace of its own, with nothing in it."""
    filtered: bool
    """Whether system calls are filtered."""


def _prctl(option: int, value: int, pointer: object = 0) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.prctl(
        ctypes.c_int(option), ctypes.c_ulong(value), pointer or ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)
    )
    if result < 0:
        code = ctypes.get_errno()
        raise HostError(f"this process cannot be confined: prctl({option}): {os.strerror(code)}")
    return result


def leave_network() -> bool:
    """Move this process into an empty network namespace, where it may. Call it before there are threads."""
    return os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) == 0


def become(uid: int, gid: int) -> None:
    """Become another user for good, with no group beside its own.

    Raises:
        HostError: it is not possible, or could be undone.
    """
    try:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise HostError(
            f"this process cannot become uid {uid}: {error.strerror}; start it as root, or as that user"
        ) from error
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid):
        raise HostError(f"this process did not become uid {uid}")


def keep_memory_private() -> None:
    """No core dumps, and no other process of this user may look in (ptrace, /proc/<pid>/mem). After `become`."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)
    if _prctl(_PR_GET_DUMPABLE, 0) != 0:
        raise HostError("this process cannot keep its memory from being dumped")


def filter_system_calls(*, connections: bool = False) -> bool:
    """Refuse for good what `_DENIED` names; False on a machine whose numbers are not known here.

    Args:
        connections: whether this process goes on opening connections; accepting them it never does anew.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    known = _DENIED.get(platform.machine())
    if known is None:
        return False
    kept = {"socket", "connect"} if connections else set()
    denied = tuple(number for name, number in known[1].items() if name not in kept)
    program = _program(known[0], denied, x32=platform.machine() == "x86_64")
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a count, and a pointer after padding.
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(header))
    return True


def _program(arch: int, denied: tuple[int, ...], *, x32: bool) -> bytes:
    """Write the filter: another architecture's call kills; a denied one gives EPERM; the rest passes."""
    tests = [(_JGE, _X32_BIT), *((_JEQ, number) for number in denied)] if x32 else [(_JEQ, n) for n in denied]
    steps = [(_LOAD, 0, 0, _ARCH_AT), (_JEQ, 1, 0, arch), (_RETURN, 0, 0, _KILL_PROCESS), (_LOAD, 0, 0, _NUMBER_AT)]
    for index, (test, number) in enumerate(tests):
        # Forward to the last instruction but one: past the tests that are left, and past the `allow`.
        steps.append((test, len(tests) - index, 0, number))
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO_EPERM)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)
