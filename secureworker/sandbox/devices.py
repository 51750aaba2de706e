"""Which devices a control group may open: those that every program expects, and no other.

The second fence: without capabilities, in a user namespace, and on mounts with `nodev`, a script cannot make or open a
device node in the first place. In version 1 of control groups the rule is written to a file; in version 2 it is a
program of the kernel's, loaded here: by this the rule is the same whatever runtime is used (crun is told to keep its
hands off the groups).
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator

from secureworker.core.errors import SandboxError

ALLOWED = (
    # Character devices (major, minor), Documentation/admin-guide/devices.txt.
    (1, 3),  # /dev/null
    (1, 5),  # /dev/zero
    (1, 7),  # /dev/full
    (1, 8),  # /dev/random
    (1, 9),  # /dev/urandom
    (5, 0),  # /dev/tty
)

# include/uapi/linux/bpf.h
_PROG_LOAD, _PROG_ATTACH, _PROG_QUERY = 5, 8, 16
_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2
_DEVICE_CHARACTER = 2
_SYSCALL_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_LOAD_WORD, _AND, _JUMP_UNEQUAL, _SET, _EXIT = 0x61, 0x57, 0x55, 0xB7, 0x95


def v1_lines() -> tuple[str, ...]:
    """Give what `devices.list` shows when the rule is in force; pure."""
    return tuple(f"c {major}:{minor} rw" for major, minor in ALLOWED)


def program(order: str = "=") -> bytes:
    """Give the kernel's instructions of the rule; pure.

    The argument is `struct bpf_cgroup_dev_ctx`: access and type, major, minor, a word each. 1 allows, 0 denies.
    """
    return b"".join(_instructions(order))


def _instructions(order: str) -> Iterator[bytes]:
    def instruction(code: int, target: int, source: int = 0, jump: int = 0, number: int = 0) -> bytes:
        # The two registers share a byte, whose halves are in the machine's order.
        little = order == "<" or (order == "=" and struct.pack("=H", 1)[0] == 1)
        registers = source << 4 | target if little else target << 4 | source
        return struct.pack(f"{order}BBhi", code, registers, jump, number)

    yield instruction(_LOAD_WORD, 2, 1, 0)
    yield instruction(_AND, 2, number=0xFFFF)
    yield instruction(_LOAD_WORD, 3, 1, 4)
    yield instruction(_LOAD_WORD, 4, 1, 8)
    # Block devices: over all that follows, to the denial.
    yield instruction(_JUMP_UNEQUAL, 2, jump=4 * len(ALLOWED), number=_DEVICE_CHARACTER)
    for major, minor in ALLOWED:
        yield instruction(_JUMP_UNEQUAL, 3, jump=3, number=major)
        yield instruction(_JUMP_UNEQUAL, 4, jump=2, number=minor)
        yield instruction(_SET, 0, number=1)
        yield instruction(_EXIT, 0)
    yield instruction(_SET, 0, number=0)
    yield instruction(_EXIT, 0)


def restrict_v1(directory: str) -> None:
    """Put the rule on a group of version 1, whatever was allowed before, and read it back."""
    _write(f"{directory}/devices.deny", "a")
    for line in v1_lines():
        _write(f"{directory}/devices.allow", line)
    with open(f"{directory}/devices.list") as file:
        found = file.read().splitlines()
    if sorted(found) != sorted(v1_lines()):
        raise SandboxError(f"the devices allowed to {directory} are {found}, and not {list(v1_lines())}")


def _write(path: str, line: str) -> None:
    with open(path, "w") as file:
        file.write(line)


def restrict_v2(directory: str) -> None:
    """Put the rule on a group of version 2, and ask whether it is there.

    Raises:
        SandboxError: the kernel does not take it.
    """
    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        loaded = _load()
        try:
            attach = struct.pack("=IIII", group, loaded, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI)
            _bpf(_PROG_ATTACH, bytearray(attach))
        finally:
            os.close(loaded)
        query = bytearray(struct.pack("=IIIIQI", group, _ATTACH_CGROUP_DEVICE, 0, 0, 0, 0))
        _bpf(_PROG_QUERY, query)
        if struct.unpack_from("=I", query, 24) == (0,):
            raise SandboxError(f"the rule for devices is not in force in {directory}")
    except OSError as error:
        raise SandboxError(
            f"devices cannot be denied to {directory}: {error.strerror}; the kernel needs CONFIG_CGROUP_BPF, "
            "and the worker CAP_SYS_ADMIN"
        ) from error
    finally:
        os.close(group)


def _load() -> int:
    code = ctypes.create_string_buffer(program())
    licence = ctypes.create_string_buffer(b"MPL-2.0")
    count = len(program()) // 8
    attributes = struct.pack(
        "=IIQQIIQII", _TYPE_CGROUP_DEVICE, count, ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0, 0, 0
    )
    return _bpf(_PROG_LOAD, bytearray(attributes))


def _bpf(command: int, attributes: bytearray) -> int:
    number = _SYSCALL_NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    buffer = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    result: int = syscall(
        ctypes.c_long(number), ctypes.c_int(command), ctypes.byref(buffer), ctypes.c_uint(len(attributes))
    )
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
