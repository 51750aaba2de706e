"""JSON schemas: what they say of a wrong document, and what is no schema here."""

import json
from typing import Any

import pytest

from secureworker.core.claim import Json
from secureworker.core.keywords import CannotFollow, bounded
from secureworker.core.schemas import MAX_DEPTH, MAX_VALUES, BadSchema, CompiledSchema, matches, show, spell, too_much

DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def complaints(schema: dict[str, Any], value: Json) -> list[str]:
    return [f"{spell(each.path)}: {each.message}" for each in CompiledSchema(schema).problems(value)]


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        ({"type": "string"}, 5, ": found 5; expected a text"),
        ({"type": ["string", "null"]}, [1], ": found a list of 1; expected a text or null"),
        ({"enum": [1, "a"]}, {"b": 1}, ': found an object with the keys "b"; expected one of 1, "a"'),
        ({"const": "x"}, None, ': found null; expected "x"'),
        ({"minimum": 2}, 1, ": found 1; expected 2 or more"),
        ({"maximum": 2}, 3, ": found 3; expected 2 or less"),
        ({"pattern": "^a"}, "b", ': found "b"; expected a text that matches "^a"'),
        ({"pattern": "^a", "x-expected": "an a"}, "b", ': found "b"; expected an a'),
        ({"type": "string", "x-expected": "an a"}, 1, ": found 1; expected a text: an a"),
        ({"items": {"type": "integer"}}, [1, True], "[1]: found true; expected a whole number"),
        ({"properties": {"a": {"minLength": 1}}}, {"a": ""}, 'a: found ""; expected a length of 1 or more'),
        ({"items": {"properties": {"a b": {"type": "null"}}}}, [{"a b": 1}], '[0]["a b"]: found 1; expected null'),
        ({"properties": {"a": False}}, {"a": 1}, ": found 1; nothing is allowed here"),
        ({"required": ["a"]}, {}, "a: is missing"),
        ({"additionalProperties": False}, {"x": 1}, "x: is not a known key"),
        ({"additionalProperties": {"type": "null"}}, {"x": 1}, "x: found 1; expected null"),
        ({"patternProperties": {"^x": {"type": "null"}}}, {"x": 1, "y": 1}, "x: found 1; expected null"),
        ({"propertyNames": {"pattern": "^y"}}, {"x": 1}, 'x: found this key; expected a text that matches "^y"'),
        ({"uniqueItems": True}, [1, 1.0], ": found a list of 2; expected each item only once"),
        ({"uniqueItems": True}, [{"a": [1]}, {"a": [1]}], ": found a list of 2; expected each item only once"),
        ({"anyOf": [{"type": "null"}, False]}, 1, ": found 1; the schema's 'anyOf' does not allow it"),
        ({"not": {}}, 1, ": found 1; expected something that the schema's 'not' leaves out"),
    ],
)
def test_a_wrong_value_is_shown_with_what_was_expected(schema: dict[str, Any], value: Json, message: str) -> None:
    assert complaints(schema, value) == [message]


@pytest.mark.parametrize("value", [[1, True], [0, False], ["1", 1], [[1], [2]], [], "not a list"])
def test_different_items_are_unique(value: Json) -> None:
    assert complaints({"uniqueItems": True}, value) == []


def test_known_keys_are_those_of_properties_and_patterns() -> None:
    schema = {"properties": {"a": {}}, "patternProperties": {"^x-": {}}, "additionalProperties": False}
    assert complaints(schema, {"a": 1, "x-1": 2}) == []
    assert complaints(schema, "no object") == []


def test_a_long_value_is_shortened() -> None:
    (message,) = complaints({"type": "null"}, "x" * 10_000)
    assert len(message) < 150


def test_nothing_in_a_value_acts_on_a_terminal() -> None:
    assert show("\x1b[2J\u202e\x00") == '"\\u001b[2J\\u202e\\u0000"'


def test_no_more_problems_are_listed_than_somebody_reads() -> None:
    assert len(complaints({"items": {"type": "null"}}, [1] * 1000)) == 20


def test_a_regular_expression_takes_linear_time() -> None:
    assert not matches("^(a+)+$", "a" * 100_000 + "b")


