"""Sockets in the file system, beyond what the status server's tests say of them."""

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from secureworker.core.errors import SettingsError
from secureworker.host.sockets import connected, listening_in_files, listening_on_loopback


def test_a_listener_that_takes_nobody_any_more_is_alive_still(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with ExitStack() as stack:
        busy = stack.enter_context(socket.socket(socket.AF_UNIX))
        busy.bind(path)
        busy.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)  # noqa: FBT003 - the socket's own signature
            waiting.connect_ex(path)
        with pytest.raises(SettingsError, match="another process answers"), listening_in_files(path):
            pass


def test_a_name_that_is_too_long_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(SettingsError, match="cannot be made: AF_UNIX path too long"),
        listening_in_files(str(tmp_path / ("x" * 120))),
    ):
        pass


def test_another_socket_in_its_place_is_left_alone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other:
        with listening_in_files(str(path)):
            path.rename(tmp_path / "moved")
            other.bind(str(path))
        assert path.exists()


def test_a_socket_that_was_removed_meanwhile_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listening_in_files(str(path)):
        path.unlink()


def test_no_file_descriptor_is_left_where_it_cannot_begin(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(SettingsError), listening_in_files(str(tmp_path / "s")):
            pass
        with pytest.raises(OSError, match="refused"):
            connected(str(tmp_path / "s"), 1)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("address", ["0.0.0.0", "10.0.0.1", "::"])
def test_an_address_that_others_reach_is_refused_here_too(address: str) -> None:
    with pytest.raises(SettingsError, match="no address of the loopback interface"), listening_on_loopback(address, 0):
        pass
