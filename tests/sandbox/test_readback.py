"""What the runtime built is compared with what was asked for: runtimes that lie are found out."""

from pathlib import Path
from typing import Any

import pytest

from secureworker.core.errors import SandboxError
from secureworker.sandbox import readback
from secureworker.sandbox.mountinfo import parse
from tests.sandbox.cage import a_cage

LIAR = """#!/bin/sh
# An OCI runtime that does something else than its bundle says.
set -e
for last; do
    test "$previous" = --bundle && bundle=$last
    previous=$last
done
case " $* " in *" create "*)
    /usr/bin/python3 -c '
import json, sys
path = sys.argv[1] + "/config.json"
config = json.load(open(path))
mounts = {{mount["destination"]: mount for mount in config["mounts"]}}
{change}
json.dump(config, open(path, "w"))
' "$bundle" ;;
esac
exec {runtime} "$@"
"""


LIES = [
    ('mounts["/usr"]["options"] = ["rbind", "rprivate", "nosuid", "nodev"]', "the mount /usr lacks ro"),
    ('mounts["/task"]["options"] = ["bind", "rw", "nodev"]', "the mount /task lacks nosuid"),
    ('mounts["/tmp"]["options"].remove("nodev")', "the mount /tmp lacks nodev"),
    ('mounts["/proc"]["options"].remove("subset=pid")', "/proc is mounted without subset=pid"),
    ('mounts["/proc"]["options"].remove("hidepid=2")', "/proc is mounted without hidepid"),
    ('config["mounts"].remove(mounts["/dev/shm"])', "the mounts /dev/shm are missing"),
    ('mounts["/etc/ssl/certs"]["source"] = "/etc/ssl"', "the mount /etc/ssl/certs shows another file"),
    ('config["root"]["readonly"] = False', "the mount / lacks ro"),
    (
        'config["mounts"].append(dict(mounts["/task"], destination="/proc/x", type="tmpfs"))',
        "create failed|nobody asked",
    ),
    ('config["mounts"].append(dict(mounts["/task"], destination="/dev/x"))', "a mount on /dev/x that nobody asked for"),
    ('config["process"]["noNewPrivileges"] = False', "NoNewPrivs is 0"),
    ('del config["linux"]["seccomp"]', "Seccomp is 0"),
    ('config["process"]["capabilities"]["bounding"] = ["CAP_KILL"]', "the capability set CapBnd is 0000000000000020"),
    ('config["process"]["user"]["uid"] = 0', "Uid is"),
    ('config["process"]["user"]["gid"] = 0', "Gid is"),
    ('config["process"]["rlimits"].pop(0)', "RLIMIT_CORE is"),
    ('config["process"]["oomScoreAdj"] = 500', "oom_score_adj is 500"),
    ('config["linux"]["uidMappings"][1]["hostID"] += 7', "uid_map is"),
    (
        'config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "ipc"]',
        "the ipc namespace is the worker",
    ),
    ('config["linux"]["namespaces"][-1].pop("path")', "the net namespace is not the one that was made for the run"),
    ('config["linux"]["cgroupsPath"] += "x"', "the process is in the control group"),
    ('config["linux"]["resources"]["memory"]["limit"] = -1', "limit_in_bytes is|memory.max is|create failed"),
    ('config["linux"]["resources"]["pids"]["limit"] = 1000', "pids.max is 1000"),
]


@pytest.mark.sandbox
@pytest.mark.parametrize(("change", "message"), LIES)
async def test_a_runtime_that_lies_is_found_out(directory: Path, change: str, message: str) -> None:
    liar = directory / "liar"
    async with a_cage(directory, "runc") as honest:
        runtime = honest.sandbox.runtime_path
    liar.write_text(LIAR.format(change=change, runtime=runtime))
    liar.chmod(0o755)
    async with a_cage(directory, str(liar)) as cage:
        with pytest.raises(SandboxError, match=message):
            await cage.shell("touch ran; sleep 60")


def config(**process: Any) -> dict[str, Any]:
    return {
        "process": {"user": {"uid": 1000}, "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}], **process},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "hidepid=2"]},
            {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro", "nosuid"]},
        ],
        "linux": {
            "uidMappings": [{"containerID": 1000, "hostID": 77, "size": 1}],
            "gidMappings": [{"containerID": 1000, "hostID": 77, "size": 1}],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
    }


ROOT = "1 0 8:1 /r / ro,relatime - ext4 /dev/x rw\n"
PROC = "2 1 0:4 / /proc rw,nosuid,nodev - proc proc rw,hidepid=invisible,subset=pid\n"
USR = "3 1 8:1 /usr /usr ro,nosuid,nodev - ext4 /dev/x rw\n"
LOCAL = "4 3 8:2 / /usr/local ro,nosuid - ext4 /dev/y rw\n"


def test_what_is_mounted_within_a_source_comes_along_and_is_checked_too() -> None:
    host = parse("9 1 8:2 / /usr/local rw - ext4 /dev/y rw\n")
    readback.check_mounts(parse(ROOT + PROC + USR + LOCAL), config(), host)
    with pytest.raises(SandboxError, match="/usr/local lacks ro"):
        readback.check_mounts(parse(ROOT + PROC + USR + LOCAL.replace("ro,nosuid", "rw,nosuid")), config(), host)
    with pytest.raises(SandboxError, match="/usr/local that nobody asked for"):
        readback.check_mounts(parse(ROOT + PROC + USR + LOCAL), config(), ())


def test_masks_and_devices_of_the_runtime_are_fine() -> None:
    extra = "5 2 0:5 / /proc/kcore ro - tmpfs tmpfs ro\n6 1 0:6 /null /dev/null rw - devtmpfs devtmpfs rw\n"
    readback.check_mounts(parse(ROOT + PROC + USR + extra), config(), ())


def test_groups_of_version_2_are_checked() -> None:
    readback.check_groups("0::/a/run\n", {"": "/a/run"})
    readback.check_groups("4:memory:/a/run\n0::/elsewhere\n", {"memory": "/a/run"})
    with pytest.raises(SandboxError, match="the process is in the control group /b of v2, not /a/run"):
        readback.check_groups("0::/b\n", {"": "/a/run"})


def test_supplementary_groups_are_noticed() -> None:
    caps = "".join(f"Cap{kind}:\t0000000000000000\n" for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"))
    status = f"NoNewPrivs:\t1\nSeccomp:\t2\nUid:\t77\t77\t77\t77\nGid:\t77\t77\t77\t77\n{caps}Groups:\t"
    readback.check_status(status + " \n", config())
    readback.check_status(status + "77 \n", config())
    with pytest.raises(SandboxError, match="there are supplementary groups: \\['0'\\]"):
        readback.check_status(status + "0 \n", config())


def test_a_process_that_has_gone_cannot_be_checked() -> None:
    with pytest.raises(SandboxError, match="the container cannot be checked: /proc/0/comm"):
        readback.check_started(0, "/usr/bin/tini-static", config())


def test_limits_are_compared_by_both_values() -> None:
    readback.check_limits("Limit  Soft  Hard\nMax core file size        0       0       bytes\n", config())
    with pytest.raises(SandboxError, match="RLIMIT_CORE is 0, and not 0"):
        readback.check_limits("Max core file size        0       unlimited       bytes\n", config())
