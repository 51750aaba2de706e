"""One scenario: the worker's own code among fakes, in virtual time, as one seed wants it."""

import asyncio
import functools
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from secureworker.core.audit import AuditRecord
from secureworker.core.claim import Json
from secureworker.core.doors import Destination
from secureworker.core.happening import Hindrance
from secureworker.core.ids import ScriptName
from secureworker.core.outcome import Execution, ExitCode, ExitStatus, KilledBySignal
from secureworker.core.plan import Limits, OutputRules, Plan
from secureworker.core.policy import PayloadEquals, Policy, SecretRule, UpstreamRule
from secureworker.ports import Artifact, Network, Queue, SignedFile, Statement, TaskLog, Workspace
from secureworker.testing import (
    FAKE_CHECKS,
    IDENTITY,
    FakeAuditLog,
    FakeClock,
    FakeDoors,
    FakeEvents,
    FakeHostGuard,
    FakeInputs,
    FakeLiveLogs,
    FakeNetworks,
    FakeOutputs,
    FakeSandbox,
    FakeSecrets,
    FakeSigner,
    FakeTaskLog,
    FakeTaskLogs,
    FakeWatcher,
    FakeWorkspaces,
    a_policy,
    a_script,
    an_artifact,
    run_virtual,
)
from secureworker.worker.audited import AuditedDoors, AuditedQueue, AuditedSandbox, AuditedSecrets, AuditedStore
from secureworker.worker.loop import ClaimLoop
from secureworker.worker.shutdown import Shutdown
from secureworker.worker.tools import Tools
from tests.core.upstreams import BUILD, Build, trusted_pools
from tests.simulation.fate import Chances, Fate
from tests.simulation.queue_side import Clocks, SimulatedQueue, SimulatedStore
from tests.simulation.record import Record

_ZIP = "public/build/a.zip"
_CONTENTS = {f"{BUILD}/{_ZIP}": b"a zip"}
_BUILD = Build(body={"artifacts": {_ZIP: {"sha256": hashlib.sha256(b"a zip").hexdigest()}}}).facts()
"""What tasks want of another one, which was made and signed as the policy asks."""
HORIZON_SECONDS = 1800.0
"""When the operator asks to stop, whatever else was asked for."""
PATIENCE_SECONDS = 20_000.0
"""A loop that runs for longer does not end."""
ALONE = "alone"
"""The script that runs alone, in most of the worlds."""
_LETTERS = ("RA", "RQ", "Rg", "Rw", "SA", "SQ")
TASK_IDS = tuple(f"ddVaxIRdRAaAAr5ryHnO{letters}" for letters in _LETTERS)


@dataclass
class SimulatedSandbox:
    """Runs each script as the seed wants: its time, its end, and how it takes being stopped."""

    clock: FakeClock
    fate: Fate
    queue: SimulatedQueue

    async def run(self, plan: Plan, workspace: Workspace, log: TaskLog, network: Network | None = None) -> Execution:
        """Run one."""
        draw = self.fate.random
        seconds = draw.choice((0.0, 1.0, draw.uniform(0, 100), draw.uniform(0, 1500)))
        one = FakeSandbox(self.clock, seconds, _status(self.fate), draw.choice((0.0, 0.5, 30.0)))
        one.failures = Chances(self.fate, "sandbox")
        began = self.fate.now()
        self.fate.step(f"{plan.task_id}: its script begins, for {seconds:.1f} s")
        try:
            return await one.run(plan, workspace, log, network)
        finally:
            if one.alive:
                record = self.queue.runs[f"{plan.task_id}/{int(plan.run_id)}"].record
                record.scripts.append((began, self.fate.now()))
                record.exclusive = plan.exclusive
            self.fate.step(f"{plan.task_id}: its script is dead")

    async def self_test(self) -> tuple[str, ...]:
        """Pass, or not."""
        await asyncio.sleep(self.fate.delay())
        Chances(self.fate, "sandbox").strike("self_test")
        return ()


def _status(fate: Fate) -> ExitStatus:
    if fate.random.random() < 0.1:
        return KilledBySignal(fate.random.choice((9, 11, 15)), out_of_memory=fate.random.random() < 0.5)
    return ExitCode(fate.random.choice((0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 7, 42, 245, 255)))


@dataclass
class SimulatedGuard(FakeHostGuard):
    """Finds something now and then, and takes its time."""

    fate: Fate

    def __post_init__(self) -> None:
        super().__init__()

    async def hindrances(self, runs: int) -> tuple[Hindrance, ...]:
        """Look."""
        await asyncio.sleep(self.fate.delay())
        found = self.fate.random.random() < self.fate.breakage
        self.found = (Hindrance("disk", "full"),) if found else ()
        return await super().hindrances(runs)


@dataclass
class SimulatedOutputs(FakeOutputs):
    """Finds other bytes each time it looks: what is signed must be of one look."""

    fate: Fate = field(kw_only=True)

    async def seal(self, rules: OutputRules, workspace: Workspace, task_expires: datetime) -> tuple[Artifact, ...]:
        """Seal."""
        draw = self.fate.random
        self.seconds = self.fate.delay()
        self.artifacts = tuple(an_artifact(f"public/{name}", draw.randbytes(4)) for name in "abc"[: draw.randint(0, 3)])
        sealed = self.artifacts
        await super().seal(rules, workspace, task_expires)
        return sealed


