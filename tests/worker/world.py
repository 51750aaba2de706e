"""A whole worker made of fakes."""

from dataclasses import dataclass, field

from secureworker.core.claim import Json
from secureworker.core.policy import Policy
from secureworker.testing.build import IDENTITY, TASK_ID, a_claim, a_policy, an_artifact
from secureworker.testing.host import (
    FakeAuditLog,
    FakeDoors,
    FakeEvents,
    FakeHostGuard,
    FakeLiveLogs,
    FakeNetworks,
    FakeOutputs,
    FakeSandbox,
    FakeSecrets,
    FakeSigner,
    FakeStore,
    FakeTaskLogs,
    FakeWatcher,
    FakeWorkspaces,
)
from secureworker.testing.inputs import FAKE_CHECKS, FakeInputs
from secureworker.testing.queue import FakeQueue, FakeRun
from secureworker.testing.time import FakeClock
from secureworker.worker.loop import ClaimLoop
from secureworker.worker.shutdown import Shutdown
from secureworker.worker.tools import Tools


@dataclass
class World:
    """A Queue, an operator, and one worker between them. Make it inside `run_virtual`."""

    policy: Policy = field(default_factory=a_policy)
    drain_seconds: float = 30
    clock: FakeClock = field(default_factory=FakeClock)
    events: FakeEvents = field(default_factory=FakeEvents)
    logs: FakeTaskLogs = field(default_factory=FakeTaskLogs)

    def __post_init__(self) -> None:
        self.workspaces = FakeWorkspaces(self.clock)
        self.networks = FakeNetworks()
        self.doors = FakeDoors()
        self.inputs = FakeInputs(self.clock)
        self.secrets = FakeSecrets()
        self.queue = FakeQueue(self.clock)
        self.sandbox = FakeSandbox(self.clock)
        self.outputs = FakeOutputs(self.clock, (an_artifact("public/a.txt", b"a"), an_artifact("public/b.txt", b"b")))
        self.signer = FakeSigner(self.clock)
        self.store = FakeStore(self.clock)
        self.audit = FakeAuditLog()
        self.live = FakeLiveLogs()
        self.guard = FakeHostGuard()
        self.watcher = FakeWatcher()
        self.shutdown = Shutdown(self.clock, self.drain_seconds)

    @property
    def tools(self) -> Tools:
        """The fakes, as a run takes them."""
        return Tools(
            policy=self.policy,
            identity=IDENTITY,
            clock=self.clock,
            logs=self.logs,
            live=self.live,
            workspaces=self.workspaces,
            networks=self.networks,
            doors=self.doors,
            inputs=self.inputs,
            checks=FAKE_CHECKS,
            secrets=self.secrets,
            sandbox=self.sandbox,
            outputs=self.outputs,
            signer=self.signer,
            store=self.store,
            audit=self.audit,
            guard=self.guard,
            watcher=self.watcher,
        )

    def a_run(self, task_id: str = TASK_ID, claim_seconds: float = 1200, **task: Json) -> FakeRun:
        """Build a run that is claimed now; it is not in the Queue."""
        claim = a_claim(self.clock, task_id, claim_seconds, **task)
        return FakeRun(claim, self.clock, claim_seconds)

    def loop(self, capacity: int = 1, tasks: int | None = None) -> ClaimLoop:
        """Build the worker's loop."""
        return ClaimLoop(self.queue, self.tools, self.shutdown, capacity=capacity, tasks=tasks)

    def log(self, run: FakeRun) -> str:
        """Give the task log of a run."""
        return self.logs.logs[str(run.claim)].text
