"""Builders of claims, policies and what else is made of many fields, with defaults."""

import hashlib
from datetime import datetime, timedelta
from typing import Any

from secureworker.core.claim import Claim, Json, parse_claim
from secureworker.core.ids import ArtifactName, ScriptName, Sha256, WorkerIdentity, WorkerPool
from secureworker.core.outcome import Execution, ExitCodes, ExitStatus, Usage
from secureworker.core.plan import Limits, OutputRules, PinnedFile
from secureworker.core.policy import Always, Policy, ScriptRule, TaskConstraints
from secureworker.core.schemas import CompiledSchema
from secureworker.core.templates import Template
from secureworker.ports import (
    Artifact,
)
from secureworker.testing.time import EPOCH, FakeClock

IDENTITY = WorkerIdentity(WorkerPool("test-provisioner", "test-pool"), "test-group", "test-worker")
TASK_ID = "ddVaxIRdRAaAAr5ryHnORA"
SHA256 = Sha256("5f" * 32)
ROOT_URL = "https://tc.example.com"


def a_claim_answer(
    clock: FakeClock | None = None, task_id: str = TASK_ID, claim_seconds: float = 1200, **task: Json
) -> dict[str, Json]:
    """Build one of claimWork's `tasks`, as a fresh document; `task` replaces keys of its definition."""
    now = clock.now() if clock else EPOCH
    pool = IDENTITY.pool
    until = now + timedelta(seconds=claim_seconds)
    definition: dict[str, Json] = {
        "provisionerId": pool.provisioner_id,
        "workerType": pool.worker_type,
        "taskQueueId": str(pool),
        "schedulerId": "test-scheduler",
        "projectId": "test-project",
        "taskGroupId": TASK_ID,
        "dependencies": [],
        "requires": "all-completed",
        "routes": [],
        "priority": "lowest",
        "retries": 5,
        "created": now.isoformat(),
        "deadline": (now + timedelta(hours=2)).isoformat(),
        "expires": (now + timedelta(days=3)).isoformat(),
        "scopes": [],
        "payload": {},
        "metadata": {"name": "a task", "description": "", "owner": "a@example.com", "source": "https://example.com"},
        "tags": {},
        "extra": {},
    }
    return {
        "status": {"taskId": task_id, "runs": [{"runId": 0, "state": "running", "started": now.isoformat()}]},
        "runId": 0,
        "workerGroup": IDENTITY.worker_group,
        "workerId": IDENTITY.worker_id,
        "takenUntil": until.isoformat(),
        "task": {**definition, **task},
        "credentials": {"clientId": f"task-client/{task_id}/0", "accessToken": "a-secret", "certificate": "{}"},
    }


def a_claim(clock: FakeClock | None = None, task_id: str = TASK_ID, claim_seconds: float = 1200, **task: Json) -> Claim:
    """Build a claim; `task` replaces keys of the definition."""
    return parse_claim(a_claim_answer(clock, task_id, claim_seconds, **task), IDENTITY)


def a_script(**changes: Any) -> ScriptRule:
    """Build a rule that admits every task."""
    fields: dict[str, Any] = {
        "name": ScriptName("build"),
        "description": "",
        "when": Always(),
        "command": (Template("/opt/scripts/build"),),
        "pinned": (PinnedFile("/opt/scripts/build", SHA256),),
        "payload_schema": CompiledSchema({"type": "object"}),
        "requires_scopes": (),
        "environment": (),
        "config": None,
        "limits": Limits(timedelta(hours=1), 2**28, 64, 1.0, 2**30, 10_000, 2**20, 256),
        "mounts": (),
        "outputs": OutputRules(("public/**",), 2**30, 2**30, 100),
        "exit_codes": ExitCodes(),
        "repeatable": True,
        "grace": timedelta(seconds=10),
    }
    return ScriptRule(**{**fields, **changes})


def a_policy(*scripts: ScriptRule) -> Policy:
    """Build a policy for `IDENTITY`'s pool."""
    constraints = TaskConstraints(("test-scheduler",), ("test-project",), ("*",), (), timedelta(hours=2))
    return Policy(SHA256, ROOT_URL, IDENTITY.pool, constraints, scripts or (a_script(),))


def an_artifact(name: str, content: bytes = b"") -> Artifact:
    """Build an artifact that lies nowhere."""
    digest = Sha256(hashlib.sha256(content).hexdigest())
    expires = EPOCH + timedelta(days=1)
    return Artifact(ArtifactName(name), len(content), digest, "/nonexistent/sealed", "text/plain", expires)


def an_execution(status: ExitStatus, started: datetime = EPOCH, finished: datetime = EPOCH) -> Execution:
    """Build the record of a script that ended."""
    return Execution(status, started, finished, Usage(), "fake 1.0", SHA256, SHA256)
