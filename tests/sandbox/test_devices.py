"""The rule for devices, in both versions of control groups."""

import os
import subprocess
from pathlib import Path

import pytest

from secureworker.core.errors import SandboxError
from secureworker.sandbox import devices
from secureworker.sandbox.mountinfo import parse
from tests.sandbox.cage import Cage

OPENING = (
    'echo 0 > "$1/cgroup.procs"; shift; for device; do head -c 0 "$device" 2>/dev/null && echo yes || echo no; done'
)


@pytest.mark.sandbox
def test_version_2_lets_the_group_open_the_harmless_devices_only(tmp_path: Path) -> None:
    (top, *_) = [mount.target for mount in parse(Path("/proc/self/mountinfo").read_text()) if mount.kind == "cgroup2"]
    group = Path(top) / f"secureworker-test-devices-{os.getpid()}"
    group.mkdir()
    node = tmp_path / "node"
    os.mknod(node, 0o660 | 0o060000, os.makedev(254, 0))
    try:
        devices.restrict_v2(str(group))
        # As root, with every capability: what refuses is the rule, and nothing else.
        answer = subprocess.run(
            ["/bin/sh", "-c", OPENING, "sh", group, "/dev/null", "/dev/urandom", "/dev/kmsg", "/dev/mem", node],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    finally:
        group.rmdir()
    assert answer.stdout.split() == ["yes", "yes", "no", "no", "no"]


@pytest.mark.sandbox
def test_a_directory_that_is_no_group_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=r"devices cannot be denied to .*; the kernel needs CONFIG_CGROUP_BPF"):
        devices.restrict_v2(str(tmp_path))


def test_the_program_is_one_for_each_byte_order() -> None:
    little, big = devices.program("<"), devices.program(">")
    assert len(little) == len(big) == 8 * (5 + 4 * len(devices.ALLOWED) + 2)
    assert little[:8] == bytes([0x61, 0x12, 0, 0, 0, 0, 0, 0])
    assert big[:8] == bytes([0x61, 0x21, 0, 0, 0, 0, 0, 0])
    assert devices.program() in {little, big}


def test_version_1_has_the_rule_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "devices.list").write_text("\n".join(devices.v1_lines()) + "\n")
    devices.restrict_v1(str(tmp_path))
    assert (tmp_path / "devices.deny").read_text() == "a"
    (tmp_path / "devices.list").write_text("a *:* rwm\n")
    with pytest.raises(SandboxError, match="the devices allowed to"):
        devices.restrict_v1(str(tmp_path))


@pytest.mark.sandbox
async def test_the_harmless_devices_work_in_a_run(cage: Cage) -> None:
    ran = await cage.shell("head -c 1 /dev/zero | wc -c; : > /dev/null; head -c 1 /dev/urandom | wc -c")
    assert ran.output == "1\n1\n"
