"""Nothing outside a directory is reached through what lies in it."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from secureworker.core.errors import HostError
from secureworker.host.beneath import open_beneath


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root" / "directory").mkdir(parents=True)
    (tmp_path / "root" / "directory" / "file").write_bytes(b"content")
    (tmp_path / "outside").write_bytes(b"secret")
    descriptor = os.open(tmp_path / "root", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_a_file_below_is_opened_and_not_inherited(root: int) -> None:
    descriptor = open_beneath(root, b"directory/file", 0)

    assert os.read(descriptor, 100) == b"content"
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


@pytest.mark.parametrize(
    ("path", "number"),
    [
        (b"../outside", errno.EXDEV),
        (b"directory/../../outside", errno.EXDEV),
        (b"/etc/hostname", errno.EXDEV),
        (b"missing", errno.ENOENT),
        (b"directory/file/below", errno.ENOTDIR),
    ],
)
def test_what_is_not_below_is_not_opened(root: int, path: bytes, number: int) -> None:
    with pytest.raises(OSError, match=os.strerror(number)):
        open_beneath(root, path, 0)


@pytest.mark.parametrize("target", ["../../outside", "/etc/hostname", "file", "/proc/self/root/etc/hostname"])
def test_no_link_is_followed_wherever_it_leads(root: int, tmp_path: Path, target: str) -> None:
    (tmp_path / "root" / "directory" / "link").symlink_to(target)

    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        open_beneath(root, b"directory/link", 0)


def test_a_linked_directory_is_not_walked_through(root: int, tmp_path: Path) -> None:
    (tmp_path / "root" / "link").symlink_to("directory")

    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        open_beneath(root, b"link/file", 0)


def test_a_fifo_does_not_block(root: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "root" / "fifo")

    os.close(open_beneath(root, b"fifo", 0))


def test_an_architecture_that_was_not_looked_up_is_refused(root: int) -> None:
    with pytest.raises(HostError, match="not known for the architecture alpha"):
        open_beneath(root, b"directory/file", 0, machine="alpha")


DENY_OPENAT2 = """
import ctypes, os, struct, sys
# A seccomp filter as an old container runtime's: openat2 (437) is ENOSYS, all else is allowed.
program = b"".join(struct.pack("HBBI", *step) for step in (
    (0x20, 0, 0, 0), (0x15, 0, 1, 437), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7FFF0000)))
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(program)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(4, ctypes.addressof(buffer))), 0, 0) == 0
from secureworker.core.errors import HostError
from secureworker.host.beneath import open_beneath
try:
    open_beneath(os.open(sys.argv[1], os.O_RDONLY), b"directory/file", 0)
except HostError as error:
    print(error)
"""


def test_a_kernel_without_openat2_is_refused_and_nothing_else_is_tried(root: int, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", DENY_OPENAT2, tmp_path / "root"], capture_output=True, text=True, check=True
    )

    assert "this kernel has no openat2" in ended.stdout
