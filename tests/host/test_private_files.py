"""Reading and replacing files that nobody else may have."""

import os
from pathlib import Path

import pytest

from secureworker.core.errors import SettingsError
from secureworker.host.private import read_private, replace_private

CONTENT = b"canary-of-the-private-file"


@pytest.fixture
def private(tmp_path: Path) -> Path:
    path = tmp_path / "private"
    path.write_bytes(CONTENT)
    path.chmod(0o600)
    return path


def read(path: Path, **how: bool) -> bytes:
    return read_private(str(path), "the secret", most_bytes=100, **how)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_private_file_is_read(private: Path, mode: int) -> None:
    private.chmod(mode)
    assert read(private) == CONTENT


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o604, 0o606, 0o610, 0o601])
def test_a_file_that_others_may_touch_is_refused_and_not_shown(private: Path, mode: int) -> None:
    private.chmod(mode)
    with pytest.raises(SettingsError, match=rf"others can read or change the secret .*{mode:04o}.*chmod") as refusal:
        read(private, group_may_read=False)
    assert "canary" not in str(refusal.value)


def test_a_file_of_systemd_may_be_readable_to_its_group(private: Path) -> None:
    private.chmod(0o440)
    assert read(private, group_may_read=True) == CONTENT
    private.chmod(0o460)
    with pytest.raises(SettingsError, match="others can"):
        read(private, group_may_read=True)


def test_a_file_of_somebody_else_is_refused(private: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(private, 12345, 12345)
    with pytest.raises(SettingsError, match="belongs to uid 12345; chown"):
        read(private)


def test_a_file_in_a_directory_that_others_may_write_is_refused(private: Path) -> None:
    private.parent.chmod(0o777)
    with pytest.raises(SettingsError, match="others could replace the secret"):
        read(private)


@pytest.mark.parametrize("kind", ["directory", "fifo", "missing"])
def test_what_is_no_plain_file_is_refused_without_waiting_for_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    if kind == "directory":
        path.mkdir(mode=0o700)
    if kind == "fifo":
        os.mkfifo(path, 0o600)
    with pytest.raises(
        SettingsError, match=r"no regular file|cannot be read: No such file or directory; put it there, with mode 0600"
    ):
        read(path)


def test_a_file_that_is_too_large_is_refused(private: Path) -> None:
    private.write_bytes(b"x" * 101)
    with pytest.raises(SettingsError, match="larger than 100 bytes"):
        read(private)
    private.write_bytes(b"x" * 100)
    assert read(private) == b"x" * 100


def test_replacing_leaves_one_private_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    replace_private(str(path), b"one")
    replace_private(str(path), b"two")
    assert read(path) == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["state"]


def test_what_an_interrupted_replacement_left_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "state"
    replace_private(str(path), b"one")
    (tmp_path / "state.new").write_bytes(b"half")
    assert read(path) == b"one"
    replace_private(str(path), b"two")
    assert read(path) == b"two"
    assert os.listdir(tmp_path) == ["state"]


def test_a_link_in_the_place_of_the_fresh_file_is_not_written_through(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"untouched")
    (tmp_path / "state.new").symlink_to(target)
    replace_private(str(tmp_path / "state"), b"one")
    assert target.read_bytes() == b"untouched"


def test_a_place_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        replace_private(str(tmp_path / "none" / "state"), b"one")