def test_the_end_of_a_text_is_not_before_its_last_newline() -> None:
    assert matches("^a$", "a")
    assert not matches("^a$", "a\n")


def test_half_a_surrogate_pair_matches_nothing() -> None:
    assert not matches("^.*$", "\ud800")


@pytest.mark.parametrize("pattern", ["(?=a)", "(a)\\1", "(", "a{2,1}"])
def test_an_expression_that_is_not_linear_is_no_schema(pattern: str) -> None:
    with pytest.raises(BadSchema, match="RE2"):
        CompiledSchema({"items": [{"pattern": pattern}], "$schema": "http://json-schema.org/draft-07/schema#"})
    with pytest.raises(BadSchema, match="RE2") as caught:
        CompiledSchema({"properties": {"a": {"patternProperties": {pattern: {}}}}})
    assert caught.value.path == ("properties", "a")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strin"},
        {"$schema": "http://json-schema.org/draft-04/schema#"},
        {"$schema": 5},
        {"items": {"$schema": "https://json-schema.org/draft/2020-12/schema"}},
        {"$ref": "#"},
        {"$ref": "#/$defs/none"},
        {"allOf": [{"$id": "https://example.com/a", "$ref": "b"}]},
        {"$ref": "https://example.invalid/schema.json"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    ],
)
def test_what_is_no_schema_or_leads_nowhere_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(BadSchema):
        CompiledSchema(schema)


def test_a_schema_nested_too_deep_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(1000):
        schema = {"not": schema}
    with pytest.raises(BadSchema, match="deeper than"):
        CompiledSchema(schema)


@pytest.mark.parametrize("draft", ["draft-06", "draft-07"])
def test_older_drafts_are_understood(draft: str) -> None:
    schema = {"$schema": f"http://json-schema.org/{draft}/schema#", "definitions": {"a": {"const": 1}}}
    assert complaints(schema | {"items": [{"$ref": "#/definitions/a"}]}, [2]) == ["[0]: found 2; expected 1"]


def test_a_schema_refers_to_what_it_was_given() -> None:
    schema = CompiledSchema({"$ref": "b.json#/$defs/q"}, "file:///a.json", {"file:///b.json": {"$defs": {"q": False}}})
    assert schema.problems(1)
    assert "b.json" in repr(schema)


@pytest.mark.parametrize("draft", ["http://json-schema.org/draft-07/schema#", None])
def test_our_regular_expressions_are_used_whatever_the_dialect_and_the_way_there(draft: str | None) -> None:
    dialect: dict[str, Json] = {"$schema": draft} if draft else {}
    inner: dict[str, Json] = {"propertyNames": {"pattern": "^(a+)+$"}, **dialect}
    schema = CompiledSchema({"$ref": "b.json", **dialect}, "file:///a.json", {"file:///b.json": inner})
    assert schema.problems({"a\n": 1})
    assert schema.problems({"a" * 50_000 + "b": 1})


def test_schemas_of_two_dialects_are_not_mixed() -> None:
    draft_7: dict[str, Json] = {"$schema": "http://json-schema.org/draft-07/schema#"}
    with pytest.raises(BadSchema, match="another dialect"):
        CompiledSchema({"$ref": "b.json"}, "file:///a.json", {"file:///b.json": draft_7})


def test_a_reference_that_would_be_met_late_is_found_early() -> None:
    with pytest.raises(BadSchema, match="leads nowhere") as caught:
        CompiledSchema({"properties": {"a": {"items": [{"not": {"$ref": "#/nowhere"}}]}}, "$schema": DRAFT_7})
    assert caught.value.path == ("properties", "a", "items", 0, "not", "$ref")
    assert CompiledSchema({"const": {"$ref": "#/nowhere"}}).problems({"$ref": "#/nowhere"}) == ()


def test_a_reference_within_an_addressed_part_that_leads_nowhere_is_a_problem_and_no_crash() -> None:
    schema = CompiledSchema({"properties": {"a": {"$id": "https://example.com/a", "$ref": "b"}}})
    assert "leads nowhere" in schema.problems({"a": 1})[0].message


def _multiplying(levels: int, last: dict[str, Json]) -> dict[str, Json]:
    """Give a schema in which every level refers twice to the next."""
    levels_by_name: dict[str, Json] = {
        f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**levels_by_name, f"d{levels}": last}}


