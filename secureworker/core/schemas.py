"""JSON schemas that cannot reach out, cannot run away, and say what is wrong in a sentence.

A schema is compiled once, with every file that it refers to at hand: nothing is ever fetched.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import SchemaRegistry

from secureworker.core.claim import Json
from secureworker.core.keywords import (
    BadSchema,
    CannotFollow,
    as_object,
    bounded,
    dialect_of,
    matches,
    unnamed,
)
from secureworker.core.wording import SHOWN, Path, Problem, shorten, show, spell

__all__ = ["MAX_DEPTH", "MAX_VALUES", "BadSchema", "CompiledSchema", "Path", "Problem"]
__all__ += ["matches", "shorten", "show", "spell", "too_much"]

MAX_DEPTH: Final = 64
"""Levels of lists and objects: far below what exhausts the interpreter's stack, far above what release tasks use."""
MAX_VALUES: Final = 100_000
"""Values in one document. A task definition is at most 1 MB at the Queue; the largest real payloads hold 3,000."""
MAX_PROBLEMS: Final = 20
"""Problems listed per document: enough to mend it at once, too few to flood a log."""


def too_much(document: object) -> str:
    """Say why `document` is deeper or larger than anything here looks at; empty where it is not.

    It does not recurse: nested 100,000 deep, a document is refused like any other.
    """
    layer: list[object] = [document]
    values = 0
    for _ in range(MAX_DEPTH + 1):
        values += len(layer)
        if values > MAX_VALUES:
            return f"it holds more than {MAX_VALUES} values"
        below: list[object] = []
        for value in layer:
            if isinstance(value, dict):
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
        if not below:
            return ""
        layer = below
    return f"it is nested deeper than {MAX_DEPTH} levels"


class CompiledSchema:
    """A JSON schema, ready to be used on any number of documents. Immutable."""

    __slots__ = ("_validator", "document")

    document: Mapping[str, Json]
    """The schema as it was written."""

    def __init__(
        self, document: Mapping[str, Json], uri: str = "", resources: Mapping[str, Mapping[str, Json]] | None = None
    ) -> None:
        """Compile a schema.

        Args:
            document: the schema.
            uri: where relative references in it start from.
            resources: every schema that it may refer to, by URI. There is no other place to find one.

        Raises:
            BadSchema: it is no schema, or refers to one that is not among `resources`.
        """
        self.document = document
        dialect = dialect_of(document)
        for schema in (document, *(resources or {}).values()):
            _check(schema)
        registry: SchemaRegistry = Registry()
        for name, schema in (resources or {}).items():
            if dialect_of(schema) is not dialect:
                raise BadSchema(f"{name} is written in another dialect; write $schema the same in both")
            registry = registry.with_resource(name, dialect.specification.create_resource(_bare(schema)))
        registry = registry.with_resource(uri, dialect.specification.create_resource(_bare(document)))
        registry = registry.crawl()
        for name, schema in ((uri, document), *(resources or {}).items()):
            own = schema.get("$id")
            _check_references(schema, (), registry, own if isinstance(own, str) else name)
        self._validator = dialect.validator({"$ref": uri} if uri else _bare(document), registry=registry)
        self._probe()

    def __repr__(self) -> str:
        return f"CompiledSchema({shorten(repr(dict(self.document)))})"

    def _probe(self) -> None:
        """Find out now, and not at the first task, that a reference leads nowhere or round in a circle."""
        instances: tuple[Json, ...] = (None, {}, [], "", 0)
        for instance in instances:
            try:
                with bounded():
                    for _ in islice(self._validator.iter_errors(instance), MAX_PROBLEMS):
                        pass
            except Unresolvable as error:
                raise BadSchema(f"the reference {show(str(error.ref))} leads nowhere") from error
            except CannotFollow:
                raise BadSchema("its references lead round in a circle, or multiply each other") from None

    def keys_at(self, path: Path) -> tuple[str, ...]:
        """Give the keys that the schema names for the object at `path`; nothing where it names none or is not followed.

        Follows `properties`, `patternProperties`, `additionalProperties`, `items` and references within the document:
        enough to say which key was meant.
        """
        schema = self._follow(self.document)
        for part in path:
            schema = self._follow(_step(schema, part))
        return tuple(as_object(schema.get("properties")))

    def _follow(self, schema: Mapping[str, Json]) -> Mapping[str, Json]:
        for _ in range(MAX_DEPTH):
            reference = schema.get("$ref")
            if not isinstance(reference, str) or not reference.startswith("#/"):
                break
            schema = self.document
            for part in reference[2:].split("/"):
                schema = as_object(schema.get(part))
        return schema

    def problems(self, instance: Json, most: int = MAX_PROBLEMS) -> tuple[Problem, ...]:
        """Say what in `instance` the schema does not allow: up to `most`, the first in the document first."""
        excess = too_much(instance)
        if excess:
            return (Problem((), excess),)
        try:
            with bounded():
                errors = list(islice(self._validator.iter_errors(instance), most))
        except CannotFollow as error:
            return (Problem((), str(error)),)
        except Unresolvable as error:
            return (Problem((), f"the schema's reference {show(str(error.ref))} leads nowhere"),)
        found = [problem for error in errors for problem in _explain(error)]
        return tuple(sorted(set(found), key=lambda problem: (tuple(map(str, problem.path)), problem.message)))


def _step(schema: Mapping[str, Json], part: str | int) -> Mapping[str, Json]:
    """Give the subschema for the key or item `part`."""
    if isinstance(part, int):
        return as_object(schema.get("items"))
    named = as_object(schema.get("properties"))
    if part in named:
        return as_object(named[part])
    for pattern, below in as_object(schema.get("patternProperties")).items():
        if matches(pattern, part):
            return as_object(below)
    return as_object(schema.get("additionalProperties"))


