"""The published schema and the parser agree: what one takes, the other reads; examples are right; all is described."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from secureworker.core.errors import PolicyError
from secureworker.core.schemas import CompiledSchema, matches
from secureworker.policyfile import load
from secureworker.policyfile.load import policy_schema, read_schema
from tests.policyfile.policies import write

SCHEMA = read_schema("policy")


def subschemas(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every schema within a schema, with a path."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for keyword in ("properties", "$defs"):
        for name, below in schema.get(keyword, {}).items():
            yield from subschemas(below, f"{path}/{name}")
    for keyword in ("items", "additionalProperties", "propertyNames"):
        yield from subschemas(schema.get(keyword), f"{path}/{keyword}")


ALL = dict(subschemas(SCHEMA))


@pytest.mark.parametrize("path", [path for path in ALL if not path.endswith("propertyNames")])
def test_every_key_is_described_and_has_right_examples(path: str) -> None:
    schema = ALL[path]
    assert schema["description"].endswith(".")
    assert schema["examples"]
    document = {"$defs": SCHEMA["$defs"], **schema}
    for example in schema["examples"]:
        assert CompiledSchema(document).problems(example) == ()


@pytest.mark.parametrize("path", [path for path, schema in ALL.items() if schema.get("type") == "object"])
def test_every_object_is_closed(path: str) -> None:
    # Free documents of others: JSON schemas, and a script's config.
    free = {"/payload", "/config", "/definition"}
    schema = ALL[path]
    assert "additionalProperties" in schema or any(path.endswith(name) for name in free)


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return {**resolve(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]), "examples": schema.get("examples", [])}
    return schema


NAMES = ("hello", "release-3/b-linux", "bin/hello", "LANG", ".mar", "4", "key.json")
"""Keys, of which each of the schema's patterns for keys takes one or more."""


class Maker:
    """Makes documents that a part of the schema takes. hypothesis does it too, in minutes."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def make(self, part: dict[str, Any]) -> Any:
        schema = resolve(part)
        if "const" in schema or "enum" in schema:
            return self._random.choice(schema.get("enum", [schema.get("const")]))
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        kind = self._random.choice(kinds)
        fitting = [each for each in schema["examples"] if isinstance(each, KINDS[kind])]
        match kind:
            case "array":
                count = self._random.randint(schema.get("minItems", 0), 2)
                made = [self.make(schema["items"]) for _ in range(count)]
                return [each for index, each in enumerate(made) if each not in made[:index]]
            case "object" if schema.get("properties") or "propertyNames" in schema:
                return self._object(schema)
            case _:
                return self._random.choice(fitting or ["none"])

    def _object(self, schema: dict[str, Any]) -> dict[str, Any]:
        if "maxProperties" in schema:
            return dict(self._random.choice(schema["examples"]))
        made: dict[str, Any] = {}
        for name, part in schema.get("properties", {}).items():
            if name in schema.get("required", ()) or self._random.random() < 0.5:
                made[name] = self.make(part)
        if "command" in made:
            # What no schema can say: the executable is pinned.
            made["command"][0] = next(iter(made["pinned"]))
        if "propertyNames" in schema:
            names = [name for name in NAMES if matches(resolve(schema["propertyNames"])["pattern"], name)]
            made = {name: self.make(schema["additionalProperties"]) for name in self._random.sample(names, 1)}
        return made if len(made) >= schema.get("minProperties", 0) else dict(schema["examples"][0])


KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "object": dict,
    "array": list,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_what_the_schema_takes_the_parser_reads_or_refuses_for_its_meaning(tmp_path: Path, seed: int) -> None:
    policy = Maker(seed).make(SCHEMA)
    assert policy_schema().problems(policy, 100) == ()
    path = write(tmp_path, json.dumps(policy))
    for name in ("sign-payload", "release-task"):
        (tmp_path / "schemas").mkdir(exist_ok=True)
        (tmp_path / "schemas" / f"{name}.schema.json").write_text("{}")
    try:
        load(path, host=False)
        event("read")
    except PolicyError as error:
        # What is refused here is refused for what it means: nothing of it has the schema's words.
        for problem in error.problems:
            assert not any(words in problem for words in ("is not a known key", ": is missing", "; expected an object"))


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_what_the_schema_refuses_the_parser_refuses(tmp_path: Path, data: st.DataObject) -> None:
    document: dict[str, Any] = json.loads(json.dumps(SCHEMA["examples"][0]))
    places = [document, document["tasks"], document["scripts"]["hello"]]
    spoiled = data.draw(st.sampled_from(places))
    key = data.draw(st.sampled_from(sorted(spoiled)))
    spoiled[key] = data.draw(st.sampled_from([None, 5, "", [], {}, [None], {"x": 1}, "x", True]))
    if policy_schema().problems(document):
        with pytest.raises(PolicyError):
            load(write(tmp_path, json.dumps(document)), host=False)
