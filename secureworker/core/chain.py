"""Whether other tasks' artifacts may be inputs of a script: numbered steps over facts that were gathered before.

Nothing here fetches anything. What the Queue says is compared with what the upstream worker signed, and what was
signed with what the policy trusts; a step believes nothing that a later one has yet to prove. That the bytes which are
fetched then have the signed digests is for who fetches them.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from secureworker.core.claim import Json, TaskDefinition, parse_definition
from secureworker.core.ids import ArtifactName, RunId, ScriptName, Sha256, TaskId, WorkerIdentity
from secureworker.core.inputs import MAX_PATHS, Input, InputPlan, Received, Wanted, fits, why_no_file
from secureworker.core.outcome import Reason
from secureworker.core.provenance import PROVENANCE
from secureworker.core.schemas import show
from secureworker.core.scopes import satisfies
from secureworker.core.statement import CHAIN_OF_TRUST, CHAIN_OF_TRUST_SIGNATURE
from secureworker.core.trust import Trust, fingerprint
from secureworker.core.verification import (
    Checks,
    Expected,
    NotVerified,
    StatementSteps,
    Step,
    Steps,
    take,
)

REPORT: Final = ArtifactName("public/verification.json")
MAX_STATEMENT_BYTES: Final = 16 * 1024 * 1024
"""Of a chain of trust that is an input's: 10,000 artifacts with long names and a task of 10 MB are below it."""


@dataclass(frozen=True, slots=True)
class UpstreamRun:
    """A run, as the Queue has it."""

    run_id: RunId
    state: str
    worker_group: str
    worker_id: str


@dataclass(frozen=True, slots=True)
class Statements:
    """What a run published about itself, as bytes."""

    signed: bytes = b""
    """public/chain-of-trust.json."""
    signature: bytes = b""
    bundle: bytes | None = None
    """public/provenance.sigstore.json; None: there is none."""
    missing: str = ""
    """Why there is no chain of trust or no signature to look at; empty where there are both."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """The facts about one task."""

    task_id: TaskId
    definition: Mapping[str, Json] | None
    """As the Queue has it; None: the Queue has no such task."""
    state: str = ""
    """Of the task."""
    last: UpstreamRun | None = None
    """Its last run, whose statements these are; None: it has none."""
    statements: Statements = field(default_factory=Statements)


@dataclass(frozen=True, slots=True)
class Report:
    """How the verification of one task went."""

    task_id: TaskId
    run_id: RunId | None
    steps: tuple[Step, ...]
    """Up to the first that did not pass."""
    key: str = ""
    """Fingerprint of the key whose signature is good, whether it counts or not."""
    statements: tuple[tuple[ArtifactName, Sha256], ...] = ()
    """What vouches for it, with the digests of the very bytes that were verified; empty where a step did not pass."""

    @property
    def verified(self) -> bool:
        """Whether every step was taken, and passed."""
        return len(self.steps) == len(STEPS) and all(step.passed for step in self.steps)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What may be fetched, or why the script may not run."""

    inputs: tuple[Input, ...]
    reports: tuple[Report, ...]
    absent: tuple[str, ...]
    """Optional inputs that there are not, a sentence each."""
    reasons: tuple[Reason, ...]
    """Any: the task is refused."""
    traced: tuple[Json, ...] = ()
    """How they were followed to the tree, for the report."""
    vouched: tuple[tuple[TaskId, RunId, ArtifactName, Sha256], ...] = ()
    """The statements of tasks that inputs come from."""


@dataclass
class UpstreamSteps(StatementSteps):
    """The steps for one task, those of its statements between those of what the Queue says of it."""

    upstream: Upstream = field(kw_only=True)
    plan: InputPlan = field(kw_only=True)

    def check_task(self) -> str:
        """The Queue has the task, and its definition has its form."""
        task = self._task()
        return f"{task.name!a} of {task.pool}"

    def check_run(self) -> str:
        """The task is completed by its last run, whose statements these are."""
        last, state = self.upstream.last, self.upstream.state
        if last is None:
            raise NotVerified(f"it has no run; it is {state}")
        if (state, last.state) != ("completed", "completed"):
            raise NotVerified(f"it is {state}, and its run {int(last.run_id)} is {last.state}; only completed will do")
        return f"run {int(last.run_id)} is its last, and completed"

    def check_pool(self) -> str:
        """The script's rule takes inputs of the task's pool."""
        pool = str(self._task().pool)
        if not satisfies(self.plan.worker_pools, pool):
            raise NotVerified(f"it ran in {pool}, and the script takes inputs of {', '.join(self.plan.worker_pools)}")
        return f"inputs of {pool} may be taken"

    def check_features(self) -> str:
        """The task used none of the features that the rule forbids."""
        payload = self._task().payload
        used = [feature for feature in self.plan.forbid_features if uses(payload, feature)]
        if used:
            raise NotVerified(f"it used {', '.join(used)}, which the script's inputs must not have")
        return "it used nothing that is forbidden"

    def check_statements(self) -> str:
        """It published a chain of trust and a signature of it, of a credible size."""
        statements = self.upstream.statements
        if statements.missing:
            raise NotVerified(statements.missing)
        self.signed, self.signature = statements.signed, statements.signature
        self.has_bundle, self.bundle = statements.bundle is not None, statements.bundle or b""
        return f"{CHAIN_OF_TRUST} has {len(self.signed)} bytes"

    def _task(self) -> TaskDefinition:
        if self.upstream.definition is None:
            raise NotVerified("the Queue has no such task")
        try:
            return parse_definition(self.upstream.definition)
        except ValueError as error:
            raise NotVerified(f"its definition cannot be read: {error}") from error


