"""Subordinate ids, and whom files belong to. What a real namespace does is in tests/sandbox/test_rootless.py."""

import os
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

from secureworker.host import userns
from secureworker.host.userns import MOST_IDS, Span, subordinate

TABLE = """\
# a comment
root:100000:65536
releng:200000:1000
releng:300000:5000
1234:400000:70000
other:500000:2
broken
releng:x:9000
"""


@pytest.mark.parametrize(
    ("user", "uid", "span"),
    [
        ("releng", 1000, Span(300_000, 5000)),
        ("somebody", 1234, Span(400_000, MOST_IDS)),
        ("other", 1001, None),
        ("nobody", 65534, None),
    ],
)
def test_the_largest_range_of_a_user_is_found_by_name_or_number(user: str, uid: int, span: Span | None) -> None:
    assert subordinate(TABLE, user, uid) == span


def test_an_id_of_ones_own_is_the_wanted_one_where_it_is_mapped() -> None:
    assert userns.set_aside(os.getuid()) == os.getuid()
    # All that could be mapped end before this.
    assert userns.set_aside(2**32 - 1) <= 2**32 - 2


def test_outside_of_a_namespace_of_ones_own_files_belong_to_whom_they_say(tmp_path: Path) -> None:
    assert userns.entered() is None
    assert userns.owner(tmp_path.stat(), str(tmp_path)) == tmp_path.stat().st_uid


def test_the_witness_says_whom_a_file_belongs_to_until_it_is_left_alone(tmp_path: Path) -> None:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    witness = threading.Thread(target=userns.answer_owners, args=(its,))
    witness.start()
    try:
        for path in (tmp_path, Path("/")):
            place = os.open(path, os.O_PATH)
            socket.send_fds(ours, [b"?"], [place])
            os.close(place)
            assert struct.unpack("=I", ours.recv(4)) == (path.stat().st_uid,)
    finally:
        ours.close()
        witness.join()
        its.close()


def test_root_stays_what_it_is() -> None:
    if os.geteuid() == 0:
        userns.enter()
    assert userns.entered() is None


@pytest.mark.sandbox
def test_ids_of_another_process_are_mapped_once() -> None:
    own = os.stat("/proc/self/ns/user").st_ino
    mappings = (("0", "0", "1"), ("0", "0", "1"))
    with subprocess.Popen(["unshare", "--user", "sleep", "60"]) as process:
        try:
            deadline = time.monotonic() + 20
            while os.stat(f"/proc/{process.pid}/ns/user").st_ino == own:
                assert time.monotonic() < deadline
            assert userns.map_ids(process.pid, mappings) == b"done"
            assert Path(f"/proc/{process.pid}/uid_map").read_text().split() == ["0", "0", "1"]
            assert b"uid_map failed" in userns.map_ids(process.pid, mappings)
        finally:
            process.kill()