@dataclass
class SimulatedSigner(FakeSigner):
    """Signs, and says so."""

    fate: Fate = field(kw_only=True)
    queue: SimulatedQueue = field(kw_only=True)

    async def sign(self, statement: Statement) -> tuple[SignedFile, ...]:
        """Sign."""
        self.seconds = self.fate.delay()
        signed = await super().sign(statement)
        digests = {str(artifact.name): str(artifact.sha256) for artifact in statement.artifacts}
        self.queue.runs[str(statement.claim)].record.signed.append(digests)
        return signed


@dataclass
class SimulatedAuditLog(FakeAuditLog):
    """Takes its time."""

    fate: Fate = field(kw_only=True)

    async def append(self, record: AuditRecord) -> None:
        """Write down."""
        await asyncio.sleep(self.fate.delay())
        await super().append(record)


class SimulatedTaskLogs(FakeTaskLogs):
    """Says when a log is closed."""

    def __init__(self, fate: Fate, queue: SimulatedQueue) -> None:
        super().__init__()
        self.failures = Chances(fate, "logs")
        self._fate = fate
        self._queue = queue

    @asynccontextmanager
    async def open(self, run: Any) -> AsyncIterator[FakeTaskLog]:
        """Open one."""
        try:
            async with super().open(run) as log:
                yield log
        finally:
            self._queue.runs[str(run.claim)].record.closed = self._fate.now()


@dataclass
class Replaced:
    """Stand-ins for parts of the worker, to see that the checker sees."""

    tools: Callable[[Tools, "Scenario"], Tools] = lambda tools, _: tools
    queue: Callable[[Queue, "Scenario"], Queue] = lambda queue, _: queue