STEPS: Final[Steps[UpstreamSteps]] = (
    ("task", UpstreamSteps.check_task),
    ("run", UpstreamSteps.check_run),
    ("pool", UpstreamSteps.check_pool),
    ("features", UpstreamSteps.check_features),
    ("statements", UpstreamSteps.check_statements),
    ("signature", UpstreamSteps.check_signature),
    ("form", UpstreamSteps.read_chain),
    ("subject", UpstreamSteps.check_subject),
    ("provenance", UpstreamSteps.check_envelope),
    ("statement", UpstreamSteps.read_statement),
    ("agreement", UpstreamSteps.check_agreement),
    ("key", UpstreamSteps.check_key),
)
_STATEMENTS: Final = frozenset({CHAIN_OF_TRUST, CHAIN_OF_TRUST_SIGNATURE, PROVENANCE})
_ALWAYS_REFUSED: Final = frozenset({"pool", "features"})
"""What the policy forbids, it forbids for optional inputs too: their author can do something about it."""


def judge_inputs(
    plan: InputPlan, script: ScriptName, facts: tuple[Upstream, ...], trust: Trust, now: datetime, checks: Checks
) -> Judgement:
    """Say which inputs a script may be given.

    1. Every task that is wanted passes the steps of `UpstreamSteps`.
    2. Every path is in its task's signed list; `*` is expanded against that list, and against nothing else.
    3. The names can be files side by side.
    4. There is an input, where the rule requires one.

    An optional input that does not get through 1 or 2 is left out, unless the policy forbids it; any other refuses the
    task.

    Args:
        plan: what is wanted, and what the policy allows of it.
        script: for the names of rules.
        facts: what was gathered, for each task of the plan.
        trust: whose signatures count.
        now: the time, aware.
        checks: what the steps cannot do by themselves.
    """
    found: dict[tuple[TaskId, str], Input] = {}
    absent: list[str] = []
    reasons: list[Reason] = []
    rule = f"scripts.{script}.upstream"
    # 1.
    known = {upstream.task_id: upstream for upstream in facts}
    taken = {
        task_id: _verify(known.get(task_id, Upstream(task_id, None)), plan, trust, now, checks)
        for task_id in plan.tasks()
    }
    for wanted in plan.wanted:
        steps, report = taken[wanted.task_id]
        if not report.verified:
            failed = report.steps[-1]
            why = f"the task {wanted.task_id}: {failed.name}: {'; '.join(failed.details)}"
            if wanted.optional and failed.name not in _ALWAYS_REFUSED:
                absent.append(why)
            else:
                reasons.append(Reason(rule, f"{why}; its artifacts are no inputs"))
            continue
        # 2.
        inputs, missing = _select(wanted, steps)
        for each in inputs:
            earlier = found.get((each.task_id, each.name))
            if earlier is None or earlier.optional:
                found[each.task_id, each.name] = each
        for path in missing:
            why = f"the task {wanted.task_id} signed no artifact {show(path)}"
            if wanted.optional:
                absent.append(why)
            else:
                reasons.append(Reason(rule, f"{why}; correct the path, or the task that should have made it"))
    # 3.
    chosen = tuple(found[key] for key in sorted(found))
    reasons += [Reason(rule, why) for why in _clashes(chosen)]
    # 4.
    if plan.required and not chosen and not reasons:
        reasons.append(Reason(f"{rule}.required", "the script takes inputs, and there is none; correct the paths"))
    reports = tuple(report for _, report in taken.values())
    return Judgement(chosen, reports, tuple(dict.fromkeys(absent)), tuple(dict.fromkeys(reasons)))


