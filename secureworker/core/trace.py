"""Whether inputs come from the tree: numbered steps over facts that were gathered before.

An input's task is followed over its dependencies and its image to decision tasks, and each of those to the repository
that it was made by. Nothing here fetches anything.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from secureworker.core.chain import STEPS, Upstream, UpstreamSteps, expected, statements_of, uses
from secureworker.core.claim import Json, parse_definition
from secureworker.core.evidence import BadEvidence, strict_json
from secureworker.core.ids import ArtifactName, RunId, ScriptName, Sha256, TaskId
from secureworker.core.inputs import InputPlan
from secureworker.core.likeness import differences_of_entry, differences_of_rendering
from secureworker.core.origin import NoOrigin, Origin, TraceRule, allowed, read_origin
from secureworker.core.outcome import Reason
from secureworker.core.schemas import show
from secureworker.core.scopes import satisfies
from secureworker.core.trust import Trust
from secureworker.core.verification import Checks, NotVerified, Step, Steps, take

TASK_GRAPH: Final = ArtifactName("public/task-graph.json")
MAX_TRACED: Final = 100
"""Tasks that are followed for one run."""
INTERACTIVE: Final = ("interactive", "rdpInfo")
"""Features by which somebody can sit in a running task: what it made then is what that person made."""


@dataclass(frozen=True, slots=True)
class Tree:
    """What a repository has of a revision, by its mirror or its website."""

    missing: str = ""
    """Why it says nothing of it; empty where it does."""
    refs: tuple[str, ...] = ()
    """Branches that contain the revision, and tags that are the revision: all of a mirror, or those asked for."""
    rendered: Json = None
    """`.taskcluster.yml` of the revision, rendered."""
    unrendered: str = ""
    """Why it could not be rendered."""


@dataclass(frozen=True, slots=True)
class DecisionFacts:
    """What there is of a decision task beside its statement."""

    task_id: TaskId
    graph: bytes = b""
    """public/task-graph.json."""
    missing: str = ""
    """Why there is none."""
    tree: Tree = field(default_factory=Tree)


@dataclass(frozen=True, slots=True)
class Ancestry:
    """The facts about all tasks that inputs come from, as far as bounds let them be gathered."""

    tasks: tuple[Upstream, ...] = ()
    decisions: tuple[DecisionFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class TraceReport:
    """How following one task went."""

    task_id: TaskId
    run_id: RunId | None
    role: str
    """`decision` or `task`."""
    steps: tuple[Step, ...]
    verified: bool
    statements: tuple[tuple[ArtifactName, Sha256], ...] = ()
    """What vouches for it; empty where it is not verified."""


@dataclass(frozen=True, slots=True)
class Traced:
    """Whether inputs come from the tree."""

    reports: tuple[TraceReport, ...] = ()
    reasons: tuple[Reason, ...] = ()
    """Any: the task is refused."""


@dataclass
class _TracedSteps(UpstreamSteps):
    """The steps for every task that is followed."""

    followed: Mapping[TaskId, "_TracedSteps"] = field(kw_only=True)
    """Those that passed, decision tasks first."""
    facts_of_decision: DecisionFacts | None = field(default=None, kw_only=True)
    graph: Mapping[str, Json] = field(default_factory=dict, kw_only=True)

    def check_interactive(self) -> str:
        """Nobody could sit in it while it ran."""
        payload = self._task().payload
        used = [feature for feature in INTERACTIVE if uses(payload, feature)]
        environment = payload.get("env", {})
        if not isinstance(environment, dict) or "TASKCLUSTER_INTERACTIVE" in environment:
            used.append("TASKCLUSTER_INTERACTIVE")
        if used:
            raise NotVerified(f"it used {', '.join(used)}: somebody could change what it made")
        return "nobody could change what it did"

    def check_image(self) -> str:
        """An image that a task made is the one that this task's worker says it used."""
        image = self._task().payload.get("image")
        if not isinstance(image, dict):
            return "its image is no task's"
        if image.get("type") == "indexed-image":
            raise NotVerified("it used whatever image an index led to; name the image's task")
        if "taskId" not in image:
            return "its image is no task's"
        maker = self.followed.get(TaskId(str(image["taskId"]))) if _is_id(image["taskId"]) else None
        if maker is None:
            raise NotVerified(f"its image is of {show(image['taskId'])}, which was not verified")
        environment = strict_json(self.signed).get("environment")
        # docker-worker: `imageArtifactHash` is the artifact's digest where there was one; elsewhere it is `imageHash`.
        environment = environment if isinstance(environment, dict) else {}
        used = environment.get("imageArtifactHash", environment.get("imageHash"))
        made = {str(name): sha256 for name, sha256 in maker.the_chain().artifacts.items()}.get(str(image.get("path")))
        if made is None or used != f"sha256:{made}":
            raise NotVerified(
                f"its worker says it used the image {show(used)}, and {maker.upstream.task_id} made {made}"
            )
        return f"its image is {show(image.get('path'))} of {maker.upstream.task_id}"

    def check_entry(self) -> str:
        """Its definition equals its entry in its decision task's signed graph; see `differences_of_entry`."""
        task = self._task()
        decision = self.followed.get(TaskId(task.task_group_id)) if _is_id(task.task_group_id) else None
        if decision is None or decision.facts_of_decision is None:
            raise NotVerified(f"its group {task.task_group_id!a} is that of no decision task that was verified")
        parent = decision.upstream.task_id
        entry = decision.graph.get(self.upstream.task_id)
        if not isinstance(entry, dict) or not isinstance(entry.get("task"), dict):
            raise NotVerified(f"it is not in {TASK_GRAPH} of the decision task {parent}")
        wrong = differences_of_entry(task.verbatim, entry, parent, decision.definition_of().get("schedulerId"))
        if wrong:
            raise NotVerified(*(f"{each} is not as in the graph of the decision task {parent}" for each in wrong))
        return f"it is as the decision task {parent} made it"

    def read_graph(self) -> str:
        """The graph has the digest that the decision task's worker signed, and is JSON with no key twice."""
        facts = self._decision()
        if facts.missing:
            raise NotVerified(facts.missing)
        signed = self.the_chain().artifacts.get(TASK_GRAPH)
        found = hashlib.sha256(facts.graph).hexdigest()
        if signed != found:
            raise NotVerified(f"{TASK_GRAPH} has the sha256 {found}, and {signed} was signed")
        try:
            graph = strict_json(facts.graph)
        except BadEvidence as error:
            raise NotVerified(f"{TASK_GRAPH}: {error}") from error
        if not isinstance(graph, dict):
            raise NotVerified(f"{TASK_GRAPH} is no object")
        self.graph = graph
        return f"{len(graph)} tasks"

    def check_origin(self) -> str:
        """It names a repository and branch that the policy allows, and the repository has the revision there."""
        origin, facts = self._origin(), self._decision()
        if facts.tree.missing:
            raise NotVerified(facts.tree.missing)
        if origin.ref not in facts.tree.refs:
            raise NotVerified(f"the revision {origin.revision} is not on {origin.ref} where the repository is read")
        if not any(allowed(origin.repository, ref) for ref in facts.tree.refs):
            wanted = ", ".join(origin.repository.branches)
            raise NotVerified(f"the revision {origin.revision} is on no branch of {wanted}")
        return f"{origin.kind} of {origin.revision}, on {origin.ref} of {origin.repository.url}"

    def check_tree(self) -> str:
        """Its definition equals what `.taskcluster.yml` of that revision makes; see `differences_of_rendering`."""
        tree = self._decision().tree
        if tree.unrendered:
            raise NotVerified(f".taskcluster.yml: {tree.unrendered}")
        tasks = tree.rendered.get("tasks") if isinstance(tree.rendered, dict) else None
        if not isinstance(tasks, list) or len(tasks) != 1 or not isinstance(tasks[0], dict):
            found = len(tasks) if isinstance(tasks, list) else "no"
            raise NotVerified(f".taskcluster.yml makes {found} tasks of this event; one is expected")
        wrong = differences_of_rendering(self._task().verbatim, tasks[0], self.upstream.task_id)
        if wrong:
            raise NotVerified(*(f"{each} is not as .taskcluster.yml makes it" for each in wrong))
        return f"it is as .taskcluster.yml of {self._origin().revision} makes it"

    def definition_of(self) -> Mapping[str, Json]:
        """Give its definition."""
        return self._task().verbatim

    def _decision(self) -> DecisionFacts:
        return self.facts_of_decision or DecisionFacts(
            self.upstream.task_id, missing=f"{TASK_GRAPH}: was not asked for"
        )

    def _origin(self) -> Origin:
        assert self.plan.trace is not None
        try:
            return read_origin(self._task().verbatim, self.plan.trace)
        except NoOrigin as error:
            raise NotVerified(str(error)) from error


