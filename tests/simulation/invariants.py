"""What must be true of every scenario, read from what the Queue and the host saw, without knowing the worker's code."""

from collections.abc import Iterator

from secureworker.core.outcome import Resolution
from tests.simulation.fate import LONGEST_CALL_SECONDS
from tests.simulation.record import Record, RunRecord, Upload

NEAR_THE_END_SECONDS = 75.0
"""A run that cannot be renewed is given up this long before its claim ends, at most: 20 s of margin, the script's
grace, the time for a late log; a report is last tried again 30 s before."""
LONGEST_PAUSE_SECONDS = 30.0
"""Between two attempts to report; seed 25029 was asked to end now in one."""
END_AFTER_NOW_SECONDS = 4 * LONGEST_CALL_SECONDS
"""A claim on its way with its long poll, then the log and the report of what it brought."""
END_AFTER_STOP_SECONDS = 2 * 3600.0
"""Beyond the drain time: a claim, an upload of the log, a report that is tried until the task's deadline."""
_STATEMENT = "public/chain-of-trust.json"
_REPORT = "public/verification.json"
"""How inputs were verified: for people, and signed by nobody."""


def violations(record: Record) -> list[str]:
    """Say every promise that was broken; none: all is well."""
    found = list(_of_the_loop(record))
    for run in record.runs:
        checks = (_heard_of, _reports, _forgotten, _shutdown, _script, _uploads, _published)
        found += [f"{run.name}: {broken}" for check in checks for broken in check(run, record)]
    return found


def _of_the_loop(record: Record) -> Iterator[str]:
    if record.died_of:
        yield f"the loop died: {record.died_of}"
    elif record.ended is None:
        yield "the loop did not end"
    else:
        bounds = {"now": END_AFTER_NOW_SECONDS, "stop": END_AFTER_STOP_SECONDS + record.drain_seconds}
        for when, what in record.asked:
            if record.ended - when > bounds.get(what, float("inf")):
                yield f"the loop went on for {record.ended - when:.0f} s after {what}"
    if record.claimed_after_end:
        yield "tasks were asked for after the worker was told to end"
    for what, count in record.left_open.items():
        if count:
            yield f"{count} of the {what} are open still"
    scripts = [script for run in record.runs for script in run.scripts]
    moments = sorted([(started, 1) for started, _ in scripts] + [(dead, -1) for _, dead in scripts])
    alive = 0
    for _, by in moments:
        alive += by
        if alive > record.capacity:
            yield f"{alive} scripts ran at once, and there are {record.capacity} places"
            break
    yield from _alone(record)


def _alone(record: Record) -> Iterator[str]:
    """An exclusive script never overlaps another."""
    lives = [(run, started, dead) for run in record.runs for started, dead in run.scripts]
    for one, started, dead in lives:
        beside = [other.name for other, begun, over in lives if other is not one and begun < dead and started < over]
        if one.exclusive and beside:
            yield f"the script of {one.name} runs alone, and ran beside those of {', '.join(beside)}"


def _heard_of(run: RunRecord, _: Record) -> Iterator[str]:
    if run.heard is None and (run.reports or run.uploads or run.scripts or run.signed):
        yield "something was done for a run that the worker does not have"


def _reports(run: RunRecord, record: Record) -> Iterator[str]:
    """At most once, by its owner, before its claim ended, one and the same."""
    if len({report.resolution for report in run.reports}) > 1:
        yield f"reports differ: {[report.resolution.value for report in run.reports]}"
    if sum(report.accepted for report in run.reports) > 1:
        yield "resolved more than once"
    answered = [report.ended for report in run.reports if report.answered]
    for report in run.reports:
        if report.resolution is Resolution.NOT_OURS:
            yield "not-ours was reported"
        if any(report.begun >= known for known in answered if report.ended != known):
            yield "reported again, and it was known that the report had arrived"
        ends = run.ends_at(report.begun, clock_is_slow=record.clock_is_slow)
        if report.begun > ends:
            yield f"reported at {report.begun:.3f}, after its claim ended at {ends:.3f}"
    # What is told while a report is tried again may be that the report itself has ended the run.
    if run.reports and run.told_lost is not None and run.told_lost < run.reports[0].begun:
        yield "reported, and it was known to be lost"


