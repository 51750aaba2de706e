"""May this task run here, and as what? The one function that says so, and nothing that it does is hidden in it.

`decide` reads a claim and the policy, and nothing else: the same two always give the same answer, and it can be asked
without anything being run. A task is refused with all reasons at once, each with the key of the policy that refuses.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from secureworker.core.choose import choose
from secureworker.core.claim import Claim, TaskDefinition
from secureworker.core.constraints import against_denials, against_origin, against_scopes
from secureworker.core.derive import Derived, derive
from secureworker.core.doors import Doors, granted_scopes
from secureworker.core.ids import TaskId, WorkerIdentity
from secureworker.core.inputs import InputPlan, Wanted
from secureworker.core.outcome import Reason, Refused
from secureworker.core.payload import Malformed, Request, examine
from secureworker.core.plan import Plan
from secureworker.core.policy import Policy, ScriptRule
from secureworker.core.schemas import show, too_much
from secureworker.core.scopes import unsatisfied
from secureworker.core.secrets import SecretFile, TaskclusterSecret


@dataclass(frozen=True, slots=True)
class Admitted:
    """The task may run, and this is how."""

    plan: Plan


def decide(claim: Claim, policy: Policy, identity: WorkerIdentity, now: datetime) -> Admitted | Refused:
    """Decide whether a claimed task may run.

    1. The claim is on a task of the policy's pool, held by this very worker, and not over.
    2. The definition is no deeper and no larger than anything here looks at.
    3. Scheduler, project, source and definition are as the policy says.
    4. Every scope of the task is allowed, none is forbidden, and no rule denies the task.
    5. Exactly one script is chosen.
    6. The payload is what that script's schema asks for.
    7. What the rule derives from the payload can be derived: arguments, scopes, config.
    8. The task has the scopes that the script requires, and those of the Taskcluster secrets that it is given.
    9. It asks for no more time than the script has.
    10. It wants inputs only where the script takes them, and only of tasks that it depends on.

    What is wanted is then held against facts that cost requests: `core.chain`, for admitted tasks only.

    Args:
        claim: what the Queue gave us.
        policy: what this worker may do.
        identity: who this worker is.
        now: the time, aware.

    Returns:
        the plan, or every reason against it that could be found.
    """
    task = claim.task
    # 1.
    reasons = [*_against_claim(claim, policy, identity, now)]
    # 2. Nothing below is shown a document that is too much, so these reasons are all there will be.
    excess = too_much(dict(task.verbatim)) or too_much(dict(task.payload))
    if excess:
        return Refused((*reasons, Reason("", f"the task definition cannot be looked at: {excess}")))
    # 3.
    reasons += against_origin(task, policy.tasks)
    # 4.
    reasons += against_scopes(task.scopes, policy.tasks)
    reasons += against_denials(task, policy.tasks)
    # 5. Without a script there is nothing that the rest could be held against.
    rule = choose(task, policy)
    if isinstance(rule, Reason):
        return Refused((*reasons, rule))
    # 6.
    request = examine(task.payload, rule.payload_schema)
    if isinstance(request, Malformed):
        reasons += [Reason(f"scripts.{rule.name}.payload", problem) for problem in request.problems]
    # 7. From a malformed payload nothing is derived; what does not depend on it is still looked at.
    derived, failures = derive(rule, task.payload, fixed_only=isinstance(request, Malformed))
    reasons += failures
    # 8.
    reasons += _against_required(task.scopes, rule, derived.requires_scopes)
    reasons += _against_secrets(task.scopes, rule)
    if isinstance(request, Malformed):
        return Refused(tuple(reasons))
    # 9.
    reasons += _against_run_time(rule, request)
    # 10.
    reasons += _against_wanted(claim.task, rule, request.wanted)
    if reasons:
        return Refused(tuple(reasons))
    return Admitted(_plan(claim, policy, rule, derived, request))


def _against_claim(claim: Claim, policy: Policy, identity: WorkerIdentity, now: datetime) -> Iterator[Reason]:
    """Step 1. The Queue is not asked to be right: what it hands out is compared with what was asked for."""
    for pool in {claim.task.pool, claim.worker.pool, identity.pool} - {policy.worker_pool}:
        yield Reason(
            "worker-pool", f"the claim is for the pool {pool}, and this worker serves {policy.worker_pool} only"
        )
    if (claim.worker.worker_group, claim.worker.worker_id) != (identity.worker_group, identity.worker_id):
        holder, me = claim.worker, identity
        yield Reason(
            "",
            f"the run is held by the worker {holder.worker_group}/{holder.worker_id}, "
            f"and this one is {me.worker_group}/{me.worker_id}",
        )
    if not _is_group(claim.task.task_group_id):
        # It becomes a variable of the script's: what is no id would stop the runtime, and with it the worker.
        yield Reason("", f"the task's taskGroupId is {show(claim.task.task_group_id)}, which is no id")
    if claim.taken_until <= now:
        yield Reason("", f"the claim ended at {claim.taken_until.isoformat()}, and it is {now.isoformat()} now")


def _is_group(text: str) -> bool:
    try:
        TaskId(text)
    except ValueError:
        return not text
    return True


def _against_required(scopes: tuple[str, ...], rule: ScriptRule, required: tuple[str, ...]) -> Iterator[Reason]:
    """Step 8."""
    for scope in unsatisfied(scopes, dict.fromkeys(required)):
        yield Reason(
            f"scripts.{rule.name}.requires-scopes",
            f"script {show(rule.name)} needs the scope {show(scope)}, and none of the task's scopes "
            f"({len(scopes)}) satisfies it; add the scope to the task",
        )


def _against_secrets(scopes: tuple[str, ...], rule: ScriptRule) -> Iterator[Reason]:
    """Step 8. They are fetched with the run's credentials: what the task may not read, its script is not given."""
    for secret in rule.secrets:
        place = secret.place
        if isinstance(place, TaskclusterSecret) and unsatisfied(scopes, (place.scope,)):
            yield Reason(
                f"scripts.{rule.name}.secrets.{secret.file}",
                f"script {show(rule.name)} is given a secret that takes the scope {show(place.scope)}, and none of the "
                f"task's scopes ({len(scopes)}) satisfies it; add the scope to the task",
            )


