"""A run from its claim to its report: `_work` is the straight line, `run_claim` all that surrounds it."""

import logging
from dataclasses import replace
from datetime import timedelta
from typing import NoReturn

from secureworker.core.claim import Claim
from secureworker.core.decide import Admitted, decide
from secureworker.core.errors import Defect, HostError, SecureworkerError, ServiceError, Stop, StopReason
from secureworker.core.happening import Claimed, Decided, Executed, Phase, Resolved
from secureworker.core.outcome import Errored, Exited, Outcome, Reason, Refused, Resolution, Stopped, resolve
from secureworker.ports import ClaimedRun, Clock, OpenTaskLog
from secureworker.worker.audited import AuditedRun, conclude, decision_record, resolution_record
from secureworker.worker.explain import describe, explain, summary
from secureworker.worker.guards import (
    RETRY_SECONDS,
    end_with_claim,
    keep_claim,
    watch_cancellation,
    watch_haste,
    watch_shutdown,
    watch_time,
)
from secureworker.worker.lease import Lease
from secureworker.worker.live import begin, settle
from secureworker.worker.obtain import judge, obtain
from secureworker.worker.progress import Progress
from secureworker.worker.publish import Ran, publish, salvage, script_sha256
from secureworker.worker.shutdown import Shutdown
from secureworker.worker.supervise import being_ended, supervise
from secureworker.worker.tools import Tools
from secureworker.worker.turns import in_turn

logger = logging.getLogger(__name__)

LOG_UPLOAD_TIME = timedelta(minutes=10)
"""For the log of a run that is still ours: 256 MB at 0.5 MB/s."""
LATE_LOG_UPLOAD_TIME = timedelta(seconds=30)
"""For the log of a run that is over: the Queue takes it for 25 minutes, but the next task waits."""
REPORT_PAUSES_SECONDS = (0.3, *RETRY_SECONDS)
"""Between two attempts to report; the last one repeats."""
REPORT_MARGIN_SECONDS = 5.0
"""Before a claim ends no report is tried again: this host's clock may be that much behind the Queue's. Seed 1640."""
HURRY_SECONDS = 10.0
"""What is left to a run's end when the operator asked to stop now: log and report, then the process ends."""


async def _work(
    run: ClaimedRun, tools: Tools, shutdown: Shutdown, lease: Lease, progress: Progress, log: OpenTaskLog
) -> Outcome:
    claim = run.claim
    if lease.remaining() <= 0:
        # Here, and not as a refusal: a clock that is wrong must not turn good tasks into malformed ones.
        raise Stop(StopReason.CLAIM_LOST, "the claim had ended when it arrived; is this host's clock right?")

    progress.enter(Phase.DECIDING)
    decision = await _decide(claim, tools)
    if isinstance(decision, Refused):
        return decision
    plan = decision.plan
    progress.repeatable = plan.repeatable
    logger.info("%s: admitted to run %s", claim, plan.script)
    log.note(f"the policy admits this task to run the script {plan.script}, sha256:{script_sha256(plan)}")
    log.cap(plan.limits.log_bytes)
    if plan.live_log:
        await begin(run, tools.live, log)

    progress.enter(Phase.VERIFYING)
    judged = await judge(run, tools, plan, log)
    if isinstance(judged, Refused):
        return judged

    async with in_turn(tools.turns, plan, progress, log), tools.workspaces.open(plan) as workspace:
        progress.enter(Phase.FETCHING)
        obtained = await obtain(run, tools, plan, judged, workspace, log)

        progress.enter(Phase.CONFIRMING)
        await run.confirm()  # nothing irreversible before this

        try:
            async with (
                tools.secrets.lend(plan, run, workspace) as secrets,
                tools.networks.open(plan) as network,
                tools.doors.open(run, plan, network, log) as doors,
            ):
                log.mask(secrets)
                progress.enter(Phase.RUNNING)
                progress.started = True
                execution = await supervise(
                    tools.sandbox.run(plan, workspace, log, network),
                    watch_time(tools.clock, plan.limits.run_time),
                    end_with_claim(lease, tools.clock, stopping_takes=plan.grace),
                    watch_haste(shutdown, tools.clock),
                )
                execution = replace(execution, traffic=doors.traffic())
        except Stop as stop:
            at_limit = stop.reason in (StopReason.TIME_LIMIT, StopReason.DISK_LIMIT)
            # A script that reached its limit while it was being stopped already may be of a run that is lost.
            if at_limit and plan.outputs.on_failure and not being_ended():
                await salvage(run, tools, plan, workspace)
            raise
        tools.watcher.saw(Executed(claim.task_id, claim.run_id, execution))
        exited = Exited(execution, plan.exit_codes)
        logger.info("%s: the script ended: %s", claim, describe(execution.status))

        if resolve(exited) is Resolution.COMPLETED or plan.outputs.on_failure:
            await publish(run, tools, plan, workspace, Ran(execution, obtained), progress)
    return exited


