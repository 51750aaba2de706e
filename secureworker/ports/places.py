"""Where a run happens: its directories, its network, its way out, its secrets, its inputs, its sandbox."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from secureworker.core.chain import Upstream
from secureworker.core.doors import Door, Traffic
from secureworker.core.ids import TaskId
from secureworker.core.inputs import Input, Received
from secureworker.core.origin import TraceRule
from secureworker.core.outcome import Execution
from secureworker.core.plan import Plan
from secureworker.core.secrets import SecretBytes
from secureworker.core.trace import Ancestry
from secureworker.ports.queue import ClaimedRun
from secureworker.ports.surroundings import TaskLog


@dataclass(frozen=True, slots=True)
class Workspace:
    """The places of one run on the host; all gone when the run ends. Host paths."""

    task: str
    """Shown to the script as `plan.TASK_DIR`; has `work/`, `artifacts/public/logs/`, `home/`, the contract's files."""
    scripts: str
    """Private hashed copies of what is pinned; read-only for the script."""
    spool: str
    """Private: sealed copies of the outputs. The script never reaches it."""
    bundle: str
    """The OCI bundle."""
    uid: int
    """Host uid, and gid, the script's processes run as; never 0 where the host permits."""
    secrets: str = ""
    """Where the plan's secrets lie in memory while they are lent; empty where it has none."""


class Workspaces(Protocol):
    """Makes and removes the places of runs."""

    def open(self, plan: Plan) -> AbstractAsyncContextManager[Workspace]:
        """Make an empty workspace with the contract's files and the pinned copies.

        Raises:
            HostError: a pinned file is missing or differs from its digest, or a directory cannot be made.
        """


@dataclass(frozen=True, slots=True)
class Network:
    """The network namespace of a run: a loopback interface, and the listeners of the plan's doors bound to it.

    Descriptors are the maker's: who uses one beyond the context duplicates it.
    """

    namespace: int
    """Descriptor that keeps the namespace."""
    listeners: tuple[tuple[Door, int], ...]
    """Descriptor of a listening, non-blocking TCP socket for each open door."""


class Networks(Protocol):
    """Makes the network namespaces of runs, before there is a container that could take their ports."""

    def open(self, plan: Plan) -> AbstractAsyncContextManager[Network]:
        """Make a namespace with the listeners of `plan.doors`, and nothing else; leaving lets go of all of it.

        Raises:
            SandboxError: it cannot be made.
        """


class OpenDoors(Protocol):
    """The doors of one run, being served."""

    def traffic(self) -> tuple[Traffic, ...]:
        """Give what went through so far, by destination."""


class Doors(Protocol):
    """Serves the doors of runs from outside of their namespaces."""

    def open(
        self, run: "ClaimedRun", plan: Plan, network: Network, log: TaskLog
    ) -> AbstractAsyncContextManager[OpenDoors]:
        """Serve what `plan.doors` says at the network's listeners.

        When this is left, by any way, the listeners and every connection that came by them are closed: nothing answers
        any more, and no request that was not begun is made. Refusals are noted in the log.
        """


class Secrets(Protocol):
    """Lends secrets to scripts."""

    def lend(
        self, plan: Plan, run: "ClaimedRun", workspace: Workspace
    ) -> AbstractAsyncContextManager[tuple[SecretBytes, ...]]:
        """Lay the plan's secrets out in `workspace.secrets`, for the script's user only; leaving removes them.

        Returns:
            the values, for the log to mask.

        Raises:
            HostError: a secret of this host cannot be had.
            ServiceError: one of Taskcluster's cannot be had now.
        """


class Inputs(Protocol):
    """Fetches what scripts are given of other tasks."""

    async def gather(self, run: "ClaimedRun", tasks: tuple[TaskId, ...]) -> tuple[Upstream, ...]:
        """Fetch the facts about tasks, in their order, with the run's own credentials. Nothing of them is judged.

        Raises:
            BadPayload: the run's task may not read one of them.
            ServiceError: something cannot be asked now.
        """

    async def trace(self, run: "ClaimedRun", tasks: tuple[TaskId, ...], rule: TraceRule) -> Ancestry:
        """Fetch the facts about tasks and all that they come from, up to decision tasks. Nothing of them is judged.

        No more is fetched than the bounds of `core.trace` allow: where that is not all, `core.trace.follow` says so.

        Raises:
            BadPayload: the run's task may not read one of them, or they are too large.
            ServiceError: something cannot be asked now, or it takes too long.
            HostError: a mirror cannot be read.
        """

    async def fetch(
        self, run: "ClaimedRun", inputs: tuple[Input, ...], max_bytes: int, workspace: Workspace
    ) -> Received:
        """Fetch what was judged to be an input, each to `plan.INPUT_DIR/<task id>/<name>`, and never a byte else.

        From the run that the signed statement names, into a place that the script does not reach; there its decoded
        bytes are hashed, and only where that is the signed digest it gets its name. An optional one that cannot be had,
        or has another digest, is left out; `max_bytes` is for all that is fetched, such ones too.

        Raises:
            BadPayload: they are too large; one that is not optional is not there, or has another digest.
            ServiceError: one cannot be had now, after all attempts.
            HostError: the disk is full.
        """


class Sandbox(Protocol):
    """Runs a plan's script, confined."""

    async def run(self, plan: Plan, workspace: Workspace, log: TaskLog, network: Network | None = None) -> Execution:
        """Run the script to its end. When this is left, by any way, every process of the task is dead and reaped.

        In the network given; without one, in an empty one of its own. On cancellation: TERM, `plan.grace`, then KILL.

        Raises:
            SandboxError: the container could not be made or is not what was asked for; the script did not run.
            BadPayload: never.
        """

    async def self_test(self) -> tuple[str, ...]:
        """Attack the sandbox from inside as a script would.

        Returns:
            A line per probe that was passed.

        Raises:
            SandboxError: a probe got through; every failure is named.
        """
