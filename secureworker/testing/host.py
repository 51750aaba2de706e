"""What the worker does on its host, in memory: logs, workspaces, sandbox, outputs, uploads, signatures."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from secureworker.core.audit import AuditRecord
from secureworker.core.claim import Claim
from secureworker.core.doors import Traffic
from secureworker.core.errors import HostError
from secureworker.core.happening import Happening, Hindrance
from secureworker.core.ids import ArtifactName
from secureworker.core.outcome import Execution, ExitCode, ExitStatus
from secureworker.core.plan import OutputRules, Plan
from secureworker.core.secrets import SecretBytes
from secureworker.core.uploads import StorageError
from secureworker.ports import Artifact, Network, SignedFile, Statement, TaskLog, Workspace
from secureworker.testing.build import IDENTITY, an_artifact, an_execution
from secureworker.testing.time import Failures, FakeClock


class FakeTaskLog:
    """A log in memory. Worker lines begin as in the real one."""

    def __init__(self, failures: Failures) -> None:
        self.text = ""
        self.cap_bytes: int | None = None
        self.masked: tuple[SecretBytes, ...] = ()
        self.finished = False
        self._failures = failures

    def note(self, text: str) -> None:
        """Keep a line of the worker's."""
        self._write(f"[taskcluster] {text}\n")

    def error(self, text: str) -> None:
        """Keep a line that says why."""
        self._write(f"[taskcluster:error] {text}\n")

    def output(self, chunk: bytes) -> None:
        """Keep output of the script."""
        for secret in self.masked:
            chunk = chunk.replace(secret.reveal(), b"[masked]")
        self._write(chunk.decode(errors="backslashreplace"))

    def cap(self, output_bytes: int) -> None:
        """Take note of the limit; nothing here is long."""
        self.cap_bytes = output_bytes

    def mask(self, secrets: tuple[SecretBytes, ...]) -> None:
        """Keep these out of the output: only as they are, and only where they come in one piece."""
        self.masked += secrets

    @property
    def path(self) -> str:
        """The log lies nowhere."""
        return "/nonexistent/log"

    async def finish(self) -> Artifact:
        """Give the log as an artifact; what is written later is lost."""
        self._failures.strike("finish")
        self.finished = True
        return an_artifact("public/logs/live_backing.log", self.text.encode())

    def _write(self, text: str) -> None:
        if not self.finished:
            self.text += text


class FakeTaskLogs:
    """Keeps the logs of all runs, by claim."""

    def __init__(self) -> None:
        self.failures = Failures()
        self.logs: dict[str, FakeTaskLog] = {}

    @asynccontextmanager
    async def open(self, run: Any) -> AsyncIterator[FakeTaskLog]:
        """Begin a log."""
        self.failures.strike("open")
        log = self.logs[str(run.claim)] = FakeTaskLog(self.failures)
        yield log
        self.failures.strike("close")


class FakeLiveLogs:
    """Shows nothing; remembers what was to be shown, and what of it has not ended."""

    def __init__(self) -> None:
        self.failures = Failures()
        self.addresses: dict[str, str] = {}
        """By run, also of those that have ended."""
        self.shown_now: set[str] = set()

    async def show(self, run: str, path: str) -> str:
        """Begin; every log has an address of its own."""
        self.failures.strike("show")
        address = f"https://live.invalid/log/{len(self.addresses)}{path}"
        self.addresses[run] = address
        self.shown_now.add(run)
        return address

    def ended(self, run: str) -> bool:
        """Take note of the end."""
        shown = run in self.shown_now
        self.shown_now.discard(run)
        return shown


class FakeSecrets:
    """Lends `SECRET` for every secret of a plan; counts what is lent now."""

    SECRET = SecretBytes(b"a-secret-that-is-lent")

    def __init__(self) -> None:
        self.failures = Failures()
        self.lent = 0
        self.lent_now = 0
        self.to: list[tuple[str, str]] = []
        """Which run was lent any, and where they lay."""

    @asynccontextmanager
    async def lend(self, plan: Plan, run: Any, workspace: Workspace) -> AsyncIterator[tuple[SecretBytes, ...]]:
        """Lend."""
        self.failures.strike("lend")
        values = (self.SECRET,) * len(plan.secrets)
        if values:
            self.to.append((str(run.claim), workspace.secrets))
        self.lent += len(values)
        self.lent_now += len(values)
        try:
            yield values
        finally:
            self.lent_now -= len(values)


