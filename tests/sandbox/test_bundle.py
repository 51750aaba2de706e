"""The OCI config, line by line: what an auditor would look for."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from secureworker.core.errors import SandboxError
from secureworker.core.plan import Mount, PinnedFile, Plan
from secureworker.core.secrets import HostFile, SecretFile
from secureworker.sandbox import seccomp
from secureworker.sandbox.bundle import make_bundle
from secureworker.sandbox.facts import HostFacts, Place
from tests.sandbox.cage import MIB, a_plan, some_limits

FACTS = HostFacts(
    runtime_name="runc",
    runtime_version="1.1.5",
    machine="x86_64",
    init="/usr/bin/tini-static",
    root_links=(("/bin", "usr/bin"), ("/lib", "usr/lib")),
    etc_directories=("/etc/ssl/certs",),
    etc_files=("/etc/ld.so.cache",),
    hard_limits={"RLIMIT_MEMLOCK": 4096},
    seccomp=seccomp.oci(seccomp.load(), "x86_64"),
)
PLACE = Place(
    root="/run/secureworker/a/roots/run-1",
    task="/var/lib/w/1/task",
    scripts="/var/lib/w/1/scripts",
    network="/proc/77/fd/9",
    cgroup="/secureworker/run-1",
    uid=1_900_000_001,
    task_id="fN1SbArXTPSVFUUvaOlinQ",
    run_id="0",
    task_group_id="gN1SbArXTPSVFUUvaOlinQ",
)


def config(plan: Plan | None = None, place: Place = PLACE, facts: HostFacts = FACTS) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(make_bundle(plan or a_plan(), place, facts).config)
    return made


def mounts(plan: Plan | None = None, place: Place = PLACE) -> dict[str, dict[str, Any]]:
    return {mount["destination"]: mount for mount in config(plan, place)["mounts"]}


def test_every_namespace_is_new_and_the_network_is_the_one_that_was_made() -> None:
    namespaces = {entry["type"]: entry.get("path") for entry in config()["linux"]["namespaces"]}
    assert namespaces == {
        "pid": None, "mount": None, "ipc": None, "uts": None, "user": None, "cgroup": None, "network": "/proc/77/fd/9",
    }  # fmt: skip


def test_without_a_path_the_runtime_makes_the_network_namespace() -> None:
    assert {"type": "network"} in config(place=replace(PLACE, network=""))["linux"]["namespaces"]


def test_two_ids_are_mapped_and_none_is_the_hosts_root() -> None:
    linux = config()["linux"]
    assert linux["uidMappings"] == linux["gidMappings"]
    assert linux["uidMappings"] == [
        {"containerID": 0, "hostID": 1_900_000_000, "size": 1},
        {"containerID": 1000, "hostID": 1_900_000_001, "size": 1},
    ]


def test_the_process_has_no_privilege() -> None:
    process = config()["process"]
    assert process["user"] == {"uid": 1000, "gid": 1000, "umask": 0o022}
    assert process["noNewPrivileges"] is True
    assert set(process["capabilities"]) == {"bounding", "effective", "inheritable", "permitted", "ambient"}
    assert not any(process["capabilities"].values())
    assert process["oomScoreAdj"] == 1000
    assert process["terminal"] is False


def test_a_real_init_runs_the_script() -> None:
    args = ["/usr/bin/tini-static", "-g", "-p", "SIGKILL", "--"]
    assert config()["process"]["args"] == [*args, "/opt/scripts/sign"]
    with_config = a_plan(argv=("/opt/scripts/sign", "--now"), config={})
    assert config(with_config)["process"]["args"] == [*args, "/opt/scripts/sign", "--now", "/task/config.json"]


def test_the_environment_is_the_plans_and_the_workers_wins() -> None:
    plan = a_plan(environment=(("A", "1"), ("HOME", "/elsewhere"), ("PATH", "/opt/bin"), ("TASK_ID", "forged")))
    assert config(plan)["process"]["env"] == [
        "A=1",
        "HOME=/task/home",
        "PATH=/opt/bin",
        "RUN_ID=0",
        "SECUREWORKER_ARTIFACTS=/task/artifacts",
        "SECUREWORKER_TASK=/task/work/task.json",
        "TASKCLUSTER_ROOT_URL=https://tc.example.com",
        "TASK_GROUP_ID=gN1SbArXTPSVFUUvaOlinQ",
        "TASK_ID=fN1SbArXTPSVFUUvaOlinQ",
    ]
    assert config()["process"]["env"][1].startswith("PATH=/usr/local/sbin:")


def test_resource_limits_are_the_plans_capped_by_the_workers_own() -> None:
    limits = {limit["type"]: limit["hard"] for limit in config()["process"]["rlimits"]}
    assert limits == {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": 32 * MIB,
        "RLIMIT_MEMLOCK": 4096,
        "RLIMIT_MSGQUEUE": 819_200,
        "RLIMIT_NOFILE": 256,
        "RLIMIT_NPROC": 96,
        "RLIMIT_RTPRIO": 0,
        "RLIMIT_SIGPENDING": 1024,
    }


def test_a_plan_without_limits_keeps_those_that_no_script_needs_to_exceed() -> None:
    found = config(replace(a_plan(), unlimited=True))
    limits = {limit["type"] for limit in found["process"]["rlimits"]}
    assert limits == {
        "RLIMIT_CORE", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_RTPRIO", "RLIMIT_SIGPENDING",
    }  # fmt: skip
    assert found["linux"]["resources"] == {}
    (tmp,) = (mount for mount in found["mounts"] if mount["destination"] == "/tmp")
    assert any(option.startswith("size=") for option in tmp["options"])


def test_limits_and_devices_are_in_the_config_where_the_runtime_places_itself() -> None:
    linux = config(a_plan(limits=some_limits(cpus=0.5)))["linux"]
    assert linux["cgroupsPath"] == "/secureworker/run-1"
    assert linux["resources"] == {
        "memory": {"limit": 128 * MIB, "swap": 128 * MIB},
        "pids": {"limit": 65},
        "cpu": {"quota": 50_000, "period": 100_000},
        "devices": [{"allow": False, "access": "rwm"}],
    }
    few = config(a_plan(limits=some_limits(processes=2)))["linux"]
    assert few["resources"]["pids"] == {"limit": 32}, "the runtime's own threads, before there is a script"
    alone = config(place=replace(PLACE, cgroup=""))["linux"]
    assert not {"cgroupsPath", "resources"} & alone.keys()


def test_the_root_is_read_only() -> None:
    assert config()["root"] == {"path": PLACE.root, "readonly": True}
    assert config()["linux"]["rootfsPropagation"] == "rprivate"


def test_exactly_these_mounts_are_made_parents_first() -> None:
    assert list(mounts()) == [
        "/dev", "/dev/shm", "/etc/ld.so.cache", "/etc/ssl/certs", "/opt/scripts/sign", "/proc", "/task", "/tmp", "/usr",
    ]  # fmt: skip


def test_every_bind_but_the_tasks_is_read_only_and_none_carries_privileges() -> None:
    for target, mount in mounts().items():
        if mount["type"] == "bind":
            assert {"nosuid", "nodev", "rprivate"} <= set(mount["options"])
            assert ("ro" in mount["options"]) is (target != "/task")
            assert ("rbind" in mount["options"]) is ("rnosuid" in mount["options"])
    assert mounts()["/task"]["source"] == PLACE.task
    assert mounts()["/opt/scripts/sign"]["source"] == f"{PLACE.scripts}/0"


def test_proc_shows_processes_only_and_temporary_files_are_capped() -> None:
    made = mounts(a_plan(limits=some_limits(disk_bytes=MIB)))
    assert made["/proc"]["options"] == ["nosuid", "nodev", "noexec", "hidepid=2", "subset=pid"]
    assert {"size=1048576", "nr_inodes=65536", "uid=1000"} <= set(made["/tmp"]["options"])
    assert {"noexec", "size=67108864", "nr_inodes=1024"} <= set(made["/dev/shm"]["options"])
    assert "/proc/kcore" in config()["linux"]["maskedPaths"]
    assert "/proc/sys" in config()["linux"]["readonlyPaths"]


def test_a_mount_of_the_policy_is_made_as_it_says() -> None:
    plan = a_plan(
        mounts=(Mount("/srv/d", "/data"), Mount("/srv/w", "/data/w", read_only=False), Mount("/srv/f", "/bin/f"))
    )
    place = replace(PLACE, directories=frozenset({"/srv/d", "/srv/w"}))
    made = mounts(plan, place)
    assert made["/data"]["options"] == ["rbind", "rprivate", "ro", "rro", "nosuid", "nodev", "rnosuid", "rnodev"]
    assert made["/data/w"]["options"] == ["rbind", "rprivate", "rw", "nosuid", "nodev", "rnosuid", "rnodev"]
    # /bin is a link to usr/bin: so that the read-back finds it where it ends up.
    assert made["/usr/bin/f"]["options"] == ["bind", "rprivate", "ro", "nosuid", "nodev"]
    plan = a_plan(mounts=(Mount("/srv/f", "/f", read_only=False),))
    assert mounts(plan)["/f"]["options"] == ["bind", "rprivate", "rw", "nosuid", "nodev"]


@pytest.mark.parametrize(
    "target", ["/", "/usr", "/etc", "/tmp", "/task", "/task/work/x", "/proc/x", "/dev/sda", "/sys"]
)
def test_what_is_the_sandboxs_own_cannot_be_mounted_over(target: str) -> None:
    with pytest.raises(SandboxError, match=f"{target} may not be mounted in the sandbox"):
        config(a_plan(mounts=(Mount("/srv", target),)))


def test_a_pinned_file_cannot_lie_in_the_sandboxs_own_places() -> None:
    pin = PinnedFile("/task/x", a_plan().pinned[0].sha256)
    with pytest.raises(SandboxError, match="/task/x may not be mounted"):
        config(a_plan(pinned=(*a_plan().pinned, pin)))


def test_one_place_is_mounted_once() -> None:
    with pytest.raises(SandboxError, match="two mounts have the target /opt/scripts/sign"):
        config(a_plan(mounts=(Mount("/srv", "/opt/scripts/sign"),)))


def test_the_template_differs_by_nothing_that_belongs_to_a_run() -> None:
    other = replace(
        PLACE,
        root="/r",
        task="/t",
        scripts="/s",
        network="/n",
        cgroup="/c",
        uid=77,
        task_id="x",
        run_id="5",
        task_group_id="y",
    )
    first, second = make_bundle(a_plan(), PLACE, FACTS), make_bundle(a_plan(), other, FACTS)
    assert first.template_sha256 == second.template_sha256
    assert first.sha256 != second.sha256


@pytest.mark.parametrize(
    "change",
    [
        {"argv": ("/opt/scripts/sign", "x")},
        {"environment": (("A", "1"),)},
        {"limits": some_limits(processes=5)},
        {"mounts": (Mount("/srv", "/srv"),)},
        {"root_url": "https://other.example.com"},
    ],
)
def test_the_template_differs_by_everything_else(change: dict[str, Any]) -> None:
    assert (
        make_bundle(a_plan(**change), PLACE, FACTS).template_sha256
        != make_bundle(a_plan(), PLACE, FACTS).template_sha256
    )


def test_the_digest_is_that_of_the_bytes_the_runtime_gets() -> None:
    made = make_bundle(a_plan(), PLACE, FACTS)
    assert made.sha256 == hashlib.sha256(made.config).hexdigest()
    assert made == make_bundle(a_plan(), PLACE, FACTS)
    assert made.sources["/task"] == PLACE.task
    assert FACTS.runtime == "runc 1.1.5"


def test_secrets_are_shown_read_only_and_only_to_scripts_that_have_some() -> None:
    plan = a_plan(secrets=(SecretFile("key", HostFile("/etc/key")),))
    found = mounts(plan, replace(PLACE, secrets="/var/lib/w/secrets/1"))
    assert found["/run/secrets"]["source"] == "/var/lib/w/secrets/1"
    assert {"bind", "ro", "nosuid", "nodev", "noexec"} & set(found["/run/secrets"]["options"]) >= {
        "ro",
        "nosuid",
        "nodev",
        "noexec",
    }
    assert "/run/secrets" not in mounts()
    assert "/etc/key" not in json.dumps(config(plan, PLACE))


def test_where_secrets_lie_makes_no_difference_to_the_template() -> None:
    plan = a_plan(secrets=(SecretFile("key", HostFile("/etc/key")),))
    one, other = (make_bundle(plan, replace(PLACE, secrets=place), FACTS) for place in ("/a", "/b"))
    assert one.template_sha256 == other.template_sha256
    assert one.sha256 != other.sha256
    assert one.template_sha256 != make_bundle(a_plan(), PLACE, FACTS).template_sha256


@pytest.mark.parametrize("target", ["/run/secrets", "/run/secrets/more"])
def test_nothing_is_mounted_where_secrets_are(target: str) -> None:
    with pytest.raises(SandboxError, match="the sandbox's own"):
        config(a_plan(mounts=(Mount("/opt/x", target),)))
