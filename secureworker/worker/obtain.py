"""What a script is given of other tasks: asked for, judged, told, fetched. In this order, always."""

import asyncio
import functools
import logging
from dataclasses import dataclass, replace

from secureworker.core.audit import AuditRecord, Detail, Ending, Event, text
from secureworker.core.chain import REPORT, Judgement, Report, judge_inputs, write_report
from secureworker.core.errors import BadPayload
from secureworker.core.ids import ArtifactName, RunId, Sha256, TaskId
from secureworker.core.outcome import Refused
from secureworker.core.plan import Plan
from secureworker.core.trace import Traced, TraceReport, as_json, judge_trace
from secureworker.core.trust import Trust
from secureworker.core.verification import Step
from secureworker.ports import ClaimedRun, SignedFile, TaskLog, VerifiedInput, Workspace
from secureworker.worker.audited import run_of
from secureworker.worker.tools import Tools

logger = logging.getLogger(__name__)

_INLINE_BYTES = 1024 * 1024
"""Of statements: they are read in 30 ms. More is for a thread, so that meanwhile a claim can be renewed."""


@dataclass(frozen=True, slots=True)
class Obtained:
    """What a script was given of other tasks."""

    inputs: tuple[VerifiedInput, ...] = ()
    """The artifacts, and after them the statements that vouched for them."""
    reports: tuple[SignedFile, ...] = ()
    """How they were verified, to be published; not signed."""


async def judge(run: ClaimedRun, tools: Tools, plan: Plan, log: TaskLog) -> Judgement | Refused:
    """Verify the tasks whose artifacts are wanted, and say which of them are inputs. Nothing is fetched but statements.

    Every step is told in the task log, and every task's verification in the audit log.

    Raises:
        BadPayload, ServiceError: as `ports.Inputs.gather`.
    """
    if not plan.inputs.wanted:
        return Judgement((), (), (), ())
    facts = await tools.inputs.gather(run, plan.inputs.tasks())
    trust = Trust(tools.policy.trust, tools.policy.root_url)
    work = functools.partial(judge_inputs, plan.inputs, plan.script, facts, trust, tools.clock.now(), tools.checks)
    size = sum(len(each.statements.signed) + len(each.statements.bundle or b"") for each in facts)
    judgement = work() if size <= _INLINE_BYTES else await asyncio.to_thread(work)
    _tell(judgement, log)
    for report in judgement.reports:
        await tools.audit.append(_record(run, report))
    if judgement.reasons:
        return Refused(judgement.reasons)
    if plan.inputs.trace is not None and judgement.inputs:
        traced = await _trace(run, tools, plan, judgement, log)
        if traced.reasons:
            return Refused(traced.reasons)
        judgement = replace(judgement, traced=tuple(as_json(traced.reports)), vouched=_vouched(traced.reports))
    logger.info("%s: %d inputs of %d tasks are as they were signed for", run.claim, len(judgement.inputs), len(facts))
    return judgement


async def _trace(run: ClaimedRun, tools: Tools, plan: Plan, judgement: Judgement, log: TaskLog) -> Traced:
    """Follow inputs to the tree, where the rule says so."""
    rule = plan.inputs.trace
    assert rule is not None
    tasks = tuple(dict.fromkeys(each.task_id for each in judgement.inputs))
    facts = await tools.inputs.trace(run, tasks, rule)
    trust = Trust(tools.policy.trust, tools.policy.root_url)
    now = tools.clock.now()
    work = functools.partial(judge_trace, plan.inputs, plan.script, tasks, facts, trust, now, tools.checks)
    traced = await asyncio.to_thread(work)
    for report in traced.reports:
        log.note(f"trace: the {report.role} {report.task_id}: {'verified' if report.verified else 'not verified'}")
        _tell_steps(report.steps, log)
        failed = report.steps[-1]
        reason = () if report.verified else (("reason", text(f"{failed.name}: {'; '.join(failed.details)}")),)
        run_id = () if report.run_id is None else (("upstreamRunId", int(report.run_id)),)
        details: tuple[tuple[str, Detail], ...] = (("upstreamTaskId", report.task_id), *run_id, *reason)
        ending = Ending.OK if report.verified else Ending.FAILED
        await tools.audit.append(AuditRecord(Event.INPUT_VERIFICATION, ending, run_of(run.claim), details=details))
    return traced


