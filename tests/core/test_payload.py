"""Payloads against the rules that all scripts share, and against a script's schema."""

from datetime import timedelta

import pytest

from secureworker.core.claim import Json
from secureworker.core.payload import Malformed, Request, examine
from secureworker.core.schemas import CompiledSchema

ANYTHING = CompiledSchema({})
STRICT = CompiledSchema({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False})


def test_the_run_time_is_the_payloads() -> None:
    assert examine({"maxRunTime": 90}, ANYTHING) == Request(timedelta(seconds=90))
    assert examine({}, ANYTHING) == Request(None)


@pytest.mark.parametrize("value", [0, -1, 10**12, True, 1.5, 60.0, "60", None, [], {}])
def test_a_run_time_that_is_no_positive_whole_number_is_refused(value: Json) -> None:
    found = examine({"maxRunTime": value}, ANYTHING)
    assert isinstance(found, Malformed)
    assert found.problems[0].startswith("payload.maxRunTime: found ")


def test_the_common_keys_need_not_be_in_a_closed_schema() -> None:
    assert examine({"a": 1, "maxRunTime": 5, "upstreamArtifacts": []}, STRICT) == Request(timedelta(seconds=5))


def test_a_schema_that_speaks_of_a_common_key_is_heard() -> None:
    schema = CompiledSchema({"properties": {"maxRunTime": {"maximum": 10}}})
    assert examine({"maxRunTime": 11}, schema) == Malformed(("payload.maxRunTime: found 11; expected 10 or less",))


@pytest.mark.parametrize("value", [[{"taskId": "x"}], "x", {}, None])
def test_inputs_are_refused_as_long_as_none_are_fetched(value: Json) -> None:
    found = examine({"upstreamArtifacts": value}, ANYTHING)
    assert isinstance(found, Malformed)
    assert found.problems[0].startswith("payload.upstreamArtifacts: found ")


def test_everything_that_is_wrong_is_said() -> None:
    found = examine({"maxRunTime": 0, "upstreamArtifacts": [1], "a": "b", "c": "\x00"}, STRICT)
    assert isinstance(found, Malformed)
    assert [problem.partition(":")[0] for problem in found.problems] == [
        "payload.maxRunTime",
        "payload.upstreamArtifacts",
        "payload.a",
        "payload.c",
    ]
