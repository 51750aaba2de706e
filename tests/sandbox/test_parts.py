"""The small parts of the sandbox: roots, network namespaces, executables, the guard, what the host has."""

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from secureworker.core.errors import SandboxError
from secureworker.sandbox import guard, kernel, runtime, survey
from secureworker.sandbox.cgroups import Group, Version
from secureworker.sandbox.executable import check_executable
from secureworker.sandbox.netns import network_namespace
from secureworker.sandbox.root import make_root
from tests.sandbox.cage import runtime_for, some_limits
from tests.sandbox.test_bundle import FACTS


@pytest.mark.sandbox
def test_a_network_namespace_is_new_and_this_thread_stays_where_it_is() -> None:
    before = os.stat("/proc/thread-self/ns/net").st_ino
    with network_namespace() as made:
        assert os.fstat(made.namespace).st_ino != before
        assert not os.get_inheritable(made.namespace)
    assert os.stat("/proc/thread-self/ns/net").st_ino == before
    assert not [thread for thread in threading.enumerate() if thread.name == "network-namespace"]


@pytest.mark.sandbox
def test_a_network_namespace_has_loopback_and_nothing_else() -> None:
    found: list[object] = []

    def look() -> None:
        kernel.unshare_network()
        with network_namespace() as made:
            found.append(made)
        found.append([name for _, name in socket.if_nameindex()])

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found[1] == ["lo"]


def test_the_root_has_links_mount_points_and_a_minimal_etc(tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_text("")
    root = tmp_path / "root"
    sources = {"/opt/sign": str(source), "/data": str(tmp_path), "/data/file": str(source)}
    make_root(
        str(root), ("/dev", "/dev/shm", "/tmp", "/tmp/script", "/data", "/data/file", "/opt/sign"), sources, FACTS
    )
    assert os.readlink(root / "bin") == "usr/bin"
    assert sorted(path.name for path in (root / "etc").iterdir()) == [
        "group",
        "hosts",
        "nsswitch.conf",
        "passwd",
        "resolv.conf",
    ]
    assert (root / "etc" / "hosts").read_text() == "127.0.0.1 localhost taskcluster\n"
    assert (root / "opt" / "sign").is_file()
    assert list((root / "data").iterdir()) == list((root / "dev").iterdir()) == list((root / "tmp").iterdir()) == []
    assert not [path for path in (root, *root.rglob("*")) if not path.is_symlink() and path.stat().st_mode & 0o022]


def test_a_root_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=r"cannot be made in .*: File exists"):
        make_root(str(tmp_path), (), {}, FACTS)


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """Give a directory and a descriptor of it, for a root."""
    descriptor = os.open(tmp_path, os.O_PATH)
    yield tmp_path, descriptor
    os.close(descriptor)


def write(path: Path, content: bytes, mode: int = 0o755) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def test_scripts_with_an_interpreter_that_is_there_can_be_executed(inside: tuple[Path, int]) -> None:
    top, root = inside
    write(top / "bin" / "sh", Path("/usr/bin/tini-static").read_bytes())
    write(top / "script", b"#! /bin/sh -e\n")
    write(top / "plain", b"echo\n")
    write(top / "nested", b"#!/script\n")
    for name in ("/script", "/plain", "/nested", "/bin/sh"):
        check_executable(root, name)


def test_links_are_followed_within_the_root_only(inside: tuple[Path, int]) -> None:
    top, root = inside
    (top / "script").symlink_to("/bin/cat")
    with pytest.raises(SandboxError, match="/script cannot be executed: it is not in the sandbox"):
        check_executable(root, "/script")


def test_a_program_needs_its_loader(inside: tuple[Path, int]) -> None:
    top, root = inside
    write(top / "cat", Path("/usr/bin/cat").read_bytes())
    with pytest.raises(SandboxError, match=r"its interpreter /lib.*ld.* is not in the sandbox"):
        check_executable(root, "/cat")


def elf(**changes: int) -> bytes:
    """Give a header of this machine's with the fields that are looked at."""
    header = bytearray(Path("/proc/self/exe").read_bytes()[:64])
    for name, value in changes.items():
        struct.pack_into(
            "<H" if name != "offset" else "<Q", header, {"machine": 18, "offset": 32, "count": 56}[name], value
        )
    return bytes(header)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (elf(machine=3), "for another kind of machine"),
        (elf(offset=4090, count=3), "its ELF header is damaged"),
        (b"#!\n", "names no interpreter"),
        (b"#!/script\n", "too many of them"),
        (b"#!/directory\n", "is no file that everybody may execute"),
    ],
)
def test_what_the_kernel_would_not_execute_is_said(inside: tuple[Path, int], content: bytes, message: str) -> None:
    top, root = inside
    (top / "directory").mkdir()
    write(top / "script", content)
    with pytest.raises(SandboxError, match=message):
        check_executable(root, "/script")


