"""YAML and JSON, read strictly: what a plain document is, and what is refused with its line."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.core.claim import Json
from secureworker.core.schemas import CompiledSchema
from secureworker.host.documents import BadDocument, nearest, parse, parse_json, parse_yaml


def value_of(text: str) -> Json:
    return parse_yaml(text, "f.yml").value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("010", 10),
        ("0o10", 8),
        ("0xff", 255),
        ("-7", -7),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1e999", "1e999"),
        (".inf", ".inf"),
        ("1" * 40, "1" * 40),
        ("2027-06-01", "2027-06-01"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("'true'", "true"),
        ('"5"', "5"),
        ("|\n a\n b\n", "a\nb\n"),
        ("{4: x, true: y}", {"4": "x", "true": "y"}),
        ("[a, {b: [c]}]", ["a", {"b": ["c"]}]),
        ("%YAML 1.2\n---\na: 1", {"a": 1}),
    ],
)
def test_values_are_those_of_yaml_1_2(text: str, value: Json) -> None:
    assert value_of(text) == value
    assert type(value_of(text)) is type(value)


def test_lines_are_those_of_keys_and_items() -> None:
    document = parse_yaml("a:\n  - x\n  -\n    k: v\nb: 1\n", "f.yml")
    assert [document.line(path) for path in [("a",), ("a", 0), ("a", 1, "k"), ("b",)]] == [1, 2, 4, 5]
    assert document.line(("a", 1, "k", "deeper", 5)) == 4
    assert document.line(("unknown",)) == 1


def test_merged_keys_come_after_a_mappings_own_and_in_order() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*b, *a], z: 3}\nd: {<<: *a}\ne: {'<<': 1}"
    assert value_of(text) == {
        "a": {"x": 1, "y": 1},
        "b": {"y": 2, "z": 2},
        "c": {"z": 3, "y": 2, "x": 1},
        "d": {"x": 1, "y": 1},
        "e": {"<<": 1},
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "f.yml: it is empty"),
        ("a: 1\nb: 2\na: 3", "f.yml:3: a: this key is here twice, first in line 1; keep one"),
        ("a: [1", "f.yml:1: not YAML"),
        (
            "a:\n  b: 1\n   c: 2",
            "f.yml:3: not YAML: mapping values are not allowed here; a line here, or above, is inde",
        ),
        (
            "a:\n  b:\n    - 1\n   c: 2",
            "f.yml:4: not YAML: expected <block end>, but found '<block mapping start>'; a line here, or above",
        ),
        ("a:\n\tb: 1", "f.yml:2: not YAML: found character '\\t' that cannot start any token; indent by spaces"),
        ("a: \x00", "f.yml: not YAML"),
        ("a: &x [*x]", "f.yml:1: the alias *x stands for nothing"),
        ("a: *x", "f.yml:1: the alias *x stands for nothing"),
        ("\n[a]: 1", "f.yml:2: found a key that is no plain text"),
        ("{a: 1}: 1", "f.yml:1: found a key that is no plain text"),
        ("&k a: 1", "f.yml:1: found a key that is no plain text"),
        ("a: !!str 1", "f.yml:1: found the tag"),
        ("a: !x {}", "f.yml:1: found the tag"),
        ("%YAML 1.1\n---\na", "f.yml:2: found a directive"),
        ("%TAG ! tag:x,2000:\n---\na", "f.yml:2: found a directive"),
        ("a\n---\nb", "f.yml:2: a second document begins"),
        ("a: {<<: 1}", "f.yml:1: found << twice, or with something else"),
        ("a: {<<: {}, <<: {}}", "f.yml:1: found << twice"),
        ("a: {<<: [[]]}", "f.yml:1: found << twice, or with something else"),
        ("[" * 100_000, "f.yml:1: nested deeper than 64 levels"),
        ("- " * 200 + "a", "f.yml:1: nested deeper than 64 levels"),
        ("a" * 1_100_000, "f.yml: it has more than"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(BadDocument) as caught:
        parse_yaml(text, "f.yml")
    assert str(caught.value).startswith(problem)


def test_all_keys_that_are_there_twice_are_named() -> None:
    with pytest.raises(BadDocument) as caught:
        parse_yaml("a: 1\na: 2\nb: {c: 1, c: 2}", "f.yml")
    assert len(caught.value.problems) == 2


def _layers(first: str, line: str) -> str:
    names = "abcdefghij"
    return first + "".join(line.format(names[n], ", ".join(["*" + names[n - 1]] * 9)) for n in range(1, len(names)))


@pytest.mark.parametrize(
    "text",
    [
        _layers("a: &a [x, x, x]\n", "{0}: &{0} [{1}]\n"),
        _layers("a: &a {x: x}\n", "{0}: &{0} {{<<: [{1}]}}\n"),
        "a: &a0 {x: 1}\n" + "".join(f"b{n}: &a{n + 1} {{<<: *a{n}}}\n" for n in range(80)),
        "a: &a0 [x]\n" + "".join(f"b{n}: &a{n + 1} [*a{n}]\n" for n in range(80)),
    ],
    ids=["lists", "merges", "deep merges", "deep lists"],
)
def test_aliases_that_multiply_are_refused_in_bounded_time(text: str) -> None:
    started = time.process_time()
    with pytest.raises(BadDocument, match=r"more than|deeper|can be followed"):
        parse_yaml(text, "bomb.yml")
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{\n"a": }', "f.json:2: not JSON"),
        ('{"a": 1, "a": 2}', 'the key "a" is in one object twice'),
        ("NaN", "NaN is no JSON"),
        ("[" * 100_000, "nested deeper than can be read"),
        ("1" * 10_000, "f.json: not JSON"),
        (" " * 1_100_000, "it has more than"),
    ],
)
def test_what_is_no_json_is_refused(text: str, problem: str) -> None:
    with pytest.raises(BadDocument) as caught:
        parse_json(text, "f.json")
    assert problem in str(caught.value)


def test_a_file_is_json_or_yaml_by_its_name() -> None:
    assert parse(b'{"a": 1}', "f.json").value == {"a": 1}
    assert parse(b"a: 1", "f.yml").value == {"a": 1}
    with pytest.raises(BadDocument, match="not JSON"):
        parse(b"a: 1", "f.json")
    with pytest.raises(BadDocument, match="not UTF-8 at byte 3"):
        parse(b"a: \xff", "f.yml")


@pytest.mark.parametrize(
    ("word", "meant"), [("comand", "command"), ("Max_Run_Time", "max-run-time"), ("zzz", ""), ("", "")]
)
def test_the_nearest_word_is_what_was_meant(word: str, meant: str) -> None:
    assert nearest(word, ["command", "max-run-time", "pinned"]) == meant


def test_a_document_is_held_against_a_schema_with_the_right_keys_in_reach() -> None:
    schema = CompiledSchema({"properties": {"command": {"type": "string"}}, "additionalProperties": False})
    document = parse_yaml("comand: 1\ncommand: 2\nq: 3", "f.yml")
    assert [document.complain(path, message) for path, message in document.check(schema)] == [
        "f.yml:1: comand: is not a known key; did you mean 'command'?",
        "f.yml:2: command: found 2; expected a text",
        "f.yml:3: q: is not a known key; known here are command",
    ]
    assert document.check(CompiledSchema({"additionalProperties": False}))[0][1] == "is not a known key"
    assert document.complain((), "odd") == "f.yml: odd"


@given(st.text(alphabet="ab1:-*&[]{}\"'!|>%#,? \n\t\\<~\x85\ufeff", max_size=40))
def test_any_text_is_a_document_or_a_bad_one(text: str) -> None:
    try:
        parse_yaml(text, "f.yml")
    except BadDocument as error:
        assert error.problems  # noqa: PT017 - an error is one of the two right answers
