"""The summary of inputs' verification, made of nothing but the provenance."""

import json
from typing import Any

from secureworker.core.summary import verification_summary

DIGEST = {"sha256": "ab" * 32}
TASK: dict[str, Any] = {"name": "task", "digest": DIGEST}
SCRIPT: dict[str, Any] = {"name": "script/sign", "digest": DIGEST}
INPUT: dict[str, Any] = {"name": "input/T/public/a", "uri": "https://tc/a", "digest": DIGEST}
VOUCHED: dict[str, Any] = {"name": "statement/T/public/chain-of-trust.json", "uri": "https://tc/c", "digest": DIGEST}


def summary(*dependencies: dict[str, Any]) -> Any:
    internal = {"policy": DIGEST}
    build = {"resolvedDependencies": [TASK, SCRIPT, *dependencies], "internalParameters": internal}
    metadata = {"startedOn": "2026-01-31T12:00:00.000Z", "invocationId": "https://tc/tasks/T/runs/0"}
    details = {"builder": {"id": "https://tc/pool"}, "metadata": metadata}
    written = verification_summary({"predicate": {"buildDefinition": build, "runDetails": details}})
    return None if written is None else json.loads(written)


def test_without_inputs_there_is_none() -> None:
    assert summary() is None
    assert summary(VOUCHED) is None


def test_inputs_are_its_subjects_and_what_vouched_for_them_its_attestations() -> None:
    made = summary(INPUT, VOUCHED)
    assert made["subject"] == [{"name": INPUT["name"], "digest": DIGEST}]
    assert made["predicate"]["inputAttestations"] == [{"uri": "https://tc/c", "digest": DIGEST}]


def test_provenance_of_before_statements_were_named_has_the_summary_that_it_had() -> None:
    assert "inputAttestations" not in summary(INPUT)["predicate"]


def test_a_statement_without_an_address_is_named_by_its_digest() -> None:
    nowhere = {key: value for key, value in VOUCHED.items() if key != "uri"}
    assert summary(INPUT, nowhere)["predicate"]["inputAttestations"] == [{"digest": DIGEST}]


def test_an_input_is_none_although_its_task_calls_it_a_statement() -> None:
    odd = {**INPUT, "name": "input/T/statement/x"}
    assert summary(odd)["subject"] == [{"name": odd["name"], "digest": DIGEST}]