async def obtain(
    run: ClaimedRun, tools: Tools, plan: Plan, judged: Judgement, workspace: Workspace, log: TaskLog
) -> Obtained:
    """Fetch inputs into the script's directory, and give those that are there.

    Raises:
        BadPayload, ServiceError, HostError: as `ports.Inputs.fetch`; BadPayload too where none is left of what the rule
            requires.
    """
    if not plan.inputs.wanted:
        return Obtained()
    received = await tools.inputs.fetch(run, judged.inputs, plan.inputs.max_size, workspace)
    for absent, why in received.absent:
        log.note(f"the optional input {absent} is left out: {why}")
        details: tuple[tuple[str, Detail], ...] = (
            ("upstreamTaskId", absent.task_id),
            ("upstreamRunId", int(absent.run_id)),
            ("artifact", text(absent.name)),
            ("reason", text(why)),
        )
        record = AuditRecord(Event.INPUT_VERIFICATION, Ending.FAILED, run_of(run.claim), details=details)
        await tools.audit.append(record)
    if plan.inputs.required and not received.inputs:
        raise BadPayload(("the script takes inputs, and none of those that are wanted could be used",))
    log.note(f"{len(received.inputs)} inputs of {received.size} bytes have the digests that were signed")
    report = SignedFile(REPORT, write_report(judged, received, list(judged.traced)), "application/json")
    inputs = [VerifiedInput(each.task_id, each.run_id, each.name, each.sha256) for each in received.inputs]
    used = {each.task_id for each in received.inputs}
    vouched = _vouched(tuple(each for each in judged.reports if each.task_id in used))
    inputs += [VerifiedInput(*each) for each in dict.fromkeys((*vouched, *judged.vouched))]
    return Obtained(tuple(inputs), (report,))


def _vouched(reports: tuple[Report | TraceReport, ...]) -> tuple[tuple[TaskId, RunId, ArtifactName, Sha256], ...]:
    """Give the statements of verified tasks."""
    return tuple(
        (report.task_id, report.run_id, name, sha256)
        for report in reports
        if report.run_id is not None
        for name, sha256 in report.statements
    )


def _tell(judgement: Judgement, log: TaskLog) -> None:
    for report in judgement.reports:
        run = "" if report.run_id is None else f", run {int(report.run_id)}"
        log.note(f"inputs of the task {report.task_id}{run}: {'verified' if report.verified else 'not verified'}")
        _tell_steps(report.steps, log)
    for why in judgement.absent:
        log.note(f"an optional input is left out: {why}")


def _tell_steps(steps: tuple[Step, ...], log: TaskLog) -> None:
    for step in steps:
        mark = "passed" if step.passed else "NOT PASSED"
        log.note(f"  {step.number}. {step.name}: {mark}: {'; '.join(step.details)}")


def _record(run: ClaimedRun, report: Report) -> AuditRecord:
    details: list[tuple[str, Detail]] = [("upstreamTaskId", report.task_id)]
    if report.run_id is not None:
        details.append(("upstreamRunId", int(report.run_id)))
    if report.key:
        details.append(("key", report.key))
    if not report.verified:
        failed = report.steps[-1]
        details.append(("reason", text(f"{failed.name}: {'; '.join(failed.details)}")))
    ending = Ending.OK if report.verified else Ending.FAILED
    return AuditRecord(Event.INPUT_VERIFICATION, ending, run_of(run.claim), details=tuple(details))