def _forgotten(run: RunRecord, record: Record) -> Iterator[str]:
    if run.heard is None or run.told_lost is not None:
        return
    if any(report.arrived or report.refused for report in run.reports):
        return
    if not run.reports:
        until = run.closed if run.closed is not None else run.heard
        why = "never reported"
    else:
        until = run.reports[-1].ended
        why = "given up on"
        if any(what == "now" and when <= until + LONGEST_PAUSE_SECONDS for when, what in record.asked):
            return
    # To a clock that is ahead claims end early.
    left = run.lease_at(until) - until - record.ahead_by
    if left > NEAR_THE_END_SECONDS:
        yield f"{why}, with {left:.0f} s left of its claim"


def _shutdown(run: RunRecord, _: Record) -> Iterator[str]:
    if not run.unwanted:
        return
    if run.scripts:
        yield "its script ran, and the worker had been told to end before"
    for report in run.reports:
        if report.resolution is not Resolution.WORKER_SHUTDOWN:
            yield f"claimed after the worker was told to end, and reported {report.resolution.value}"


def _script(run: RunRecord, record: Record) -> Iterator[str]:
    if len(run.scripts) > 1:
        yield "its script ran more than once"
    for started, dead in run.scripts:
        if run.heard is None or started < run.heard:
            yield "its script ran before it was claimed"
        ends = run.ends_at(dead, clock_is_slow=record.clock_is_slow)
        if dead > ends:
            yield f"its script lived until {dead:.3f}, and its claim ended at {ends:.3f}"
        if run.told_lost is not None and started > run.told_lost:
            yield "its script was started, and it was known to be lost"
        if run.reports and dead > run.reports[0].begun:
            yield "its script was alive when it was reported"


def _uploads(run: RunRecord, record: Record) -> Iterator[str]:
    """Nothing for a run that is lost, but its log."""
    for upload in run.uploads:
        if upload.of_log:
            continue
        if run.told_lost is not None and upload.begun > run.told_lost:
            yield f"{upload.name} was uploaded, and the run was known to be lost"
        if upload.begun > run.ends_at(upload.begun, clock_is_slow=record.clock_is_slow):
            yield f"{upload.name} was uploaded after its claim ended"
        if run.reports and upload.begun > run.reports[0].begun:
            yield f"{upload.name} was uploaded after its report"


def _published(run: RunRecord, _: Record) -> Iterator[str]:
    """What a statement speaks of is there, as it was signed, and before the statement."""
    if len(run.signed) > 1:
        yield f"{len(run.signed)} statements were signed"
    stored = {upload.name: upload for upload in run.uploads if upload.stored is not None}
    completed = run.resolved == Resolution.COMPLETED.value
    if completed and _STATEMENT not in stored:
        yield "completed without a statement"
    if _STATEMENT not in stored:
        return
    if not run.signed:
        yield "a statement is stored that nobody signed"
        return
    yield from _as_signed(run.signed[-1], stored)
    if completed:
        signed_files = {_STATEMENT, f"{_STATEMENT}.sig", _REPORT, *run.signed[-1]}
        for name, upload in stored.items():
            if name not in signed_files and not upload.of_log:
                yield f"{name} is stored, and was not signed"


def _as_signed(signed: dict[str, str], stored: dict[str, Upload]) -> Iterator[str]:
    for name, sha256 in signed.items():
        if name not in stored:
            yield f"{name} was signed, and is missing"
        elif stored[name].sha256 != sha256:
            yield f"{name} differs from what was signed"
        elif (stored[name].stored or 0.0) > (stored[_STATEMENT].stored or 0.0):
            yield f"{name} was stored after its statement"
