"""Other tasks' artifacts as inputs. Edge cases 13: every step, with a good case and bad ones."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from secureworker.core.chain import Upstream, write_report
from secureworker.core.claim import Json
from secureworker.core.ids import ArtifactName, RunId, Sha256, TaskId
from secureworker.core.inputs import MAX_PATHS, Input, InputPlan, Received, Wanted
from secureworker.core.trust import Implementation, KeyState, Trust, TrustKey, TrustPool, fingerprint
from secureworker.testing import fake_signature
from tests.core.upstreams import (
    BUILD,
    DAY,
    DIGEST,
    KEY,
    NOW,
    OTHER_KEY,
    OTHER_POOL,
    PLAN,
    POOL,
    STRANGER,
    TRUST,
    Build,
    a_definition,
    failed,
    judged,
)


def wanting(*paths: str, optional: bool = False, **changes: Any) -> InputPlan:
    return replace(PLAN, wanted=(Wanted(BUILD, paths, optional),), **changes)


def trusting(key: TrustKey) -> Trust:
    return Trust((TrustPool(POOL, Implementation.GENERIC_WORKER, (key,)), *TRUST.pools[1:]), TRUST.root_url)


def test_what_its_own_worker_signed_is_an_input() -> None:
    judgement = judged(Build())

    assert judgement.reasons == ()
    assert judgement.inputs == (Input(BUILD, RunId(1), ArtifactName("public/build/a.zip"), DIGEST),)
    (report,) = judgement.reports
    assert report.verified
    assert (report.task_id, report.run_id, report.key) == (BUILD, 1, fingerprint(KEY))
    assert [step.name for step in report.steps] == [
        "task",
        "run",
        "pool",
        "features",
        "statements",
        "signature",
        "form",
        "subject",
        "provenance",
        "statement",
        "agreement",
        "key",
    ]


# Step 1: the task.


def test_a_task_that_the_queue_does_not_have_gives_no_inputs() -> None:
    assert failed(judged(Upstream(BUILD, None))) == ("task", "the Queue has no such task")


def test_a_task_of_which_nothing_was_gathered_gives_no_inputs() -> None:
    other = TaskId("ddVaxIRdRAaAAr5ryHnORA")
    assert failed(judged(Upstream(other, None)))[0] == "task"


def test_a_definition_that_cannot_be_read_gives_no_inputs() -> None:
    name, why = failed(judged(Build(definition=a_definition(created="yesterday"))))
    assert (name, why[:30]) == ("task", "its definition cannot be read:")


# Step 2: the run.


@pytest.mark.parametrize(
    ("state", "run_state"),
    [("failed", "failed"), ("exception", "exception"), ("running", "running"), ("pending", "completed")],
)
def test_only_completed_tasks_give_inputs(state: str, run_state: str) -> None:
    name, why = failed(judged(Build(state=state, run_state=run_state)))
    assert name == "run"
    assert why == f"it is {state}, and its run 1 is {run_state}; only completed will do"


def test_a_task_without_a_run_gives_no_inputs() -> None:
    assert failed(judged(replace(Build().facts(), last=None, state="unscheduled"))) == (
        "run",
        "it has no run; it is unscheduled",
    )


# Step 3: the pool.


def test_a_pool_that_the_rule_does_not_take_inputs_of_gives_none_although_it_is_trusted() -> None:
    plan = replace(PLAN, worker_pools=("release-3/b-mac", "release-2/*"))
    assert failed(judged(Build(), plan)) == (
        "pool",
        "it ran in release-3/b-linux, and the script takes inputs of release-3/b-mac, release-2/*",
    )


# Step 4: features.


@pytest.mark.parametrize(
    "payload",
    [
        {"features": {"interactive": True}},
        {"features": {"interactive": "false"}},
        {"features": ["interactive"]},
        {"features": None},
        {"rdpInfo": "login/info.json"},
        {"features": {"rdpInfo": {}}},
        {"capabilities": {"interactive": True}},
        {"capabilities": {"devices": {"interactive": True}}},
        {"capabilities": ["interactive"]},
        {"capabilities": {"devices": None}},
    ],
)
def test_a_task_that_used_what_is_forbidden_gives_no_inputs(payload: Json) -> None:
    assert failed(judged(Build(definition=a_definition(payload=payload))))[0] == "features"


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"features": {}},
        {"capabilities": {"devices": {"loopbackAudio": True}}},
        {"features": {"interactive": None, "chainOfTrust": True}},
    ],
)
def test_a_task_that_used_nothing_forbidden_gives_inputs(payload: Json) -> None:
    assert judged(Build(definition=a_definition(payload=payload))).inputs


# Step 5: statements.


def test_a_task_without_statements_gives_no_inputs() -> None:
    missing = "public/chain-of-trust.json: it is not there, or not any more"
    assert failed(judged(Build(missing=missing))) == ("statements", missing)


# Step 6: the signature.


@pytest.mark.parametrize("signature", [bytes(64), b"", fake_signature(KEY, b"another statement")])
def test_a_statement_that_nobody_signed_gives_no_inputs(signature: bytes) -> None:
    assert failed(judged(Build(signature=signature or b"\0")))[0] == "signature"


def test_a_statement_by_a_stranger_gives_no_inputs() -> None:
    assert failed(judged(Build(key=STRANGER)))[0] == "signature"


def test_a_statement_that_was_changed_after_it_was_signed_gives_no_inputs() -> None:
    written = Build().written()
    changed = Build(signed=written.replace(b'"runId": 1', b'"runId": 0'), signature=fake_signature(KEY, written))
    assert failed(judged(changed))[0] == "signature"


# Step 7: the form.


@pytest.mark.parametrize(
    "body",
    [
        {"chainOfTrustVersion": 2},
        {"chainOfTrustVersion": True},
        {"artifacts": {"public/build/a.zip": {"md5": "d41d8cd98f00b204e9800998ecf8427e"}}},
        {"artifacts": {"public/build/a.zip": {"sha256": "AB" * 32}}},
        {"artifacts": {"public/build/a.zip": {}}},
        {"artifacts": {"public/build/a.zip": {"sha256": DIGEST, "sha512": "0"}}},
        {"artifacts": {"../a.zip": {"sha256": DIGEST}}},
        {"artifacts": []},
        {"environment": []},
        {"runId": "1"},
        {"task": {}},
    ],
)
def test_a_statement_in_another_form_gives_no_inputs(body: dict[str, Any]) -> None:
    assert failed(judged(Build(body=body)))[0] == "form"


@pytest.mark.parametrize("signed", [b"<!DOCTYPE html><html>503</html>", b"[]", b"{}", b'{"a": 1, "a": 2}', b"\xff"])
def test_a_signed_something_that_is_no_statement_gives_no_inputs(signed: bytes) -> None:
    assert failed(judged(Build(signed=signed)))[0] == "form"


# Step 8: the subject.


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"runId": 0}, "it is about the run 0, not 1"),
        ({"taskId": "ddVaxIRdRAaAAr5ryHnORA"}, f"it is about the task ddVaxIRdRAaAAr5ryHnORA, not {BUILD}"),
        ({"workerId": "i-9"}, "it is about the worker release-3/b-linux/us-east-1/i-9, not"),
        ({"workerGroup": "elsewhere"}, "it is about the worker release-3/b-linux/elsewhere/i-0123, not"),
        ({"workerType": "b-mac"}, "the worker's type is not that of its task's pool"),
        ({"task": a_definition(payload={"command": "other"})}, "the task's definition is not the one that the Queue"),
        ({"task": a_definition(OTHER_POOL), "workerType": "b-mac"}, "it is about the pool release-3/b-mac, not"),
    ],
)
def test_a_statement_about_something_else_gives_no_inputs(body: dict[str, Any], why: str) -> None:
    name, found = failed(judged(Build(body=body)))
    assert name == "subject"
    assert why in found


def test_a_priority_that_was_changed_while_the_task_ran_changes_nothing_of_what_it_made() -> None:
    # `changeTaskPriority`: the Queue has the new one, the statement the one that the worker was given.
    assert judged(Build(body={"task": a_definition(priority="highest")})).reasons == ()


def test_a_worker_whose_name_is_none_gives_no_inputs() -> None:
    facts = Build().facts()
    assert facts.last is not None
    name, why = failed(judged(replace(facts, last=replace(facts.last, worker_id=""))))
    assert name == "subject"
    assert "worker's name is none" in why


# Step 9 to 11: provenance.


def test_a_pool_that_signs_provenance_gives_no_inputs_without_it() -> None:
    trust = Trust((TrustPool(POOL, Implementation.SECUREWORKER, (TrustKey(KEY),)),), TRUST.root_url)
    build = Build(body={"environment": {"secureworker": {}}})
    assert failed(judged(build, trust=trust))[0] == "provenance"


def test_provenance_that_is_none_gives_no_inputs() -> None:
    assert failed(judged(Build(bundle=b"{}")))[0] == "provenance"


# Step 12: the key.


def test_another_pools_valid_key_gives_no_inputs() -> None:
    assert failed(judged(Build(key=OTHER_KEY))) == (
        "key",
        f"{fingerprint(OTHER_KEY)} is no key of the worker pool release-3/b-linux",
    )


def test_a_pool_that_the_rule_takes_inputs_of_and_nobody_trusts_gives_none() -> None:
    trust = Trust(TRUST.pools[1:], TRUST.root_url)
    assert failed(judged(Build(key=OTHER_KEY), trust=trust))[0] == "key"


def test_a_revoked_key_gives_no_inputs() -> None:
    assert failed(judged(Build(), trust=trusting(TrustKey(KEY, KeyState.REVOKED))))[0] == "key"


def test_a_key_that_had_expired_before_the_task_was_created_gives_no_inputs() -> None:
    expired = trusting(TrustKey(KEY, valid_until=(NOW - DAY).date()))
    assert failed(judged(Build(), trust=expired))[0] == "key"
    assert judged(Build(), trust=trusting(TrustKey(KEY, valid_until=NOW.date()))).inputs


@pytest.mark.parametrize("state", [KeyState.NEXT, KeyState.ACTIVE])
def test_a_key_that_was_not_valid_yet_gives_no_inputs(state: KeyState) -> None:
    tomorrow = trusting(TrustKey(KEY, state, valid_from=(NOW + DAY).date()))
    name, why = failed(judged(Build(), trust=tomorrow))
    assert (name, "is valid from 2026-02-01" in why) == ("key", True)
    assert judged(Build(), trust=trusting(TrustKey(KEY, state, valid_from=NOW.date()))).inputs


def test_a_retired_key_gives_inputs_that_it_signed_up_to_its_last_day() -> None:
    assert judged(Build(), trust=trusting(TrustKey(KEY, KeyState.RETIRED, valid_until=NOW.date()))).inputs
    past = trusting(TrustKey(KEY, KeyState.RETIRED, valid_until=(NOW - DAY).date()))
    assert failed(judged(Build(), trust=past))[0] == "key"


def test_of_a_revoked_key_not_even_what_its_days_have_gives_inputs() -> None:
    revoked = TrustKey(KEY, KeyState.REVOKED, valid_from=(NOW - DAY).date(), valid_until=(NOW + DAY).date())
    assert failed(judged(Build(), trust=trusting(revoked)))[0] == "key"


def test_a_statement_from_the_future_gives_no_inputs() -> None:
    name, why = failed(judged(Build(), now=NOW - DAY))
    assert (name, why[-16:]) == ("key", "which is to come")


# Paths.


def test_an_artifact_that_was_not_signed_is_no_input() -> None:
    judgement = judged(Build(), wanting("public/build/a.zip", "public/build/c.zip"))
    (reason,) = judgement.reasons
    assert str(reason) == (
        f'scripts.sign.upstream: the task {BUILD} signed no artifact "public/build/c.zip"; '
        "correct the path, or the task that should have made it"
    )


def test_a_statement_without_artifacts_gives_none() -> None:
    assert "signed no artifact" in str(judged(Build(body={"artifacts": {}})).reasons[0])


def test_an_optional_input_that_was_not_signed_is_left_out() -> None:
    plan = replace(PLAN, wanted=(*PLAN.wanted, Wanted(BUILD, ("public/build/c.zip",), optional=True)))
    judgement = judged(Build(), plan)
    assert judgement.reasons == ()
    assert [each.name for each in judgement.inputs] == ["public/build/a.zip"]
    assert judgement.absent == (f'the task {BUILD} signed no artifact "public/build/c.zip"',)


def test_a_star_is_expanded_against_the_signed_list_only() -> None:
    judgement = judged(Build(), wanting("public/*.zip", "secret/*", optional=True))
    assert [each.name for each in judgement.inputs] == ["public/build/a.zip", "public/build/b.zip"]
    assert judgement.absent == (f'the task {BUILD} signed no artifact "secret/*"',)


def test_an_input_that_is_wanted_twice_is_one_and_required_if_it_is_once() -> None:
    wanted = (
        Wanted(BUILD, ("public/*.zip",), optional=True),
        Wanted(BUILD, ("public/build/a.zip",)),
        Wanted(BUILD, ("public/build/*",), optional=True),
    )
    judgement = judged(Build(), replace(PLAN, wanted=wanted))
    assert [(each.name.rpartition("/")[2], each.optional) for each in judgement.inputs] == [
        ("a.zip", False),
        ("a.zip.asc", True),
        ("b.zip", True),
    ]


def test_optional_inputs_of_a_task_that_is_not_verified_are_left_out() -> None:
    judgement = judged(Build(key=STRANGER), wanting("public/*", optional=True, required=False))
    assert judgement.reasons == ()
    assert judgement.inputs == ()
    assert "signature: the signature is not one by" in judgement.absent[0]


@pytest.mark.parametrize(
    ("build", "step"),
    [
        (Build(definition=a_definition(payload={"features": {"interactive": True}})), "features"),
        (Build(definition=a_definition(OTHER_POOL)), "pool"),
    ],
)
def test_what_the_policy_forbids_it_forbids_for_optional_inputs_too(build: Build, step: str) -> None:
    plan = wanting("public/*", optional=True, required=False, worker_pools=(str(POOL),))
    assert failed(judged(build, plan))[0] == step


def test_a_rule_that_requires_inputs_is_not_content_with_none() -> None:
    judgement = judged(Build(), wanting("nothing/*", optional=True))
    assert str(judgement.reasons[0]).startswith("scripts.sign.upstream.required: ")
    assert judged(Build(), wanting("nothing/*", optional=True, required=False)).reasons == ()


def test_names_that_cannot_be_files_side_by_side_are_refused() -> None:
    artifacts = {name: {"sha256": DIGEST} for name in ("public/a", "public/a/b", "public/" + "x" * 256)}
    judgement = judged(Build(body={"artifacts": artifacts}), wanting("public/*", optional=True))
    first, second = (reason.message for reason in judgement.reasons)
    assert first == '"public/a/b" and "public/a" cannot both be files'
    assert second.endswith("cannot be a file: no file's name has more than 255 characters")


@pytest.mark.parametrize("name", ["public/chain-of-trust.json", "public/provenance.sigstore.json"])
@pytest.mark.parametrize("optional", [False, True])
def test_a_statement_is_no_input_although_another_worker_lists_it(name: str, *, optional: bool) -> None:
    # In what is signed for the run, such a name means the statement that was verified.
    build = Build(body={"artifacts": {name: {"sha256": DIGEST}}})
    (reason,) = judged(build, wanting("public/*" if optional else name, optional=optional, required=False)).reasons
    assert f'"{name}" cannot be a file: it is a statement about artifacts' in str(reason)


def test_what_vouched_for_inputs_is_named_with_the_digest_of_its_very_bytes() -> None:
    (report,) = judged(Build()).reports
    signed = hashlib.sha256(Build().written()).hexdigest()
    assert report.statements == (("public/chain-of-trust.json", signed),)
    (report,) = judged(Build(missing="it is gone")).reports
    assert report.statements == ()


def test_a_star_for_more_than_can_be_dealt_with_is_refused() -> None:
    artifacts = {f"public/{number}": {"sha256": DIGEST} for number in range(MAX_PATHS + 1)}
    judgement = judged(Build(body={"artifacts": artifacts}), wanting("public/*", optional=True))
    assert "at most 10000 are fetched" in str(judgement.reasons[0])


def test_an_input_is_called_by_its_task_and_its_name() -> None:
    (found,) = judged(Build()).inputs
    assert str(found) == f"{BUILD}/public/build/a.zip"


def test_the_signed_digest_is_the_one_that_counts() -> None:
    other = Sha256("cd" * 32)
    body = json.loads(Build().written())
    body["artifacts"]["public/build/a.zip"]["sha256"] = other
    assert judged(Build(body=body)).inputs[0].sha256 == other


def test_the_report_has_every_step_and_what_was_left_out() -> None:
    judgement = judged(Build(), wanting("public/*.zip", "gone", optional=True))
    first, second = judgement.inputs

    report = json.loads(write_report(judgement, Received((first,), ((second, "it is not there"),))))

    assert report["version"] == 1
    assert report["absent"] == [f'the task {BUILD} signed no artifact "gone"']
    (task,) = report["inputs"]
    assert (task["taskId"], task["runId"], task["verified"], task["key"]) == (BUILD, 1, True, fingerprint(KEY))
    assert [step["number"] for step in task["steps"]] == list(range(1, 13))
    assert task["artifacts"] == {
        "public/build/a.zip": {"sha256": DIGEST, "absent": None},
        "public/build/b.zip": {"sha256": DIGEST, "absent": "it is not there"},
    }


def test_the_report_of_a_task_that_is_not_verified_ends_where_it_failed() -> None:
    judgement = judged(Upstream(BUILD, None), wanting("public/*", optional=True, required=False))

    (task,) = json.loads(write_report(judgement, Received(())))["inputs"]

    assert (task["runId"], task["verified"], task["key"], len(task["steps"])) == (None, False, None, 1)


def test_the_report_says_how_inputs_were_traced_where_they_were() -> None:
    judgement = judged(Build(), wanting("public/build/a.zip"))
    traced: list[Json] = [{"taskId": BUILD}]

    assert json.loads(write_report(judgement, Received(()), traced))["trace"] == [{"taskId": BUILD}]
    assert "trace" not in json.loads(write_report(judgement, Received(())))
