"""Telling a service manager that a process is ready."""

import socket
from pathlib import Path

import pytest

from secureworker.host.readiness import VARIABLE, readiness


def test_a_service_manager_is_told_once_and_nobody_after_us_finds_its_address(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        environment = {VARIABLE: str(tmp_path / "notify"), "HOME": "/"}

        with readiness(environment) as ready:
            ready.tell()

        assert manager.recv(100) == b"READY=1"
        assert environment == {"HOME": "/"}


def test_an_abstract_address_begins_with_an_at_sign(tmp_path: Path) -> None:
    name = f"secureworker-test-{tmp_path.name}-{id(tmp_path)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.settimeout(5)
        with readiness({VARIABLE: f"@{name}"}) as ready:
            ready.tell()

        assert manager.recv(100) == b"READY=1"


def test_without_a_service_manager_there_is_nobody_to_tell() -> None:
    with readiness({}) as ready:
        ready.tell()

    assert ready.channel is None


def test_a_service_manager_that_is_not_there_or_goes_away_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with readiness({VARIABLE: str(tmp_path / "none")}) as ready:
        ready.tell()
    assert "where nobody listens" in caplog.text
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        with readiness({VARIABLE: str(tmp_path / "notify")}) as ready:
            manager.close()
            ready.tell()
    assert "cannot be told that this is ready" in caplog.text