_OF_TASK: Final[Steps[_TracedSteps]] = (
    *STEPS,
    ("interactive", _TracedSteps.check_interactive),
    ("image", _TracedSteps.check_image),
    ("graph", _TracedSteps.check_entry),
)
_OF_DECISION: Final[Steps[_TracedSteps]] = (
    *STEPS,
    ("interactive", _TracedSteps.check_interactive),
    ("image", _TracedSteps.check_image),
    ("task graph", _TracedSteps.read_graph),
    ("origin", _TracedSteps.check_origin),
    ("tree", _TracedSteps.check_tree),
)


@dataclass(frozen=True, slots=True)
class Layers:
    """The tasks that inputs come from, in layers: the inputs' own, those they come from, and so on."""

    layers: tuple[tuple[TaskId, ...], ...]
    unknown: tuple[TaskId, ...]
    """Those of which nothing was gathered yet."""
    too_many: str
    """What is beyond the bounds."""


def follow(inputs: tuple[TaskId, ...], known: Mapping[TaskId, Upstream], rule: TraceRule) -> Layers:
    """Say which tasks inputs come from, as far as that is known."""
    seen: dict[TaskId, None] = {}
    layers: list[tuple[TaskId, ...]] = []
    layer = tuple(dict.fromkeys(inputs))
    while layer:
        if len(layers) > rule.max_depth:
            return Layers(tuple(layers), (), f"they come from tasks more than {rule.max_depth} steps away")
        if len(seen) + len(layer) > MAX_TRACED:
            return Layers(tuple(layers), (), f"they come from more than {MAX_TRACED} tasks")
        seen.update(dict.fromkeys(layer))
        layers.append(layer)
        before = [each for task_id in layer if task_id in known for each in _before(known[task_id], rule)]
        layer = tuple(dict.fromkeys(each for each in before if each not in seen))
    return Layers(tuple(layers), tuple(each for each in seen if each not in known), "")


