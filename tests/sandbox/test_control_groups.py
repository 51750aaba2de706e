"""Control groups: names and values for both versions, and version 2 against a directory tree.

This file's trees are plain directories: they show which files are written and read. What a kernel with version 2 does
with them cannot be shown on a host that has version 1; the runs in test_life.py show it on one that has.
"""

import os
import subprocess
from pathlib import Path

import pytest

from secureworker.core.errors import SandboxError
from secureworker.core.outcome import Usage
from secureworker.sandbox.cgroups import WITHOUT_GROUPS, Group, Hierarchy, Version, fields, limit_files
from secureworker.sandbox.delegation import delegated_base, find_hierarchy, find_mounts, is_delegated, own_paths
from secureworker.sandbox.mountinfo import parse, submounts
from tests.sandbox.cage import MIB, some_limits

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "".join(
    f"3{n} 30 0:3{n} / /sys/fs/cgroup/{name} rw,nosuid - cgroup cgroup rw,{name}\n"
    for n, name in enumerate(("memory", "pids", "cpu,cpuacct", "devices"))
)
LIMITS = some_limits(memory_bytes=64 * MIB, cpus=1.5)


def test_limits_of_version_1() -> None:
    assert limit_files(Version.V1, LIMITS, 9) == {
        "memory": (("memory.limit_in_bytes", "67108864"), ("memory.memsw.limit_in_bytes", "67108864")),
        "pids": (("pids.max", "9"),),
        "cpu": (("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "150000")),
    }


def test_limits_of_version_2() -> None:
    assert limit_files(Version.V2, LIMITS, 9) == {
        "memory": (("memory.max", "67108864"), ("memory.swap.max", "0"), ("memory.oom.group", "1")),
        "pids": (("pids.max", "9"),),
        "cpu": (("cpu.max", "150000 100000"),),
    }


def test_version_2_is_chosen_where_it_has_all_controllers() -> None:
    chosen = find_mounts(parse(V2), {"/sys/fs/cgroup": frozenset({"memory", "pids", "cpu", "io"})})
    assert chosen.version is Version.V2
    assert set(chosen.by_controller) == {"memory", "pids", "cpu"}


def test_a_hybrid_hosts_limits_are_those_of_version_1() -> None:
    unified = V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    chosen = find_mounts(parse(V1 + unified), {"/sys/fs/cgroup/unified": frozenset({"hugetlb"})})
    assert chosen.version is Version.V1
    assert chosen.by_controller["cpuacct"].target == "/sys/fs/cgroup/cpu,cpuacct"


def test_a_host_without_a_controller_is_refused() -> None:
    with pytest.raises(SandboxError, match="no control groups for memory, cpu"):
        find_mounts(parse("".join(line for line in V1.splitlines(keepends=True) if "pids" in line)), {})


def test_the_groups_of_this_process_are_read() -> None:
    assert own_paths("4:memory:/a:b\n1:cpu,cpuacct:/\n0::/user.slice\n") == {
        "memory": "/a:b", "cpu": "/", "cpuacct": "/", "": "/user.slice",
    }  # fmt: skip


def a_tree(top: Path, *groups: str, enabled: str = "") -> str:
    """Make a tree that looks like version 2."""
    for group in ("", *groups):
        directory = top / group
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.procs").write_text("")
        (directory / "cgroup.subtree_control").write_text(enabled)
    return str(top)


def test_root_uses_the_top_of_the_tree_where_nothing_is_delegated(tmp_path: Path) -> None:
    top = a_tree(tmp_path, "session", enabled="cpu memory pids io\n")
    assert delegated_base(top, "/session", privileged=True) == top


def test_controllers_that_are_missing_are_enabled(tmp_path: Path) -> None:
    top = a_tree(tmp_path, enabled="cpu")
    assert delegated_base(top, "/", privileged=True) == top
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_a_delegated_group_is_used_and_its_processes_move_to_a_leaf(tmp_path: Path) -> None:
    top = a_tree(tmp_path, "service")
    (tmp_path / "service" / "cgroup.procs").write_text("41\n")
    assert delegated_base(top, "/service", privileged=False) == f"{top}/service"
    assert (tmp_path / "service" / "worker" / "cgroup.procs").read_text() == "41"
    assert (tmp_path / "service" / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"


def test_a_worker_that_has_moved_finds_the_group_above(tmp_path: Path) -> None:
    top = a_tree(tmp_path, "service", "service/worker", enabled="memory pids cpu")
    assert delegated_base(top, "/service/worker", privileged=False) == f"{top}/service"


def test_without_root_and_delegation_there_is_no_place(tmp_path: Path) -> None:
    top = a_tree(tmp_path, enabled="memory pids cpu")
    with pytest.raises(
        SandboxError, match="is not delegated to this worker: no limits are possible; run the worker by"
    ):
        delegated_base(top, "/", privileged=False)


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    top = a_tree(tmp_path)
    (tmp_path / "cgroup.subtree_control").unlink()
    (tmp_path / "cgroup.subtree_control").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        delegated_base(top, "/", privileged=True)


def a_group(directory: Path) -> Group:
    return Group(Version.V2, dict.fromkeys(("memory", "pids", "cpu"), str(directory)), {"memory": "/x/run"})


@pytest.fixture
def group(tmp_path: Path) -> Group:
    for name in ("memory.max", "pids.max", "cpu.max", "memory.oom.group"):
        (tmp_path / name).write_text("max")
    (tmp_path / "cgroup.procs").write_text("")
    return a_group(tmp_path)


def test_limits_are_written_and_read_back(group: Group, tmp_path: Path) -> None:
    group.limit(LIMITS, 9)
    assert (tmp_path / "memory.max").read_text() == "67108864"
    assert (tmp_path / "cpu.max").read_text() == "150000 100000"
    assert (tmp_path / "memory.oom.group").read_text() == "1"
    # This kernel does not count swap: there is none to limit.
    assert not (tmp_path / "memory.swap.max").exists()


def test_a_limit_that_is_not_in_force_is_an_error(group: Group, tmp_path: Path) -> None:
    group.limit(LIMITS, 9)
    (tmp_path / "pids.max").write_text("max\n")
    with pytest.raises(SandboxError, match=r"pids\.max is max, and not 9, as was asked for"):
        group.check(LIMITS, 9)


def test_a_limit_that_cannot_be_set_is_an_error(group: Group, tmp_path: Path) -> None:
    (tmp_path / "pids.max").unlink()
    (tmp_path / "pids.max").mkdir()
    with pytest.raises(SandboxError, match="cannot be set to 9: Is a directory"):
        group.limit(LIMITS, 9)


def test_usage_and_kills_of_version_2(group: Group, tmp_path: Path) -> None:
    assert group.usage() == Usage(None, None, None)
    assert group.out_of_memory_kills() == 0
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (tmp_path / "memory.peak").write_text("4096\n")
    (tmp_path / "pids.peak").write_text("7\n")
    (tmp_path / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert group.usage() == Usage(cpu_seconds=2.5, memory_peak_bytes=4096, processes_peak=7)
    assert group.out_of_memory_kills() == 2
    assert fields("a 1\nb x\nc 3") == {"a": 1, "c": 3}


def test_an_empty_group_is_removed_with_those_within_it(tmp_path: Path) -> None:
    (tmp_path / "run" / "inner" / "innermost").mkdir(parents=True)
    a_group(tmp_path / "run").remove()
    assert not (tmp_path / "run").exists()
    a_group(tmp_path / "run").remove()


def test_groups_of_an_earlier_worker_are_swept(tmp_path: Path) -> None:
    base = tmp_path / "secureworker-x"
    hierarchy = Hierarchy(Version.V2, {"memory": str(base), "pids": str(base)}, {"memory": "/", "pids": "/"})
    assert hierarchy.sweep() == 0
    hierarchy.open("run-1")
    assert hierarchy.leftovers() == ("run-1",)
    assert hierarchy.sweep() == 1
    hierarchy.remove()
    assert not base.exists()
    hierarchy.remove()


def test_a_group_that_exists_is_not_shared(tmp_path: Path) -> None:
    memory, pids = tmp_path / "memory", tmp_path / "pids"
    (pids / "run-1").mkdir(parents=True)
    hierarchy = Hierarchy(Version.V1, {"memory": str(memory), "pids": str(pids)}, {"memory": "/a", "pids": "/a"})
    with pytest.raises(SandboxError, match="pids/run-1 cannot be made: File exists"):
        hierarchy.open("run-1")
    assert list(memory.iterdir()) == []


@pytest.mark.sandbox
def test_all_processes_of_a_group_are_killed_and_reaped() -> None:
    hierarchy = find_hierarchy(f"secureworker-test-kill-{os.getpid()}")
    group = hierarchy.open("run-1")
    enter = 'for f; do echo 0 > "$f"; done; trap "" TERM; sleep 98780 & sleep 98780 & echo in; wait'
    with subprocess.Popen(["sh", "-c", enter, "sh", *group.procs_files()], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        assert len(group.pids()) == 3
        group.restrict_devices()
        group.remove()
        assert group.pids() == frozenset()
    hierarchy.remove()
    assert hierarchy.leftovers() == ()


def says(proc: Path, mountinfo: str, groups: str) -> str:
    """Write what the kernel says of a process."""
    proc.mkdir()
    (proc / "mountinfo").write_text(mountinfo)
    (proc / "cgroup").write_text(groups)
    return str(proc)


def test_version_2_has_one_directory_for_all_controllers(tmp_path: Path) -> None:
    top = a_tree(tmp_path / "tree", "service", "service/secureworker-x")
    (tmp_path / "tree" / "cgroup.controllers").write_text("cpu memory pids\n")
    proc = says(tmp_path / "proc", V2.replace("/sys/fs/cgroup", top), "0::/service\n")
    hierarchy = find_hierarchy("secureworker-x", proc=proc, privileged=False)
    assert hierarchy.version is Version.V2
    assert set(hierarchy.bases.values()) == {f"{top}/service/secureworker-x"}
    assert set(hierarchy.paths.values()) == {"/service/secureworker-x"}
    # Controllers are enabled at every level, or the runs' groups would have no limits.
    for level in ("service", "service/secureworker-x"):
        assert (tmp_path / "tree" / level / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    group = hierarchy.open("run-1")
    assert group.procs_files() == (f"{top}/service/secureworker-x/run-1/cgroup.procs",)
    assert group.path == "/service/secureworker-x/run-1"


@pytest.mark.parametrize(
    ("own", "delegated"), [("/service", True), ("/service/worker", True), ("/nowhere", False), ("/", False)]
)
def test_a_user_is_told_whether_a_group_is_delegated_and_nothing_changes(
    tmp_path: Path, own: str, *, delegated: bool
) -> None:
    top = a_tree(tmp_path / "tree", "service", "service/worker", "nowhere", enabled="cpu memory pids")
    (tmp_path / "tree" / "nowhere" / "cgroup.subtree_control").unlink()
    proc = says(tmp_path / "proc", V2.replace("/sys/fs/cgroup", top), f"0::{own}\n")
    chosen = find_mounts(parse(V2.replace("/sys/fs/cgroup", top)), {top: frozenset({"memory", "pids", "cpu"})})
    before = sorted(path for path in tmp_path.rglob("*"))
    assert is_delegated(chosen, proc=proc) is delegated
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_groups_of_version_1_are_no_users() -> None:
    assert not is_delegated(find_mounts(parse(V1), {}))


def test_without_groups_nothing_is_limited_counted_or_left() -> None:
    assert limit_files(Version.NONE, LIMITS, 9) == {}
    group = WITHOUT_GROUPS.open("run-x")
    group.limit(LIMITS, 9)
    group.restrict_devices()
    group.remove()
    assert (group.path, group.procs_files(), group.pids()) == ("", (), frozenset())
    assert (group.usage(), group.out_of_memory_kills()) == (Usage(), 0)
    assert (WITHOUT_GROUPS.leftovers(), WITHOUT_GROUPS.sweep()) == ((), 0)


def test_root_on_version_2_has_its_groups_at_the_top(tmp_path: Path) -> None:
    top = a_tree(tmp_path / "tree", "secureworker-x", enabled="cpu memory pids")
    (tmp_path / "tree" / "cgroup.controllers").write_text("cpu memory pids\n")
    proc = says(tmp_path / "proc", V2.replace("/sys/fs/cgroup", top), "0::/\n")
    hierarchy = find_hierarchy("secureworker-x", proc=proc)
    assert set(hierarchy.bases.values()) == {f"{top}/secureworker-x"}
    assert set(hierarchy.paths.values()) == {"/secureworker-x"}


def test_a_container_that_sees_a_part_of_version_1_has_its_groups_there(tmp_path: Path) -> None:
    table = "".join(
        f"3{n} 30 0:3{n} /docker/7 {tmp_path}/{name} rw - cgroup cgroup rw,{name}\n"
        for n, name in enumerate(("memory", "pids", "cpu", "blkio"))
    )
    proc = says(tmp_path / "proc", table, "4:memory:/docker/7/w\n3:pids:/\n2:cpu:/\n")
    hierarchy = find_hierarchy("secureworker-x", proc=proc)
    assert hierarchy.bases["memory"] == f"{tmp_path}/memory/w/secureworker-x"
    assert hierarchy.paths["pids"] == "/docker/7/w/secureworker-x"
    assert hierarchy.others == (f"{tmp_path}/blkio/w/secureworker-x",)


def test_a_hierarchy_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    for name in ("memory", "pids", "cpu"):
        (tmp_path / name).write_text("")
    table = "".join(f"3 3 0:3 / {tmp_path}/{name} rw - cgroup cgroup rw,{name}\n" for name in ("memory", "pids", "cpu"))
    with pytest.raises(SandboxError, match=r"no control group for memory can be made in .*: Not a directory"):
        find_hierarchy("secureworker-x", proc=says(tmp_path / "proc", table, "4:memory:/\n"))


@pytest.mark.sandbox
def test_this_host_has_a_place_for_groups() -> None:
    hierarchy = find_hierarchy("secureworker-test-place")
    group = hierarchy.open("run-1")
    group.limit(LIMITS, 5)
    assert group.path.endswith("/secureworker-test-place/run-1")
    assert group.pids() == frozenset()
    group.remove()
    hierarchy.remove()
    assert not any(Path(base).exists() for base in hierarchy.bases.values())


def test_escapes_in_mount_tables_are_read() -> None:
    (mount,) = parse("1 2 0:3 /a\\040b /c\\134d rw,nosuid shared:1 master:2 - ext4 /dev/x rw,size=1k\n")
    assert (mount.root, mount.target, mount.kind) == ("/a b", "/c\\d", "ext4")
    assert "nosuid" in mount.options
    assert "size=1k" in mount.super_options
    assert submounts((mount,), "/c\\d") == ()
    assert submounts((mount,), "/") == ("c\\d",)
