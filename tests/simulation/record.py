"""What a scenario leaves behind for the checker: what the Queue and the host saw. Times are true seconds."""

from dataclasses import dataclass, field

from secureworker.core.outcome import Resolution

TOLERATED_SLOWNESS_SECONDS = 5.0


@dataclass
class Report:
    """One request that resolves a run."""

    resolution: Resolution
    begun: float
    ended: float = 0.0
    accepted: bool = False
    """It was this one that resolved the run."""
    arrived: bool = False
    answered: bool = False
    """The worker knows that it arrived."""
    refused: bool = False
    """The Queue takes it never: trying again is no use."""


@dataclass
class Upload:
    """One artifact on its way."""

    name: str
    sha256: str
    begun: float
    stored: float | None = None

    @property
    def of_log(self) -> bool:
        """Say whether it is the task log."""
        return self.name.startswith("public/logs/")


@dataclass
class RunRecord:
    """One run that the Queue gave away."""

    name: str
    heard: float | None = None
    """When the worker heard that it has it; None: the answer was lost."""
    unwanted: bool = False
    """The worker was told to end before it heard, or got more than it asked for."""
    leases: list[tuple[float, float, float]] = field(default_factory=list)
    """(heard, end by the worker's own clock, end by the Queue's) of each time the worker heard of its claim."""
    told_lost: float | None = None
    """When the worker was told that the run is not its any more."""
    closed: float | None = None
    """When its log was closed."""
    reports: list[Report] = field(default_factory=list)
    uploads: list[Upload] = field(default_factory=list)
    scripts: list[tuple[float, float]] = field(default_factory=list)
    """(started, dead)."""
    exclusive: bool = False
    """Its script runs alone."""
    signed: list[dict[str, str]] = field(default_factory=list)
    """Digests by artifact name, of each statement."""
    resolved: str = ""
    """How it ended at the Queue."""

    def ends_at(self, when: float, *, clock_is_slow: bool) -> float:
        """Give the end of the claim as the worker had heard of it then, by the Queue's clock.

        By the worker's own where that is behind and would say so later: a worker with such a clock cannot know better.
        """
        ends = [max(own, end) if clock_is_slow else end for heard, own, end in self.leases if heard <= when]
        return ends[-1] if ends else float("-inf")

    def lease_at(self, when: float) -> float:
        """Give the end of the claim as the worker had to believe it then."""
        ends = [own for heard, own, _ in self.leases if heard <= when]
        return ends[-1] if ends else float("-inf")


@dataclass
class Record:
    """One scenario."""

    seed: int
    capacity: int = 1
    drain_seconds: float = 0.0
    slow_by: float = 0.0
    """The most that the worker's clock was behind the Queue's, ever."""
    ahead_by: float = 0.0
    """The most that it was ahead."""
    runs: list[RunRecord] = field(default_factory=list)
    asked: list[tuple[float, str]] = field(default_factory=list)
    """What the operator asked for, and when."""
    claimed_after_end: bool = False
    """The Queue was asked for tasks by a worker that claims no more."""
    ended: float | None = None
    """When the loop returned; None: it did not."""
    died_of: str = ""
    """The error that the loop ended with."""
    left_open: dict[str, int] = field(default_factory=dict)
    story: list[str] = field(default_factory=list)

    @property
    def clock_is_slow(self) -> bool:
        """Say whether the worker's clock was behind by more than the margin before a claim's end makes good."""
        return self.slow_by > TOLERATED_SLOWNESS_SECONDS