def test_a_script_that_not_everybody_may_execute_is_refused(inside: tuple[Path, int]) -> None:
    top, root = inside
    write(top / "script", b"x", mode=0o700)
    with pytest.raises(SandboxError, match="/script cannot be executed: it is no file that everybody may execute"):
        check_executable(root, "/script")


@pytest.mark.sandbox
def test_a_script_on_a_file_system_mounted_with_noexec_is_refused(tmp_path: Path) -> None:
    # In a mount namespace of its own: nothing is mounted on this host.
    program = (
        "import os\nfrom secureworker.sandbox.executable import check_executable\n"
        "open('script', 'w').close(); os.chmod('script', 0o755)\n"
        "try: check_executable(os.open('.', os.O_PATH), '/script')\nexcept Exception as error: print(error)"
    )
    mounting = 'mount -t tmpfs -o noexec none "$1" && cd "$1" && exec "$2" -c "$3"'
    answer = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mounting, "sh", tmp_path, sys.executable, program],
        capture_output=True, text=True, check=True, env={"PATH": os.defpath, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert "/script cannot be executed: it lies on a file system that is mounted with noexec" in answer.stdout


def a_guard(path: Path, alarm: threading.Event, **limits: int) -> guard.Guard:
    (path / "groups").mkdir()
    group = Group(Version.V2, {"memory": str(path / "groups")}, {})
    return guard.Guard(str(path / "task"), some_limits(**limits), group, alarm.set)


def test_the_guard_calls_when_a_limit_on_disk_is_passed(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    alarm = threading.Event()
    with a_guard(tmp_path, alarm, disk_bytes=100_000) as watching:
        (tmp_path / "task" / "large").write_bytes(b"x" * 200_000)
        assert alarm.wait(20)
        assert watching.excess == "the script keeps more than 100000 bytes on disk, its limit"


def test_the_guard_calls_when_memory_has_run_out(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    alarm = threading.Event()
    with a_guard(tmp_path, alarm):
        (tmp_path / "groups" / "memory.events").write_text("oom_kill 1\n")
        assert alarm.wait(20)


def test_the_guard_does_not_mind_a_directory_that_has_gone(tmp_path: Path) -> None:
    watching = a_guard(tmp_path, threading.Event())
    watching.look()
    assert watching.excess == ""


@pytest.mark.sandbox
def test_this_host_has_what_a_bundle_is_made_from() -> None:
    chosen = survey.find_runtime(None, unified=False)
    facts = survey.survey(chosen)
    assert facts.runtime == f"runc {chosen.version}"
    assert ("/bin", "usr/bin") in facts.root_links
    assert "/etc/ssl/certs" in facts.etc_directories
    assert "/etc/ld.so.cache" in facts.etc_files
    assert facts.init == survey.find_init()


@pytest.mark.sandbox
def test_crun_is_preferred_where_it_works(directory: Path) -> None:
    runtime_for("crun", directory)
    assert survey.find_runtime(None, unified=True).name == "crun"
    assert survey.find_runtime(None, unified=False).name == "runc"
    assert survey.find_runtime("runc", unified=True).name == "runc"


def test_an_architecture_without_a_filter_is_refused() -> None:
    chosen = runtime.Runtime("/usr/sbin/runc", "runc", "1.1.5")
    with pytest.raises(SandboxError, match="there is no system-call filter for the architecture i686"):
        survey.survey(chosen, machine="i686")


def test_a_tree_that_keeps_moving_is_too_much_in_the_end(tmp_path: Path) -> None:
    watching = a_guard(tmp_path, threading.Event())
    for _ in range(7):
        watching.moved()
    assert watching.excess == ""
    watching.moved()
    assert "its deep directories move all the time" in watching.excess


def test_the_workers_own_path_does_not_choose_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "runc-of-mine", b"#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runtime.find("runc-of-mine") is None
    assert runtime.find("sh") is not None


def test_the_kernel_says_its_version() -> None:
    assert kernel.kernel_version() >= (5, 12)
    assert kernel.landlock_version() >= 0
