"""May this task run here, and as what? The one function that says so, and nothing that it does is hidden in it.

`decide` reads a claim and the policy, and nothing else: the same two always give the same answer, and it can be asked
without anything being run. A task is refused with all reasons at once, each with the key of the policy that refuses.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, assert_never

from secureworker.core.claim import Claim, Json, TaskDefinition
from secureworker.core.ids import WorkerIdentity
from secureworker.core.outcome import Reason, Refused
from secureworker.core.payload import Malformed, examine
from secureworker.core.plan import ARTIFACT_DIR, WORK_DIR, Plan
from secureworker.core.policy import Always, Policy, ScopeEquals, ScriptRule, TaskConstraints
from secureworker.core.schemas import show, too_much
from secureworker.core.scopes import overlaps, satisfies, unsatisfied

_LISTED: Final = 5
"""Names listed in a sentence; the rest is counted."""
_ROLES: Final = "assume:*"


@dataclass(frozen=True, slots=True)
class Admitted:
    """The task may run, and this is how."""

    plan: Plan


def decide(claim: Claim, policy: Policy, identity: WorkerIdentity, now: datetime) -> Admitted | Refused:
    """Decide whether a claimed task may run.

    1. The claim is on a task of the policy's pool, held by this very worker, and not over.
    2. The definition is no deeper and no larger than anything here looks at.
    3. Scheduler and project are among the policy's.
    4. Every scope of the task is allowed, and none is forbidden.
    5. Exactly one script is chosen.
    6. The payload is what that script's schema asks for.
    7. The task has the scopes that the script requires.
    8. It asks for no more time than the script has.

    Args:
        claim: what the Queue gave us.
        policy: what this worker may do.
        identity: who this worker is.
        now: the time, aware.

    Returns:
        the plan, or every reason against it that could be found.
    """
    task = claim.task
    reasons = [*_against_claim(claim, policy, identity, now)]
    excess = too_much(dict(task.verbatim)) or too_much(dict(task.payload))
    if excess:
        # 2. Nothing below is shown such a document, so these reasons are all there will be.
        return Refused((*reasons, Reason("", f"the task definition cannot be looked at: {excess}")))
    reasons += _against_constraints(task, policy.tasks)
    reasons += _against_scopes(task.scopes, policy.tasks)
    chosen = _choose(task.scopes, policy)
    if isinstance(chosen, Reason):
        return Refused((*reasons, chosen))
    run_time = _examine(task, chosen, reasons)
    if reasons:
        return Refused(tuple(reasons))
    return Admitted(_plan(claim, policy, chosen, run_time))


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
    if claim.taken_until <= now:
        yield Reason("", f"the claim ended at {claim.taken_until.isoformat()}, and it is {now.isoformat()} now")


def _among(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(map(show, names[:_LISTED])) + more


def _against_constraints(task: TaskDefinition, constraints: TaskConstraints) -> Iterator[Reason]:
    """Step 3. Compared exactly."""
    if task.scheduler_id not in constraints.scheduler_ids:
        allowed = _among(constraints.scheduler_ids)
        yield Reason(
            "tasks.scheduler-ids",
            f"the task's schedulerId is {show(task.scheduler_id)}, and only {allowed} may schedule tasks here",
        )
    if task.project_id not in constraints.project_ids:
        allowed = _among(constraints.project_ids)
        yield Reason(
            "tasks.project-ids",
            f"the task's projectId is {show(task.project_id)}, and only {allowed} may run tasks here",
        )


def _against_scopes(scopes: tuple[str, ...], constraints: TaskConstraints) -> Iterator[Reason]:
    """Step 4. What is forbidden wins, also over a pattern that only reaches into it."""
    for scope in dict.fromkeys(scopes):
        if overlaps(_ROLES, scope):
            yield Reason(
                "tasks.scopes.allow",
                f"the task's scope {show(scope)} stands for roles, which this worker does not expand; "
                "give the task the scopes themselves",
            )
        elif not satisfies(constraints.scopes_allow, scope):
            yield Reason(
                "tasks.scopes.allow",
                f"the task has the scope {show(scope)}, which nothing here allows; remove it from the task",
            )
        for pattern in constraints.scopes_forbid:
            if overlaps(pattern, scope):
                yield Reason(
                    "tasks.scopes.forbid",
                    f"the task has the scope {show(scope)}, and {show(pattern)} is forbidden; remove it from the task",
                )


def _choose(scopes: tuple[str, ...], policy: Policy) -> ScriptRule | Reason:
    """Step 5. Exactly one of the task's scopes names an action, whatever prefixes there are."""
    by_scope: dict[str, ScriptRule] = {}
    prefixes: dict[str, None] = {}
    for rule in policy.scripts:
        match rule.when:
            case Always():
                return rule
            case ScopeEquals(prefix, equals):
                by_scope[prefix + equals] = rule
                prefixes[prefix] = None
            case _:
                assert_never(rule.when)
    # A pattern that reaches into a prefix from above names every action below it: it counts as one of them.
    naming = tuple(
        scope for scope in dict.fromkeys(scopes) if any(overlaps(f"{prefix}*", scope) for prefix in prefixes)
    )
    known = f"the scripts here are chosen by {_among(tuple(by_scope))}"
    if not naming:
        return Reason("scripts", f"none of the task's {len(scopes)} scopes names an action; {known}")
    if len(naming) > 1:
        return Reason(
            "scripts", f"{len(naming)} of the task's scopes name an action ({_among(naming)}), not one; {known}"
        )
    if naming[0] not in by_scope:
        return Reason("scripts", f"the task's scope {show(naming[0])} names no action of this policy; {known}")
    return by_scope[naming[0]]


