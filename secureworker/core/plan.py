"""What will be run, exactly: made by `decide` from a claim and the policy, carried out by the sandbox.

A `Plan` holds no host fact but the paths the policy names. Paths "inside" are those the script sees.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from secureworker.core.claim import Json
from secureworker.core.doors import Doors
from secureworker.core.ids import RunId, ScriptName, Sha256, TaskId
from secureworker.core.inputs import InputPlan
from secureworker.core.outcome import ExitCodes
from secureworker.core.secrets import SecretFile

TASK_DIR = "/task"
"""Inside: the one read-write bind. All that a run leaves lies below."""
WORK_DIR = f"{TASK_DIR}/work"
"""Inside: `work_dir` of the script contract; also the script's working directory."""
INPUT_DIR = f"{WORK_DIR}/cot"
"""Inside: inputs, as `<task id>/<artifact name>`."""
ARTIFACT_DIR = f"{TASK_DIR}/artifacts"
"""Inside: `artifact_dir` of the script contract."""
HOME_DIR = f"{TASK_DIR}/home"
"""Inside: the script's `HOME`."""
CONFIG_FILE = f"{TASK_DIR}/config.json"
"""Inside: the config file, the script's last argument where the rule has a `config`."""

MIN_MEMORY_BYTES = 16 * 1024 * 1024
"""Below this an interpreter does not start (CPython 3.11 peaks at 9 MB, bash at 4)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a script may use at most. The kernel enforces all but `run_time`, `disk_bytes` and `files`: guards do."""

    run_time: timedelta
    memory_bytes: int
    """`memory.max` of the run's cgroup, swap included. Beyond it the kernel kills the whole cgroup."""
    processes: int
    """`pids.max`: processes and threads."""
    cpus: float
    """Share of processor time: 1.5 is one and a half processors."""
    disk_bytes: int
    """All that lies below `TASK_DIR`; one file alone by RLIMIT_FSIZE."""
    files: int
    """Files and directories below `TASK_DIR`."""
    log_bytes: int
    """Script output kept in the task log; more is dropped with a notice."""
    open_files: int
    """RLIMIT_NOFILE."""

    def __post_init__(self) -> None:
        if self.memory_bytes < MIN_MEMORY_BYTES:
            raise ValueError(
                f"memory is {self.memory_bytes} bytes, below {MIN_MEMORY_BYTES}: the interpreter itself would be killed"
            )
        for name, least in (
            ("processes", 2),
            ("disk_bytes", 1),
            ("files", 16),
            ("log_bytes", 1024),
            ("open_files", 16),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, below {least}")
        if self.cpus < 0.01:  # noqa: PLR2004 - one hundredth of a processor: the kernel's smallest quota (1 ms of 100)
            raise ValueError(f"cpus is {self.cpus}, below 0.01")
        if self.run_time <= timedelta(0):
            raise ValueError("run_time must be more than 0")


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory or file of the host that the policy shows to a script."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """An executable of the policy: a private copy with this digest is what runs, at the same path."""

    path: str
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class OutputRules:
    """Which files below `ARTIFACT_DIR` become artifacts."""

    allow: tuple[str, ...]
    """Globs over artifact names; `**` spans segments. An output outside all of them fails the task."""
    max_size: int
    max_total: int
    max_count: int
    expires: timedelta | None = None
    """Counted from the end of the run; None is the task's own `expires`, which is also the latest possible."""
    content_types: tuple[tuple[str, str], ...] = ()
    """(suffix, content type), before the built-in table."""
    on_failure: bool = True
    """Whether outputs of a script that failed are published too."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run, ready to be carried out."""

    task_id: TaskId
    run_id: RunId
    task_group_id: str
    root_url: str
    script: ScriptName
    argv: tuple[str, ...]
    pinned: tuple[PinnedFile, ...]
    environment: tuple[tuple[str, str], ...]
    """The policy's own; the worker's few variables are added by the sandbox and win."""
    config: Mapping[str, Json] | None
    """Content of `CONFIG_FILE`; None: the script gets no config argument."""
    task: Mapping[str, Json]
    """Content of `task.json`: the definition verbatim."""
    mounts: tuple[Mount, ...]
    limits: Limits
    outputs: OutputRules
    exit_codes: ExitCodes = field(default_factory=ExitCodes)
    repeatable: bool = True
    exclusive: bool = False
    """Whether no other run of the worker may be at work beside it."""
    live_log: bool = False
    """Whether the log is shown while it is written, to whoever has its address."""
    grace: timedelta = timedelta(seconds=10)
    """Between TERM and KILL when the run is stopped by shutdown."""
    doors: Doors = field(default_factory=Doors)
    """What the script may reach beyond its sandbox."""
    secrets: tuple[SecretFile, ...] = ()
    """What the script finds in `secrets.SECRETS_DIR`. Names and places: the values are nowhere in a plan."""
    unlimited: bool = False
    """The policy does without limits: of `limits`, only time and log, and what lies in memory."""
    inputs: InputPlan = field(default_factory=InputPlan)
    """What of other tasks the script shall find in `INPUT_DIR`. What is wanted: it is verified by facts to come."""

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0].startswith("/"):
            raise ValueError("argv must begin with an absolute path")
        if self.argv[0] not in {pin.path for pin in self.pinned}:
            raise ValueError(f"the executable {self.argv[0]} is not pinned")
