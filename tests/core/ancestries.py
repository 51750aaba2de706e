"""Tasks that come from the tree, as the Queue, workers and a repository tell of them: to be spoiled one at a time."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

from secureworker.core.chain import Statements, Upstream, UpstreamRun
from secureworker.core.claim import Json
from secureworker.core.ids import RunId, ScriptName, TaskId, WorkerPool
from secureworker.core.inputs import InputPlan
from secureworker.core.origin import TracedRepository, TraceRule
from secureworker.core.trace import Ancestry, DecisionFacts, Traced, Tree, judge_trace
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
    """Give a task whose worker signed for it."""
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
    made: str = DIGEST
    """What the image's maker signed for."""

    def facts(self) -> Ancestry:
        """Give what would be gathered."""
        entries = {
            str(BUILD): {"task": {**self.build, **self.decided}, "dependencies": {"image": str(IMAGE)}},
            str(IMAGE): {"task": self.image, "dependencies": {}},
        }
        graph = self.graph or json.dumps(entries).encode()
        listed: dict[str, Json] = {"public/task-graph.json": {"sha256": hashlib.sha256(graph).hexdigest()}}
        images: dict[str, Json] = {"public/image.tar.zst": {"sha256": self.made}}
        tasks = (
            upstream(BUILD, self.build, KEY, environment=self.environment),
            upstream(IMAGE, self.image, KEY, artifacts=images),
            upstream(DECISION, self.decision, self.decision_key, artifacts=listed if self.graph_signed else {}),
        )
        made: Any = {"tasks": [{**self.decision, "taskId": str(DECISION)}]} if self.rendered is None else self.rendered
        tree = replace(Tree(refs=self.refs, rendered=made), **self.tree)
        return Ancestry(
            tuple(each for each in tasks if each.task_id not in self.left_out),
            () if self.missing == "all" else (DecisionFacts(DECISION, graph, self.missing, tree),),
        )

    def judged(self) -> Traced:
        """Follow the build."""
        return judge_trace(self.plan, ScriptName("sign"), (BUILD,), self.facts(), TRUST, NOW, FAKE_CHECKS)
