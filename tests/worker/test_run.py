"""One run, from its claim to its report. Edge cases 1 to 4 in every phase, and how each kind of ending is told."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from secureworker.core.errors import (
    AccessDenied,
    BadArtifact,
    BadPayload,
    Defect,
    HostError,
    KeyUnusable,
    SandboxError,
    SecureworkerError,
    ServiceError,
    Stop,
    StopReason,
)
from secureworker.core.ids import Sha256
from secureworker.core.outcome import (
    Errored,
    ExitCode,
    Exited,
    ExitStatus,
    KilledBySignal,
    Outcome,
    Refused,
    Resolution,
    Stopped,
)
from secureworker.core.policy import SecretRule
from secureworker.testing import FakeRun, FakeSecrets, a_policy, a_script, an_artifact, run_virtual
from secureworker.worker.run import run_claim
from tests.worker.world import World

CHAIN = ["public/chain-of-trust.json", "public/chain-of-trust.json.sig"]
LOG = "public/logs/live_backing.log"
OUTPUTS = ["public/a.txt", "public/b.txt"]


def carry_out(
    arrange: Callable[[World, FakeRun], None] = lambda _world, _run: None,
    *meanwhile: Callable[[World, FakeRun], Awaitable[None]],
    claim_seconds: float = 1200,
    policy: Callable[[], World] = World,
) -> tuple[Outcome, World, FakeRun]:
    """Run one claimed task to its end, while `meanwhile` happens."""

    async def scenario() -> tuple[Outcome, World, FakeRun]:
        world = policy()
        run = world.a_run(claim_seconds=claim_seconds)
        arrange(world, run)
        async with asyncio.TaskGroup() as group:
            others = [group.create_task(_awaited(happens(world, run))) for happens in meanwhile]
            others.append(group.create_task(world.shutdown.let_drain_time_pass()))
            outcome = await run_claim(run, world.tools, world.shutdown)
            for other in others:
                other.cancel()
        assert world.workspaces.open_now == 0
        return outcome, world, run

    return run_virtual(scenario())


async def _awaited(happening: Awaitable[None]) -> None:
    await happening


# --- the way it should go -----------------------------------------------------------------------------------------


def test_a_run_that_goes_well_is_sealed_signed_stored_and_reported_once() -> None:
    outcome, world, run = carry_out()
    assert isinstance(outcome, Exited)
    assert run.reports == [Resolution.COMPLETED]
    assert world.store.names(run.claim) == [*OUTPUTS, *CHAIN, LOG]
    assert [artifact.name for artifact in world.signer.signed[0].artifacts] == OUTPUTS
    assert "exit code: 0" in world.log(run)
    assert "resolved completed" in world.log(run)


def test_the_log_is_capped_as_the_rule_says() -> None:
    _, world, run = carry_out()
    assert world.logs.logs[str(run.claim)].cap_bytes == 2**20


def test_what_is_signed_names_the_policy_and_the_pinned_script() -> None:
    _, world, _ = carry_out()
    statement = world.signer.signed[0]
    assert (statement.policy_sha256, statement.script_sha256) == (world.policy.sha256, Sha256("5f" * 32))
    assert statement.script == "build"


@pytest.mark.parametrize(
    ("status", "resolution", "line"),
    [
        (ExitCode(1), Resolution.FAILED, "exit code: 1"),
        (ExitCode(2), Resolution.FAILED, "exit code: 2"),
        (ExitCode(3), Resolution.MALFORMED_PAYLOAD, "exit code: 3"),
        (ExitCode(4), Resolution.RESOURCE_UNAVAILABLE, "exit code: 4"),
        (ExitCode(5), Resolution.INTERNAL_ERROR, "exit code: 5"),
        (ExitCode(6), Resolution.FAILED, "exit code: 6"),
        (ExitCode(7), Resolution.INTERMITTENT_TASK, "exit code: 7"),
        (ExitCode(241), Resolution.INTERMITTENT_TASK, "exit code: 241"),
        (KilledBySignal(9), Resolution.FAILED, "Automation Error: python exited with signal -9"),
        (KilledBySignal(9, out_of_memory=True), Resolution.FAILED, "more memory than its limit"),
    ],
)
def test_a_script_that_fails_is_resolved_by_its_exit_and_its_outputs_are_signed_and_stored(
    status: ExitStatus, resolution: Resolution, line: str
) -> None:
    def arrange(world: World, _: FakeRun) -> None:
        world.sandbox.status = status

    _, world, run = carry_out(arrange)
    assert run.reports == [resolution]
    assert world.store.names(run.claim) == [*OUTPUTS, *CHAIN, LOG]
    assert line in world.log(run)


def test_outputs_of_a_failed_script_are_kept_back_where_the_rule_says_so() -> None:
    rules = replace(a_script().outputs, on_failure=False)

    def arrange(world: World, _: FakeRun) -> None:
        world.sandbox.status = ExitCode(1)

    _, world, run = carry_out(arrange, policy=lambda: World(a_policy(a_script(outputs=rules))))
    assert run.reports == [Resolution.FAILED]
    assert world.store.names(run.claim) == [LOG]
    assert world.signer.signed == []


# --- tasks that do not run ----------------------------------------------------------------------------------------


def test_a_refused_task_is_told_every_reason_and_nothing_but_its_log_is_stored() -> None:
    async def scenario() -> tuple[Outcome, World, FakeRun]:
        world = World()
        run = world.a_run(schedulerId="somebody-else", projectId="another-project")
        return await run_claim(run, world.tools, world.shutdown), world, run

    outcome, world, run = run_virtual(scenario())
    assert isinstance(outcome, Refused)
    assert run.reports == [Resolution.MALFORMED_PAYLOAD]
    assert world.store.names(run.claim) == [LOG]
    assert "somebody-else" in world.log(run)
    assert "another-project" in world.log(run)
    assert world.workspaces.opened == 0


def test_a_task_whose_definition_could_not_be_read_as_it_is_is_refused() -> None:
    async def scenario() -> tuple[World, FakeRun]:
        world = World()
        run = world.a_run()
        run.claim = replace(run.claim, task=replace(run.claim.task, defects=("it is nested 1000 levels deep",)))
        await run_claim(run, world.tools, world.shutdown)
        return world, run

    world, run = run_virtual(scenario())
    assert run.reports == [Resolution.MALFORMED_PAYLOAD]
    assert "1000 levels" in world.log(run)


def test_an_unwanted_run_is_given_back_unseen() -> None:
    async def scenario() -> tuple[World, FakeRun]:
        world = World()
        run = world.a_run()
        await run_claim(run, world.tools, world.shutdown, unwanted="the worker drains")
        assert world.clock.monotonic() < 2
        return world, run

    world, run = run_virtual(scenario())
    assert run.reports == [Resolution.WORKER_SHUTDOWN]
    assert "not begun: the worker drains" in world.log(run)
    assert world.sandbox.alive == []


def test_a_claim_that_had_ended_when_it_arrived_is_not_reported_as_a_malformed_task() -> None:
    def arrange(world: World, _: FakeRun) -> None:
        world.clock.jumped = timedelta(hours=1)

    outcome, _, run = carry_out(arrange)
    assert isinstance(outcome, Stopped)
    assert outcome.reason is StopReason.CLAIM_LOST
    assert run.reports == []


# --- what breaks on the way ---------------------------------------------------------------------------------------

_SECRET_PATH = "/srv/secret-place"


@pytest.mark.parametrize(
    ("where", "error", "resolution"),
    [
        ("workspaces.open", HostError(_SECRET_PATH), Resolution.INTERNAL_ERROR),
        ("run.confirm", ServiceError("the Queue is away"), Resolution.RESOURCE_UNAVAILABLE),
        ("run.confirm", Stop(StopReason.CANCELED, "409"), None),
        ("run.confirm", Stop(StopReason.CLAIM_LOST, "409"), None),
        ("sandbox.run", SandboxError(_SECRET_PATH), Resolution.INTERNAL_ERROR),
        ("sandbox.run", Stop(StopReason.DISK_LIMIT, "the script wrote 2 GiB"), Resolution.FAILED),
        ("sandbox.run", KeyError("a bug"), Resolution.INTERNAL_ERROR),
        ("outputs.seal", BadArtifact("a link", ("public/x",)), Resolution.FAILED),
        ("outputs.seal", HostError(_SECRET_PATH), Resolution.INTERNAL_ERROR),
        ("signer.sign", KeyUnusable(_SECRET_PATH), Resolution.INTERNAL_ERROR),
        ("signer.sign", BadPayload(("nested too deep",)), Resolution.MALFORMED_PAYLOAD),
        ("store.put", ServiceError("S3 is away"), Resolution.INTERNAL_ERROR),
        ("store.put_signed", ServiceError("S3 is away"), Resolution.INTERNAL_ERROR),
        ("store.put", RecursionError("a bug"), Resolution.INTERNAL_ERROR),
        ("logs.open", HostError("the disk is full"), Resolution.INTERNAL_ERROR),
    ],
)
def test_whatever_breaks_the_run_is_reported_once_and_its_log_says_why(
    where: str, error: Exception, resolution: Resolution | None
) -> None:
    def arrange(world: World, run: FakeRun) -> None:
        part, method = where.split(".")
        (run if part == "run" else getattr(world, part)).failures.add(method, error)

    _, world, run = carry_out(arrange)
    assert run.reports == ([resolution] if resolution else [])
    if part_has_log := where != "logs.open":
        log = world.log(run)
        assert "[taskcluster:error]" in log
        assert _SECRET_PATH not in log
    assert (LOG in world.store.names(run.claim)) == part_has_log


def test_an_error_nobody_thought_of_is_a_defect_and_its_traceback_stays_private(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def arrange(world: World, _: FakeRun) -> None:
        world.sandbox.failures.add("run", KeyError("secret-value"))

    outcome, world, run = carry_out(arrange)
    assert isinstance(outcome, Errored)
    assert isinstance(outcome.error, Defect)
    assert "secret-value" not in world.log(run)
    assert "KeyError" in world.log(run)
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("where", ["logs.finish", "logs.close", "store.put_log"])
@pytest.mark.parametrize("error", [HostError("the disk is full"), ServiceError("S3 is away"), OSError("no")])
def test_a_log_that_cannot_be_stored_changes_no_outcome(where: str, error: Exception) -> None:
    def arrange(world: World, _: FakeRun) -> None:
        part, method = where.split(".")
        getattr(world, part).failures.add(method, error)

    outcome, _, run = carry_out(arrange)
    assert isinstance(outcome, Exited)
    assert run.reports == [Resolution.COMPLETED]


def test_a_bad_output_gets_an_error_artifact_and_nothing_is_signed_or_stored() -> None:
    def arrange(world: World, _: FakeRun) -> None:
        names = (
            "public/link",
            "../x",
            "public/logs",
            "public/logs/live_backing.log",
            "public/provenance.sigstore.json",
        )
        world.outputs.failures.add("seal", BadArtifact("public/link is a link", names))

    _, world, run = carry_out(arrange)
    assert run.reports == [Resolution.FAILED]
    assert world.signer.signed == []
    assert world.store.names(run.claim) == [LOG]
    assert [(name, message) for _, name, message in world.store.errors] == [
        ("public/link", "public/link is a link"),
        ("public/refused-outputs", "public/link is a link"),
    ]


def test_an_error_artifact_that_cannot_be_made_changes_no_outcome() -> None:
    def arrange(world: World, _: FakeRun) -> None:
        world.outputs.failures.add("seal", BadArtifact("too many outputs"))
        world.store.failures.add("put_error", ServiceError("503"))

    _, _, run = carry_out(arrange)
    assert run.reports == [Resolution.FAILED]


def test_a_script_over_its_time_is_stopped_and_what_it_left_is_stored_unsigned() -> None:
    def arrange(world: World, _: FakeRun) -> None:
        world.sandbox.seconds = 7200

    outcome, world, run = carry_out(arrange)
    assert isinstance(outcome, Stopped)
    assert run.reports == [Resolution.FAILED]
    assert world.store.names(run.claim) == [*OUTPUTS, LOG]
    assert world.signer.signed == []
    assert "limit of 3600 s" in world.log(run)


@pytest.mark.parametrize("lost", [StopReason.CANCELED, StopReason.CLAIM_LOST])
def test_a_run_found_lost_while_a_stopped_scripts_outputs_are_stored_is_not_reported(lost: StopReason) -> None:
    def arrange(world: World, _: FakeRun) -> None:
        world.sandbox.seconds = 7200
        world.store.failures.add("put", Stop(lost, "409"))

    _, _, run = carry_out(arrange)
    assert run.reports == []


def test_a_run_found_lost_while_an_error_artifact_is_made_is_not_reported() -> None:
    def arrange(world: World, _: FakeRun) -> None:
        world.outputs.failures.add("seal", BadArtifact("a link"))
        world.store.failures.add("put_error", Stop(StopReason.CANCELED, "409"))

    _, _, run = carry_out(arrange)
    assert run.reports == []


def test_outputs_of_a_stopped_script_that_cannot_be_sealed_change_no_outcome() -> None:
    def arrange(world: World, _: FakeRun) -> None:
        world.sandbox.seconds = 7200
        world.outputs.failures.add("seal", BadArtifact("a link"))

    _, _, run = carry_out(arrange)
    assert run.reports == [Resolution.FAILED]


# --- ended from outside, in every phase ---------------------------------------------------------------------------

PHASES = ("preparing", "confirming", "running", "sealing", "signing", "uploading", "storing the log", "reporting")
SLOW = 100.0


def slow_in(phase: str) -> Callable[[World, FakeRun], None]:
    """Make one phase take `SLOW` seconds, and the others next to nothing."""

    def arrange(world: World, run: FakeRun) -> None:
        world.sandbox.seconds = world.store.seconds = world.signer.seconds = 0.001
        match phase:
            case "preparing":
                world.workspaces.seconds = SLOW
            case "confirming":
                run.latencies["confirm"] = SLOW
            case "running":
                world.sandbox.seconds = SLOW
            case "sealing":
                world.outputs.seconds = SLOW
            case "signing":
                world.signer.seconds = SLOW
            case "uploading":
                world.store.seconds = SLOW
            case "storing the log":
                world.store.log_seconds = SLOW
            case _:
                run.latencies["report"] = SLOW

    return arrange


def after(seconds: float, happens: Callable[[World, FakeRun], None]) -> Callable[[World, FakeRun], Awaitable[None]]:
    """Let something happen at a time."""

    async def meanwhile(world: World, run: FakeRun) -> None:
        await world.clock.sleep(seconds)
        happens(world, run)

    return meanwhile


@pytest.mark.parametrize("phase", PHASES)
def test_a_cancellation_in_any_phase_ends_the_run_within_30_s_and_nothing_is_reported_differently(phase: str) -> None:
    outcome, world, run = carry_out(slow_in(phase), after(20, lambda _, run: run.cancel()))
    assert run.resolved is StopReason.CANCELED
    if phase == "reporting":
        assert run.reports == [Resolution.COMPLETED]
        return
    assert run.reports == []
    assert isinstance(outcome, Stopped)
    assert outcome.reason is StopReason.CANCELED
    assert world.store.names(run.claim).count(LOG) <= 1
    for _, started, dead in world.sandbox.alive:
        assert (dead - started).total_seconds() < 20 + 30


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("repeatable", [True, False])
def test_a_stop_in_any_phase_resolves_the_run_once(phase: str, *, repeatable: bool) -> None:
    outcome, world, run = carry_out(
        slow_in(phase),
        after(20, lambda world, _: world.shutdown.stop("asked")),
        policy=lambda: World(a_policy(a_script(repeatable=repeatable)), drain_seconds=30),
    )
    assert len(run.reports) == 1
    if phase in ("storing the log", "reporting"):
        assert run.reports == [Resolution.COMPLETED]
        return
    assert isinstance(outcome, Stopped)
    begun = phase not in ("preparing", "confirming")
    assert run.reports == [Resolution.INTERNAL_ERROR if begun and not repeatable else Resolution.WORKER_SHUTDOWN]
    assert (len(world.sandbox.alive) == 1) == begun


@pytest.mark.parametrize("phase", PHASES)
def test_a_second_stop_ends_the_run_in_any_phase_within_seconds(phase: str) -> None:
    ended: list[float] = []

    async def noting(world: World, run: FakeRun) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(world.clock.monotonic())

    _, _, run = carry_out(slow_in(phase), after(20, lambda world, _: world.shutdown.now("asked")), noting)
    assert ended[0] < 20 + 25
    assert len(run.reports) <= 1
    assert len(run.reports) == 1 or phase == "reporting"


@pytest.mark.parametrize("phase", PHASES)
def test_a_queue_that_cannot_be_reached_ends_the_script_before_the_claim_ends(phase: str) -> None:
    def arrange(world: World, run: FakeRun) -> None:
        slow_in(phase)(world, run)
        for method in ("reclaim", "report"):
            run.failures.add(method, ServiceError("the network is cut"), times=10_000)

    _, world, run = carry_out(arrange, claim_seconds=60)
    claim_ends = run.claim.taken_until
    assert run.reports == []
    for _, _, dead in world.sandbox.alive:
        assert dead < claim_ends


@pytest.mark.parametrize("phase", PHASES[:-1])
def test_a_claim_taken_over_by_somebody_else_is_noticed_and_nothing_is_reported(phase: str) -> None:
    def arrange(world: World, run: FakeRun) -> None:
        slow_in(phase)(world, run)
        run.failures.add("reclaim", Stop(StopReason.CLAIM_LOST, "409"))

    outcome, _, run = carry_out(arrange, claim_seconds=100)
    assert isinstance(outcome, Stopped)
    assert outcome.reason is StopReason.CLAIM_LOST
    assert run.reports == []


@pytest.mark.parametrize("phase", PHASES)
def test_a_run_longer_than_its_claim_keeps_it_in_every_phase(phase: str) -> None:
    _, _, run = carry_out(slow_in(phase), claim_seconds=20)
    assert run.reports == [Resolution.COMPLETED]
    assert run.resolved is Resolution.COMPLETED
    assert run.reclaims >= 5


# --- resolution ---------------------------------------------------------------------------------------------------


def test_a_report_the_queue_takes_late_is_the_same_every_time() -> None:
    def arrange(_: World, run: FakeRun) -> None:
        run.failures.add("report", ServiceError("503"), times=20)

    _, _, run = carry_out(arrange)
    assert run.reports == [Resolution.COMPLETED]
    assert run.resolved is Resolution.COMPLETED


def test_a_report_that_is_retried_for_minutes_keeps_the_claim_meanwhile() -> None:
    def arrange(_: World, run: FakeRun) -> None:
        run.failures.add("report", ServiceError("503"), times=12)

    _, _, run = carry_out(arrange, claim_seconds=60)
    assert run.resolved is Resolution.COMPLETED


@pytest.mark.parametrize("error", [Defect("400"), KeyError("a bug")])
def test_a_report_the_queue_will_never_take_is_given_up_and_nothing_else_is_reported(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def arrange(_: World, run: FakeRun) -> None:
        run.failures.add("report", error, times=5)

    _, _, run = carry_out(arrange)
    assert run.reports == []
    assert "its claim will expire" in caplog.text


def test_a_claim_found_lost_while_the_report_is_on_its_way_does_not_interrupt_it() -> None:
    # The report itself may be why the claim cannot be renewed any more: the Queue has it, and its answer is not here.
    def arrange(_: World, run: FakeRun) -> None:
        run.latencies["report"] = 100
        run.failures.add("reclaim", Stop(StopReason.CLAIM_LOST, "409"), times=100)

    outcome, _, run = carry_out(arrange, claim_seconds=120)
    assert isinstance(outcome, Exited)
    assert run.reports == [Resolution.COMPLETED]


def test_a_report_refused_for_its_credentials_is_tried_until_the_claim_ends() -> None:
    def arrange(_: World, run: FakeRun) -> None:
        run.failures.add("report", AccessDenied("401"), times=10_000)
        run.failures.add("reclaim", AccessDenied("401"), times=10_000)

    _, _, run = carry_out(arrange, claim_seconds=60)
    assert run.reports == []


def test_a_run_resolved_by_somebody_else_before_the_report_stays_as_it_is() -> None:
    def arrange(world: World, run: FakeRun) -> None:
        world.store.on_log = run.cancel

    _, _, run = carry_out(arrange)
    assert run.resolved is StopReason.CANCELED
    assert run.reports == [Resolution.COMPLETED]


def test_six_lines_of_diary_for_a_run_that_goes_well(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    carry_out()
    lines = [record.getMessage() for record in caplog.records]
    assert 5 <= len(lines) <= 7
    assert all(line.startswith("ddVaxIRdRAaAAr5ryHnORA/0: ") for line in lines)


def test_a_run_without_outputs_is_signed_too() -> None:
    def arrange(world: World, _: FakeRun) -> None:
        world.outputs.artifacts = ()

    _, world, run = carry_out(arrange)
    assert run.reports == [Resolution.COMPLETED]
    assert world.store.names(run.claim) == [*CHAIN, LOG]


def test_outputs_are_signed_in_the_order_of_their_names() -> None:
    def arrange(world: World, _: FakeRun) -> None:
        world.outputs.artifacts = tuple(an_artifact(f"public/{name}") for name in ("c", "a", "b"))

    _, world, _ = carry_out(arrange)
    assert [artifact.name for artifact in world.signer.signed[0].artifacts] == ["public/a", "public/b", "public/c"]


SECRETIVE = a_script(secrets=(SecretRule("key", "credential:key"),))


def test_a_secret_is_lent_while_the_script_runs_and_masked_in_its_log() -> None:
    async def scenario() -> None:
        world = World(policy=a_policy(SECRETIVE))
        run = world.a_run()
        lent_while_running: list[int] = []

        def begin() -> None:
            lent_while_running.append(world.secrets.lent_now)
            world.logs.logs[str(run.claim)].output(b"told: " + FakeSecrets.SECRET.reveal())

        world.sandbox.on_begin = begin
        await run_claim(run, world.tools, world.shutdown)
        assert (lent_while_running, world.secrets.lent_now) == ([1], 0)
        assert run.resolved is Resolution.COMPLETED
        assert "told: [masked]" in world.log(run)
        assert FakeSecrets.SECRET.reveal().decode() not in world.log(run)

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("problem", "resolution"),
    [
        (ServiceError("the secret cannot be had"), Resolution.RESOURCE_UNAVAILABLE),
        (HostError("others can read the secret"), Resolution.INTERNAL_ERROR),
    ],
)
def test_without_its_secrets_a_script_is_not_started(problem: SecureworkerError, resolution: Resolution) -> None:
    async def scenario() -> None:
        world = World(policy=a_policy(SECRETIVE))
        world.secrets.failures.add("lend", problem)
        run = world.a_run()
        await run_claim(run, world.tools, world.shutdown)
        assert run.resolved is resolution
        assert world.sandbox.alive == []

    run_virtual(scenario())


def test_however_the_script_ends_its_secrets_are_taken_back() -> None:
    async def scenario() -> None:
        world = World(policy=a_policy(a_script(secrets=(SecretRule("key", "credential:key"),), repeatable=False)))
        world.sandbox.seconds = 36_000
        run = world.a_run()
        await run_claim(run, world.tools, world.shutdown)
        assert (world.secrets.lent, world.secrets.lent_now) == (1, 0)

    run_virtual(scenario())
