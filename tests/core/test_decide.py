"""What is admitted and what is refused: every step of the decision, and what holds for all decisions."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.core.claim import Json
from secureworker.core.decide import Admitted, decide
from secureworker.core.ids import ScriptName, WorkerIdentity, WorkerPool
from secureworker.core.outcome import Refused
from secureworker.core.policy import Always, ScopeEquals
from secureworker.core.schemas import CompiledSchema
from secureworker.core.templates import Template
from tests.core.claims import ME, NOW, POOL, PREFIX, SCOPES, a_claim, a_policy, a_rule, a_task, admitted, refused


def test_a_task_as_the_policy_wants_it_is_admitted_with_the_rules_plan() -> None:
    plan = admitted(a_claim())
    assert plan.script == "sign"
    assert plan.argv == ("/opt/sign",)
    assert plan.environment == (("LANG", "C"),)
    assert plan.config is None
    assert plan.limits.run_time == timedelta(minutes=30)
    assert plan.root_url == "https://tc.example.com"
    assert plan.task == a_task().verbatim


def test_a_claim_for_another_pool_is_refused() -> None:
    other = WorkerPool("releng", "other")
    assert refused(a_claim(pool=other)) == [
        "worker-pool: the claim is for the pool releng/other, and this worker serves releng/signing only"
    ]
    identity = WorkerIdentity(other, "group", "worker-1")
    assert isinstance(decide(a_claim(), a_policy(), identity, NOW), Refused)


@pytest.mark.parametrize("worker", [WorkerIdentity(POOL, "g2", "worker-1"), WorkerIdentity(POOL, "group", "w2")])
def test_a_run_that_is_held_by_another_worker_is_refused(worker: WorkerIdentity) -> None:
    assert "the run is held by the worker" in refused(a_claim(worker=worker))[0]


def test_a_claim_that_is_over_is_refused() -> None:
    assert "the claim ended" in refused(a_claim(taken_until=NOW))[0]
    admitted(a_claim(taken_until=NOW + timedelta(seconds=1)))


def test_another_scheduler_and_another_project_are_refused_together() -> None:
    assert refused(a_claim(scheduler_id="-", project_id="z")) == [
        'tasks.scheduler-ids: the task\'s schedulerId is "-", and only "release" may schedule tasks here',
        'tasks.project-ids: the task\'s projectId is "z", and only "x", "y" may run tasks here',
    ]


def test_a_long_list_of_what_is_allowed_is_cut_short() -> None:
    policy = a_policy(scheduler_ids=tuple(f"s{number}" for number in range(8)))
    assert refused(a_claim(), policy)[0].endswith('"s4" and 3 more may schedule tasks here')


@pytest.mark.parametrize("scope", ["*", "proj*", "project:*", "project:y:a", "queue:create-task:*"])
def test_a_scope_that_is_not_allowed_is_refused(scope: str) -> None:
    reasons = refused(a_claim(scopes=(*SCOPES, scope)))
    assert any(reason.startswith("tasks.scopes.allow") for reason in reasons)


@pytest.mark.parametrize("scope", ["assume:repo:x", "assume:*", "ass*"])
def test_a_role_is_refused_even_where_its_name_is_allowed(scope: str) -> None:
    policy = a_policy(scopes_allow=("project:x:*", "assume:*"))
    assert "stands for roles" in refused(a_claim(scopes=(*SCOPES, scope)), policy)[0]


@pytest.mark.parametrize("scope", ["project:x:cert:release", "project:x:cert:release:1", "project:x:cert:*"])
def test_a_forbidden_scope_is_refused_although_it_is_allowed(scope: str) -> None:
    policy = a_policy(scopes_forbid=("project:x:cert:release*",))
    assert "is forbidden" in refused(a_claim(scopes=(*SCOPES, scope)), policy)[0]
    admitted(a_claim(scopes=(*SCOPES, "project:x:cert:nightly")), policy)


def test_a_task_without_scopes_names_no_script() -> None:
    assert refused(a_claim(scopes=())) == [
        f'scripts: none of the task\'s scopes (0) names an action; the scripts here are chosen by "{PREFIX}sign"'
    ]


def test_two_actions_are_refused() -> None:
    assert "2 of the task's scopes name an action" in refused(a_claim(scopes=(f"{PREFIX}sign", f"{PREFIX}push")))[0]


def test_the_same_action_twice_is_one_action() -> None:
    admitted(a_claim(scopes=(f"{PREFIX}sign", f"{PREFIX}sign")))


def test_an_action_under_each_of_two_prefixes_is_refused() -> None:
    other = a_rule(name=ScriptName("push"), when=ScopeEquals("project:x:push:", "push"))
    scopes = (f"{PREFIX}sign", "project:x:push:other")
    assert "2 of the task's scopes" in refused(a_claim(scopes=scopes), a_policy(a_rule(), other))[0]


def test_an_action_that_no_script_has_is_refused() -> None:
    assert f'"{PREFIX}rename" names no action' in refused(a_claim(scopes=(f"{PREFIX}rename",)))[0]


@pytest.mark.parametrize("scope", [f"{PREFIX}*", f"{PREFIX}sign*", "project:x:*", "project:x:act*"])
def test_a_pattern_names_no_action(scope: str) -> None:
    assert any("names no action" in reason for reason in refused(a_claim(scopes=(scope,))))
    assert any("2 of the task's scopes" in reason for reason in refused(a_claim(scopes=(f"{PREFIX}sign", scope))))


def test_the_script_is_the_one_whose_scope_the_task_has() -> None:
    push = a_rule(name=ScriptName("push"), when=ScopeEquals(PREFIX, "push"))
    assert admitted(a_claim(scopes=(f"{PREFIX}push",)), a_policy(a_rule(), push)).script == "push"


def test_the_only_script_needs_no_scope() -> None:
    assert admitted(a_claim(scopes=()), a_policy(a_rule(when=Always()))).script == "sign"


def test_a_required_scope_must_be_satisfied() -> None:
    policy = a_policy(a_rule(requires_scopes=(Template("project:x:cert:nightly"), Template("project:x:cert:release"))))
    (reason,) = refused(a_claim(), policy)
    assert reason == (
        'scripts.sign.requires-scopes: script "sign" needs the scope "project:x:cert:release", '
        "and none of the task's scopes (2) satisfies it; add the scope to the task"
    )
    admitted(a_claim(scopes=(f"{PREFIX}sign", "project:x:cert:*")), policy)


def test_a_payload_against_the_schema_is_refused_with_path_value_and_rule() -> None:
    assert refused(a_claim(payload={"format": "zip"})) == [
        'scripts.sign.payload: payload.format: found "zip"; expected one of "gpg"'
    ]


def test_less_time_than_the_rule_has_is_granted() -> None:
    assert admitted(a_claim(payload={"maxRunTime": 60})).limits.run_time == timedelta(minutes=1)
    assert admitted(a_claim(payload={"maxRunTime": 1800})).limits.run_time == timedelta(minutes=30)


def test_more_time_than_the_rule_has_is_refused_and_not_shortened() -> None:
    assert refused(a_claim(payload={"maxRunTime": 1801})) == [
        "scripts.sign.limits.run-time: payload.maxRunTime is 1801 s, and the script may run for 1800 s; ask for less"
    ]


def test_the_workers_keys_are_in_the_config_whatever_the_policy_says_of_them() -> None:
    policy = a_policy(a_rule(config=Template({"formats": ["gpg"], "verbose": True, "work_dir": "/etc"})))
    assert admitted(a_claim(), policy).config == {
        "formats": ["gpg"],
        "verbose": True,
        "work_dir": "/task/work",
        "artifact_dir": "/task/artifacts",
    }


def test_a_definition_nested_1000_deep_is_refused() -> None:
    nested: Json = "bottom"
    for _ in range(1000):
        nested = [nested]
    reasons = refused(a_claim(payload={"format": nested}))
    assert reasons == ["the task definition cannot be looked at: it is nested deeper than 64 levels"]
    assert refused(a_claim(verbatim={"extra": nested})) == reasons


def test_a_payload_of_a_megabyte_is_decided() -> None:
    admitted(a_claim(payload={"format": "gpg", "blob": "x" * 1_000_000}))
    assert "expected one of" in refused(a_claim(payload={"format": "x" * 1_000_000}))[0]
    assert len(refused(a_claim(payload={"format": "x" * 1_000_000}))[0]) < 300


def test_all_reasons_are_given_at_once() -> None:
    policy = a_policy(a_rule(requires_scopes=(Template("project:x:cert:release"),)))
    claim = a_claim(
        scheduler_id="-", taken_until=NOW, scopes=(*SCOPES, "other"), payload={"format": 1, "maxRunTime": 0}
    )
    assert len(refused(claim, policy)) == 6


SCOPE = st.sampled_from(
    ["*", "project:x:*", f"{PREFIX}sign", f"{PREFIX}*", "project:x:cert:release", "assume:a", "other", "project:y:b"]
)
SCOPE_SETS = st.lists(SCOPE, max_size=4).map(tuple)


@given(SCOPE_SETS, SCOPE_SETS, SCOPE)
def test_more_allowed_scopes_never_refuse_more(scopes: tuple[str, ...], allow: tuple[str, ...], more: str) -> None:
    claim = a_claim(scopes=scopes)
    narrow = decide(claim, a_policy(scopes_allow=allow), ME, NOW)
    wide = decide(claim, a_policy(scopes_allow=(*allow, more)), ME, NOW)
    if isinstance(narrow, Admitted):
        assert wide == narrow


@given(SCOPE_SETS, SCOPE_SETS, SCOPE)
def test_a_refused_task_stays_refused_when_more_is_forbidden(
    scopes: tuple[str, ...], forbid: tuple[str, ...], more: str
) -> None:
    claim = a_claim(scopes=scopes)
    if isinstance(decide(claim, a_policy(scopes_forbid=forbid), ME, NOW), Refused):
        assert isinstance(decide(claim, a_policy(scopes_forbid=(*forbid, more)), ME, NOW), Refused)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(
    st.dictionaries(st.sampled_from(["format", "maxRunTime", "upstreamArtifacts", "x"]), JSON, max_size=4), SCOPE_SETS
)
def test_whatever_a_task_holds_there_is_a_decision(payload: dict[str, Json], scopes: tuple[str, ...]) -> None:
    schema = CompiledSchema(
        {"type": "object", "properties": {"format": {"type": "string"}, "x": {"uniqueItems": True}}}
    )
    decision = decide(a_claim(payload=payload, scopes=scopes), a_policy(a_rule(payload_schema=schema)), ME, NOW)
    match decision:
        case Refused(reasons):
            assert reasons
            assert all(len(str(reason)) < 1000 for reason in reasons)
        case Admitted(plan):
            assert plan.limits.run_time <= timedelta(minutes=30)


def test_a_decision_depends_on_nothing_but_its_arguments() -> None:
    claim, policy = a_claim(), a_policy()
    assert decide(claim, policy, ME, NOW) == decide(replace(claim), replace(policy), ME, NOW)
