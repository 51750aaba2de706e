"""JSON-e, tamed: what templates give, what is no template here, and what hostile payloads cannot do."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.core.claim import Json
from secureworker.core.templates import MAX_RENDERED, BadTemplate, CannotRender, Template

PAYLOAD: dict[str, Json] = {"format": "gpg", "certs": ["a", "b"], "n": 3, "deep": {"k": "v"}, "none": None}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("x", "x"),
        (5, 5),
        ("${payload.format}", "gpg"),
        ("$${payload.format}", "${payload.format}"),
        ("a-${payload.format}-${payload.n}", "a-gpg-3"),
        ({"$eval": "payload.certs"}, ["a", "b"]),
        ({"$eval": "payload['missing']"}, None),
        ({"$eval": "payload.certs[0] + 'x'"}, "ax"),
        ({"$eval": "[1, -3, {a: 'b'}, payload.certs[0:1]]"}, [1, -3, {"a": "b"}, ["a"]]),
        ({"$map": {"$eval": "payload.certs"}, "each(c)": "cert:${c}"}, ["cert:a", "cert:b"]),
        ({"$map": {"$eval": "payload.certs"}, "each(c, i)": "${i}${c}"}, ["0a", "1b"]),
        ({"$if": "payload.n > 2", "then": "many", "else": "few"}, "many"),
        ({"$if": "payload.n > 5", "then": "many"}, None),
        ({"$if": "'format' in payload", "then": "${payload.format}"}, "gpg"),
        ({"$switch": {"payload.n == 3": "three", "$default": "other"}}, "three"),
        ({"$switch": {"payload.n == 4": "four", "$default": "other"}}, "other"),
        ({"$flatten": [["a"], ["b"]]}, ["a", "b"]),
        ({"$merge": [{"a": 1}, {"$eval": "payload.deep"}]}, {"a": 1, "k": "v"}),
        ({"$json": {"$eval": "payload.deep"}}, '{"k":"v"}'),
        ({"a": {"$eval": "sandbox.work"}, "$$literal": 1}, {"a": "/task/work", "$literal": 1}),
        ("${join(payload.certs, ',')}", "a,b"),
        ({"$eval": "split('a,b', ',')"}, ["a", "b"]),
        ({"$eval": "split('ab')"}, ["a", "b"]),
        ("${uppercase(payload.format)}", "GPG"),
    ],
)
def test_values_are_those_of_json_e(source: Json, value: Json) -> None:
    template = Template(source)
    assert template.render(PAYLOAD, sandbox={"work": "/task/work"}) == value


def test_what_says_the_same_for_every_task_is_fixed() -> None:
    assert Template("x").fixed
    assert Template({"a": ["b", 1, None]}).fixed
    assert not Template("$${x}").fixed
    assert not Template("${payload.x}").fixed
    assert not Template({"$eval": "1"}).fixed


def test_templates_are_equal_where_their_sources_are() -> None:
    assert Template({"a": 1}) == Template({"a": 1})
    assert Template("a") != Template("b")
    assert Template("a") != "a"
    assert len({Template({"a": 1}), Template({"a": 1})}) == 1
    assert repr(Template("a")) == "Template('a')"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("${", "this is no expression"),
        ("${}", "expected an expression"),
        ("${payload.x", "expected a } after the expression"),
        ("${payload ]}", "expected a } after the expression"),
        ("${a}", 'found "a" in "a}"; expected one of payload, sandbox'),
        ("${now}", 'found "now"'),
        ("${payload.x ** 2}", "powers are not computed"),
        ("${range(0, 9)}", 'found a call of "range"'),
        ("${fromNow('1 day')}", 'found a call of "fromNow"'),
        ("${payload.x()}", 'found a call of ""'),
        ("${len}", 'found "len"'),
        ("${" + "(" * 5000, "nested deeper than can be followed"),
        ({"$eval": ""}, "this is no expression"),
        ({"$eval": 5}, "expected an expression"),
        ({"$eval": "payload payload"}, "expected one expression"),
        ({"$eval": "payload", "x": 1}, 'found the keys "$eval", "x" together'),
        ({"$if": "1", "then": 1, "maybe": 2}, "together"),
        ({"$find": [1], "each(x)": "x"}, "found $find; expected one of"),
        ({"$reduce": [1], "each(a, x)": "x", "initial": 0}, "found $reduce"),
        ({"$fromNow": "1 day"}, "found $fromNow"),
        ({"$let": {"a": 1}, "in": "${a}"}, "found $let"),
        ({"$eval": "1", "$if": "1"}, "found $eval and $if"),
        ({"$nope": 1}, 'found the key "$nope"; write $$nope'),
        ({"$map": [1]}, "together"),
        ({"$map": [1], "each": 1}, "together"),
        ({"$map": [1], "each(x)y": 1}, "expected each(name) or each(name, index)"),
        ({"$map": [1], "each(x)": 1, "each(y)": 1}, "together"),
        ({"$map": [1], "each(x)": {"a": {"$map": [1], "each(y)": 1}}}, "found a $map within a $map"),
        ({"$switch": []}, "$switch takes an object"),
        ({"$switch": {"payload.": 1}}, "this is no expression"),
        ({"${a}": 1}, 'found "a"'),
        ({"$map": [1], "each(x)": "${y}"}, "expected one of payload, sandbox, x"),
    ],
)
def test_what_is_not_of_the_language_is_refused_when_the_policy_is_read(source: Json, problem: str) -> None:
    with pytest.raises(BadTemplate) as caught:
        Template(source)
    assert problem in str(caught.value)


def test_a_bad_template_says_where() -> None:
    with pytest.raises(BadTemplate) as caught:
        Template({"a": ["x", {"b": "${q}"}]})
    assert caught.value.path == ("a", 1, "b")


@pytest.mark.parametrize(
    "source",
    [
        "${payload.missing}",
        "${payload.certs}",
        "${payload.n / 0}",
        "${payload.n + payload.format}",
        "${payload.certs[9]}",
        "${payload.deep.k.l}",
        "${split(payload.n, '')}",
        "${payload.n - payload.format}",
        {"$map": {"$eval": "payload.n"}, "each(x)": "x"},
        {"$merge": {"$eval": "payload.certs"}},
        {"$flatten": {"$eval": "payload.n"}},
    ],
)
def test_a_payload_that_does_not_fit_is_a_refusal(source: Json) -> None:
    with pytest.raises(CannotRender):
        Template(source).render(PAYLOAD)


def test_text_of_the_payload_is_never_evaluated() -> None:
    hostile: dict[str, Json] = {
        "format": "${payload.secret}",
        "certs": [{"$eval": "payload.secret"}],
        "secret": "s3cret",
    }
    sources: list[Json] = ["${payload.format}", {"$eval": "payload"}, {"$json": {"$eval": "payload.certs"}}]
    for source in sources:
        rendered = Template(source).render({**hostile, "secret": 1})
        assert "s3cret" not in str(rendered)
    assert Template("${payload.format}").render(hostile) == "${payload.secret}"
    each: dict[str, Json] = {"$map": {"$eval": "payload.certs"}, "each(c)": {"$eval": "c"}}
    assert Template(each).render(hostile) == [{"$eval": "payload.secret"}]


@pytest.mark.parametrize(
    ("source", "payload"),
    [
        ({"$map": {"$eval": "payload.l"}, "each(x)": "${payload.s}"}, {"l": ["x"] * 50_000, "s": "y" * 500_000}),
        ({"$map": {"$eval": "payload.l"}, "each(x)": {"$json": {"$eval": "payload"}}}, {"l": ["x" * 20] * 20_000}),
        ("${join(payload.l, payload.s)}", {"l": ["x"] * 50_000, "s": "y" * 500_000}),
        ({"$map": {"$eval": "split(payload.s)"}, "each(x)": "${payload.s}"}, {"s": "y" * 1_000_000}),
        ({"$eval": "split(payload.s)"}, {"s": "y" * 1_000_000}),
        ("${payload.s}${payload.s}", {"s": "y" * (MAX_RENDERED // 2)}),
        ("${payload.n * payload.n}", {"n": 10**4000}),
    ],
)
def test_a_payload_cannot_make_a_template_grow(source: Json, payload: dict[str, Json]) -> None:
    started = time.process_time()
    with pytest.raises(CannotRender):
        Template(source).render(payload)
    assert time.process_time() - started < 5


def test_a_loop_over_what_real_tasks_have_is_fine() -> None:
    payload: dict[str, Json] = {"l": [f"public/build/target-{number}.tar.gz" for number in range(300)]}
    template = Template({"$map": {"$eval": "payload.l"}, "each(x)": "scope:${x}"})
    rendered = template.render(payload)
    assert isinstance(rendered, list)
    assert len(rendered) == 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
SOURCES: list[Any] = [
    "${payload.a}-${payload.b}",
    "${payload.a + payload.b}",
    {"$map": {"$eval": "payload.a"}, "each(x)": "${x}"},
    {"$if": "payload.a < payload.b", "then": {"$eval": "payload.c"}},
    {"$merge": [{"$eval": "payload.a"}, {"$eval": "payload.b"}]},
    {"$flatten": {"$eval": "payload.a"}},
    "${join(payload.a, payload.b)}",
    {"$eval": "payload.a[payload.b]"},
    {"$eval": "payload.a in payload.b"},
    "${lowercase(str(payload.a))}",
]


@given(st.sampled_from(SOURCES), st.fixed_dictionaries({"a": JSON, "b": JSON}, optional={"c": JSON}))
def test_whatever_the_payload_there_is_a_value_or_a_refusal(source: Json, payload: dict[str, Json]) -> None:
    try:
        Template(source).render(payload)
    except CannotRender as error:
        assert len(str(error)) < 300  # noqa: PT017 - a refusal is one of the two right answers


@given(st.text(alphabet="${}payload.x()[]'\"+-*/<>=!&|?:,in 019$", max_size=30))
def test_any_text_is_a_template_or_a_bad_one(text: str) -> None:
    sources: list[Json] = [text, {"$eval": text}]
    for source in sources:
        try:
            Template(source)
        except BadTemplate as error:
            assert str(error)  # noqa: PT017 - one of the two right answers