class Scenario:
    """A world that a seed made. Make it in virtual time."""

    def __init__(self, seed: int) -> None:
        self.fate = fate = Fate(seed)
        draw = fate.random
        clock = FakeClock()
        self.clocks = Clocks(FakeClock(), clock)
        self.record = Record(seed, capacity=draw.choice((1, 1, 2, 4)), drain_seconds=draw.choice((0.0, 30.0, 300.0)))
        self.record.story = fate.story
        self.events = FakeEvents()
        self.shutdown = Shutdown(clock, self.record.drain_seconds, self._reload)
        claim_seconds = draw.choice((60.0, 300.0, 1200.0, 1200.0))
        self.queue = SimulatedQueue(self.clocks, fate, self.record, self.shutdown, claim_seconds)
        self.policy = _policy(fate)
        self.audit = SimulatedAuditLog(Chances(fate, "audit"), fate=fate)
        self._make_ports(clock)
        self._plan_troubles()

    def _make_ports(self, clock: FakeClock) -> None:
        fate = self.fate
        self.workspaces = FakeWorkspaces(clock)
        self.workspaces.seconds = fate.delay()
        self.networks, self.secrets, self.doors = FakeNetworks(), FakeSecrets(), FakeDoors()
        for port, name in (
            (self.workspaces, "workspaces"),
            (self.networks, "networks"),
            (self.secrets, "secrets"),
            (self.doors, "doors"),
        ):
            port.failures = Chances(fate, name)
        self.inputs = FakeInputs(clock, {BUILD: _BUILD}, _CONTENTS, fate.delay(), Chances(fate, "inputs"))
        if fate.random.random() < 0.2:
            # Between its signing and its storing, or after: these are not the bytes that were signed.
            self.inputs.contents = dict.fromkeys(_CONTENTS, b"other")
        self.sandbox = SimulatedSandbox(clock, fate, self.queue)
        self.guard = SimulatedGuard(fate)

    @property
    def tools(self) -> Tools:
        """The fakes, wired as the program wires the real ones."""
        fate, clock = self.fate, self.clocks.worker
        store = SimulatedStore(clock, fate=fate, queue=self.queue)
        return Tools(
            policy=self.policy,
            identity=IDENTITY,
            clock=clock,
            logs=SimulatedTaskLogs(fate, self.queue),
            live=FakeLiveLogs(),
            workspaces=self.workspaces,
            networks=self.networks,
            doors=AuditedDoors(self.doors, self.audit),
            inputs=self.inputs,
            checks=FAKE_CHECKS,
            secrets=AuditedSecrets(self.secrets, self.audit),
            sandbox=AuditedSandbox(self.sandbox, self.audit),
            outputs=SimulatedOutputs(clock, failures=Chances(fate, "outputs"), fate=fate),
            signer=SimulatedSigner(clock, failures=Chances(fate, "signer"), fate=fate, queue=self.queue),
            store=AuditedStore(store, self.audit),
            audit=self.audit,
            guard=self.guard,
            watcher=FakeWatcher(),
        )

    async def play(self, replaced: Replaced) -> Record:
        """Let it happen."""
        tools = replaced.tools(self.tools, self)
        queue = replaced.queue(AuditedQueue(self.queue, self.audit, self.clocks.worker), self)
        tasks = self.fate.random.choice((None, None, None, 1, 3))
        loop = ClaimLoop(queue, tools, self.shutdown, capacity=self.record.capacity, tasks=tasks)
        around = [asyncio.ensure_future(happening) for happening in (self._create_tasks(), self._end())]
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                ended = await loop.serve(self.events)
            self.record.ended = self.fate.now()
            self.fate.tell(f"the loop ended: {ended.reason}")
        except TimeoutError:
            self.fate.tell("the loop did not end")
        except Exception as error:  # noqa: BLE001 - that it died is what the checker is to see
            self.record.died_of = repr(error)
        for happening in around:
            happening.cancel()
        for run in self.queue.runs.values():
            run.conclude()
        self.record.left_open = {
            "workspaces": self.workspaces.open_now,
            "networks": self.networks.open_now,
            "doors": self.doors.open_now,
            "secrets": self.secrets.lent_now,
        }
        return self.record

    def ask(self, what: str) -> None:
        """Be the operator."""
        self.fate.tell(f"the operator asks: {what}")
        self.record.asked.append((self.fate.now(), what))
        self.events.ask(what)

    async def _reload(self) -> bool:
        await asyncio.sleep(self.fate.delay())
        return self.fate.random.random() < 0.5

    def _plan_troubles(self) -> None:
        draw, fate = self.fate.random, self.fate
        for what in draw.choices(("drain", "stop", "now", "reload"), k=draw.choice((0, 0, 1, 1, 2, 3))):
            fate.at_some_step(functools.partial(self.ask, what))
        for _ in range(draw.choice((0, 0, 0, 1, 2))):
            fate.at_some_step(self._cancel_one)
        if draw.random() < 0.2:
            seconds = draw.choice((-3.0, 4.0, -600.0, 600.0, -86400.0, 86400.0))
            fate.at_some_step(lambda: self._jump(seconds))

    def _cancel_one(self) -> None:
        running = [run for run in self.queue.runs.values() if run.resolved is None]
        if running:
            run = self.fate.random.choice(running)
            self.fate.tell(f"{run.claim}: cancelled by its owner")
            run.cancel()

    def _jump(self, seconds: float) -> None:
        self.fate.tell(f"the worker's clock jumps by {seconds:g} s")
        self.clocks.worker.jumped += timedelta(seconds=seconds)
        self.record.ahead_by = max(self.record.ahead_by, self.clocks.worker_is_ahead)
        self.record.slow_by = max(self.record.slow_by, -self.clocks.worker_is_ahead)

    async def _create_tasks(self) -> None:
        draw = self.fate.random
        for task_id in TASK_IDS[: draw.randint(1, 5)]:
            await asyncio.sleep(draw.choice((0.0, draw.uniform(0, 60), draw.uniform(0, 600))))
            # Every fifth is refused.
            scheduler = draw.choice((*("test-scheduler",) * 4, "another-scheduler"))
            payload: dict[str, Json] = {"do": draw.choice((ALONE, "build", "build"))}
            wants: list[Json] = []
            if draw.random() < 0.4:
                wants.append({"taskId": BUILD, "taskType": "build", "paths": [_ZIP]})
            needs: list[Json] = [BUILD] if wants else []
            payload |= {"upstreamArtifacts": wants} if wants else {}
            self.queue.create(task_id, schedulerId=scheduler, payload=payload, dependencies=needs)

    async def _end(self) -> None:
        await asyncio.sleep(HORIZON_SECONDS)
        self.ask("stop")


def _policy(fate: Fate) -> Policy:
    draw = fate.random
    run_time = timedelta(seconds=draw.choice((10.0, 120.0, 3600.0)))
    build = a_script(
        when=PayloadEquals("do", "build"),
        limits=Limits(run_time, 2**28, 64, 1.0, 2**30, 10_000, 2**20, 256),
        grace=timedelta(seconds=draw.choice((0.0, 1.0, 10.0))),
        repeatable=draw.random() < 0.7,
        outputs=OutputRules(("public/**",), 2**30, 2**30, 100, on_failure=draw.random() < 0.5),
        secrets=(SecretRule("token", "credential:token"),) if draw.random() < 0.5 else (),
        network=(Destination("example.com", 443),) if draw.random() < 0.5 else (),
        upstream=UpstreamRule(required=False, worker_pools=("release-3/*",), max_size=100, forbid_features=()),
    )
    alone = replace(build, name=ScriptName(ALONE), when=PayloadEquals("do", ALONE), exclusive=draw.random() < 0.7)
    return replace(a_policy(build, alone), trust=trusted_pools())


def play(seed: int, replaced: Replaced | None = None) -> Record:
    """Play the scenario of a seed."""

    async def main() -> Record:
        return await Scenario(seed).play(replaced or Replaced())

    return run_virtual(main())


def digest(record: Record) -> str:
    """Give one value for all that happened."""
    return hashlib.sha256("\n".join(record.story).encode()).hexdigest()
