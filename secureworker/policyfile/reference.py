"""The reference of the policy language, as Markdown, from the schema: one section per group of keys."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

_TYPES: Final = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "mapping",
}
_HEAD: Final = """\
# Policy reference

<!-- Made from schemas/policy.schema.json by `secureworker schema policy --markdown`: change the schema. -->

Every key of the policy file, version 1. [The guide](policies.md) says how to write and review one; `secureworker schema
policy` prints the same as a JSON schema, for editors.

The file is YAML 1.2. Unknown keys, keys that are there twice, tags, and values of another type than stated are errors.
Relative paths and `$ref`s start from the policy's directory and may not leave it. What is not allowed is refused.

**Templates.** In `command`, `requires-scopes` and `config`, texts may hold `${...}` expressions and objects may be
[JSON-e](https://json-e.js.org) (`$eval`, `$if`, `$map`, `$switch`, `$flatten`, `$merge`, `$json`; the functions `len`,
`str`, `lowercase`, `uppercase`, `strip`, `lstrip`, `rstrip`, `join`, `split`, `typeof`). They speak of `payload`, which
the script's schema has admitted, and of `sandbox.work`, `sandbox.artifacts` and `sandbox.home`. What a template cannot
make of a payload is a refusal.

**Regular expressions** in JSON schemas are [RE2](https://github.com/google/re2/wiki/Syntax)'s: without lookaround and
back-references, and so in linear time.
"""


def as_markdown(schema: Mapping[str, Any]) -> str:
    """Give the whole reference."""
    return _HEAD + "".join(_section(schema, "", dict(schema), 2))


def _resolve(schema: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """Follow a reference; what stands beside it wins."""
    if "$ref" not in part:
        return dict(part)
    return {**schema["$defs"][part["$ref"].rpartition("/")[2]], **{key: part[key] for key in part if key != "$ref"}}


def _section(schema: Mapping[str, Any], name: str, part: dict[str, Any], level: int) -> Iterator[str]:
    """Describe the keys of an object, and then those below them that have keys themselves."""
    title = f"`{name}`" if name else "The file"
    yield f"\n{'#' * min(level, 5)} {title}\n\n{part['description']}\n\n"
    yield "| key | | what it says | example |\n|---|---|---|---|\n"
    below: list[tuple[str, dict[str, Any]]] = []
    for key, raw in part["properties"].items():
        value = _resolve(schema, raw)
        must = "required" if key in part.get("required", ()) else ""
        example = _cell(value["examples"][0]) if value.get("examples") else ""
        kind = ", ".join(filter(None, (_kind(schema, value), must)))
        yield f"| `{key}` | {kind} | {_escape(value['description'])} | {example} |\n"
        below.extend(_objects(schema, f"{name}.{key}" if name else key, value))
    for path, inner in below:
        yield from _section(schema, path, inner, level + 1)


def _objects(schema: Mapping[str, Any], name: str, value: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the objects with known keys that a key leads to, in lists and free mappings too."""
    if "properties" in value:
        yield name, value
    for keyword, suffix in (("items", "[]"), ("additionalProperties", ".<name>")):
        inner = value.get(keyword)
        if isinstance(inner, dict):
            yield from _objects(schema, name + suffix, _resolve(schema, inner))


def _kind(schema: Mapping[str, Any], value: dict[str, Any]) -> str:
    if "const" in value:
        return f"`{json.dumps(value['const'])}`"
    if "enum" in value:
        return " or ".join(f"`{each}`" for each in value["enum"])
    kinds = value["type"] if isinstance(value["type"], list) else [value["type"]]
    if value.get("x-expected") and "object" not in kinds:
        return _escape(value["x-expected"])
    spelled = " or ".join(_TYPES[kind] for kind in kinds)
    items = value.get("items")
    if isinstance(items, dict):
        return f"{spelled}: each {_kind(schema, _resolve(schema, items))}"
    if "minimum" in value and "maximum" in value:
        return f"{spelled} from {value['minimum']} to {value['maximum']}"
    return spelled


def _cell(example: Any) -> str:
    text = json.dumps(example, ensure_ascii=False)
    longest = 60
    # Within a code span, < stands for itself.
    return "`{}`".format(text.replace("|", "\\|")) if len(text) <= longest else ""


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
