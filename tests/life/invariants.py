"""What must be true of every scenario, read from what others saw of the worker, without knowing its code."""

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime, timedelta

from secureworker.localqueue.journal import CLAIM_RESOLVER, DEADLINE_RESOLVER
from tests.life.faults import Seen
from tests.life.story import RunStory, Story, runs_of

SIGHTING = timedelta(seconds=0.2)
"""A process that is dead is seen no more after this: between two looks, on a busy machine."""
CANCELLATION = timedelta(seconds=30)
"""A script whose task was cancelled is dead after this, and its grace."""
LEASE_TOLERANCE = timedelta(seconds=0.05)
"""Between a request at the proxy and the Queue's own clock, read a little later."""
STATEMENT = "public/chain-of-trust.json"
_UNSIGNED = ("public/logs/", STATEMENT, "public/provenance", "public/audit.tlog-proof", "public/verification.json")


def violations(story: Story) -> list[str]:
    """Say every promise that was broken; none: all is well."""
    found: list[str] = []
    for run in runs_of(story.journal):
        checks = (_claim, _resolution, _not_forgotten, _reports, _script, _stamps, _late_artifacts, _published, _signed)
        name = f"{run.name[0]}/{run.name[1]}"
        found += [f"{name}: {broken}" for check in checks for broken in check(run, story)]
    known = {run.name for run in runs_of(story.journal)}
    found += [f"{name}: a script ran, and nobody had claimed the run" for name in story.sightings.keys() - known]
    return found


def _claim(run: RunStory, _: Story) -> Iterator[str]:
    if len(run.claims) > 1:
        yield "the Queue gave it away twice"


def _resolution(run: RunStory, _: Story) -> Iterator[str]:
    """At most once, by its owner, before the claim ended; or by those who may, when they may."""
    if len(run.ends) > 1:
        yield f"resolved {len(run.ends)} times"
    for end in run.ends:
        until = run.taken_until(end.when)
        if end.by == CLAIM_RESOLVER:
            if until is not None and end.when < until:
                yield "its claim was ended by the Queue before its time: the journal cannot be right"
        elif end.by == DEADLINE_RESOLVER or end["reason"] == "canceled":
            continue
        elif not end.by.startswith(f"task-client/{run.name[0]}/{run.name[1]}/on/{run.worker}/"):
            yield f"resolved by {end.by}, and it was claimed by {run.worker}"
        elif until is None or end.when > until:
            yield f"resolved at {end.when.time()}, and its claim had ended at {until and until.time()}"


def _not_forgotten(run: RunStory, story: Story) -> Iterator[str]:
    if run.name in story.given_up:
        return
    if not run.ends:
        yield "never resolved"
    elif run.ends[0].by == CLAIM_RESOLVER:
        yield "forgotten: its claim expired"


def _reports(run: RunStory, story: Story) -> Iterator[str]:
    """One and the same, never after it is known to have arrived, never after the claim ended."""
    reports = story.reports(run.name)
    if len({_said(report) for report in reports}) > 1:
        yield f"reports differ: {[_said(report) for report in reports]}"
    if any(_is_answer(report) for report in reports[:-1]):
        yield "reported again, and it was known that the report had arrived"
    for report in reports:
        until = run.taken_until(report.when)
        if until is None or report.when > until + LEASE_TOLERANCE:
            yield f"reported at {report.when.time()}, after its claim ended at {until and until.time()}"


def _is_answer(report: Seen) -> bool:
    return report.status is not None and report.status < 500 and report.status != 429 and not report.nonsense


def _said(report: Seen) -> str:
    reason = json.loads(report.body or b"{}").get("reason", "")
    return f"{report.name} {reason}".strip()


def _script(run: RunStory, story: Story) -> Iterator[str]:
    """Alive only while the run is claimed and not resolved."""
    sighting = story.sightings.get(run.name)
    if sighting is None:
        return
    if sighting.first < run.claims[0].when:
        yield "its script ran before it was claimed"
    until = run.taken_until(sighting.last)
    if until is not None and sighting.last > until:
        yield f"its script was alive at {sighting.last.time()}, and its claim had ended at {until.time()}"
    yield from _script_and_end(run, sighting.last)


def _script_and_end(run: RunStory, last: datetime) -> Iterator[str]:
    for end in run.ends:
        if end["reason"] == "canceled":
            if last > end.when + CANCELLATION:
                yield "its script was alive long after it was cancelled"
        elif end.by.startswith("task-client/") and last > end.when + SIGHTING:
            yield "its script was alive when it was resolved"


def _stamps(run: RunStory, story: Story) -> Iterator[str]:
    """What the script itself wrote is within its claim, and it ran once."""
    stamps = story.stamps.get(run.name, [])
    if sum(what == "begun" for what, _ in stamps) > 1:
        yield "its script began more than once"
    for what, when in stamps:
        until = run.taken_until(when)
        if until is None or when > until:
            yield f"its script wrote {what!r} at {when.time()}, outside of its claim"
    ends = [end.when for end in run.ends if end.by.startswith("task-client/")]
    if ends and any(when > ends[0] for _, when in stamps):
        yield "its script wrote after the run was resolved"


def _late_artifacts(run: RunStory, _: Story) -> Iterator[str]:
    """Nothing but the log after the report, and nothing but the log for a run that is lost."""
    for end in run.ends:
        late = [each["name"] for each in run.created if each.when > end.when]
        allowed = "public/logs/"
        if end["reason"] == "canceled":
            continue
        if any(not name.startswith(allowed) for name in late):
            yield f"artifacts were created after it was resolved: {late}"


def _published(run: RunStory, story: Story) -> Iterator[str]:
    """No artifact of a completed run is missing, or differs from its signed hash; and one statement, ever."""
    contents = story.contents.get(run.name, {})
    statements = {entry["sha256"] for entry in run.stored if entry["name"] == STATEMENT}
    if len(statements) > 1:
        yield f"{len(statements)} different statements were stored"
    completed = any(end["reason"] == "completed" for end in run.ends)
    if completed and not any(name.startswith("public/logs/") for name in contents):
        yield "completed, and there is no log"
    if STATEMENT in contents:
        document = json.loads(contents[STATEMENT])
        signed = {name: each["sha256"] for name, each in document["artifacts"].items()}
        yield from _as_signed(run, contents, signed, completed=completed)
    elif completed:
        yield "completed, and there is no statement"


def _as_signed(run: RunStory, contents: dict[str, bytes], signed: dict[str, str], *, completed: bool) -> Iterator[str]:
    times = {entry["name"]: entry.when for entry in run.stored}
    for name, sha256 in signed.items():
        if name not in contents and completed:
            yield f"{name} was signed, and is missing"
        if name in contents and hashlib.sha256(contents[name]).hexdigest() != sha256:
            yield f"{name} differs from what was signed"
        if name in times and STATEMENT in times and times[name] > times[STATEMENT]:
            yield f"{name} was stored after the statement that speaks of it"
    for name in contents if completed else ():
        if name not in signed and not name.startswith(_UNSIGNED):
            yield f"{name} is there, and was not signed"


def _signed(run: RunStory, story: Story) -> Iterator[str]:
    count = story.signatures.count(run.name)
    if count > 1:
        yield f"{count} statements were signed"
    if STATEMENT in story.contents.get(run.name, {}) and not count:
        yield "a statement is stored, and the audit log knows of no signature"