async def _decide(claim: Claim, tools: Tools) -> Admitted | Refused:
    """Decide, and write down what was decided before anything comes of it."""
    if claim.task.defects:
        decision: Admitted | Refused = Refused(tuple(Reason("task", defect) for defect in claim.task.defects))
    else:
        decision = decide(claim, tools.policy, tools.identity, tools.clock.now())
    await tools.audit.append(decision_record(claim, decision))
    match decision:
        case Admitted(plan=plan):
            tools.watcher.saw(Decided(claim.task_id, claim.run_id, plan.script))
        case Refused(reasons=reasons):
            tools.watcher.saw(Decided(claim.task_id, claim.run_id, "", reasons))
    return decision


async def run_claim(run: ClaimedRun, tools: Tools, shutdown: Shutdown, unwanted: str = "") -> Outcome:
    """Carry a claimed run to its end: work, log, one report. Never raises; a run that was claimed is never forgotten.

    Args:
        run: the claimed run.
        tools: what it is carried out with.
        shutdown: what may end it.
        unwanted: where given, why the run goes back to the Queue without being looked at.
    """
    lease = run.lease if isinstance(run, AuditedRun) else Lease(tools.clock, run.taken_until, run.claim.length)
    task_id, run_id = run.claim.task_id, run.claim.run_id
    progress = Progress(task_id, run_id, tools.watcher)
    tools.watcher.saw(Claimed(task_id, run_id, run.claim.task.name, run.claim.task.created))
    # Said before there is a log: a run that goes back does so also where its log cannot be opened.
    outcome: Outcome | None = None
    if unwanted:
        outcome = Stopped(StopReason.SHUTDOWN, f"not begun: {unwanted}", started=False)
    logger.info("%s: claimed: %s", run.claim, run.claim.task.name)
    try:
        async with tools.logs.open(run) as log:
            if outcome is None:
                outcome = await _attempt(run, tools, shutdown, lease, progress, log)
            progress.enter(Phase.CONCLUDING)
            explain(outcome, log)
            outcome = await _store_log(run, tools, shutdown, lease, outcome, log)
    except Exception as error:  # noqa: BLE001 - the run must be reported, whatever became of its log
        outcome = outcome or _errored(error, run, progress)
        logger.error("%s: the task log is lost: %s", run.claim, error)  # noqa: TRY400 - _errored wrote the traceback
    tools.live.ended(str(run.claim))
    progress.enter(Phase.REPORTING)
    resolution = resolve(outcome)
    logger.log(_level(outcome), "%s: ends as %s: %s", run.claim, resolution.value, summary(outcome))
    if resolution is Resolution.NOT_OURS:
        reported = False
        await conclude(tools.audit, resolution_record(run.claim, resolution, summary(outcome)))
    else:
        reported = await _report(run, resolution, tools.clock, shutdown, lease)
    tools.watcher.saw(Resolved(task_id, run_id, outcome, resolution, reported, summary(outcome)))
    progress.enter(Phase.ENDED)
    return outcome


def _level(outcome: Outcome) -> int:
    if not isinstance(outcome, Errored):
        return logging.INFO
    return logging.ERROR if isinstance(outcome.error, HostError | Defect) else logging.WARNING


async def _attempt(
    run: ClaimedRun, tools: Tools, shutdown: Shutdown, lease: Lease, progress: Progress, log: OpenTaskLog
) -> Outcome:
    """Do the work under its guards, and turn every way it can end into an outcome."""
    try:
        return await supervise(
            _work(run, tools, shutdown, lease, progress, log),
            keep_claim(run, lease, tools.clock, tools.watcher),
            end_with_claim(lease, tools.clock),
            watch_cancellation(run, tools.clock),
            watch_shutdown(shutdown),
        )
    except Stop as stop:
        return Stopped(stop.reason, stop.detail, started=progress.started, repeatable=progress.repeatable)
    except Exception as error:  # noqa: BLE001 - whatever went wrong, the run has an outcome
        return _errored(error, run, progress)