def _examine(task: TaskDefinition, rule: ScriptRule, reasons: list[Reason]) -> timedelta:
    """Steps 6 to 8. Adds to `reasons`; gives the time that the script will have."""
    at = f"scripts.{rule.name}"
    reasons.extend(
        Reason(
            f"{at}.requires-scopes",
            f"script {show(rule.name)} needs the scope {show(scope)}, and none of the task's {len(task.scopes)} "
            "scopes satisfies it; add the scope to the task",
        )
        for scope in unsatisfied(task.scopes, rule.requires_scopes)
    )
    request = examine(task.payload, rule.payload_schema)
    if isinstance(request, Malformed):
        reasons.extend(Reason(f"{at}.payload", problem) for problem in request.problems)
        return rule.limits.run_time
    longest = rule.limits.run_time
    if request.run_time is not None and request.run_time > longest:
        reasons.append(
            Reason(
                f"{at}.limits.run-time",
                f"payload.maxRunTime is {_seconds(request.run_time)}, and the script may run for "
                f"{_seconds(longest)}; ask for less",
            )
        )
    return min(request.run_time or longest, longest)


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.0f} s"


def _config(rule: ScriptRule) -> dict[str, Json] | None:
    if rule.config is None:
        return None
    return {"verbose": False, **rule.config, "work_dir": WORK_DIR, "artifact_dir": ARTIFACT_DIR}


def _plan(claim: Claim, policy: Policy, rule: ScriptRule, run_time: timedelta) -> Plan:
    return Plan(
        task_id=claim.task_id,
        run_id=claim.run_id,
        task_group_id=claim.task.task_group_id,
        root_url=policy.root_url,
        script=rule.name,
        argv=rule.command,
        pinned=rule.pinned,
        environment=rule.environment,
        config=_config(rule),
        task=claim.task.verbatim,
        mounts=rule.mounts,
        limits=replace(rule.limits, run_time=run_time),
        outputs=rule.outputs,
        exit_codes=rule.exit_codes,
        repeatable=rule.repeatable,
        grace=rule.grace,
    )
