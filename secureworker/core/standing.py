"""Where a worker stands: what happened to it, folded into one value of bounded size, for those who look at it.

Nothing is decided by it. What others wrote (names, reasons, messages) is cut here, and made harmless by who shows it.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeVar, assert_never

from secureworker.core.happening import (
    Appended,
    Began,
    Claimed,
    Decided,
    Executed,
    Faulted,
    Happening,
    Hindrance,
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
from secureworker.core.outcome import Reason, Resolution

MOST_RECENT: Final = 20
"""Of decisions, of resolutions and of faults: the last so many are kept."""
MOST_RUNS: Final = 64
MOST_STEPS: Final = 2 * len(Phase)
MOST_REASONS: Final = 20
MOST_NAME: Final = 200
"""Characters of what a task's author chose; a name has up to 255 at the Queue."""
MOST_TEXT: Final = 1000
"""Characters of a sentence."""
MOST_NOTE: Final = 8192
"""Characters of a checkpoint: one with 16 witnesses' signatures has 3 KiB."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """A run came to a step."""

    phase: Phase
    since: datetime


@dataclass(frozen=True, slots=True)
class RunStanding:
    """A run that is ours."""

    task_id: TaskId
    run_id: RunId
    name: str
    """Its author's: hostile, and cut."""
    steps: tuple[Step, ...]
    """At least one: that it was claimed."""
    script: str = ""
    """Empty until it is admitted."""
    renewals: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy made of a run."""

    task_id: TaskId
    run_id: RunId
    name: str
    time: datetime
    script: str
    """Empty where it is refused."""
    reasons: tuple[Reason, ...]
    """Empty where it is admitted."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended."""

    task_id: TaskId
    run_id: RunId
    name: str
    script: str
    time: datetime
    resolution: Resolution
    reported: bool
    summary: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong; the same again is counted, not kept twice."""

    what: str
    message: str
    first: datetime
    last: datetime
    times: int = 1


@dataclass(frozen=True, slots=True)
class Counts:
    """Since the process began."""

    claims: int = 0
    admitted: int = 0
    refused: int = 0
    unreported: int = 0
    """Runs that were ours to resolve, and of whose end the Queue could not be told."""
    resolutions: tuple[tuple[Resolution, int], ...] = ()
    """Those that were there at all, in the order of the enumeration."""


@dataclass(frozen=True, slots=True)
class Standing:
    """All that is shown of a worker."""

    began: Began
    started: datetime
    """The process."""
    policy_since: datetime
    state: State
    state_since: datetime
    why: str = ""
    """Of the state."""
    hindrances: tuple[Hindrance, ...] = ()
    signer: str = ""
    """Fingerprint of the key; empty until the signer is met."""
    audit: Appended | None = None
    """The log's head; None until the first record is written."""
    self_test: tuple[int, datetime] | None = None
    """How many probes failed to get out, and when; None until they did."""
    runs: tuple[RunStanding, ...] = ()
    """Those that are ours now, by the time they were claimed."""
    decisions: tuple[Decision, ...] = ()
    """The last ones, oldest first; as the next two."""
    endings: tuple[Ending, ...] = ()
    faults: tuple[Fault, ...] = ()
    counts: Counts = Counts()


def at_start(began: Began, now: datetime) -> Standing:
    """Give where a worker stands of which nothing is known but who it is."""
    return Standing(began, started=now, policy_since=now, state=State.STARTING, state_since=now)


def after(standing: Standing, happening: Happening, now: datetime) -> Standing:
    """Give where a worker stands after something happened to it. Total, and the result has a bounded size."""
    match happening:
        case Claimed() | Decided() | PhaseEntered() | Renewed() | Resolved() | Executed() | Stored():
            return _of_run(standing, happening, now)
        case Began() | SignerMet() | Appended() | StateEntered() | SelfTested() | Faulted():
            return _of_worker(standing, happening, now)
        case _:
            assert_never(happening)


def _of_worker(
    standing: Standing,
    happening: Began | SignerMet | Appended | StateEntered | SelfTested | Faulted,
    now: datetime,
) -> Standing:
    match happening:
        case Began():
            return _begin(standing, happening, now)
        case SignerMet():
            return replace(standing, signer=cut(happening.fingerprint, MOST_NAME))
        case Appended():
            head = replace(happening, origin=cut(happening.origin, MOST_NAME), note=cut(happening.note, MOST_NOTE))
            return replace(standing, audit=head)
        case StateEntered():
            return _enter(standing, happening, now)
        case SelfTested():
            return replace(standing, self_test=(happening.probes, now))
        case Faulted():
            return _fault(standing, happening, now)
        case _:
            assert_never(happening)


def _of_run(
    standing: Standing,
    happening: Claimed | Decided | PhaseEntered | Renewed | Resolved | Executed | Stored,
    now: datetime,
) -> Standing:
    match happening:
        case Claimed():
            return _claim(standing, happening, now)
        case Decided():
            return _decide(standing, happening, now)
        case PhaseEntered():
            return _step(standing, happening, now)
        case Renewed():
            return _renew(standing, happening)
        case Resolved():
            return _resolve(standing, happening, now)
        case Executed() | Stored():
            # What they say is in the steps, and in the metrics.
            return standing
        case _:
            assert_never(happening)


