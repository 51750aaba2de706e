"""From a plan to the OCI config that an auditor can read. Pure: the same values give the same bytes.

The template that is digested for comparison between tasks is made by the same function with placeholders for all
that differs between runs, not by replacing strings in the result: so it is exact.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from secureworker.core.errors import SandboxError
from secureworker.core.ids import Sha256
from secureworker.core.plan import ARTIFACT_DIR, CONFIG_FILE, HOME_DIR, TASK_DIR, WORK_DIR, Limits, Plan
from secureworker.core.secrets import SECRETS_DIR
from secureworker.host.workspace import pinned_copy
from secureworker.sandbox.facts import TEMPLATE, HostFacts, Place

SCRIPT_UID = 1000
"""Inside. Any number but 0; this one is what programs expect of a user."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TMP, SHM = "/tmp", "/dev/shm"  # noqa: S108 - the sandbox's own, empty for every run
SHM_BYTES = 64 * 1024 * 1024
"""What container engines give; enough for semaphores and multiprocessing."""
TMP_FILES = 65_536
SETUP_PROCESSES = 32
"""Threads of the runtime's own set-up, which count in the same cgroup until the script starts (runc's Go: 6 to 12)."""
INIT_PROCESS = 1
"""The init counts in the control group too."""
CPU_PERIOD_MICROSECONDS = 100_000
"""The kernel's default."""

# Recursive forms beside the plain ones: crun before 1.11.1 drops nosuid, nodev and noexec on read-write binds in a
# user namespace, and runc applies the plain forms to the topmost mount only.
_NO_PRIVILEGE = ["nosuid", "nodev", "rnosuid", "rnodev"]
_TREE_READ_ONLY = ["rbind", "rprivate", "ro", "rro", *_NO_PRIVILEGE]
_TREE_READ_WRITE = ["rbind", "rprivate", "rw", *_NO_PRIVILEGE]
# crun takes recursive options for directories only.
_FILE_READ_ONLY = ["bind", "rprivate", "ro", "nosuid", "nodev"]
_FILE_READ_WRITE = ["bind", "rprivate", "rw", "nosuid", "nodev"]

# Kernels that know `subset=pid` (5.8) show none of these; for the others, and for what a later kernel adds.
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
)
READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
RESERVED_TREES = (TASK_DIR, SECRETS_DIR, "/proc", "/dev", "/sys")
"""At or below these no mount of a policy may lie: what is there is the sandbox's own."""
RESERVED_PLACES = ("/", "/usr", "/etc", TMP)
"""These themselves may not be replaced; below them more may be mounted."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The config, and what it is known by."""

    config: bytes
    """Canonical JSON: exactly what the runtime is given."""
    sha256: Sha256
    template_sha256: Sha256
    targets: tuple[str, ...]
    """Every mount point, parents first; the runtime's devices are not among them."""
    sources: Mapping[str, str]
    """Host paths of those that are binds, by target."""


def make_bundle(plan: Plan, place: Place, facts: HostFacts) -> Bundle:
    """Derive the config of a run.

    Raises:
        SandboxError: the plan mounts something where it may not.
    """
    mounts = _mounts(plan, place, facts)
    config = _canonical(_config(plan, place, facts))
    template = _canonical(_config(plan, replace(TEMPLATE, directories=place.directories), facts))
    return Bundle(
        config=config,
        sha256=_sha256(config),
        template_sha256=_sha256(template),
        targets=tuple(mount["destination"] for mount in mounts),
        sources={mount["destination"]: mount["source"] for mount in mounts if mount["type"] == "bind"},
    )


def _canonical(config: dict[str, Any]) -> bytes:
    return json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _sha256(content: bytes) -> Sha256:
    return Sha256(hashlib.sha256(content).hexdigest())


