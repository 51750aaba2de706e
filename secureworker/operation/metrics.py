"""The worker's metrics, in a registry of its own: a watcher of what happens. `docs/metrics.md` says what they mean.

No label has a value that a task's author chose: names are of enumerations, or of the policy's rules, which are counted.
"""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, assert_never, final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

from secureworker.core.errors import HostError
from secureworker.core.happening import (
    HINDRANCES,
    Appended,
    Began,
    Claimed,
    Decided,
    Executed,
    Faulted,
    Happening,
    Phase,
    PhaseEntered,
    Renewed,
    Resolved,
    SelfTested,
    SignerMet,
    State,
    StateEntered,
    Stored,
)
from secureworker.core.ids import RunId, TaskId
from secureworker.core.outcome import Errored, Execution, Resolution
from secureworker.ports import Clock

MOST_VALUES: Final = 200
"""Of a label that is no enumeration: a policy of 50 scripts has about as many rules. What comes later is `other`."""
_INDEX = re.compile(r"\[[0-9]+\]")
_PHASE_SECONDS: Final = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600)
_CALL_SECONDS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30)
_SLACK_SECONDS: Final = (0, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1200)
_MEMORY_BYTES: Final = tuple(float(2**power * 1024 * 1024) for power in range(2, 16))
_PROCESSES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_CPU_SECONDS: Final = (0.01, 0.1, 1, 10, 60, 300, 1800, 7200)


@dataclass(slots=True)
class _Run:
    """A run that is under way."""

    claimed: float
    phase: Phase
    since: float


@dataclass
class _Bounded:
    """Values of a label that come from outside of this program."""

    most: int = MOST_VALUES
    known: set[str] = field(default_factory=set)

    def __call__(self, value: str) -> str:
        if value not in self.known:
            if len(self.known) >= self.most:
                return "other"
            self.known.add(value)
        return value


