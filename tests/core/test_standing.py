"""Where a worker stands: a fold over what happens to it, total, and of bounded size."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from secureworker.core.errors import ServiceError
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
from secureworker.core.ids import RunId, Sha256, TaskId
from secureworker.core.outcome import Errored, Execution, ExitCode, Reason, Refused, Resolution, Usage
from secureworker.core.standing import (
    MOST_NAME,
    MOST_NOTE,
    MOST_REASONS,
    MOST_RECENT,
    MOST_RUNS,
    MOST_STEPS,
    MOST_TEXT,
    Standing,
    after,
    at_start,
)
from secureworker.testing import IDENTITY, TASK_ID

BEGAN = Began(IDENTITY, "1", "https://tc.example.com", Sha256("5f" * 32))
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
TASK, RUN = TaskId(TASK_ID), RunId(0)
EXECUTION = Execution(ExitCode(0), NOW, NOW, Usage(), "runc", Sha256("aa" * 32), Sha256("bb" * 32))
REFUSED = Refused((Reason("tasks", "no"),))


def told(*happenings: Happening, standing: Standing | None = None) -> Standing:
    """Fold happenings, a second apart."""
    standing = standing or at_start(BEGAN, NOW)
    for number, happening in enumerate(happenings, 1):
        standing = after(standing, happening, NOW + timedelta(seconds=number))
    return standing


def resolved(task: TaskId = TASK, resolution: Resolution = Resolution.COMPLETED, *, reported: bool = True) -> Resolved:
    return Resolved(task, RUN, REFUSED, resolution, reported, "why")


def test_a_run_is_there_from_its_claim_to_its_end_with_when_each_phase_began() -> None:
    standing = told(
        Claimed(TASK, RUN, "a task"),
        PhaseEntered(TASK, RUN, Phase.DECIDING),
        Decided(TASK, RUN, "sign"),
        PhaseEntered(TASK, RUN, Phase.RUNNING),
        Renewed(TASK, RUN, 700.0),
    )
    (run,) = standing.runs
    assert (run.name, run.script, run.renewals) == ("a task", "sign", 1)
    steps = [(step.phase, (step.since - NOW).total_seconds()) for step in run.steps]
    assert steps == [(Phase.CLAIMED, 1), (Phase.DECIDING, 2), (Phase.RUNNING, 4)]

    standing = told(
        Executed(TASK, RUN, EXECUTION),
        Stored(TASK, RUN, 1, 5),
        resolved(),
        PhaseEntered(TASK, RUN, Phase.ENDED),
        standing=standing,
    )
    assert standing.runs == ()
    (ending,) = standing.endings
    assert (ending.name, ending.script, ending.resolution, ending.steps) == (
        "a task",
        "sign",
        Resolution.COMPLETED,
        run.steps,
    )
    assert standing.counts.resolutions == ((Resolution.COMPLETED, 1),)
    assert (standing.counts.claims, standing.counts.admitted, standing.counts.refused) == (1, 1, 0)


def test_a_refusal_is_kept_with_its_rules() -> None:
    reasons = (Reason("tasks.scopes", "not allowed"), Reason("scripts", "none"))
    standing = told(Claimed(TASK, RUN, "a task"), Decided(TASK, RUN, "", reasons))
    (decision,) = standing.decisions
    assert (decision.name, decision.reasons, decision.script) == ("a task", reasons, "")
    assert (standing.counts.admitted, standing.counts.refused) == (0, 1)


def test_other_words_for_the_same_state_do_not_begin_it_anew() -> None:
    full = Hindrance("disk", "3 MB")
    standing = told(
        StateEntered(State.HINDERED, "3 MB", (full,)),
        StateEntered(State.HINDERED, "2 MB", (replace(full, why="2 MB"),)),
    )
    assert (standing.state, standing.why) == (State.HINDERED, "2 MB")
    assert standing.state_since == NOW + timedelta(seconds=1)
    standing = told(StateEntered(State.CLAIMING), standing=standing)
    assert (standing.state, standing.hindrances, standing.why) == (State.CLAIMING, (), "")


def test_what_is_known_of_the_worker_itself_is_kept() -> None:
    head = Appended("a-log", 7, Sha256("cc" * 32), "a note")
    standing = told(SignerMet("SHA256:abc"), SelfTested(27), head)
    assert (standing.signer, standing.self_test, standing.audit) == (
        "SHA256:abc",
        (27, NOW + timedelta(seconds=2)),
        head,
    )


def test_another_policy_is_another_beginning_but_not_of_the_process() -> None:
    other = replace(BEGAN, policy_sha256=Sha256("00" * 32))
    standing = told(Claimed(TASK, RUN, ""), StateEntered(State.CLAIMING), BEGAN, other)
    assert (standing.started, standing.policy_since) == (NOW, NOW + timedelta(seconds=4))
    assert (standing.state, standing.counts.claims) == (State.STARTING, 1)
    assert told(BEGAN).policy_since == NOW


def test_the_same_fault_again_is_counted_and_comes_last() -> None:
    standing = told(Faulted("warning", "a"), Faulted("warning", "b"), Faulted("warning", "a"), Faulted("error", "a"))
    shown = [(fault.what, fault.message, fault.times) for fault in standing.faults]
    assert shown == [("warning", "b", 1), ("warning", "a", 2), ("error", "a", 1)]
    assert standing.faults[1].first < standing.faults[1].last


def test_ends_that_the_queue_does_not_know_of_are_counted() -> None:
    standing = told(
        resolved(reported=False),
        resolved(resolution=Resolution.NOT_OURS, reported=False),
        resolved(resolution=Resolution.FAILED),
        resolved(resolution=Resolution.FAILED),
    )
    assert standing.counts.unreported == 1
    assert dict(standing.counts.resolutions)[Resolution.FAILED] == 2


def test_a_run_that_nobody_claimed_is_shown_in_no_place_but_its_decisions_and_ends() -> None:
    standing = told(
        PhaseEntered(TASK, RUN, Phase.RUNNING), Renewed(TASK, RUN, 1.0), Decided(TASK, RUN, "sign"), resolved()
    )
    assert standing.runs == ()
    assert (standing.decisions[0].name, standing.endings[0].steps) == ("", ())


def test_runs_are_told_apart_by_task_and_run() -> None:
    again = RunId(1)
    standing = told(
        Claimed(TASK, RUN, "first"), Claimed(TASK, again, "second"), PhaseEntered(TASK, again, Phase.RUNNING)
    )
    assert [(run.name, run.steps[-1].phase) for run in standing.runs] == [
        ("first", Phase.CLAIMED),
        ("second", Phase.RUNNING),
    ]
    assert [run.name for run in told(Claimed(TASK, RUN, "anew"), standing=standing).runs] == ["second", "anew"]


tasks = st.sampled_from([TaskId(f"{TASK_ID[:-2]}{letter}A") for letter in "abcdefgh"])
runs = st.integers(0, 30).map(RunId)
texts = st.one_of(st.text(max_size=20), st.sampled_from(["x", "\x1b[31m", "\u202e"]).map(lambda text: text * 20_000))
reasons = st.lists(st.builds(Reason, texts, texts), max_size=3).flatmap(
    lambda some: st.sampled_from([tuple(some), tuple(some) * 50])
)
digests = st.just(Sha256("dd" * 32))
happenings: st.SearchStrategy[Any] = st.one_of(
    st.builds(Began, st.just(IDENTITY), st.just("1"), st.just("https://tc.example.com"), digests),
    st.builds(SignerMet, texts),
    st.builds(Appended, texts, st.integers(0), digests, texts),
    st.builds(
        StateEntered,
        st.sampled_from(State),
        texts,
        st.lists(st.builds(Hindrance, st.just("disk"), texts), max_size=2).map(lambda some: tuple(some) * 15),
    ),
    st.builds(SelfTested, st.integers(0, 100)),
    st.builds(Claimed, tasks, runs, texts),
    st.builds(Decided, tasks, runs, texts, reasons),
    st.builds(PhaseEntered, tasks, runs, st.sampled_from(Phase)),
    st.builds(Renewed, tasks, runs, st.floats()),
    st.builds(Executed, tasks, runs, st.just(EXECUTION)),
    st.builds(Stored, tasks, runs, st.integers(0), st.integers(0)),
    st.builds(
        Resolved,
        tasks,
        runs,
        st.just(Errored(ServiceError("x"), started=False)),
        st.sampled_from(Resolution),
        st.booleans(),
        texts,
    ),
    st.builds(Faulted, texts, texts),
)


def size(value: Any) -> int:
    """Count the characters and items of a value, all the way down."""
    if isinstance(value, str):
        assert len(value) <= MOST_NOTE
        return 1 + len(value)
    if isinstance(value, tuple):
        return 1 + sum(size(inner) for inner in value)
    if hasattr(value, "__dataclass_fields__"):
        return 1 + sum(size(getattr(value, field.name)) for field in fields(value))
    return 1


PER_RUN = MOST_NAME * 3 + MOST_STEPS * 8 + 100
MOST = (
    MOST_RUNS * PER_RUN
    + MOST_RECENT * (PER_RUN + MOST_REASONS * (MOST_NAME + MOST_TEXT + 9))
    + MOST_RECENT * (PER_RUN + MOST_TEXT)
    + MOST_RECENT * (MOST_NAME + MOST_TEXT + 20)
    + (MOST_REASONS + 1) * (MOST_TEXT + 20)
    + MOST_NOTE
    + 4_000
)


@given(st.lists(happenings, max_size=60), st.integers(0, 3))
def test_whatever_happens_there_is_a_standing_and_it_has_a_bounded_size(happened: list[Any], again: int) -> None:
    standing = told(*happened * (1 + again))
    assert size(standing) <= MOST
    assert len({(run.task_id, run.run_id) for run in standing.runs}) == len(standing.runs) <= MOST_RUNS
    assert all(run.steps and run.steps[-1].phase is not Phase.ENDED for run in standing.runs)
    assert standing.counts.claims == sum(isinstance(each, Claimed) for each in happened) * (1 + again)
    decided = sum(isinstance(each, Decided) for each in happened) * (1 + again)
    assert standing.counts.admitted + standing.counts.refused == decided
    assert sum(count for _, count in standing.counts.resolutions) == sum(
        isinstance(each, Resolved) for each in happened
    ) * (1 + again)


@given(st.lists(happenings, max_size=30))
def test_a_standing_is_a_function_of_what_happened(happened: list[Any]) -> None:
    assert told(*happened) == told(*happened)