def is_decision(upstream: Upstream, rule: TraceRule) -> bool:
    """Whether a task is to be verified as a decision task: it ran where only those may."""
    try:
        pool = parse_definition(upstream.definition or {}).pool
    except ValueError:
        return False
    return satisfies(rule.decision_pools, str(pool))


def _before(upstream: Upstream, rule: TraceRule) -> Iterator[TaskId]:
    """Give what a task was made by and from; a decision task, by the tree alone."""
    try:
        task = parse_definition(upstream.definition or {})
    except ValueError:
        return
    if is_decision(upstream, rule):
        return
    image = task.payload.get("image")
    named = (task.task_group_id, *task.dependencies, image.get("taskId") if isinstance(image, dict) else None)
    for each in named:
        if _is_id(each):
            yield TaskId(str(each))


def _is_id(value: Json) -> bool:
    try:
        TaskId(value if isinstance(value, str) else "")
    except ValueError:
        return False
    return True


def judge_trace(  # noqa: PLR0913, PLR0917 - as judge_inputs, and whose inputs
    plan: InputPlan,
    script: ScriptName,
    inputs: tuple[TaskId, ...],
    facts: Ancestry,
    trust: Trust,
    now: datetime,
    checks: Checks,
) -> Traced:
    """Say whether inputs come from the tree.

    1. What they come from is within the bounds.
    2. Each decision task, and only then each other task, the farthest first, passes its steps.
    """
    rule = plan.trace
    assert rule is not None
    at = f"scripts.{script}.upstream.trace"
    known = {each.task_id: each for each in facts.tasks}
    # 1.
    found = follow(inputs, known, rule)
    if found.too_many:
        return Traced((), (Reason(at, f"the inputs cannot be traced: {found.too_many}"),))
    # 2.
    order = [task_id for layer in reversed(found.layers) for task_id in layer]
    upstreams = [known.get(task_id, Upstream(task_id, None)) for task_id in order]
    decisions = [each for each in upstreams if is_decision(each, rule)]
    others = [each for each in upstreams if not is_decision(each, rule)]
    of_decisions = {each.task_id: each for each in facts.decisions}
    followed: dict[TaskId, _TracedSteps] = {}
    reports: list[TraceReport] = []
    in_decision = replace(plan, worker_pools=rule.decision_pools)
    waiting = [(each, "decision") for each in decisions] + [(each, "task") for each in others]
    for upstream, role in _images_first(waiting):
        decides = role == "decision"
        steps = _TracedSteps(
            trust,
            expected(upstream, trust),
            now,
            checks,
            upstream=upstream,
            plan=in_decision if decides else plan,
            followed=followed,
            facts_of_decision=of_decisions.get(upstream.task_id) if decides else None,
        )
        wanted = _OF_DECISION if decides else _OF_TASK
        taken = tuple(take(steps, wanted))
        verified = len(taken) == len(wanted) and all(step.passed for step in taken)
        if verified:
            followed[upstream.task_id] = steps
        run_id = upstream.last.run_id if upstream.last else None
        made = statements_of(upstream, taken)
        reports.append(TraceReport(upstream.task_id, run_id, role, taken, verified, made))
    reasons = tuple(_why_not(at, report) for report in reports if not report.verified)
    return Traced(tuple(reports), reasons)