@final
class Metrics:
    """Counts. Safe to call from threads."""

    def __init__(self, clock: Clock) -> None:
        # For each counter, a series of when it was made: of no use here, and half of all that is stored.
        disable_created_metrics()  # type: ignore[no-untyped-call] # theirs
        self.registry = registry = CollectorRegistry()
        self._clock = clock
        self._lock = threading.Lock()
        self._runs: dict[tuple[TaskId, RunId], _Run] = {}
        self._rules, self._faulty = _Bounded(), _Bounded()
        ProcessCollector(registry=registry)
        self._info = Gauge(
            "secureworker_info",
            "1; who this worker is, and by which policy and key.",
            ("version", "worker_pool", "worker_group", "worker_id", "root_url", "policy_sha256", "signer"),
            registry=registry,
        )
        self._state = Gauge(
            "secureworker_state", "1 for what the worker is at now, 0 for all else.", ("state",), registry=registry
        )
        self._hindrance = Gauge(
            "secureworker_hindrance", "1 while this keeps the worker from claiming.", ("what",), registry=registry
        )
        self._progress = Gauge(
            "secureworker_progress_timestamp_seconds",
            "When the claim loop last came round, or waited for its runs as it should.",
            registry=registry,
        )
        self._running = Gauge("secureworker_runs", "Runs that are under way.", registry=registry)
        self._claims = Counter("secureworker_claims", "Runs that were claimed.", registry=registry)
        self._last_claim = Gauge(
            "secureworker_last_claim_timestamp_seconds", "When a run was last claimed; 0: never.", registry=registry
        )
        self._decisions = Counter(
            "secureworker_decisions", "Runs that the policy admitted, or refused.", ("decision",), registry=registry
        )
        self._refusals = Counter(
            "secureworker_refusals",
            "Reasons for refusals, by the policy's rule; a refused run has at least one.",
            ("rule",),
            registry=registry,
        )
        self._resolutions = Counter(
            "secureworker_resolutions",
            "Runs that ended, by how they were resolved.",
            ("resolution",),
            registry=registry,
        )
        self._unreported = Counter(
            "secureworker_unreported",
            "Runs that were ours to resolve, and of whose end the Queue could not be told.",
            registry=registry,
        )
        self._host_errors = Counter(
            "secureworker_host_errors", "Runs that failed because of this host.", registry=registry
        )
        self._faults = Counter(
            "secureworker_faults", "What went wrong, of no single run.", ("what",), registry=registry
        )
        self._phases = _seconds(registry, "secureworker_phase", "What each step of runs took.", _PHASE_SECONDS, "phase")
        self._lives = _seconds(registry, "secureworker_run", "From a run's claim to its end.", _PHASE_SECONDS)
        self._scripts = _seconds(registry, "secureworker_script", "What scripts ran for.", _PHASE_SECONDS)
        self._cpu = _seconds(registry, "secureworker_script_cpu", "Processor time of scripts.", _CPU_SECONDS)
        self._memory = Histogram(
            "secureworker_script_memory_peak_bytes",
            "The most memory that scripts' control groups held.",
            buckets=_MEMORY_BYTES,
            registry=registry,
        )
        self._processes = Histogram(
            "secureworker_script_processes_peak",
            "The most processes that scripts had.",
            buckets=_PROCESSES,
            registry=registry,
        )
        self._artifacts = Counter("secureworker_artifacts", "Artifacts that were stored.", registry=registry)
        self._bytes = Counter(
            "secureworker_artifact_bytes",
            "Bytes of artifacts that were stored, before any encoding.",
            registry=registry,
        )
        self._slack = _seconds(
            registry, "secureworker_reclaim_slack", "What was left of claims when they were renewed.", _SLACK_SECONDS
        )
        self._probes = Gauge(
            "secureworker_self_test_probes", "Probes that failed to get out, in the last self-test.", registry=registry
        )
        self._tested = Gauge(
            "secureworker_self_test_timestamp_seconds", "When the sandbox last held in a self-test.", registry=registry
        )
        self._records = Gauge(
            "secureworker_audit_records", "Records of the audit log's newest shard.", registry=registry
        )
        self.signer_seconds = _seconds(
            registry, "secureworker_signer", "What the signer took to answer.", _CALL_SECONDS, "request"
        )
        self.signer_failures = Counter(
            "secureworker_signer_failures", "Requests that the signer did not fulfil.", ("request",), registry=registry
        )
        self._begin_series()

    def _begin_series(self) -> None:
        """Have every series whose name is known from the start: one that appears at its first event hides that."""
        for what in HINDRANCES:
            self._hindrance.labels(what)
        for state in State:
            self._state.labels(state.value)
        self._state.labels(State.STARTING.value).set(1)
        for decision in ("admitted", "refused"):
            self._decisions.labels(decision)
        for resolution in Resolution:
            self._resolutions.labels(resolution.value)
        for phase in Phase:
            if phase is not Phase.ENDED:
                self._phases.labels(phase.value)
        for request in ("sign", "append", "check"):
            self.signer_seconds.labels(request)
            self.signer_failures.labels(request)
        self._began: Began | None = None
        self._signer = ""

    def names(self) -> Iterator[str]:
        """Give the names that can be asked for, of series too."""
        for family in self.registry.collect():
            yield family.name
            for suffix in {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ()):
                yield f"{family.name}{suffix}"

    def progressed(self) -> None:
        """Take note that the claim loop goes round."""
        self._progress.set(self._clock.now().timestamp())

    def saw(self, happening: Happening) -> None:
        """See `ports.Watcher`."""
        with self._lock:
            match happening:
                case Claimed() | Decided() | PhaseEntered() | Renewed() | Executed() | Stored() | Resolved():
                    self._saw_of_run(happening)
                case Began() | SignerMet() | Appended() | StateEntered() | SelfTested() | Faulted():
                    self._saw_of_worker(happening)
                case _:
                    assert_never(happening)

    def _saw_of_worker(self, happening: Began | SignerMet | Appended | StateEntered | SelfTested | Faulted) -> None:
        match happening:
            case Began():
                self._began = happening
                self._say_who()
            case SignerMet():
                self._signer = happening.fingerprint
                self._say_who()
            case Appended():
                self._records.set(happening.size)
            case StateEntered():
                for state in State:
                    self._state.labels(state.value).set(state is happening.state)
                found = {hindrance.what for hindrance in happening.hindrances}
                for what in HINDRANCES:
                    self._hindrance.labels(what).set(what in found)
            case SelfTested():
                self._probes.set(happening.probes)
                self._tested.set(self._clock.now().timestamp())
            case Faulted():
                self._faults.labels(self._faulty(happening.what)).inc()
            case _:
                assert_never(happening)

    def _say_who(self) -> None:
        self._info.clear()
        if self._began is not None:
            who = self._began.identity
            names = (self._began.version, str(who.pool), who.worker_group, who.worker_id, self._began.root_url)
            self._info.labels(*names, self._began.policy_sha256, self._signer).set(1)

    def _saw_of_run(self, happening: Claimed | Decided | PhaseEntered | Renewed | Executed | Stored | Resolved) -> None:
        match happening:
            case Claimed():
                self._claim(happening)
            case Decided():
                self._decisions.labels("refused" if happening.reasons else "admitted").inc()
                for reason in happening.reasons:
                    self._refusals.labels(self._rules(_INDEX.sub("", reason.rule) or "task")).inc()
            case PhaseEntered():
                self._enter(happening)
            case Renewed():
                self._slack.observe(happening.slack_seconds)
            case Executed():
                self._execute(happening.execution)
            case Stored():
                self._artifacts.inc(happening.artifacts)
                self._bytes.inc(happening.size)
            case Resolved():
                self._resolve(happening)
            case _:
                assert_never(happening)

    def _claim(self, claimed: Claimed) -> None:
        now = self._clock.monotonic()
        self._claims.inc()
        self._last_claim.set(self._clock.now().timestamp())
        self._runs[claimed.task_id, claimed.run_id] = _Run(now, Phase.CLAIMED, now)
        self._running.set(len(self._runs))

    def _enter(self, entered: PhaseEntered) -> None:
        key = entered.task_id, entered.run_id
        run = self._runs.get(key)
        if run is None:
            return
        now = self._clock.monotonic()
        self._phases.labels(run.phase.value).observe(now - run.since)
        run.phase, run.since = entered.phase, now
        if entered.phase is Phase.ENDED:
            self._lives.observe(now - run.claimed)
            del self._runs[key]
            self._running.set(len(self._runs))

    def _execute(self, execution: Execution) -> None:
        usage = execution.usage
        self._scripts.observe((execution.finished - execution.started).total_seconds())
        for histogram, counted in (
            (self._cpu, usage.cpu_seconds),
            (self._memory, usage.memory_peak_bytes),
            (self._processes, usage.processes_peak),
        ):
            if counted is not None:
                histogram.observe(counted)

    def _resolve(self, resolved: Resolved) -> None:
        self._resolutions.labels(resolved.resolution.value).inc()
        if not resolved.reported and resolved.resolution is not Resolution.NOT_OURS:
            self._unreported.inc()
        if isinstance(resolved.outcome, Errored) and isinstance(resolved.outcome.error, HostError):
            self._host_errors.inc()


def _seconds(registry: CollectorRegistry, name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"{name}_seconds", about, labels, buckets=buckets, registry=registry)