def cut(text: str, most: int) -> str:
    """Shorten what is longer than may be kept, and show that it was."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _begin(standing: Standing, began: Began, now: datetime) -> Standing:
    same = began.policy_sha256 == standing.began.policy_sha256
    since = standing.policy_since if same else now
    return replace(
        standing, began=began, policy_since=since, state=State.STARTING, state_since=now, why="", hindrances=()
    )


def _enter(standing: Standing, entered: StateEntered, now: datetime) -> Standing:
    hindrances = tuple(Hindrance(each.what, cut(each.why, MOST_TEXT)) for each in entered.hindrances[:MOST_REASONS])
    # Other words for the same state do not begin it anew.
    since = standing.state_since if entered.state is standing.state else now
    return replace(
        standing, state=entered.state, state_since=since, why=cut(entered.why, MOST_TEXT), hindrances=hindrances
    )


def _claim(standing: Standing, claimed: Claimed, now: datetime) -> Standing:
    others = tuple(run for run in standing.runs if (run.task_id, run.run_id) != (claimed.task_id, claimed.run_id))
    name = cut(claimed.name, MOST_NAME)
    run = RunStanding(claimed.task_id, claimed.run_id, name, (Step(Phase.CLAIMED, now),))
    counts = replace(standing.counts, claims=standing.counts.claims + 1)
    return replace(standing, runs=_last(others, run, MOST_RUNS), counts=counts)


def _decide(standing: Standing, decided: Decided, now: datetime) -> Standing:
    run = _find(standing, decided.task_id, decided.run_id)
    reasons = tuple(
        Reason(cut(reason.rule, MOST_NAME), cut(reason.message, MOST_TEXT)) for reason in decided.reasons[:MOST_REASONS]
    )
    script = cut(decided.script, MOST_NAME)
    decision = Decision(decided.task_id, decided.run_id, _name(run), now, script, reasons)
    refused = bool(reasons)
    before = standing.counts
    counts = replace(before, refused=before.refused + refused, admitted=before.admitted + (not refused))
    standing = replace(standing, decisions=_last(standing.decisions, decision, MOST_RECENT), counts=counts)
    return standing if run is None else _with(standing, replace(run, script=script))


def _step(standing: Standing, entered: PhaseEntered, now: datetime) -> Standing:
    run = _find(standing, entered.task_id, entered.run_id)
    if run is None:
        return standing
    if entered.phase is Phase.ENDED:
        return replace(standing, runs=tuple(each for each in standing.runs if each is not run))
    return _with(standing, replace(run, steps=_last(run.steps, Step(entered.phase, now), MOST_STEPS)))


def _renew(standing: Standing, renewed: Renewed) -> Standing:
    run = _find(standing, renewed.task_id, renewed.run_id)
    return standing if run is None else _with(standing, replace(run, renewals=run.renewals + 1))


def _resolve(standing: Standing, resolved: Resolved, now: datetime) -> Standing:
    run = _find(standing, resolved.task_id, resolved.run_id)
    ending = Ending(
        resolved.task_id,
        resolved.run_id,
        _name(run),
        "" if run is None else run.script,
        now,
        resolved.resolution,
        resolved.reported,
        cut(resolved.summary, MOST_TEXT),
        () if run is None else run.steps,
    )
    counts = standing.counts
    found = dict(counts.resolutions)
    found[resolved.resolution] = found.get(resolved.resolution, 0) + 1
    untold = resolved.resolution is not Resolution.NOT_OURS and not resolved.reported
    counts = replace(
        counts,
        unreported=counts.unreported + untold,
        resolutions=tuple((each, found[each]) for each in Resolution if each in found),
    )
    return replace(standing, endings=_last(standing.endings, ending, MOST_RECENT), counts=counts)


def _fault(standing: Standing, faulted: Faulted, now: datetime) -> Standing:
    what, message = cut(faulted.what, MOST_NAME), cut(faulted.message, MOST_TEXT)
    same = [fault for fault in standing.faults if (fault.what, fault.message) == (what, message)]
    others = tuple(fault for fault in standing.faults if fault not in same)
    fault = replace(same[0], last=now, times=same[0].times + 1) if same else Fault(what, message, now, now)
    return replace(standing, faults=_last(others, fault, MOST_RECENT))


def _find(standing: Standing, task_id: TaskId, run_id: RunId) -> RunStanding | None:
    found = [run for run in standing.runs if (run.task_id, run.run_id) == (task_id, run_id)]
    return found[0] if found else None


def _with(standing: Standing, run: RunStanding) -> Standing:
    """Put a run in the place of what it was."""
    own = (run.task_id, run.run_id)
    return replace(standing, runs=tuple(run if (each.task_id, each.run_id) == own else each for each in standing.runs))


def _name(run: RunStanding | None) -> str:
    return "" if run is None else run.name


def _last(before: tuple[T, ...], one: T, most: int) -> tuple[T, ...]:
    return (*before, one)[-most:]