def _why_not(at: str, report: TraceReport) -> Reason:
    failed = report.steps[-1]
    return Reason(at, f"the {report.role} {report.task_id}: {failed.name}: {'; '.join(failed.details)}")


def _images_first(waiting: list[tuple[Upstream, str]]) -> Iterator[tuple[Upstream, str]]:
    """Give tasks in an order in which the maker of an image comes before those who use it. Rings stay as they are."""
    left = list(waiting)
    while left:
        ids = {upstream.task_id for upstream, _ in left}
        free = [each for each in left if _image_of(each[0]) not in ids - {each[0].task_id}] or left
        yield from free
        left = [each for each in left if each not in free]


def _image_of(upstream: Upstream) -> str:
    payload = (upstream.definition or {}).get("payload")
    image = payload.get("image") if isinstance(payload, dict) else None
    return str(image.get("taskId")) if isinstance(image, dict) else ""


def as_json(reports: tuple[TraceReport, ...]) -> list[Json]:
    """Give reports for public/verification.json."""
    return [
        {
            "taskId": report.task_id,
            "runId": None if report.run_id is None else int(report.run_id),
            "role": report.role,
            "verified": report.verified,
            "steps": [
                {"number": step.number, "name": step.name, "passed": step.passed, "details": list(step.details)}
                for step in report.steps
            ],
        }
        for report in reports
    ]