def _bare(schema: Mapping[str, Json]) -> dict[str, Json]:
    """Leave out `$schema`: where jsonschema meets one, it goes on with its own validators and forgets ours."""
    return {key: value for key, value in schema.items() if key != "$schema"}


def _check(schema: Mapping[str, Json]) -> None:
    excess = too_much(schema)
    if excess:
        raise BadSchema(excess)
    _check_patterns(schema, ())
    try:
        with bounded():
            dialect_of(schema).check_schema(schema)
    except CannotFollow as error:
        raise BadSchema("it is nested deeper than can be followed") from error
    except SchemaError as error:
        raise BadSchema(f"found {show(error.instance)}; this is no JSON schema", tuple(error.absolute_path)) from error


def _check_patterns(schema: object, path: Path) -> None:
    """Try every regular expression now: jsonschema would meet a bad one in the middle of a task."""
    if isinstance(schema, list):
        for index, item in enumerate(schema):
            _check_patterns(item, (*path, index))
    if isinstance(schema, dict):
        if path and isinstance(schema.get("$schema"), str):
            raise BadSchema("found a $schema within a schema; expected one at its top only", path)
        if isinstance(schema.get("unevaluatedProperties"), dict | bool) and "patternProperties" in schema:
            raise BadSchema("found unevaluatedProperties with patternProperties; use additionalProperties", path)
        pattern = schema.get("pattern")
        expressions = [pattern] if isinstance(pattern, str) else []
        try:
            for expression in (*expressions, *as_object(schema.get("patternProperties"))):
                matches(expression, "")
        except BadSchema as error:
            raise BadSchema(str(error), path) from error
        for key, value in schema.items():
            _check_patterns(value, (*path, key))


def _check_references(schema: object, path: Path, registry: SchemaRegistry, base: str) -> None:
    """Follow every reference once: jsonschema would meet one that leads nowhere in the middle of a task."""
    if isinstance(schema, list):
        for index, item in enumerate(schema):
            _check_references(item, (*path, index), registry, base)
    if not isinstance(schema, dict) or (path and isinstance(schema.get("$id"), str)):
        # A schema within a schema, with an address of its own: it is found out when it is met, and refuses then.
        return
    reference = schema.get("$ref")
    if isinstance(reference, str):
        try:
            registry.resolver(base).lookup(reference)
        except Unresolvable as error:
            raise BadSchema(f"the reference {show(reference)} leads nowhere", (*path, "$ref")) from error
    for key, value in schema.items():
        # What is no schema may hold what looks like one.
        if key not in {"const", "enum", "examples", "default"}:
            _check_references(value, (*path, key), registry, base)


def _explain(error: ValidationError) -> Iterator[Problem]:
    """Turn one of jsonschema's errors into what its reader needs. Its own message quotes the whole document."""
    path: Path = tuple(error.absolute_path)
    keyword, wanted, found = str(error.validator), error.validator_value, error.instance
    match keyword:
        case "required":
            missing = [name for name in _texts(wanted) if isinstance(found, dict) and name not in found]
            for name in missing:
                yield Problem((*path, name), "is missing", keyword)
        case "additionalProperties" if wanted is False:
            for name in unnamed(as_object(error.schema), as_object(found)):
                yield Problem((*path, name), "is not a known key", keyword, on_key=True)
        case _ if "propertyNames" in error.relative_schema_path and isinstance(found, str):
            yield Problem((*path, found), f"found this key; {_expectation(error)}", keyword, on_key=True)
        case _ if error.schema is False:
            yield Problem(path, f"found {show(found)}; nothing is allowed here", "false")
        case _:
            yield Problem(path, f"found {show(found)}; {_expectation(error)}", keyword)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


_ARTICLES: Final = {
    "object": "an object",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}

_EXPECTATIONS: Final[Mapping[str, str]] = {
    "pattern": "expected a text that matches {}",
    "minLength": "expected a length of {} or more",
    "maxLength": "expected a length of {} or less",
    "minItems": "expected a list with {} or more items",
    "maxItems": "expected a list with {} or less items",
    "minProperties": "expected an object with {} or more keys",
    "maxProperties": "expected an object with {} or less keys",
    "minimum": "expected {} or more",
    "maximum": "expected {} or less",
    "exclusiveMinimum": "expected more than {}",
    "exclusiveMaximum": "expected less than {}",
    "multipleOf": "expected a multiple of {}",
    "const": "expected {}",
    "uniqueItems": "expected each item only once",
    "not": "expected something that the schema's 'not' leaves out",
}


def _expectation(error: ValidationError) -> str:
    keyword, wanted = str(error.validator), error.validator_value
    # The schema's own words, where its author found some, say more than any keyword.
    words = as_object(error.schema).get("x-expected")
    if isinstance(words, str) and keyword != "type":
        return f"expected {words}"
    if keyword == "type":
        names = [wanted] if isinstance(wanted, str) else _texts(wanted)
        kinds = " or ".join(_ARTICLES.get(name, name) for name in names)
        return f"expected {kinds}: {words}" if isinstance(words, str) and wanted == "string" else f"expected {kinds}"
    if keyword == "enum" and isinstance(wanted, list):
        return f"expected one of {shorten(', '.join(map(json.dumps, wanted)), SHOWN * 3)}"
    template = _EXPECTATIONS.get(keyword, f"the schema's {keyword!r} does not allow it")
    return template.format(shorten(json.dumps(wanted)))
