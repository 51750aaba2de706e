"""Looks at this machine: real file systems that are filled, real programs that are moved, real groups of the kernel."""

import asyncio
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from secureworker.core.happening import HINDRANCES, Hindrance
from secureworker.core.room import Room
from secureworker.host.guards.looking import Headroom, Looking
from secureworker.host.guards.programs import ControlGroups, PinnedFiles, Programs
from secureworker.host.guards.space import (
    RESERVE_BYTES,
    RESERVE_FILES,
    RESERVE_MEMORY,
    Memory,
    StateDirectory,
    left_in,
)
from secureworker.host.mounts import mount_memory, unmount_all

MIB = 2**20
NOTHING = Room(0, 0, 0)


def kinds(found: tuple[Hindrance, ...]) -> list[str]:
    assert {each.what for each in found} <= set(HINDRANCES)
    return [each.what for each in found]


# Headroom


def test_all_places_of_a_worker_need_room() -> None:
    headroom = Headroom(10, 5)
    assert headroom.missing(45, 4) == 0
    assert headroom.missing(44, 4) == 1
    assert headroom.needed == 45
    assert headroom.missing(44, 2) < 0, "fewer at once need less"


def test_what_a_run_uses_of_its_own_limit_does_not_count_against_it() -> None:
    running = 0
    headroom = Headroom(10, 5, lambda: running)
    assert headroom.missing(45, 4) <= 0
    running = 1
    assert headroom.missing(37, 3) <= 0, "one runs, and has used 8"
    assert headroom.missing(34, 3) == 1, "it cannot have used 11: somebody else has"
    assert headroom.missing(34, 2) == -9
    running = 0
    assert headroom.missing(44, 4) == 1, "nothing runs, and something is gone for good"
    assert headroom.missing(50, 4) <= 0


# Space


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount_memory(str(place), size=64 * MIB, inodes=RESERVE_FILES + 1000, mode=0o711)
    try:
        yield place
    finally:
        unmount_all(str(place))


@pytest.mark.sandbox
def test_a_full_disk_hinders_until_there_is_room(disk: Path) -> None:
    look = StateDirectory(str(disk), Room(10 * MIB, 10, 0))
    assert look(1) == ()
    (disk / "filling").write_bytes(b"x" * (64 * MIB - RESERVE_BYTES - 9 * MIB))
    (found,) = look(1)
    assert found.what == "disk"
    assert found.why.startswith(f"41 MiB are free in {disk}, and 42 MiB are needed")
    (disk / "filling").unlink()
    assert look(1) == ()


@pytest.mark.sandbox
def test_a_disk_without_inodes_hinders_until_there_are_some(disk: Path) -> None:
    look = StateDirectory(str(disk), Room(0, 500, 0))
    assert look(1) == ()
    for number in range(501):
        (disk / str(number)).touch()
    assert kinds(look(1)) == ["inodes"]
    for number in range(501):
        (disk / str(number)).unlink()
    assert look(1) == ()


@pytest.mark.sandbox
def test_a_disk_that_became_read_only_hinders(disk: Path) -> None:
    look = StateDirectory(str(disk), NOTHING)
    for option, expected in (("ro", ["disk"]), ("rw", [])):
        assert os.spawnlp(os.P_WAIT, "mount", "mount", "-o", f"remount,{option}", str(disk)) == 0
        assert kinds(look(1)) == expected


def test_a_state_directory_that_is_gone_hinders(tmp_path: Path) -> None:
    (found,) = StateDirectory(str(tmp_path / "none"), NOTHING)(1)
    assert found.what == "disk"
    assert "No such file or directory" in found.why


# Memory


def meminfo(tmp_path: Path, kib: int) -> str:
    path = tmp_path / "meminfo"
    path.write_text(f"MemTotal:       16384000 kB\nMemAvailable:   {kib} kB\nHugePages_Total:       0\n")
    return str(path)