def _config(plan: Plan, place: Place, facts: HostFacts) -> dict[str, Any]:
    return {
        "ociVersion": "1.0.2",
        "hostname": "sandbox",
        "root": {"path": place.root, "readonly": True},
        "process": {
            "terminal": False,
            "cwd": WORK_DIR,
            # A real init: as PID 1 a script would ignore TERM by default, and its own death by a signal would be
            # lost. -p: die with the worker. -g: signals go to the script's whole process group.
            "args": [facts.init, "-g", "-p", "SIGKILL", "--", *command(plan)],
            "env": [f"{name}={value}" for name, value in environment(plan, place)],
            "user": {"uid": SCRIPT_UID, "gid": SCRIPT_UID, "umask": 0o022},
            "capabilities": {kind: [] for kind in _CAPABILITY_SETS},
            "noNewPrivileges": True,
            "rlimits": _rlimits(plan, facts),
            "oomScoreAdj": 1000,
        },
        "mounts": _mounts(plan, place, facts),
        "linux": _linux(place, plan, facts),
    }


_CAPABILITY_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


def command(plan: Plan) -> tuple[str, ...]:
    """Give the script's argv: the policy's, and the config file where there is one."""
    return plan.argv if plan.config is None else (*plan.argv, CONFIG_FILE)


def environment(plan: Plan, place: Place) -> tuple[tuple[str, str], ...]:
    """Give all the script's environment, in order of names. The worker's variables win, but for PATH."""
    return tuple(
        sorted(
            (
                {"PATH": DEFAULT_PATH}
                | dict(plan.environment)
                | dict(plan.doors.environment())
                | {
                    "HOME": HOME_DIR,
                    "RUN_ID": place.run_id,
                    "SECUREWORKER_ARTIFACTS": ARTIFACT_DIR,
                    "SECUREWORKER_TASK": f"{WORK_DIR}/task.json",
                    "TASKCLUSTER_ROOT_URL": plan.root_url,
                    "TASK_GROUP_ID": place.task_group_id,
                    "TASK_ID": place.task_id,
                }
            ).items()
        )
    )


def _rlimits(plan: Plan, facts: HostFacts) -> list[dict[str, Any]]:
    limits = plan.limits
    planned = {
        "RLIMIT_FSIZE": limits.disk_bytes,
        "RLIMIT_NOFILE": limits.open_files,
        # The cgroup counts processes; this is for the case that it does not.
        "RLIMIT_NPROC": limits.processes + SETUP_PROCESSES,
    }
    wanted = {
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 64 * 1024,  # what kernels gave before 5.16; gpg locks some KiB
        "RLIMIT_MSGQUEUE": 819_200,  # the kernel's default (MQ_BYTES_MAX)
        "RLIMIT_RTPRIO": 0,
        "RLIMIT_SIGPENDING": 1024,
        **({} if plan.unlimited else planned),
    }
    capped = {name: min(value, facts.hard_limits.get(name, value)) for name, value in wanted.items()}
    return [{"type": name, "soft": value, "hard": value} for name, value in sorted(capped.items())]


def processes_at_first(limits: Limits) -> int:
    """Give `pids.max` for the time until the script has started.

    Set-up is over before there is a script, so neither needs room beside the other. Only where a script may have fewer
    processes than set-up takes is the limit lowered when it runs already; until then, some microseconds, it may make
    as many as set-up.
    """
    return max(limits.processes + INIT_PROCESS, SETUP_PROCESSES)


def _mounts(plan: Plan, place: Place, facts: HostFacts) -> list[dict[str, Any]]:
    """Give all mounts; parents first: the runtime mounts in list order, and a later parent would hide its child."""
    mounts = [*_own_mounts(plan, place, facts), *_plan_mounts(plan, place, facts)]
    targets = [mount["destination"] for mount in mounts]
    for target in targets:
        if targets.count(target) > 1:
            raise SandboxError(f"two mounts have the target {target}; the policy may mount it only once")
    return sorted(mounts, key=lambda mount: mount["destination"].split("/"))


