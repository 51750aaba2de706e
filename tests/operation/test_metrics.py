"""What is counted of a worker, and that no task's author can make the counting grow."""

from dataclasses import replace

import pytest
from prometheus_client import generate_latest

from secureworker.core.errors import AuditError, Defect, HostError
from secureworker.core.happening import (
    HINDRANCES,
    Appended,
    Began,
    Claimed,
    Decided,
    Executed,
    Faulted,
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
from secureworker.core.outcome import Errored, ExitCode, Exited, Outcome, Reason, Resolution, Usage
from secureworker.operation.latency import TimedAuditLog, TimedSigner
from secureworker.operation.metrics import MOST_VALUES, Metrics
from secureworker.testing import (
    IDENTITY,
    ROOT_URL,
    SHA256,
    TASK_ID,
    FakeAuditLog,
    FakeClock,
    FakeSigner,
    an_execution,
    run_virtual,
)
from tests.worker.world import World

RUN = (TaskId(TASK_ID), RunId(0))


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def series(metrics: Metrics) -> set[str]:
    return {line.rsplit(" ", 1)[0] for line in generate_latest(metrics.registry).decode().splitlines()}


def a_resolution(resolution: Resolution, outcome: Outcome, *, reported: bool = True) -> Resolved:
    return Resolved(*RUN, outcome, resolution, reported, "why")


def test_a_whole_run_is_counted() -> None:
    async def scenario() -> None:
        world = World()
        metrics = Metrics(world.clock)
        world.watcher = metrics  # type: ignore[assignment] # the real one
        world.queue.add(world.a_run())
        await world.loop(tasks=1).serve(world.events)
        counted = {
            "secureworker_claims_total": 1,
            "secureworker_runs": 0,
            "secureworker_run_seconds_count": 1,
            "secureworker_script_seconds_sum": 1,
            "secureworker_artifacts_total": 2,
            "secureworker_artifact_bytes_total": 2,
            "secureworker_unreported_total": 0,
            "secureworker_host_errors_total": 0,
        }
        assert {name: value(metrics, name) for name in counted} == counted
        assert value(metrics, "secureworker_decisions_total", decision="admitted") == 1
        assert value(metrics, "secureworker_resolutions_total", resolution="completed") == 1
        assert value(metrics, "secureworker_phase_seconds_count", phase="running") == 1
        assert value(metrics, "secureworker_phase_seconds_sum", phase="running") == pytest.approx(1, abs=0.01)
        assert value(metrics, "secureworker_state", state="ended") == 1
        assert value(metrics, "secureworker_state", state="claiming") == 0
        claimed = value(metrics, "secureworker_last_claim_timestamp_seconds")
        assert claimed is not None
        assert abs(claimed - world.clock.now().timestamp()) < 60

    run_virtual(scenario())


def with_metrics(*happenings: object) -> Metrics:
    async def scenario() -> Metrics:
        metrics = Metrics(FakeClock())
        for happening in happenings:
            metrics.saw(happening)  # type: ignore[arg-type] # they are
        return metrics

    return run_virtual(scenario())


def test_every_series_of_a_known_name_is_there_from_the_start() -> None:
    metrics = with_metrics()
    for what in HINDRANCES:
        assert value(metrics, "secureworker_hindrance", what=what) == 0
    for state in State:
        assert value(metrics, "secureworker_state", state=state.value) == (state is State.STARTING)
    for resolution in Resolution:
        assert value(metrics, "secureworker_resolutions_total", resolution=resolution.value) == 0


def test_hindrances_come_and_go() -> None:
    hindered = StateEntered(State.HINDERED, "why", (Hindrance("disk", "full"), Hindrance("clock", "wrong")))
    metrics = with_metrics(hindered)
    set_now = {what for what in HINDRANCES if value(metrics, "secureworker_hindrance", what=what)}
    assert set_now == {"disk", "clock"}
    metrics.saw(StateEntered(State.CLAIMING))
    assert not any(value(metrics, "secureworker_hindrance", what=what) for what in HINDRANCES)


def test_it_is_said_who_the_worker_is_once() -> None:
    metrics = with_metrics(
        SignerMet("SHA256:key"),
        Began(IDENTITY, "1.2", ROOT_URL, SHA256),
        Began(IDENTITY, "1.2", ROOT_URL, Sha256("b" * 64)),
    )
    (only,) = [line for line in series(metrics) if line.startswith("secureworker_info")]
    for part in (f'policy_sha256="{"b" * 64}"', 'signer="SHA256:key"', 'version="1.2"', IDENTITY.worker_id):
        assert part in only


def test_refusals_are_counted_by_the_policys_rules() -> None:
    reasons = (Reason("tasks.deny[3]", "no"), Reason("", "odd"), Reason("scripts.sign.payload", "bad"))
    metrics = with_metrics(Decided(*RUN, "", reasons), Decided(*RUN, "sign"))
    for rule in ("tasks.deny", "task", "scripts.sign.payload"):
        assert value(metrics, "secureworker_refusals_total", rule=rule) == 1
    assert value(metrics, "secureworker_decisions_total", decision="refused") == 1
    assert value(metrics, "secureworker_decisions_total", decision="admitted") == 1


def test_tasks_cannot_make_the_metrics_grow() -> None:
    happenings: list[object] = []
    for number in range(MOST_VALUES + 100):
        happenings += [
            Claimed(TaskId(TASK_ID), RunId(number % 50), f"name {number}"),
            Decided(*RUN, "", (Reason(f"rule {number}", f"message {number}"),)),
            Faulted(f"what {number}", f"message {number}"),
            a_resolution(Resolution.INTERNAL_ERROR, Errored(Defect(f"message {number}"), started=False)),
        ]
    metrics = with_metrics(*happenings)
    lines = series(metrics)
    assert len([line for line in lines if line.startswith("secureworker_refusals_total")]) == MOST_VALUES + 1
    assert value(metrics, "secureworker_refusals_total", rule="other") == 100
    assert value(metrics, "secureworker_faults_total", what="other") == 100
    assert not any("name " in line or "message " in line for line in lines)


def test_what_a_script_used_is_counted_where_the_host_counts_it() -> None:
    execution = an_execution(ExitCode(0))
    used = Usage(cpu_seconds=2.5, memory_peak_bytes=50 * 2**20, processes_peak=7)
    counted = Executed(*RUN, replace(execution, usage=used))
    metrics = with_metrics(Executed(*RUN, execution), counted)
    assert value(metrics, "secureworker_script_seconds_count") == 2
    for name, amount in (("cpu_seconds", 2.5), ("memory_peak_bytes", 50 * 2**20), ("processes_peak", 7)):
        assert value(metrics, f"secureworker_script_{name}_count") == 1
        assert value(metrics, f"secureworker_script_{name}_sum") == amount


def test_endings_that_an_operator_must_know_of_are_counted() -> None:
    error = Errored(HostError("the disk is full"), started=True)
    metrics = with_metrics(
        a_resolution(Resolution.INTERNAL_ERROR, error),
        a_resolution(Resolution.COMPLETED, Exited(an_execution(ExitCode(0))), reported=False),
        a_resolution(Resolution.NOT_OURS, error, reported=False),
        Renewed(*RUN, 42.0),
        SelfTested(17),
        Appended("origin", 12, SHA256, "note"),
        Stored(*RUN, 3, 1000),
    )
    assert value(metrics, "secureworker_host_errors_total") == 2
    assert value(metrics, "secureworker_unreported_total") == 1
    assert value(metrics, "secureworker_reclaim_slack_seconds_sum") == 42
    assert value(metrics, "secureworker_self_test_probes") == 17
    assert value(metrics, "secureworker_audit_records") == 12
    assert value(metrics, "secureworker_artifacts_total") == 3


def test_a_run_that_nobody_claimed_is_no_run() -> None:
    metrics = with_metrics(PhaseEntered(*RUN, Phase.ENDED))
    assert value(metrics, "secureworker_run_seconds_count") == 0


def test_the_signer_and_its_log_are_timed() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        metrics = Metrics(clock)
        signer, audit = FakeSigner(clock, seconds=0.25), FakeAuditLog()
        audit.failures.add("check", AuditError("no room"))
        world = World()
        timed = TimedAuditLog(audit, metrics, clock)
        with pytest.raises(AuditError):
            await timed.check()
        await timed.check()
        world.signer = TimedSigner(signer, metrics, clock)  # type: ignore[assignment] # around the fake
        world.audit = timed  # type: ignore[assignment] # the same
        world.queue.add(world.a_run())
        await world.loop(tasks=1).serve(world.events)
        assert value(metrics, "secureworker_signer_seconds_sum", request="sign") == pytest.approx(0.25)
        assert value(metrics, "secureworker_signer_seconds_count", request="check") == 2
        assert value(metrics, "secureworker_signer_failures_total", request="check") == 1
        appended = value(metrics, "secureworker_signer_seconds_count", request="append")
        assert appended == len(audit.records) > 0

    run_virtual(scenario())


def test_progress_is_a_time() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        metrics = Metrics(clock)
        metrics.progressed()
        assert value(metrics, "secureworker_progress_timestamp_seconds") == clock.now().timestamp()

    run_virtual(scenario())
