"""Payloads against the rules that all scripts share, and against a script's schema."""

from datetime import timedelta

import pytest

from secureworker.core.claim import Json
from secureworker.core.ids import TaskId
from secureworker.core.inputs import MAX_PATHS, MAX_PATTERNS, MAX_TASKS, Wanted, fits
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


TASK = "ddVaxIRdRAaAAr5ryHnORA"


def an_entry(**changes: Json) -> Json:
    return {"taskId": TASK, "taskType": "build", "paths": ["public/build/a.zip"], **changes}


def wrong_with(entry: Json) -> tuple[str, ...]:
    found = examine({"upstreamArtifacts": [entry]}, ANYTHING)
    assert isinstance(found, Malformed)
    return found.problems


def test_inputs_are_read_whatever_else_scripts_are_told_of_them() -> None:
    entries = [an_entry(formats=["gpg"]), an_entry(paths=["public/*.asc"], optional=True)]
    found = examine({"upstreamArtifacts": entries}, ANYTHING)
    assert isinstance(found, Request)
    assert found.wanted == (
        Wanted(TaskId(TASK), ("public/build/a.zip",)),
        Wanted(TaskId(TASK), ("public/*.asc",), optional=True),
    )


@pytest.mark.parametrize("value", ["x", {}, None])
def test_inputs_that_are_no_list_are_refused(value: Json) -> None:
    found = examine({"upstreamArtifacts": value}, ANYTHING)
    assert isinstance(found, Malformed)
    assert found.problems[0].startswith("payload.upstreamArtifacts: found ")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (1, "payload.upstreamArtifacts[0]: found 1; expected an object"),
        (an_entry(taskId="x"), "payload.upstreamArtifacts[0].taskId: found"),
        (an_entry(taskId=1), "payload.upstreamArtifacts[0].taskId: found 1"),
        (an_entry(taskType=None), "payload.upstreamArtifacts[0].taskType: found null"),
        (an_entry(paths=[]), "payload.upstreamArtifacts[0].paths: found []"),
        (an_entry(paths="public/a"), "payload.upstreamArtifacts[0].paths: found"),
        (an_entry(paths=[1]), "payload.upstreamArtifacts[0].paths[0]: found 1; expected a text"),
        (an_entry(paths=["/etc/passwd"]), "payload.upstreamArtifacts[0].paths[0]: found"),
        (an_entry(paths=["public/../../x"]), "payload.upstreamArtifacts[0].paths[0]: found"),
        (an_entry(paths=["public//x"]), "payload.upstreamArtifacts[0].paths[0]: found"),
        (an_entry(paths=["public/a\nb"]), "payload.upstreamArtifacts[0].paths[0]: found"),
        (an_entry(paths=["public/a\x00b"]), "payload.upstreamArtifacts[0].paths[0]: found"),
        (an_entry(paths=["public/é"]), "payload.upstreamArtifacts[0].paths[0]: found"),
        (an_entry(paths=["public/" + "x" * 256]), "payload.upstreamArtifacts[0].paths[0]: found"),
        (an_entry(optional="yes"), 'payload.upstreamArtifacts[0].optional: found "yes"'),
        (an_entry(optional=1), "payload.upstreamArtifacts[0].optional: found 1"),
    ],
)
def test_an_input_that_is_not_in_its_form_is_refused(entry: Json, expected: str) -> None:
    assert wrong_with(entry)[0].startswith(expected)


def test_a_star_is_for_optional_inputs_only() -> None:
    assert "* is for optional paths only" in wrong_with(an_entry(paths=["public/*"]))[0]


def test_too_many_inputs_are_refused() -> None:
    ids = [f"{number:08d}Q0C0000000000A" for number in range(MAX_TASKS + 1)]
    many: list[list[Json]] = [
        [an_entry(taskId=task_id) for task_id in ids],
        [an_entry(paths=[f"public/{number}" for number in range(MAX_PATHS + 1)])],
        [an_entry(paths=[f"public/{number}*" for number in range(MAX_PATTERNS + 1)], optional=True)],
    ]
    for entries in many:
        found = examine({"upstreamArtifacts": entries}, ANYTHING)
        assert isinstance(found, Malformed)
        assert "expected at most" in found.problems[0]


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("public/a", "public/a", True),
        ("public/a", "public/ab", False),
        ("*", "public/a", True),
        ("public/*", "public/a/b.zip", True),
        ("public/*.zip", "public/a/b.zip", True),
        ("public/*.zip", "public/a.zip.asc", False),
        ("*/a*b*.zip", "public/axxbyy.zip", True),
        ("*/a*b*.zip", "public/bxxayy.zip", False),
        ("ab*ba", "aba", False),
        ("ab*ba", "abba", True),
        ("a**b", "ab", True),
        ("a*b*b", "ab", False),
        ("*" + "a*" * 99, "a" * 1000, True),
        ("*" + "a*" * 99 + "b", "a" * 1000, False),
    ],
)
def test_a_star_stands_for_any_characters(pattern: str, name: str, *, expected: bool) -> None:
    assert fits(pattern, name) is expected


def test_everything_that_is_wrong_is_said() -> None:
    found = examine({"maxRunTime": 0, "upstreamArtifacts": [1], "a": "b", "c": "\x00"}, STRICT)
    assert isinstance(found, Malformed)
    assert [problem.partition(":")[0] for problem in found.problems] == [
        "payload.maxRunTime",
        "payload.upstreamArtifacts[0]",
        "payload.a",
        "payload.c",
    ]
