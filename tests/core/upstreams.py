"""Other tasks, as the Queue and their workers tell of them: defaults that are verified, to be spoiled one at a time."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from secureworker.core.chain import Judgement, Statements, Upstream, UpstreamRun, judge_inputs
from secureworker.core.claim import Json
from secureworker.core.ids import RunId, ScriptName, Sha256, TaskId, WorkerPool
from secureworker.core.inputs import InputPlan, Wanted
from secureworker.core.trust import Implementation, Trust, TrustKey, TrustPool
from secureworker.testing import FAKE_CHECKS, ROOT_URL, a_claim_answer, fake_signature

NOW = datetime(2026, 1, 31, 13, 0, tzinfo=UTC)
BUILD = TaskId("TyRoGA_OS3W2QMCEuF1icw")
POOL = WorkerPool("release-3", "b-linux")
OTHER_POOL = WorkerPool("release-3", "b-mac")
KEY, OTHER_KEY, STRANGER = bytes(range(32)), bytes(range(1, 33)), bytes(range(2, 34))
DIGEST = Sha256("ab" * 32)
NAMES = ("public/build/a.zip", "public/build/a.zip.asc", "public/build/b.zip")
TRUST = Trust(
    (
        TrustPool(POOL, Implementation.GENERIC_WORKER, (TrustKey(KEY),)),
        TrustPool(OTHER_POOL, Implementation.GENERIC_WORKER, (TrustKey(OTHER_KEY),)),
    ),
    ROOT_URL,
)
PLAN = InputPlan(
    (Wanted(BUILD, ("public/build/a.zip",)),),
    required=True,
    worker_pools=("release-3/b-*",),
    max_size=2**20,
    forbid_features=("interactive", "rdpInfo"),
)


def trusted_pools(pool: WorkerPool = POOL, key: bytes = KEY) -> tuple[TrustPool, ...]:
    """Give the same as a policy has it."""
    return (TrustPool(pool, Implementation.GENERIC_WORKER, (TrustKey(key),)),)


def a_definition(pool: WorkerPool = POOL, **changes: Json) -> dict[str, Json]:
    """Make a task's definition."""
    definition = a_claim_answer()["task"]
    assert isinstance(definition, dict)
    return {
        **definition,
        "provisionerId": pool.provisioner_id,
        "workerType": pool.worker_type,
        "taskQueueId": str(pool),
        "payload": {"features": {"chainOfTrust": True, "interactive": False}},
        **changes,
    }


@dataclass
class Build:
    """A task that made something, its statement, and what the Queue says of both."""

    definition: dict[str, Json] = field(default_factory=a_definition)
    key: bytes = KEY
    body: dict[str, Any] = field(default_factory=dict)
    """Replaces keys of the statement."""
    state: str = "completed"
    run_state: str = "completed"
    signed: bytes = b""
    """Replaces the statement."""
    signature: bytes = b""
    bundle: bytes | None = None
    missing: str = ""

    def written(self) -> bytes:
        """Give the statement."""
        body = {
            "artifacts": {name: {"sha256": DIGEST} for name in NAMES},
            "chainOfTrustVersion": 1,
            "environment": {"privateIpAddress": "10.0.0.1"},
            "runId": 1,
            "task": self.definition,
            "taskId": BUILD,
            "workerGroup": "us-east-1",
            "workerId": "i-0123",
            "workerType": POOL.worker_type,
        }
        return self.signed or json.dumps({**body, **self.body}).encode()

    def facts(self) -> Upstream:
        """Give what would be gathered."""
        signed = self.written()
        statements = Statements(
            signed, self.signature or fake_signature(self.key, signed), self.bundle, missing=self.missing
        )
        run = UpstreamRun(RunId(1), self.run_state, "us-east-1", "i-0123")
        return Upstream(BUILD, self.definition, self.state, run, statements)


def judged(build: Build | Upstream, plan: InputPlan = PLAN, trust: Trust = TRUST, now: datetime = NOW) -> Judgement:
    """Judge the inputs of one task."""
    facts = build.facts() if isinstance(build, Build) else build
    return judge_inputs(plan, ScriptName("sign"), (facts,), trust, now, FAKE_CHECKS)


def failed(judgement: Judgement) -> tuple[str, str]:
    """Give the step that did not pass, and why; it is why the task is refused, and the only reason."""
    (report,) = judgement.reports
    assert not report.verified
    assert all(step.passed for step in report.steps[:-1])
    last = report.steps[-1]
    why = "; ".join(last.details)
    (reason,) = judgement.reasons
    assert str(reason).startswith(f"scripts.sign.upstream: the task {BUILD}: {last.name}: {why}")
    assert judgement.inputs == ()
    return last.name, why


DAY = timedelta(days=1)