def _own_mounts(plan: Plan, place: Place, facts: HostFacts) -> Iterator[dict[str, Any]]:
    limits = plan.limits
    # nr_inodes and size: memory of a tmpfs counts in the cgroup, but inodes do so only in part.
    tmp = f"size={min(limits.disk_bytes, limits.memory_bytes)}"
    yield _mount("/proc", "proc", "proc", ["nosuid", "nodev", "noexec", "hidepid=2", "subset=pid"])
    yield _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "noexec", "mode=755", "size=64k", "nr_inodes=64"])
    # uid and gid too: runc 1.1 ignores the mode, and gives that of the mount point.
    yield _mount(SHM, "tmpfs", "tmpfs", [*_tmpfs(), "noexec", f"size={SHM_BYTES}", "nr_inodes=1024"])
    yield _mount(TMP, "tmpfs", "tmpfs", [*_tmpfs(), tmp, f"nr_inodes={TMP_FILES}"])
    yield _mount("/usr", "bind", "/usr", _TREE_READ_ONLY)
    for path in facts.etc_directories:
        yield _mount(path, "bind", path, [*_TREE_READ_ONLY, "noexec", "rnoexec"])
    for path in facts.etc_files:
        yield _mount(path, "bind", path, [*_FILE_READ_ONLY, "noexec"])
    yield _mount(TASK_DIR, "bind", place.task, _TREE_READ_WRITE)
    if plan.secrets:
        yield _mount(SECRETS_DIR, "bind", place.secrets, [*_TREE_READ_ONLY, "noexec", "rnoexec"])


def _plan_mounts(plan: Plan, place: Place, facts: HostFacts) -> Iterator[dict[str, Any]]:
    for mount in plan.mounts:
        tree = mount.source in place.directories
        read_only, read_write = (_TREE_READ_ONLY, _TREE_READ_WRITE) if tree else (_FILE_READ_ONLY, _FILE_READ_WRITE)
        options = read_only if mount.read_only else read_write
        yield _mount(_allowed_target(mount.target, facts), "bind", mount.source, options)
    for index, pin in enumerate(plan.pinned):
        source = pinned_copy(place.scripts, index)
        yield _mount(_allowed_target(pin.path, facts), "bind", source, _FILE_READ_ONLY)


def _allowed_target(path: str, facts: HostFacts) -> str:
    """Give the place where a mount of the policy ends up: `/bin` is a link to `usr/bin`."""
    if path in RESERVED_PLACES or any(path == tree or path.startswith(f"{tree}/") for tree in RESERVED_TREES):
        raise SandboxError(
            f"{path} may not be mounted in the sandbox: the place is the sandbox's own; "
            f"choose one that is none of {', '.join(RESERVED_PLACES)}, and not below {', '.join(RESERVED_TREES)}"
        )
    for name, link in facts.root_links:
        if path.startswith(f"{name}/"):
            return f"/{link}{path.removeprefix(name)}"
    return path


def _tmpfs() -> list[str]:
    return ["nosuid", "nodev", "mode=1777", f"uid={SCRIPT_UID}", f"gid={SCRIPT_UID}"]


def _mount(target: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": options}


def _linux(place: Place, plan: Plan, facts: HostFacts) -> dict[str, Any]:
    network = {"type": "network"} | ({"path": place.network} if place.network else {})
    mappings = [
        # 0 only because runtimes need it for their set-up: nothing runs with it afterwards, and nothing is owned by it.
        {"containerID": 0, "hostID": place.container_root, "size": 1},
        {"containerID": SCRIPT_UID, "hostID": place.uid, "size": 1},
    ]
    linux = {
        "namespaces": [*({"type": kind} for kind in ("pid", "mount", "ipc", "uts", "user", "cgroup")), network],
        "uidMappings": mappings,
        "gidMappings": mappings,
        "rootfsPropagation": "rprivate",
        "seccomp": dict(facts.seccomp),
        "maskedPaths": list(MASKED_PATHS),
        "readonlyPaths": list(READ_ONLY_PATHS),
    }
    if place.cgroup:
        linux |= {"cgroupsPath": place.cgroup, "resources": {} if plan.unlimited else _resources(plan)}
    return linux


def _resources(plan: Plan) -> dict[str, Any]:
    limits = plan.limits
    return {
        # Both the same: memory and swap together may not be more than memory alone.
        "memory": {"limit": limits.memory_bytes, "swap": limits.memory_bytes},
        "pids": {"limit": processes_at_first(limits)},
        "cpu": {"quota": int(limits.cpus * CPU_PERIOD_MICROSECONDS), "period": CPU_PERIOD_MICROSECONDS},
        # All: runtimes add the harmless ones that every container has (null, zero, full, random, urandom, tty).
        "devices": [{"allow": False, "access": "rwm"}],
    }
