"""Claims and policies for tests of decisions: defaults that are admitted, to be spoiled one thing at a time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from secureworker.core.claim import Claim, Credentials, Json, Secret, TaskDefinition
from secureworker.core.decide import Admitted, decide
from secureworker.core.ids import RunId, ScriptName, Sha256, TaskId, WorkerIdentity, WorkerPool
from secureworker.core.outcome import ExitCodes, Refused
from secureworker.core.plan import Limits, OutputRules, PinnedFile, Plan
from secureworker.core.policy import Policy, ScopeEquals, ScriptRule, TaskConstraints
from secureworker.core.schemas import CompiledSchema
from secureworker.core.templates import Template

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
POOL = WorkerPool("releng", "signing")
ME = WorkerIdentity(POOL, "group", "worker-1")
PREFIX = "project:x:action:"
SCOPES = (f"{PREFIX}sign", "project:x:cert:nightly")


def a_task(**changes: Any) -> TaskDefinition:
    """Make a task that the default policy admits."""
    payload: dict[str, Json] = changes.pop("payload", {"format": "gpg"})
    task = TaskDefinition(
        pool=POOL,
        scheduler_id="release",
        project_id="x",
        task_group_id="fN1SbArXTPSVFNUvaOlinQ",
        dependencies=(),
        scopes=SCOPES,
        payload=payload,
        created=NOW,
        deadline=NOW + timedelta(hours=1),
        expires=NOW + timedelta(days=1),
        name="a task",
        source="https://example.com",
        verbatim={"payload": payload},
    )
    return replace(task, **changes)


def a_claim(*, worker: WorkerIdentity = ME, taken_until: datetime = NOW + timedelta(minutes=20), **task: Any) -> Claim:
    """Make a claim on a task that the default policy admits."""
    credentials = Credentials("task-client", Secret("token"))
    return Claim(TaskId("fN1SbArXTPSVFNUvaOlinQ"), RunId(0), worker, taken_until, credentials, a_task(**task))


def a_rule(**changes: Any) -> ScriptRule:
    """Make a rule for the script `sign`."""
    rule = ScriptRule(
        name=ScriptName("sign"),
        description="Signs.",
        when=ScopeEquals(PREFIX, "sign"),
        command=(Template("/opt/sign"),),
        pinned=(PinnedFile("/opt/sign", Sha256("0" * 64)),),
        payload_schema=CompiledSchema({"type": "object", "properties": {"format": {"enum": ["gpg"]}}}),
        requires_scopes=(),
        environment=(("LANG", "C"),),
        config=None,
        limits=Limits(timedelta(minutes=30), 2**30, 64, 1, 2**30, 1000, 2**20, 64),
        mounts=(),
        outputs=OutputRules(("public/**",), 2**20, 2**20, 10),
        exit_codes=ExitCodes(),
        repeatable=True,
        grace=timedelta(seconds=10),
    )
    return replace(rule, **changes)


def a_policy(*rules: ScriptRule, **constraints: Any) -> Policy:
    """Make a policy of the given rules; by default, of the script `sign`."""
    tasks = TaskConstraints(("release",), ("x", "y"), ("project:x:*",), (), timedelta(hours=1))
    return Policy(
        sha256=Sha256("a" * 64),
        root_url="https://tc.example.com",
        worker_pool=POOL,
        tasks=replace(tasks, **constraints),
        scripts=rules or (a_rule(),),
    )


def admitted(claim: Claim, policy: Policy | None = None) -> Plan:
    """Decide, and give the plan."""
    decision = decide(claim, policy or a_policy(), ME, NOW)
    assert isinstance(decision, Admitted), decision
    return decision.plan


def refused(claim: Claim, policy: Policy | None = None) -> list[str]:
    """Decide, and give the reasons against it as they are written."""
    decision = decide(claim, policy or a_policy(), ME, NOW)
    assert isinstance(decision, Refused)
    return [str(reason) for reason in decision.reasons]