def test_references_that_multiply_each_other_come_to_an_end() -> None:
    with pytest.raises(BadSchema, match="multiply each other"):
        CompiledSchema(_multiplying(30, {"type": "object"}))


def test_references_that_multiply_with_a_document_come_to_an_end() -> None:
    inner = _multiplying(30, {})
    schema = CompiledSchema({"properties": {"a": {"$ref": inner["$ref"]}}, "$defs": inner["$defs"]})
    assert "references to look at it" in schema.problems({"a": 1})[0].message


class PanicException(BaseException):
    """As pyo3's, which cannot be made here."""


def test_whatever_ends_the_stack_is_a_schema_that_cannot_be_followed() -> None:
    for error in (RecursionError, PanicException):
        with pytest.raises(CannotFollow), bounded():
            raise error
    with pytest.raises(KeyboardInterrupt), bounded():
        raise KeyboardInterrupt


def test_a_schema_that_is_compiled_where_little_is_left_of_the_stack_is_refused() -> None:
    nested: dict[str, Json] = {}
    for _ in range(MAX_DEPTH - 1):
        nested = {"not": nested}

    def deeper(levels: int) -> CompiledSchema:
        return deeper(levels - 1) if levels else CompiledSchema(nested)

    assert CompiledSchema(nested).problems(1)
    # How much the test's own callers have used of it differs.
    refusals = 0
    for levels in range(300, 900, 20):
        try:
            deeper(levels)
        except BadSchema:
            refusals += 1
        except RecursionError:
            break
    assert refusals


def test_references_within_references_end_before_the_stack_does() -> None:
    chain: dict[str, Json] = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(300)}
    with pytest.raises(BadSchema, match="round in a circle"):
        CompiledSchema({"$defs": {**chain, "d300": {}}, "$ref": "#/$defs/d0"})


def test_what_jsonschema_matches_by_itself_is_refused() -> None:
    with pytest.raises(BadSchema, match="use additionalProperties"):
        CompiledSchema({"patternProperties": {"^(a+)+$": {}}, "unevaluatedProperties": False})


def test_a_schema_that_follows_a_document_too_deep_is_a_problem_and_no_crash() -> None:
    # Each level of the document takes a dozen references, which exhausts the stack before the document ends.
    chain: dict[str, Any] = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(30)}
    schema = CompiledSchema({"$defs": chain | {"d30": {"items": {"$ref": "#"}}}, "$ref": "#/$defs/d0"})
    nested: Json = []
    for _ in range(MAX_DEPTH - 1):
        nested = [nested]
    assert "deeper than its schema can follow" in schema.problems(nested)[0].message


def test_documents_are_measured_without_recursion() -> None:
    nested: Json = 1
    for _ in range(100_000):
        nested = {"a": nested}
    assert "deeper" in too_much(nested)
    assert "more than" in too_much([0] * (MAX_VALUES + 1))
    assert too_much({"a": [1, {"b": None}]}) == ""
    assert CompiledSchema({}).problems([0] * (MAX_VALUES + 1))


def test_the_keys_of_an_object_are_found_through_references_and_patterns() -> None:
    schema = CompiledSchema(
        {
            "properties": {
                "a": {"$ref": "#/$defs/x"},
                "list": {"items": {"properties": {"i": {}}}},
                "l": {"$ref": "#/$defs/loop"},
            },
            "patternProperties": {"^p": {"properties": {"q": {}}}},
            "additionalProperties": {"properties": {"other": {}}},
            "$defs": {"x": {"properties": {"y": {}}}, "loop": {"$ref": "#/$defs/loop"}},
        }
    )
    assert schema.keys_at(()) == ("a", "list", "l")
    assert schema.keys_at(("l",)) == ()
    assert schema.keys_at(("a",)) == ("y",)
    assert schema.keys_at(("list", 0)) == ("i",)
    assert schema.keys_at(("p1",)) == ("q",)
    assert schema.keys_at(("z",)) == ("other",)
    assert schema.keys_at(("a", "y", "z")) == ()


def test_what_is_shown_of_a_value_is_json() -> None:
    assert json.loads(show("é")) == "é"
    assert show({}) == "{}"
    assert show([]) == "[]"