def test_too_little_memory_hinders_until_there_is_enough(tmp_path: Path) -> None:
    needed = 2 * 100 * MIB + RESERVE_MEMORY
    look = Memory(Room(0, 0, 100 * MIB), meminfo=meminfo(tmp_path, needed // 1024 - 1))
    (found,) = look(2)
    assert found.what == "memory"
    assert "263 MiB of memory are available in this host, and 264 MiB are needed" in found.why
    meminfo(tmp_path, needed // 1024)
    assert look(2) == ()


def test_what_cannot_be_found_out_hinders(tmp_path: Path) -> None:
    assert kinds(Memory(NOTHING, meminfo=str(tmp_path / "none"))(1)) == ["memory"]


def test_this_host_has_some_memory() -> None:
    assert Memory(Room(0, 0, MIB))(1) == ()
    assert kinds(Memory(Room(0, 0, 2**50))(1)) == ["memory"]


def group(parent: Path, name: str, **files: int | str) -> Path:
    made = parent / name
    made.mkdir()
    for file in ("cgroup.procs",):
        (made / file).touch()
    for file, content in files.items():
        (made / file.replace("__", ".")).write_text(f"{content}\n")
    return made


def test_the_limit_of_a_group_above_counts_too_and_what_is_only_remembered_of_files_does_not(tmp_path: Path) -> None:
    stat = f"anon {10 * MIB}\nactive_file {30 * MIB}\ninactive_file {50 * MIB}\nshmem {MIB}"
    above = group(tmp_path, "above", memory__max=200 * MIB, memory__current=190 * MIB, memory__stat=stat)
    runs = group(above, "runs", memory__max="max", memory__current=MIB)
    assert left_in(str(above)) == 90 * MIB
    assert left_in(str(runs)) is None
    look = Memory(Room(0, 0, 100 * MIB), str(runs))
    (found,) = look(1)
    assert f"90 MiB of memory are available in the control group {above}" in found.why
    (above / "memory.max").write_text(str(300 * MIB))
    assert look(1) == ()


@pytest.mark.sandbox
def test_a_group_of_the_kernel_is_understood() -> None:
    root = Path("/sys/fs/cgroup/memory" if Path("/sys/fs/cgroup/memory").exists() else "/sys/fs/cgroup")
    made = root / f"secureworker-test-{os.getpid()}"
    made.mkdir()
    try:
        limit = "memory.limit_in_bytes" if (made / "memory.limit_in_bytes").exists() else "memory.max"
        look = Memory(Room(0, 0, 50 * MIB), str(made))
        assert look(1) == ()
        (made / limit).write_text(str(40 * MIB))
        assert kinds(look(1)) == ["memory"]
        (made / limit).write_text(str(60 * MIB))
        assert look(1) == ()
    finally:
        made.rmdir()


# Programs


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "runc"
    path.write_bytes(b"#!/bin/sh\n" + b"# long\n" * 400_000)
    path.chmod(0o755)
    return path


def test_a_program_that_is_moved_away_hinders_until_it_is_back(program: Path) -> None:
    look = Programs((str(program),))
    assert look(1) == ()
    away = program.with_name("away")
    program.rename(away)
    (found,) = look(1)
    assert (found.what, "No such file" in found.why) == ("runtime", True)
    away.rename(program)
    assert look(1) == ()


def test_another_program_in_its_place_hinders_until_the_old_one_is_back(program: Path) -> None:
    look = Programs((str(program),))
    old = program.read_bytes()
    program.write_bytes(old[:-1] + b"!")
    (found,) = look(1)
    assert "another program than the one that was tested at the start; the worker begins anew soon" in found.why
    assert look(1) == (found,)
    program.write_bytes(old)
    assert look(1) == ()


def test_a_program_that_may_not_be_executed_any_more_hinders(program: Path) -> None:
    look = Programs((str(program),))
    program.chmod(0o644)
    assert kinds(look(1)) == ["runtime"]
    program.chmod(0o755)
    assert look(1) == ()


def test_a_program_that_is_as_it_was_is_not_read_again(program: Path) -> None:
    look = Programs((str(program),))
    program.touch()
    assert look(1) == ()
    # Its bytes are others now, behind the back of everything that is looked at: nobody has read them.
    before = program.stat()
    with program.open("r+b") as file:
        file.write(b"#?")
    look._tested[str(program)].version = (
        before.st_dev,
        before.st_ino,
        before.st_size,
        before.st_mode,
        program.stat().st_mtime_ns,
        program.stat().st_ctime_ns,
    )
    assert look(1) == ()


# Pinned files


def test_a_pinned_file_that_changed_hinders_until_it_is_as_it_was(program: Path) -> None:
    content = program.read_bytes()
    look = PinnedFiles({str(program): hashlib.sha256(content).hexdigest()})
    assert look(1) == ()
    assert look(1) == ()
    program.write_bytes(content + b"# changed\n")
    (found,) = look(1)
    assert found.what == "host"
    assert "and the policy pins" in found.why
    program.unlink()
    (found,) = look(1)
    assert "which the policy pins, cannot be read: No such file or directory" in found.why
    program.write_bytes(content)
    assert look(1) == ()


# Control groups


def test_groups_of_version_2_without_their_controllers_hinder(tmp_path: Path) -> None:
    base = tmp_path / "level"
    base.mkdir()
    control = base / "cgroup.subtree_control"
    control.write_text("cpu memory pids\n")
    look = ControlGroups({"memory": str(base), "pids": str(base), "cpu": str(base)})
    assert look(1) == ()
    control.write_text("cpu\n")
    (found,) = look(1)
    assert (found.what, "memory, pids cannot be limited" in found.why) == ("cgroup", True)
    control.unlink()
    assert kinds(look(1)) == ["cgroup"]
    control.write_text("cpu memory pids\n")
    assert look(1) == ()


def test_groups_of_version_1_are_made_again_where_that_is_possible(tmp_path: Path) -> None:
    parent = tmp_path / "hierarchy"
    parent.mkdir()
    look = ControlGroups({"memory": str(parent / "level")})
    assert look(1) == (), "the worker makes it"
    parent.rmdir()
    assert kinds(look(1)) == ["cgroup"]
    parent.mkdir()
    assert look(1) == ()


def test_where_there_are_no_groups_none_are_looked_at() -> None:
    assert ControlGroups({})(1) == ()


# Looking


class Hanging:
    def __init__(self) -> None:
        self.times = 0
        self.go_on = threading.Event()

    def __call__(self, runs: int) -> tuple[Hindrance, ...]:  # noqa: ARG002 - a look's
        self.times += 1
        assert self.go_on.wait(20)
        return ()


async def test_a_look_that_hangs_is_a_hindrance_blocks_nothing_and_is_made_once() -> None:
    hanging = Hanging()
    looking = Looking((hanging,), seconds=0.02)
    try:
        for _ in range(3):
            (found,) = await looking.hindrances(1)
            assert (found.what, found.why) == (
                "host",
                "looking at this host does not end, at Hanging; does a disk hang?",
            )
        assert hanging.times == 1
        hanging.go_on.set()
        looking._seconds = 20
        assert await looking.hindrances(1) == ()
        assert hanging.times == 2, "what was found late is old"
    finally:
        hanging.go_on.set()
        looking.close()


async def test_a_look_that_fails_is_a_hindrance_and_keeps_nothing_from_the_others() -> None:
    class Broken:
        def __call__(self, runs: int) -> tuple[Hindrance, ...]:  # noqa: ARG002 - a look's
            raise RuntimeError("a look's own fault")

    class Full:
        def __call__(self, runs: int) -> tuple[Hindrance, ...]:
            return (Hindrance("disk", f"no room for {runs}"),)

    looking = Looking((Broken(), Full()))
    found = await looking.hindrances(3)
    looking.close()
    assert found == (Hindrance("host", "Broken failed: a look's own fault"), Hindrance("disk", "no room for 3"))


async def test_all_looks_at_a_host_take_milliseconds(tmp_path: Path) -> None:
    room = Room(1, 1, 1)
    programs = Programs(("/bin/sh",))
    looking = Looking((StateDirectory(str(tmp_path), room), Memory(room), programs, ControlGroups({})))
    loop = asyncio.get_running_loop()
    await looking.hindrances(1)
    began = loop.time()
    for _ in range(10):
        assert await looking.hindrances(1) == ()
    looking.close()
    assert (loop.time() - began) / 10 < 0.05, "on a machine that is busy with other tests"