def write_report(judgement: Judgement, received: Received, traced: list[Json] | None = None) -> bytes:
    """Write what was verified, and how, as JSON for whoever wants more than the digests in the provenance.

    It proves nothing by itself, and is not signed: each step names what it compared, so that anybody can do it again.
    """
    absent = {(each.task_id, each.name): why for each, why in received.absent}
    tasks: list[Json] = [
        {
            "taskId": report.task_id,
            "runId": None if report.run_id is None else int(report.run_id),
            "verified": report.verified,
            "key": report.key or None,
            "steps": [
                {"number": step.number, "name": step.name, "passed": step.passed, "details": list(step.details)}
                for step in report.steps
            ],
            "artifacts": {
                each.name: {"sha256": each.sha256, "absent": absent.get((each.task_id, each.name))}
                for each in judgement.inputs
                if each.task_id == report.task_id
            },
        }
        for report in judgement.reports
    ]
    report: dict[str, Json] = {"version": 1, "inputs": tasks, "absent": list(judgement.absent)}
    if traced:
        report["trace"] = traced
    return json.dumps(report, indent=2).encode("ascii")


def _verify(
    upstream: Upstream, plan: InputPlan, trust: Trust, now: datetime, checks: Checks
) -> tuple[UpstreamSteps, Report]:
    """Take the steps for one task. What is expected of its statements is what the Queue says."""
    steps = UpstreamSteps(trust, expected(upstream, trust), now, checks, upstream=upstream, plan=plan)
    taken = tuple(take(steps, STEPS))
    run_id = upstream.last.run_id if upstream.last else None
    key = fingerprint(steps.signer) if steps.signer else ""
    return steps, Report(upstream.task_id, run_id, taken, key, statements_of(upstream, taken))


def statements_of(upstream: Upstream, taken: tuple[Step, ...]) -> tuple[tuple[ArtifactName, Sha256], ...]:
    """Give the statements of a task that passed all steps, with their digests."""
    if not all(step.passed for step in taken):
        return ()
    published = ((CHAIN_OF_TRUST, upstream.statements.signed), (PROVENANCE, upstream.statements.bundle))
    return tuple(
        (name, Sha256(hashlib.sha256(content).hexdigest())) for name, content in published if content is not None
    )


def expected(upstream: Upstream, trust: Trust) -> Expected:
    """Give what the statements must be about; a fact that is missing fails a step before this is looked at."""
    last = upstream.last
    if last is None or upstream.definition is None:
        return Expected(upstream.task_id)
    try:
        pool = parse_definition(upstream.definition).pool
        worker = WorkerIdentity(pool, last.worker_group, last.worker_id)
    except ValueError:
        return Expected(upstream.task_id, last.run_id, run_state="nobody's: its worker's name is none")
    return Expected(
        upstream.task_id,
        last.run_id,
        pool,
        trust.root_url,
        worker,
        definition=upstream.definition,
        run_state=last.state,
    )


def _select(wanted: Wanted, steps: UpstreamSteps) -> tuple[tuple[Input, ...], tuple[str, ...]]:
    """Find the artifacts that paths mean in a verified task's signed list, and the paths that mean none."""
    chain = steps.the_chain()
    found: list[Input] = []
    missing: list[str] = []
    for path in wanted.paths:
        names = [name for name in chain.artifacts if fits(path, name)] if "*" in path else [path]
        signed = [ArtifactName(name) for name in names if name in chain.artifacts]
        if not signed:
            missing.append(path)
        found += [
            Input(chain.task_id, chain.run_id, name, chain.artifacts[name], optional=wanted.optional) for name in signed
        ]
    return tuple(found), tuple(missing)


def _clashes(inputs: tuple[Input, ...]) -> Iterator[str]:
    """Step 3. Names at the Queue are no paths: `a` and `a/b` can be there both, and not on disk."""
    if len(inputs) > MAX_PATHS:
        yield f"{len(inputs)} artifacts are wanted; at most {MAX_PATHS} are fetched"
        return
    files = {(each.task_id, str(each.name)) for each in inputs}
    for each in inputs:
        why = why_no_file(each.name)
        if each.name in _STATEMENTS:
            # In what is signed for the run, its name stands for the statement that vouched for the inputs.
            why = "it is a statement about artifacts"
        if why:
            yield f"the artifact {show(each.name)} cannot be a file: {why}"
        parts = each.name.split("/")
        for count in range(1, len(parts)):
            if (each.task_id, "/".join(parts[:count])) in files:
                yield f"{show(each.name)} and {show('/'.join(parts[:count]))} cannot both be files"


def uses(payload: Mapping[str, Json], feature: str) -> bool:
    """Whether a task asked for a feature, where docker-worker or generic-worker look for it.

    Both have `payload.features`, an object of booleans; generic-worker's `rdpInfo` is a key of the payload itself;
    docker-worker's `privileged` is in `payload.capabilities`, and `loopbackVideo` in `devices` there. What is there in
    another form counts as asked for: this is no place to guess in.
    """
    capabilities = payload.get("capabilities", {})
    devices = capabilities.get("devices", {}) if isinstance(capabilities, dict) else None
    for place in (payload.get("features", {}), capabilities, devices, payload):
        if not isinstance(place, Mapping) or place.get(feature, False) not in (False, None):
            return True
    return False