def _errored(error: Exception, run: ClaimedRun, progress: Progress) -> Errored:
    if isinstance(error, SecureworkerError):
        return Errored(error, started=progress.started, repeatable=progress.repeatable)
    logger.error("%s: %s while %s", run.claim, type(error).__name__, progress.phase.value, exc_info=error)
    defect = Defect(f"an error of the worker's own ({type(error).__name__}) while {progress.phase.value}")
    return Errored(defect, started=progress.started, repeatable=progress.repeatable)


async def _store_log(
    run: ClaimedRun, tools: Tools, shutdown: Shutdown, lease: Lease, outcome: Outcome, log: OpenTaskLog
) -> Outcome:
    """Upload the log as well as possible. Changes the outcome only where the run turns out not to be ours."""

    async def upload() -> None:
        artifact = await log.finish()
        shown = tools.live.ended(str(run.claim))
        await tools.store.put(run, (artifact,))
        if shown:
            await settle(run)

    if resolve(outcome) is Resolution.NOT_OURS:
        guards = [watch_time(tools.clock, LATE_LOG_UPLOAD_TIME)]
    else:
        guards = [
            watch_time(tools.clock, LOG_UPLOAD_TIME),
            keep_claim(run, lease, tools.clock, tools.watcher),
            end_with_claim(lease, tools.clock),
            watch_cancellation(run, tools.clock),
        ]
    try:
        await supervise(upload(), *guards, _hurry(shutdown, tools.clock))
    except Stop as stop:
        logger.warning("%s: the task log is not uploaded: %s", run.claim, stop.detail)
        lost = Stopped(stop.reason, stop.detail, started=True)
        return lost if resolve(lost) is Resolution.NOT_OURS else outcome
    except Exception as error:  # noqa: BLE001 - best effort: a log that cannot be stored changes no outcome
        logger.warning("%s: the task log is not uploaded: %s", run.claim, error)
    return outcome


async def _report(run: ClaimedRun, resolution: Resolution, clock: Clock, shutdown: Shutdown, lease: Lease) -> bool:
    """Resolve the run, with one and the same resolution however often the Queue has to be asked.

    Returns:
        whether the Queue has taken it.
    """
    try:
        await supervise(
            _report_until(run, resolution, clock, lease),
            _renew_quietly(run, lease, clock),
            _hurry(shutdown, clock),
        )
    except Exception as error:  # noqa: BLE001 - nothing after the report can fail the run, nor end the loop
        logger.error("%s: could not be resolved as %s, its claim will expire: %s", run.claim, resolution.value, error)  # noqa: TRY400 - its message says all
        return False
    logger.info("%s: resolved %s", run.claim, resolution.value)
    return True


async def _report_until(run: ClaimedRun, resolution: Resolution, clock: Clock, lease: Lease) -> None:
    attempt = 0
    while True:
        try:
            return await run.report(resolution)
        except ServiceError as error:
            logger.warning("%s: not resolved yet, trying again: %s", run.claim, error)
            await clock.sleep(REPORT_PAUSES_SECONDS[min(attempt, len(REPORT_PAUSES_SECONDS) - 1)])
            # Looked at after the pause: it may have been renewed meanwhile, or have ended.
            if lease.remaining() <= REPORT_MARGIN_SECONDS:
                raise
        attempt += 1


async def _renew_quietly(run: ClaimedRun, lease: Lease, clock: Clock) -> NoReturn:
    """Keep the claim while the report is retried. A claim found lost ends nothing: the report itself may be why.

    Nor does a renewal that goes wrong in any other way: only the report is worth waiting for now.
    """
    while True:
        try:
            await keep_claim(run, lease, clock)
        except SecureworkerError as error:
            logger.debug("%s: %s", run.claim, error)
        await clock.sleep(RETRY_SECONDS[-1])


async def _hurry(shutdown: Shutdown, clock: Clock) -> NoReturn:
    await shutdown.asked_at_once()
    await clock.sleep(HURRY_SECONDS)
    raise Stop(StopReason.SHUTDOWN, "the operator asked to stop now")
