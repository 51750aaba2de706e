"""A worker's standing as a JSON document: `schemas/status.schema.json`. Every text in it is made harmless here.

What is shown is what was written: characters that control, hide or reorder are escaped, as in task logs.
"""

from datetime import UTC, datetime
from typing import Any, Final

from secureworker.core.happening import Appended
from secureworker.core.ids import RunId, TaskId
from secureworker.core.standing import Decision, Ending, Fault, RunStanding, Standing, Step
from secureworker.host.sanitise import sanitise_line

VERSION: Final = 1
_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR


def as_document(standing: Standing, now: datetime) -> dict[str, Any]:
    """Write it down as it is at `now`. The last decisions, resolutions and errors come newest first."""
    began = standing.began
    return {
        "version": VERSION,
        "time": moment(now),
        "worker": {
            "pool": str(began.identity.pool),
            "workerGroup": began.identity.worker_group,
            "workerId": began.identity.worker_id,
            "rootUrl": sanitise_line(began.root_url),
            "version": began.version,
            "started": moment(standing.started),
        },
        "state": {
            "name": standing.state.value,
            "since": moment(standing.state_since),
            "why": sanitise_line(standing.why),
            "hindrances": [
                {"what": sanitise_line(each.what), "why": sanitise_line(each.why)} for each in standing.hindrances
            ],
        },
        "policy": {"sha256": began.policy_sha256, "since": moment(standing.policy_since)},
        "signer": {"key": sanitise_line(standing.signer)} if standing.signer else None,
        "selfTest": _self_test(standing.self_test),
        "audit": _head(standing.audit),
        "runs": [_run(run) for run in standing.runs],
        "decisions": [_decision(decision) for decision in reversed(standing.decisions)],
        "resolutions": [_ending(ending) for ending in reversed(standing.endings)],
        "errors": [_fault(fault) for fault in reversed(standing.faults)],
        "counts": {
            "claims": standing.counts.claims,
            "admitted": standing.counts.admitted,
            "refused": standing.counts.refused,
            "unreported": standing.counts.unreported,
            "resolutions": {resolution.value: count for resolution, count in standing.counts.resolutions},
        },
    }


def moment(time: datetime) -> str:
    """Write a time as Taskcluster does."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _self_test(passed: tuple[int, datetime] | None) -> dict[str, Any] | None:
    return None if passed is None else {"probes": passed[0], "time": moment(passed[1])}


def _head(head: Appended | None) -> dict[str, Any] | None:
    if head is None:
        return None
    # The checkpoint keeps its line ends: without them it could not be verified.
    note = "\n".join(map(sanitise_line, head.note.split("\n")))
    return {"origin": sanitise_line(head.origin), "size": head.size, "root": head.root, "checkpoint": note}


def _of(task_id: TaskId, run_id: RunId, name: str) -> dict[str, Any]:
    return {"taskId": task_id, "runId": int(run_id), "name": sanitise_line(name)}


def _steps(steps: tuple[Step, ...]) -> list[dict[str, Any]]:
    return [{"phase": step.phase.value, "since": moment(step.since)} for step in steps]


def _run(run: RunStanding) -> dict[str, Any]:
    return {
        **_of(run.task_id, run.run_id, run.name),
        "script": sanitise_line(run.script),
        "phase": run.steps[-1].phase.value,
        "since": moment(run.steps[-1].since),
        "claimed": moment(run.steps[0].since),
        "renewals": run.renewals,
        "phases": _steps(run.steps),
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        **_of(decision.task_id, decision.run_id, decision.name),
        "time": moment(decision.time),
        "admitted": not decision.reasons,
        "script": sanitise_line(decision.script),
        "reasons": [
            {"rule": sanitise_line(reason.rule), "message": sanitise_line(reason.message)}
            for reason in decision.reasons
        ],
    }


def _ending(ending: Ending) -> dict[str, Any]:
    return {
        **_of(ending.task_id, ending.run_id, ending.name),
        "time": moment(ending.time),
        "script": sanitise_line(ending.script),
        "resolution": ending.resolution.value,
        "reported": ending.reported,
        "summary": sanitise_line(ending.summary),
        "phases": _steps(ending.steps),
    }


def _fault(fault: Fault) -> dict[str, Any]:
    return {
        "what": sanitise_line(fault.what),
        "message": sanitise_line(fault.message),
        "first": moment(fault.first),
        "last": moment(fault.last),
        "times": fault.times,
    }


def duration(seconds: float) -> str:
    """Write a duration in its two largest units, for people."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{max(0.0, seconds):.1f} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"
