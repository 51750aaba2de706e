"""Mounting file systems in memory, and taking them away."""

import errno
import os
from pathlib import Path

import pytest

from secureworker.host.mounts import mount_memory, unmount_all

pytestmark = pytest.mark.sandbox


def test_a_file_system_in_memory_has_the_size_and_mode_that_was_asked_for(tmp_path: Path) -> None:
    mount_memory(str(tmp_path), size=1024 * 1024, inodes=4, mode=0o711)
    try:
        found = os.statvfs(tmp_path)
        assert found.f_blocks * found.f_frsize == 1024 * 1024
        assert found.f_files == 4
        assert tmp_path.stat().st_mode & 0o777 == 0o711
        with pytest.raises(OSError, match="No space left") as full:
            (tmp_path / "a").write_bytes(b"x" * (1024 * 1024 + 1))
        assert full.value.errno == errno.ENOSPC
    finally:
        assert unmount_all(str(tmp_path)) == 1
    assert unmount_all(str(tmp_path)) == 0


def test_what_the_kernel_refuses_is_an_error_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Invalid argument") as refusal:
        mount_memory(str(tmp_path), size=-1, inodes=4, mode=0o711)
    assert refusal.value.filename == str(tmp_path)


@pytest.mark.parametrize("place", ["none", "file/none"])
def test_where_nothing_can_be_mounted_nothing_is_taken_away(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    assert unmount_all(str(tmp_path / place)) == 0
