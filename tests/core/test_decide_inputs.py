"""What a task may want of other tasks, as far as it can be decided before anything is fetched."""

from dataclasses import replace

import pytest

from secureworker.core.claim import Json
from secureworker.core.ids import TaskId
from secureworker.core.inputs import InputPlan, Wanted
from secureworker.core.policy import UpstreamRule
from tests.core.claims import a_claim, a_policy, a_rule, admitted, refused

BUILD = "TyRoGA_OS3W2QMCEuF1icw"
RULE = UpstreamRule(required=True, worker_pools=("release-3/*",), max_size=2**30, forbid_features=("interactive",))
WANTED: Json = [{"taskId": BUILD, "taskType": "build", "paths": ["public/a.zip"]}]
PAYLOAD: dict[str, Json] = {"format": "gpg", "upstreamArtifacts": WANTED}


def test_what_is_wanted_is_in_the_plan_with_what_the_rule_says_of_it() -> None:
    plan = admitted(a_claim(payload=PAYLOAD, dependencies=(BUILD,)), a_policy(a_rule(upstream=RULE)))

    wanted = (Wanted(TaskId(BUILD), ("public/a.zip",)),)
    assert plan.inputs == InputPlan(
        wanted, required=True, worker_pools=("release-3/*",), max_size=2**30, forbid_features=("interactive",)
    )


def test_a_script_without_the_rule_is_given_no_inputs() -> None:
    assert refused(a_claim(payload=PAYLOAD, dependencies=(BUILD,))) == [
        'scripts.sign.upstream: script "sign" takes no inputs; remove payload.upstreamArtifacts'
    ]
    assert admitted(a_claim(payload={**PAYLOAD, "upstreamArtifacts": []})).inputs == InputPlan()


def test_a_task_that_is_no_dependency_gives_no_inputs() -> None:
    assert refused(a_claim(payload=PAYLOAD), a_policy(a_rule(upstream=RULE))) == [
        f"scripts.sign.upstream: payload.upstreamArtifacts: {BUILD} is none of the task's dependencies; add it to them"
    ]


@pytest.mark.parametrize("payload", [{"format": "gpg"}, {"format": "gpg", "upstreamArtifacts": []}])
def test_a_script_that_takes_inputs_is_not_run_without_where_they_are_required(payload: dict[str, Json]) -> None:
    assert refused(a_claim(payload=payload), a_policy(a_rule(upstream=RULE))) == [
        'scripts.sign.upstream.required: script "sign" takes inputs; name them in payload.upstreamArtifacts'
    ]
    admitted(a_claim(payload=payload), a_policy(a_rule(upstream=replace(RULE, required=False))))