class FakeWorkspaces:
    """Workspaces that are only names; counts those that are open."""

    def __init__(self, clock: FakeClock) -> None:
        self.failures = Failures()
        self.seconds = 0.0
        self._clock = clock
        self.opened = 0
        self.open_now = 0

    @asynccontextmanager
    async def open(self, plan: Plan) -> AsyncIterator[Workspace]:
        """Give a workspace."""
        self.failures.strike("open")
        self.opened += 1
        self.open_now += 1
        try:
            await self._clock.sleep(self.seconds)
            base = f"/nonexistent/{plan.task_id}"
            yield Workspace(f"{base}/task", f"{base}/scripts", f"{base}/spool", f"{base}/bundle", 65534)
        finally:
            self.open_now -= 1


@dataclass
class FakeSandbox:
    """Runs no script, but takes the time of one, and of its end when it is stopped."""

    clock: FakeClock
    seconds: float = 1.0
    status: ExitStatus = field(default_factory=lambda: ExitCode(0))
    stopping_seconds: float = 0.5
    failures: Failures = field(default_factory=Failures)
    alive: list[tuple[str, datetime, datetime]] = field(default_factory=list)
    """(task id, started, dead) of every script, however it ended."""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    on_begin: Callable[[], None] = lambda: None

    async def run(
        self,
        plan: Plan,
        workspace: Workspace,  # noqa: ARG002 - the port's
        log: TaskLog,
        network: Network | None = None,  # noqa: ARG002 - the port's
    ) -> Execution:
        """Sleep for the script's time."""
        self.failures.strike("run")
        started = self.clock.now()
        self.begun.set()
        self.on_begin()
        try:
            log.output(b"the script's output\n")
            await self.clock.sleep(self.seconds)
        except asyncio.CancelledError:
            await self.clock.sleep(min(self.stopping_seconds, plan.grace.total_seconds()))
            raise
        finally:
            self.alive.append((plan.task_id, started, self.clock.now()))
        return an_execution(self.status, started, self.clock.now())

    async def self_test(self) -> tuple[str, ...]:
        """Pass, unless told to fail."""
        self.failures.strike("self_test")
        return ("no probe was made: this is a fake",)


class FakeNetworks:
    """Networks that are only numbers; counts those that are open."""

    def __init__(self) -> None:
        self.failures = Failures()
        self.open_now = 0

    @asynccontextmanager
    async def open(self, plan: Plan) -> AsyncIterator[Network]:
        """Give a network with a listener for each of the plan's doors; no descriptor in it is one."""
        self.failures.strike("open")
        self.open_now += 1
        try:
            yield Network(-1, tuple((door, -1) for door in plan.doors.open))
        finally:
            self.open_now -= 1


@dataclass
class FakeDoors:
    """Doors that nobody goes through, but who is said to."""

    passed: tuple[Traffic, ...] = ()
    failures: Failures = field(default_factory=Failures)
    open_now: int = 0

    @asynccontextmanager
    async def open(self, run: Any, plan: Plan, network: Network, log: TaskLog) -> AsyncIterator["FakeDoors"]:  # noqa: ARG002 - the port's
        """Open them."""
        self.failures.strike("open")
        self.open_now += 1
        try:
            yield self
        finally:
            self.open_now -= 1

    def traffic(self) -> tuple[Traffic, ...]:
        """Give what is said to have gone through."""
        return self.passed


@dataclass
class FakeOutputs:
    """Gives the artifacts it was made with."""

    clock: FakeClock
    artifacts: tuple[Artifact, ...] = ()
    seconds: float = 0.0
    failures: Failures = field(default_factory=Failures)
    sealed: int = 0

    async def seal(self, rules: OutputRules, workspace: Workspace, task_expires: datetime) -> tuple[Artifact, ...]:  # noqa: ARG002 - the port's
        """Give them in order of their names."""
        await self.clock.sleep(self.seconds)
        self.failures.strike("seal")
        self.sealed += 1
        return tuple(sorted(self.artifacts, key=lambda artifact: artifact.name))


