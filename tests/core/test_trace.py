"""Following inputs to the tree: every step with what passes and what does not. Likeness has tests of its own."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from secureworker.core.chain import Statements, Upstream, UpstreamRun
from secureworker.core.claim import Json
from secureworker.core.ids import RunId, ScriptName, TaskId, WorkerPool
from secureworker.core.inputs import InputPlan
from secureworker.core.origin import TracedRepository, TraceRule
from secureworker.core.trace import Ancestry, DecisionFacts, Traced, Tree, as_json, follow, judge_trace
from secureworker.core.trust import Implementation, Trust, TrustKey, TrustPool
from secureworker.testing import FAKE_CHECKS, ROOT_URL, fake_signature
from tests.core.upstreams import KEY, NOW, OTHER_KEY, PLAN, POOL, a_definition

DECISION = TaskId("ddVaxIRdRAaAAr5ryHnORA")
BUILD = TaskId("TyRoGA_OS3W2QMCEuF1icw")
IMAGE = TaskId("EscAd2voQG-2LCx8q9gDQQ")
DECISION_POOL = WorkerPool("release-3", "decision")
URL = "https://github.com/us/app"
REVISION = "ab" * 20
RULE = TraceRule(
    (str(DECISION_POOL),), (TracedRepository("https", "github.com", "us", "app", "/m", ("main",), "APP"),), 3
)
TRUST = Trust(
    (
        TrustPool(POOL, Implementation.GENERIC_WORKER, (TrustKey(KEY),)),
        TrustPool(DECISION_POOL, Implementation.GENERIC_WORKER, (TrustKey(OTHER_KEY),)),
    ),
    ROOT_URL,
)
THIS_PLAN = replace(PLAN, trace=RULE)
DIGEST = "cd" * 32


def upstream(task_id: TaskId, definition: dict[str, Json], key: bytes, **body: Json) -> Upstream:
    pool = str(definition["workerType"])
    statement = {
        "artifacts": {},
        "chainOfTrustVersion": 1,
        "environment": {},
        "runId": 0,
        "task": definition,
        "taskId": task_id,
        "workerGroup": "g",
        "workerId": "i",
        "workerType": pool,
        **body,
    }
    signed = json.dumps(statement).encode()
    run = UpstreamRun(RunId(0), "completed", "g", "i")
    return Upstream(task_id, definition, "completed", run, Statements(signed, fake_signature(key, signed)))


@dataclass
class World:
    """A build, the image it ran in, and the decision task that made both: all as they should be."""

    decision: dict[str, Json] = field(
        default_factory=lambda: a_definition(
            DECISION_POOL,
            taskGroupId=str(DECISION),
            dependencies=[],
            extra={"tasks_for": "github-push"},
            payload={
                "env": {"APP_HEAD_REPOSITORY": URL, "APP_HEAD_REV": REVISION, "APP_HEAD_REF": "main"},
                "features": {},
            },
        )
    )
    build: dict[str, Json] = field(
        default_factory=lambda: a_definition(
            taskGroupId=str(DECISION),
            dependencies=[str(IMAGE)],
            payload={"image": {"type": "task-image", "taskId": str(IMAGE), "path": "public/image.tar.zst"}},
        )
    )
    image: dict[str, Json] = field(
        default_factory=lambda: a_definition(taskGroupId=str(DECISION), dependencies=[str(DECISION)])
    )
    decided: dict[str, Json] = field(default_factory=dict)
    """Replaces keys of the build, in the graph."""
    environment: Any = field(default_factory=lambda: {"imageArtifactHash": f"sha256:{DIGEST}"})
    graph: bytes = b""
    graph_signed: bool = True
    missing: str = ""
    refs: tuple[str, ...] = ("refs/heads/main",)
    tree: dict[str, Any] = field(default_factory=dict)
    """Replaces what is known of the tree."""
    rendered: Any = None
    decision_key: bytes = OTHER_KEY
    left_out: tuple[TaskId, ...] = ()
    plan: InputPlan = THIS_PLAN

    def judged(self) -> Traced:
        entries = {
            str(BUILD): {"task": {**self.build, **self.decided}, "dependencies": {"image": str(IMAGE)}},
            str(IMAGE): {"task": self.image, "dependencies": {}},
        }
        graph = self.graph or json.dumps(entries).encode()
        listed: dict[str, Json] = {"public/task-graph.json": {"sha256": hashlib.sha256(graph).hexdigest()}}
        images: dict[str, Json] = {"public/image.tar.zst": {"sha256": DIGEST}}
        tasks = (
            upstream(BUILD, self.build, KEY, environment=self.environment),
            upstream(IMAGE, self.image, KEY, artifacts=images),
            upstream(DECISION, self.decision, self.decision_key, artifacts=listed if self.graph_signed else {}),
        )
        made: Any = {"tasks": [{**self.decision, "taskId": str(DECISION)}]} if self.rendered is None else self.rendered
        tree = replace(Tree(refs=self.refs, rendered=made), **self.tree)
        facts = Ancestry(
            tuple(each for each in tasks if each.task_id not in self.left_out),
            () if self.missing == "all" else (DecisionFacts(DECISION, graph, self.missing, tree),),
        )
        return judge_trace(self.plan, ScriptName("sign"), (BUILD,), facts, TRUST, NOW, FAKE_CHECKS)


def refused(**changes: Any) -> str:
    """Give the first reason why the inputs are refused, without the rule."""
    traced = World(**changes).judged()
    assert traced.reasons
    return str(traced.reasons[0]).removeprefix("scripts.sign.upstream.trace: ")


def changed(which: str, **changes: Json) -> dict[str, Any]:
    return {which: {**getattr(World(), which), **changes}}


def test_what_comes_from_the_tree_passes_every_step() -> None:
    traced = World().judged()

    assert traced.reasons == ()
    assert [(report.task_id, report.role) for report in traced.reports] == [
        (DECISION, "decision"),
        (IMAGE, "task"),
        (BUILD, "task"),
    ]
    assert [step.name for step in traced.reports[0].steps[12:]] == [
        "interactive",
        "image",
        "task graph",
        "origin",
        "tree",
    ]
    assert [step.name for step in traced.reports[-1].steps[12:]] == ["interactive", "image", "graph"]
    assert [(each["taskId"], each["verified"]) for each in as_json(traced.reports) if isinstance(each, dict)] == [
        (DECISION, True),
        (IMAGE, True),
        (BUILD, True),
    ]


def test_an_image_may_be_of_no_task() -> None:
    images: tuple[Json, ...] = ("docker.io/x@sha256:1", {"type": "docker-image", "name": "x"}, None)
    for image in images:
        assert World(**changed("build", payload={"image": image})).judged().reasons == ()
    by_id = {"imageHash": f"sha256:{DIGEST}"}
    assert World(environment=by_id).judged().reasons == ()


def of_decision(**changes: Json) -> dict[str, Any]:
    return changed("decision", **changes)


def of_build(**payload: Json) -> dict[str, Any]:
    return changed("build", payload=payload)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        # Statements of every task, by the keys of its pool.
        ({"decision_key": KEY}, f"the decision {DECISION}: key: "),
        ({"left_out": (IMAGE,)}, f"the task {IMAGE}: task: the Queue has no such task"),
        ({"left_out": (BUILD,)}, f"the task {BUILD}: task: the Queue has no such task"),
        # Nobody sat in them.
        (of_build(features={"interactive": True}), f"the task {BUILD}: features: "),
        (
            {**of_build(features={"interactive": True}), "plan": replace(THIS_PLAN, forbid_features=())},
            f"the task {BUILD}: interactive: it used interactive",
        ),
        (of_build(env={"TASKCLUSTER_INTERACTIVE": "1"}), f"the task {BUILD}: interactive: "),
        (of_decision(payload={"rdpInfo": "x"}), f"the decision {DECISION}: features: "),
        # Images.
        ({"environment": {}}, f"the task {BUILD}: image: its worker says it used the image null"),
        ({"environment": {"imageArtifactHash": f"sha256:{'00' * 32}"}}, f"the task {BUILD}: image: its worker says"),
        (of_build(image={"taskId": str(IMAGE), "path": "public/other"}), f"the task {BUILD}: image: its worker says"),
        (of_build(image={"taskId": "x", "path": "p"}), f"the task {BUILD}: image: its image is of"),
        (of_build(image={"type": "indexed-image", "namespace": "x"}), f"the task {BUILD}: image: it used whatever"),
        (of_decision(payload={"image": {"taskId": str(IMAGE)}}), f"the decision {DECISION}: image: its image is of"),
        # The graph.
        ({"decided": {"scopes": ["x:y"]}}, f"the task {BUILD}: graph: scopes is not as in the graph"),
        ({"graph": b'{"TyRoGA_OS3W2QMCEuF1icw": {}}'}, f"the task {IMAGE}: graph: it is not in public/task-graph"),
        ({"graph": b'{"a": 1, "a": 2}'}, f"the decision {DECISION}: task graph: public/task-graph.json: "),
        ({"graph": b"[]"}, f"the decision {DECISION}: task graph: public/task-graph.json is no object"),
        ({"graph_signed": False}, f"the decision {DECISION}: task graph: public/task-graph.json has the sha256"),
        ({"missing": "it is gone"}, f"the decision {DECISION}: task graph: it is gone"),
        ({"missing": "all"}, f"the decision {DECISION}: task graph: public/task-graph.json: was not asked for"),
        (changed("image", taskGroupId=str(BUILD)), f"the task {IMAGE}: graph: its group"),
        (changed("image", taskGroupId=""), f"the task {IMAGE}: "),
        # The tree.
        (of_decision(extra={}), f"the decision {DECISION}: origin: extra.tasks_for is null"),
        ({"tree": {"missing": "no such commit"}}, f"the decision {DECISION}: origin: no such commit"),
        ({"refs": ("refs/heads/try",)}, f"the decision {DECISION}: origin: the revision {REVISION} is not on"),
        ({"tree": {"unrendered": "it is broken"}}, f"the decision {DECISION}: tree: .taskcluster.yml: it is broken"),
        ({"rendered": {"tasks": []}}, f"the decision {DECISION}: tree: .taskcluster.yml makes 0 tasks"),
        ({"rendered": []}, f"the decision {DECISION}: tree: .taskcluster.yml makes no tasks"),
        ({"rendered": {"tasks": [{}, {}]}}, f"the decision {DECISION}: tree: .taskcluster.yml makes 2 tasks"),
        ({"rendered": {"tasks": [{}]}}, f"the decision {DECISION}: tree: taskId is not as .taskcluster.yml makes it"),
    ],
)
def test_what_does_not_come_from_the_tree_is_refused(changes: dict[str, Any], why: str) -> None:
    at = "scripts.sign.upstream.trace: "
    assert any(str(reason).startswith(f"{at}{why}") for reason in World(**changes).judged().reasons)


def test_a_release_of_a_tag_on_no_allowed_branch_is_refused() -> None:
    payload: Json = {"env": {"APP_HEAD_REPOSITORY": URL, "APP_HEAD_REV": REVISION, "APP_HEAD_REF": "v1"}}
    release = of_decision(extra={"tasks_for": "github-release"}, payload=payload)
    assert f"the revision {REVISION} is on no branch of main" in refused(
        **release, refs=("refs/tags/v1", "refs/heads/try")
    )
    assert World(**release, refs=("refs/tags/v1", "refs/heads/main")).judged().reasons == ()


def test_a_task_whose_definition_cannot_be_read_is_refused() -> None:
    assert refused(**changed("image", created="yesterday")).startswith(f"the task {IMAGE}: task: its definition")


def test_what_is_too_far_or_too_much_is_refused() -> None:
    near = replace(THIS_PLAN, trace=replace(RULE, max_depth=1))
    assert "they come from tasks more than 1 steps away" in refused(plan=near, **changed("build", taskGroupId="x"))
    ids: list[Json] = [f"{number:08}Q0C{number:010}A" for number in range(101)]
    assert "they come from more than 100 tasks" in refused(**changed("build", dependencies=ids))


def test_what_is_not_known_yet_is_asked_for_next() -> None:
    assert follow((BUILD,), {}, RULE).unknown == (BUILD,)
    known = {BUILD: upstream(BUILD, World().build, KEY)}
    assert set(follow((BUILD,), known, RULE).unknown) == {DECISION, IMAGE}