def _against_run_time(rule: ScriptRule, request: Request) -> Iterator[Reason]:
    """Step 9. Never shortened: a script with less time than its task asked for would fail late, and badly."""
    longest = rule.limits.run_time
    if request.run_time is not None and request.run_time > longest:
        yield Reason(
            f"scripts.{rule.name}.limits.run-time",
            f"payload.maxRunTime is {_seconds(request.run_time)}, and the script may run for "
            f"{_seconds(longest)}; ask for less",
        )


def _against_wanted(task: TaskDefinition, rule: ScriptRule, wanted: tuple[Wanted, ...]) -> Iterator[Reason]:
    """Step 10. Of a task that is no dependency, the Queue may not have the outputs yet, or not all of them."""
    at = f"scripts.{rule.name}.upstream"
    if rule.upstream is None:
        if wanted:
            yield Reason(at, f"script {show(rule.name)} takes no inputs; remove payload.upstreamArtifacts")
        return
    if rule.upstream.required and not wanted:
        yield Reason(f"{at}.required", f"script {show(rule.name)} takes inputs; name them in payload.upstreamArtifacts")
    for task_id in dict.fromkeys(each.task_id for each in wanted):
        if task_id not in task.dependencies:
            yield Reason(at, f"payload.upstreamArtifacts: {task_id} is none of the task's dependencies; add it to them")


def _inputs(rule: ScriptRule, wanted: tuple[Wanted, ...]) -> InputPlan:
    upstream = rule.upstream
    if upstream is None:
        return InputPlan()
    return InputPlan(
        wanted, upstream.required, upstream.worker_pools, upstream.max_size, upstream.forbid_features, upstream.trace
    )


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.0f} s"


def _plan(claim: Claim, policy: Policy, rule: ScriptRule, derived: Derived, request: Request) -> Plan:
    return Plan(
        task_id=claim.task_id,
        run_id=claim.run_id,
        task_group_id=claim.task.task_group_id,
        root_url=policy.root_url,
        script=rule.name,
        argv=derived.argv,
        pinned=rule.pinned,
        environment=rule.environment,
        config=derived.config,
        task=claim.task.verbatim,
        mounts=rule.mounts,
        limits=replace(rule.limits, run_time=request.run_time or rule.limits.run_time),
        outputs=rule.outputs,
        exit_codes=rule.exit_codes,
        repeatable=rule.repeatable,
        exclusive=rule.exclusive,
        live_log=rule.live_log,
        grace=rule.grace,
        doors=Doors(
            routes=rule.taskcluster.routes,
            scopes=granted_scopes(rule.taskcluster.scopes, claim.task.scopes),
            destinations=rule.network,
        ),
        secrets=tuple(SecretFile(secret.file, secret.place) for secret in rule.secrets),
        inputs=_inputs(rule, request.wanted),
        unlimited=rule.unlimited,
    )
