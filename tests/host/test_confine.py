"""What our processes take away from themselves. Each is tried in a process of its own, which does not get it back."""

import subprocess
import sys

import pytest

PREPARE = """
import os, socket, subprocess
from secureworker.host.confine import *
from secureworker.host.confine import _program
"""


def confined(text: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", PREPARE + text], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.socket(socket.AF_INET)",
        "socket.socket(socket.AF_UNIX)",
        "socket.socketpair()",
        "os.execv('/bin/true', ['true'])",
    ],
)
def test_behind_the_filter_there_are_no_connections_and_no_programs(attempt: str) -> None:
    done = confined(f"assert filter_system_calls()\n{attempt}")

    assert "PermissionError: [Errno 1]" in done.stderr


def test_behind_the_filter_the_rest_goes_on() -> None:
    done = confined(
        "a, b = socket.socketpair()\n"
        "assert filter_system_calls()\n"
        "a.send(b'x'); assert b.recv(1) == b'x'\n"
        "import threading, tempfile\n"
        "thread = threading.Thread(target=print, args=('in a thread',)); thread.start(); thread.join()\n"
        "tempfile.TemporaryFile().write(b'x')\n"
    )

    assert (done.returncode, done.stdout) == (0, "in a thread\n"), done.stderr


def test_the_filter_is_kept_when_it_is_set_twice() -> None:
    assert confined("assert filter_system_calls() and filter_system_calls()").returncode == 0


def test_a_filter_has_a_jump_for_each_call_to_its_last_instruction() -> None:
    done = confined(
        "import struct\n"
        "for x32 in (True, False):\n"
        "    steps = [struct.unpack_from('HBBI', _program(7, (1, 2, 3), x32=x32), at) for at in "
        "range(0, len(_program(7, (1, 2, 3), x32=x32)), 8)]\n"
        "    tests = [(at, step) for at, step in enumerate(steps[4:-2], 4)]\n"
        "    assert len(tests) == 3 + x32\n"
        "    assert all(at + 1 + step[1] == len(steps) - 1 for at, step in tests)\n"
    )

    assert done.returncode == 0, done.stderr


def test_memory_is_kept_private() -> None:
    done = confined(
        "import resource\n"
        "keep_memory_private()\n"
        "assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)\n"
        "assert os.stat('/proc/self/mem').st_uid == 0\n"
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.sandbox
def test_another_user_is_become_for_good() -> None:
    done = confined("become(54321, 54322)\nassert os.getgroups() == []\nos.setuid(0)")

    assert "PermissionError" in done.stderr


@pytest.mark.sandbox
def test_who_is_not_root_cannot_become_another_user() -> None:
    done = confined("os.setuid(54321)\nbecome(0, 0)")

    assert "HostError: this process cannot become uid 0: Operation not permitted" in done.stderr
    assert confined("os.setuid(54321)\nassert not leave_network()").returncode == 0


@pytest.mark.sandbox
def test_a_network_that_was_left_has_nothing_in_it() -> None:
    done = confined("assert leave_network()\nprint([name for _, name in socket.if_nameindex()])")

    assert done.stdout == "['lo']\n"


def test_a_process_that_goes_on_opening_connections_accepts_none_and_starts_nothing() -> None:
    opened = confined("assert filter_system_calls(connections=True)\nsocket.socket().connect_ex(('127.0.0.1', 1))")
    assert (opened.returncode, opened.stderr) == (0, "")
    for attempt in ("socket.socket().bind(('127.0.0.1', 0))", "socket.socketpair()", "os.execv('/bin/true', ['true'])"):
        assert (
            "PermissionError: [Errno 1]" in confined(f"assert filter_system_calls(connections=True)\n{attempt}").stderr
        )