@dataclass
class FakeAuditLog:
    """Remembers what was written down."""

    failures: Failures = field(default_factory=Failures)
    records: list[AuditRecord] = field(default_factory=list)

    async def append(self, record: AuditRecord) -> None:
        """Keep it."""
        self.failures.strike("append")
        self.records.append(record)

    async def check(self) -> None:
        """Find everything in order, unless told otherwise."""
        self.failures.strike("check")


@dataclass
class FakeStore:
    """Remembers what was stored, in order, as (claim, artifact name)."""

    clock: FakeClock
    seconds: float = 0.1
    log_seconds: float = 0.1
    failures: Failures = field(default_factory=Failures)
    stored: list[tuple[str, str]] = field(default_factory=list)
    errors: list[tuple[str, str, str]] = field(default_factory=list)
    """(claim, artifact name, message)."""
    on_log: Callable[[], None] = lambda: None
    """Called when the task log is stored."""

    def names(self, claim: Claim) -> list[str]:
        """Give the names stored for a run, in order."""
        return [name for owner, name in self.stored if owner == str(claim)]

    async def put(self, run: Any, artifacts: tuple[Artifact, ...]) -> None:
        """Store, slowly. The method's failures are `put`, and `put_log` for the task log."""
        is_log = any(artifact.name.startswith("public/logs/") for artifact in artifacts)
        await self.clock.sleep(self.log_seconds if is_log else self.seconds)
        self.failures.strike("put_log" if is_log else "put")
        if is_log:
            self.on_log()
        self.stored.extend((str(run.claim), artifact.name) for artifact in artifacts)

    async def put_signed(self, run: Any, files: tuple[SignedFile, ...]) -> None:
        """Store, slowly."""
        await self.clock.sleep(self.seconds)
        self.failures.strike("put_signed")
        self.stored.extend((str(run.claim), file.name) for file in files)

    async def put_error(self, run: Any, name: ArtifactName, reason: str, message: str) -> None:
        """Store the reason."""
        self.failures.strike("put_error")
        await run.create_artifact(StorageError(name, reason, message, run.claim.task.expires))
        self.errors.append((str(run.claim), name, message))


@dataclass
class FakeSigner:
    """Signs with nothing, and remembers what it was asked to sign."""

    clock: FakeClock
    seconds: float = 0.01
    failures: Failures = field(default_factory=Failures)
    signed: list[Statement] = field(default_factory=list)

    async def sign(self, statement: Statement) -> tuple[SignedFile, ...]:
        """Give a statement and a signature that nobody accepts."""
        await self.clock.sleep(self.seconds)
        self.failures.strike("sign")
        claim = statement.claim
        if claim.worker != IDENTITY:
            raise HostError(f"the signer of {IDENTITY} refuses a statement of {claim.worker}")
        if any(str(other.claim) == str(claim) and other != statement for other in self.signed):
            raise HostError(f"a different statement was already signed for the run {claim}")
        self.signed.append(statement)
        name = "public/chain-of-trust.json"
        return (
            SignedFile(ArtifactName(name), b"{}", "application/json"),
            SignedFile(ArtifactName(f"{name}.sig"), bytes(64), "application/octet-stream"),
        )


class FakeEvents:
    """An operator."""

    def __init__(self) -> None:
        self._asked: asyncio.Queue[str] = asyncio.Queue()

    def ask(self, what: str) -> None:
        """Ask for `drain`, `stop` or `now`."""
        self._asked.put_nowait(what)

    async def shutdowns(self) -> AsyncIterator[str]:
        """Give what is asked for, as it is asked."""
        while True:
            yield await self._asked.get()


class FakeHostGuard:
    """A host on which nothing speaks against a claim but what a test says."""

    def __init__(self) -> None:
        self.found: tuple[Hindrance, ...] = ()
        self.asked: list[int] = []
        """For how many runs, each time."""

    async def hindrances(self, runs: int) -> tuple[Hindrance, ...]:
        """Give what the test found."""
        self.asked.append(runs)
        return self.found


class FakeWatcher:
    """Remembers everything."""

    def __init__(self) -> None:
        self.seen: list[Happening] = []

    def saw(self, happening: Happening) -> None:
        """Remember it."""
        self.seen.append(happening)
