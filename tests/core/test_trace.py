"""Following inputs to the tree: every step with what passes and what does not. Likeness has tests of its own."""

import json
from dataclasses import replace
from typing import Any

import pytest

from secureworker.core.claim import Json
from secureworker.core.trace import as_json, follow
from tests.core.ancestries import BUILD, DECISION, DIGEST, IMAGE, REVISION, RULE, THIS_PLAN, URL, World, upstream
from tests.core.upstreams import KEY, STRANGER


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
        (of_build(env=["TASKCLUSTER_INTERACTIVE=1"]), f"the task {BUILD}: interactive: "),
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


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        # A task that depends on itself, and is its own group, and its own image.
        (changed("build", dependencies=[str(BUILD)]), "graph: dependencies is not as in the graph"),
        (changed("build", taskGroupId=str(BUILD)), "graph: its group 'TyRoGA_OS3W2QMCEuF1icw' is that of no decision"),
        (of_build(image={"taskId": str(BUILD), "path": "public/image.tar.zst"}), "was not verified"),
        # Two that depend on each other.
        (changed("image", dependencies=[str(BUILD)]), ""),
        # Two that are each other's image.
        (
            changed("image", payload={"image": {"taskId": str(BUILD), "path": "public/image.tar.zst"}}),
            "was not verified",
        ),
        # A decision task that is in the graph of another, which is the task that it made.
        (of_decision(taskGroupId=str(BUILD)), "tree: "),
    ],
)
def test_rings_have_an_end(changes: dict[str, Any], why: str) -> None:
    world = World(**changes)
    if why:
        world.decided = {"dependencies": [str(IMAGE)], "taskGroupId": str(DECISION)}
        world.rendered = {"tasks": [{**World().decision, "taskId": str(DECISION)}]}
        assert any(why in str(reason) for reason in world.judged().reasons), world.judged().reasons
    else:
        # Neither was made from the other's outputs alone: both are as the decision task made them.
        assert world.judged().reasons == ()


def test_a_graph_that_somebody_else_signed_for_the_same_task_is_refused() -> None:
    entries = {str(each): {"task": World().image, "dependencies": {}} for each in (BUILD, IMAGE)}
    forged = json.dumps(entries).encode()
    assert "payload is not as in the graph of" in "".join(map(str, World(graph=forged).judged().reasons))
    for key in (KEY, STRANGER):
        assert World(graph=forged, decision_key=key).judged().reasons


@pytest.mark.parametrize(
    "key", ["TyRoGA_OS3W2QMCEuF1icw ", "TYROGA_OS3W2QMCEuF1icw", "TyRoGA_OS3W2QMCEuF1i\u0441w", "hello-build"]
)
def test_an_entry_by_a_name_that_only_looks_like_the_tasks_is_none(key: str) -> None:
    entry = {"task": World().build, "dependencies": {"image": str(IMAGE)}}
    graph = {key: entry, str(IMAGE): {"task": World().image, "dependencies": {}}}
    reasons = World(graph=json.dumps(graph).encode()).judged().reasons
    assert any(f"the task {BUILD}: graph: it is not in public/task-graph.json" in str(each) for each in reasons)


@pytest.mark.parametrize("entry", [None, [], "x", {}, {"task": None}, {"task": []}, {"task": "x"}])
def test_an_entry_in_another_form_is_none(entry: Json) -> None:
    graph = {str(BUILD): entry, str(IMAGE): {"task": World().image, "dependencies": {}}}
    reasons = World(graph=json.dumps(graph).encode()).judged().reasons
    assert any("graph: it is not in public/task-graph.json" in str(each) for each in reasons)


@pytest.mark.parametrize("feature", ["interactive", "rdpInfo", "loopbackVideo", "allowPtrace", "privileged"])
def test_a_feature_that_the_rule_forbids_is_refused_all_the_way(feature: str) -> None:
    plan = replace(THIS_PLAN, forbid_features=("loopbackVideo", "allowPtrace", "privileged"))
    for which in ("build", "image", "decision"):
        payload = getattr(World(), which)["payload"]
        every: tuple[dict[str, Json], ...] = (
            {"features": {**payload.get("features", {}), feature: True}},
            {feature: True},
            {"capabilities": {feature: True}},
            {"capabilities": {"devices": {feature: True}}},
        )
        for used in every:
            reasons = World(plan=plan, **changed(which, payload={**payload, **used})).judged().reasons
            assert any(f"used {feature}" in str(each) for each in reasons), (which, used)


def test_what_is_not_known_yet_is_asked_for_next() -> None:
    assert follow((BUILD,), {}, RULE).unknown == (BUILD,)
    known = {BUILD: upstream(BUILD, World().build, KEY)}
    assert set(follow((BUILD,), known, RULE).unknown) == {DECISION, IMAGE}
