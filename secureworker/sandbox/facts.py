"""What the pure part of the sandbox has to know about the host, as values. Found out by `survey`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secureworker.host.workspace import container_root


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The same for every run as long as the worker lives."""

    runtime_name: str
    """`crun` or `runc`."""
    runtime_version: str
    machine: str
    """As `platform.machine()` says it."""
    init: str
    """Path of a static tini, the same inside and outside: it lies in `/usr`."""
    root_links: tuple[tuple[str, str], ...]
    """(name, target) of the links in `/` that merge it with `/usr`: ("/bin", "usr/bin")."""
    etc_directories: tuple[str, ...]
    """Directories of `/etc` that programs need and that hold no secret, as far as they exist."""
    etc_files: tuple[str, ...]
    """The same of files."""
    hard_limits: Mapping[str, int]
    """The worker's own hard limits by their names in OCI configs: it may not be allowed to give more."""
    seccomp: Mapping[str, Any]
    """The filter, as an OCI config has it."""

    @property
    def runtime(self) -> str:
        """Name and version, as statements have it."""
        return f"{self.runtime_name} {self.runtime_version}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where and as whom one run happens: all that differs between two runs of a plan. Host paths."""

    root: str
    """The generated root directory."""
    task: str
    scripts: str
    network: str
    """Path of the network namespace; empty: the runtime makes one (rootless)."""
    cgroup: str
    """`cgroupsPath`; empty where the runtime keeps its hands off."""
    uid: int
    """Host id of the script."""
    task_id: str
    run_id: str
    task_group_id: str
    secrets: str = ""
    """Directory of the run's secrets; empty where the plan has none."""
    directories: frozenset[str] = frozenset()
    """Sources of the plan's mounts that are directories, not files. Equal between the runs of a rule."""

    @property
    def container_root(self) -> int:
        """Host id that container 0 is mapped to."""
        return container_root(self.uid)


TEMPLATE = Place(
    root="@root@",
    task="@task@",
    scripts="@scripts@",
    network="@network@",
    cgroup="@cgroup@",
    uid=-1,
    task_id="@task-id@",
    run_id="@run-id@",
    task_group_id="@task-group-id@",
    secrets="@secrets@",
)
"""Stands for every run: a config made with it is equal between the tasks of a rule on one host."""
