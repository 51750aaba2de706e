"""Asking a policy about a task without a Taskcluster: for `explain`, and for policies' own test cases."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from secureworker.core.claim import Claim, Credentials, Json, Secret, parse_definition
from secureworker.core.decide import Admitted, decide
from secureworker.core.ids import RunId, TaskId, WorkerIdentity
from secureworker.core.outcome import Reason, Refused
from secureworker.core.policy import Policy

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""The time of every trial: a decision about a task must not depend on the day it is asked for."""
_TASK_ID: Final = "AAAAAAAAQACAAAAAAAAAAA"


def complete(definition: Mapping[str, Json], policy: Policy) -> dict[str, Json]:
    """Fill in what a definition leaves out as the policy would have it; scopes and payload are empty."""
    pool = policy.worker_pool
    absent: dict[str, Json] = {
        "provisionerId": pool.provisioner_id,
        "workerType": pool.worker_type,
        "taskQueueId": str(pool),
        "schedulerId": policy.tasks.scheduler_ids[0],
        "projectId": policy.tasks.project_ids[0],
        "taskGroupId": _TASK_ID,
        "dependencies": [],
        "requires": "all-completed",
        "routes": [],
        "priority": "lowest",
        "retries": 5,
        "created": NOW.isoformat(),
        "deadline": (NOW + timedelta(hours=1)).isoformat(),
        "expires": (NOW + timedelta(days=28)).isoformat(),
        "scopes": [],
        "payload": {},
        "tags": {},
        "extra": {},
    }
    if "taskQueueId" in definition or {"provisionerId", "workerType"} & definition.keys():
        absent = {
            key: value for key, value in absent.items() if key not in {"provisionerId", "workerType", "taskQueueId"}
        }
    source = policy.tasks.sources[0] if policy.tasks.sources else "https://example.com"
    described: dict[str, Json] = {"name": "a task", "description": "", "owner": "a@example.com", "source": str(source)}
    metadata = definition.get("metadata", {})
    if isinstance(metadata, dict):
        return {**absent, **definition, "metadata": {**described, **metadata}}
    return {**absent, **definition}


def ask(definition: Mapping[str, Json], policy: Policy) -> Admitted | Refused:
    """Decide a task definition as a worker of the policy's pool would, were it claimed."""
    try:
        task = parse_definition(complete(definition, policy))
    except ValueError as error:
        return Refused((Reason("task", f"this is no task definition: {error}"),))
    if task.defects:
        return Refused(tuple(Reason("task", defect) for defect in task.defects))
    me = WorkerIdentity(policy.worker_pool, "explain", "explain")
    until = NOW + timedelta(minutes=20)
    claim = Claim(TaskId(_TASK_ID), RunId(0), me, until, Credentials("explain", Secret("")), task)
    return decide(claim, policy, me, NOW)
