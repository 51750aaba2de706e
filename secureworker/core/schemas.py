"""JSON schemas that cannot reach out, cannot run away, and say what is wrong in a sentence.

A schema is compiled once, with every file that it refers to at hand: nothing is ever fetched. The validators are
jsonschema's, but for the keywords whose cost grows faster than the document: `uniqueItems`, and whatever takes a
regular expression. Those are RE2's, which match in time proportional to the text, whatever the expression.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Final, TypeAlias

import re2
from jsonschema import Draft6Validator, Draft7Validator, Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from referencing import Registry, Specification
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT6, DRAFT7, DRAFT202012, Schema, SchemaRegistry

from secureworker.core.claim import Json

Path: TypeAlias = tuple[str | int, ...]
"""Where in a document: keys and indexes, from the top."""

MAX_DEPTH: Final = 64
"""Levels of lists and objects: far below what exhausts the interpreter's stack, far above what release tasks use."""
MAX_VALUES: Final = 100_000
"""Values in one document. A task definition is at most 1 MB at the Queue; the largest real payloads hold 3,000."""
MAX_PROBLEMS: Final = 20
"""Problems listed per document: enough to mend it at once, too few to flood a log."""
SHOWN: Final = 80
"""Characters of an offending value that a message shows."""


class BadSchema(ValueError):
    """A JSON schema cannot be used: it is wrong, of an unknown dialect, or refers to what is not at hand.

    Attributes:
        path: where in the schema.
    """

    def __init__(self, message: str, path: Path = ()) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing in a document that its schema does not allow."""

    path: Path
    message: str
    """`found ...; expected ...`."""
    keyword: str = ""
    """The schema's keyword that refused; empty where no keyword did."""
    on_key: bool = False
    """Whether the key at the end of `path` is what is wrong, not its value."""


def show(value: object) -> str:
    """Write a value as JSON in ASCII, so that nothing in it acts on a terminal, and not longer than `SHOWN`."""
    if isinstance(value, dict) and value:
        return f"an object with the keys {shorten(', '.join(map(json.dumps, islice(map(str, value), 8))))}"
    if isinstance(value, list) and value:
        return f"a list of {len(value)}"
    if isinstance(value, str):
        value = value[: SHOWN * 2]
    return shorten(json.dumps(value))


def shorten(text: str, most: int = SHOWN) -> str:
    """Cut `text` to `most` characters, and show that it was cut."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def spell(path: Path) -> str:
    """Write a path as people do: `scripts.sign.command[0]`, odd keys in quotes."""
    spelled = ""
    for part in path:
        if isinstance(part, int):
            spelled += f"[{part}]"
        elif part and len(part) <= SHOWN and part.isascii() and part.replace("-", "").replace("_", "").isalnum():
            spelled += f".{part}" if spelled else part
        else:
            spelled += f"[{shorten(json.dumps(part))}]"
    return spelled


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


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> Any:
    """Compile an expression once: RE2's own cache costs more than most matches."""
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


def matches(pattern: str, text: str) -> bool:
    """Whether a regular expression is found in `text`; `$` is the very end, as in JSON schemas and not as in Python.

    Raises:
        BadSchema: it is no expression of RE2, which has neither lookaround nor back-references.
    """
    try:
        return _compiled(pattern).search(text) is not None
    except re2.error as error:
        # The expression is in the reason already where RE2 shows a part of it.
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise BadSchema(f"found {show(pattern)}; expected a regular expression of RE2 ({reason})") from error
    except UnicodeEncodeError:
        # A lone surrogate: JSON can write it, no file name or command line can hold it.
        return False


def _pattern(_: Validator, pattern: str, instance: object, __: object) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not matches(pattern, instance):
        yield ValidationError("does not match")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Json], instance: object, _: object
) -> Iterator[ValidationError]:
    members = instance if isinstance(instance, dict) else {}
    for pattern, schema in patterns.items():
        for key, value in members.items():
            if matches(pattern, key):
                yield from validator.descend(value, schema, path=key, schema_path=pattern)


def _unnamed(schema: Mapping[str, Json], found: Mapping[str, object]) -> tuple[str, ...]:
    """Give the keys of `found` that neither `properties` nor `patternProperties` speaks of."""
    known, patterns = _object(schema.get("properties")), _object(schema.get("patternProperties"))
    return tuple(name for name in found if name not in known and not any(matches(each, name) for each in patterns))


def _additional_properties(
    validator: Any, wanted: Json, instance: object, schema: Mapping[str, Json]
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    extra = _unnamed(schema, instance)
    if wanted is False and extra:
        yield ValidationError("has unknown keys")
    elif isinstance(wanted, dict):
        for name in extra:
            yield from validator.descend(instance[name], wanted, path=name)


def _unique_items(_: Validator, wanted: object, instance: object, __: object) -> Iterator[ValidationError]:
    """Take time in proportion to the list; jsonschema's own compares every pair where items do not sort."""
    if wanted is True and isinstance(instance, list):
        seen: set[str] = set()
        for item in instance:
            # Numbers that are equal are the same item in JSON: 1.0 is 1. Booleans are not numbers.
            key = json.dumps(_whole_floats_as_integers(item), sort_keys=True)
            if key in seen:
                yield ValidationError("has an item twice")
                return
            seen.add(key)


def _whole_floats_as_integers(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole_floats_as_integers(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole_floats_as_integers(item) for key, item in value.items()}
    return value


@dataclass(frozen=True, slots=True)
class _Dialect:
    specification: Specification[Schema]
    validator: Callable[..., Validator]
    check_schema: Callable[[Mapping[str, Json]], None]


def _dialect(specification: Specification[Schema], validator: Any) -> _Dialect:
    keywords = {
        "uniqueItems": _unique_items,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
    }
    # jsonschema's stubs leave `extend` untyped.
    checked = extend(validator, keywords)  # type: ignore[no-untyped-call]
    return _Dialect(specification, checked, validator.check_schema)


_DRAFT_2020_12 = _dialect(DRAFT202012, Draft202012Validator)
_DIALECTS: Final = {
    "https://json-schema.org/draft/2020-12/schema": _DRAFT_2020_12,
    "http://json-schema.org/draft-07/schema": _dialect(DRAFT7, Draft7Validator),
    "http://json-schema.org/draft-06/schema": _dialect(DRAFT6, Draft6Validator),
}


def _dialect_of(schema: Mapping[str, Json]) -> _Dialect:
    name = schema.get("$schema")
    if name is None:
        return _DRAFT_2020_12
    dialect = _DIALECTS.get(name.rstrip("#")) if isinstance(name, str) else None
    if dialect is None:
        raise BadSchema(f"found {show(name)}; expected one of {', '.join(_DIALECTS)}", ("$schema",))
    return dialect


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
        dialect = _dialect_of(document)
        for schema in (document, *(resources or {}).values()):
            _check(schema)
        registry: SchemaRegistry = Registry()
        for name, schema in (resources or {}).items():
            if _dialect_of(schema) is not dialect:
                raise BadSchema(f"{name} is written in another dialect; write $schema the same in both")
            registry = registry.with_resource(name, dialect.specification.create_resource(_bare(schema)))
        registry = registry.with_resource(uri, dialect.specification.create_resource(_bare(document)))
        registry = registry.crawl()
        self._validator = dialect.validator({"$ref": uri} if uri else _bare(document), registry=registry)
        self._probe()

    def __repr__(self) -> str:
        return f"CompiledSchema({shorten(repr(dict(self.document)))})"

    def _probe(self) -> None:
        """Find out now, and not at the first task, that a reference leads nowhere or round in a circle."""
        instances: tuple[Json, ...] = (None, {}, [], "", 0)
        for instance in instances:
            try:
                for _ in islice(self._validator.iter_errors(instance), MAX_PROBLEMS):
                    pass
            except Unresolvable as error:
                raise BadSchema(f"the reference {show(str(error.ref))} leads nowhere") from error
            except RecursionError:
                raise BadSchema("its references lead round in a circle") from None

    def keys_at(self, path: Path) -> tuple[str, ...]:
        """Give the keys that the schema names for the object at `path`; nothing where it names none or is not followed.

        Follows `properties`, `patternProperties`, `additionalProperties`, `items` and references within the document:
        enough to say which key was meant.
        """
        schema = self._follow(self.document)
        for part in path:
            schema = self._follow(_step(schema, part))
        return tuple(_object(schema.get("properties")))

    def _follow(self, schema: Mapping[str, Json]) -> Mapping[str, Json]:
        for _ in range(MAX_DEPTH):
            reference = schema.get("$ref")
            if not isinstance(reference, str) or not reference.startswith("#/"):
                break
            schema = self.document
            for part in reference[2:].split("/"):
                schema = _object(schema.get(part))
        return schema

    def problems(self, instance: Json, most: int = MAX_PROBLEMS) -> tuple[Problem, ...]:
        """Say what in `instance` the schema does not allow: up to `most`, the first in the document first."""
        excess = too_much(instance)
        if excess:
            return (Problem((), excess),)
        try:
            errors = list(islice(self._validator.iter_errors(instance), most))
        except RecursionError:
            return (Problem((), "it is nested deeper than its schema can follow"),)
        except Unresolvable as error:
            return (Problem((), f"the schema's reference {show(str(error.ref))} leads nowhere"),)
        found = [problem for error in errors for problem in _explain(error)]
        return tuple(sorted(set(found), key=lambda problem: (tuple(map(str, problem.path)), problem.message)))


def _object(value: object) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _step(schema: Mapping[str, Json], part: str | int) -> Mapping[str, Json]:
    """Give the subschema for the key or item `part`."""
    if isinstance(part, int):
        return _object(schema.get("items"))
    named = _object(schema.get("properties"))
    if part in named:
        return _object(named[part])
    for pattern, below in _object(schema.get("patternProperties")).items():
        if matches(pattern, part):
            return _object(below)
    return _object(schema.get("additionalProperties"))


def _bare(schema: Mapping[str, Json]) -> dict[str, Json]:
    """Leave out `$schema`: where jsonschema meets one, it goes on with its own validators and forgets ours."""
    return {key: value for key, value in schema.items() if key != "$schema"}


def _check(schema: Mapping[str, Json]) -> None:
    excess = too_much(schema)
    if excess:
        raise BadSchema(excess)
    _check_patterns(schema, ())
    try:
        _dialect_of(schema).check_schema(schema)
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
        pattern = schema.get("pattern")
        expressions = [pattern] if isinstance(pattern, str) else []
        try:
            for expression in (*expressions, *_object(schema.get("patternProperties"))):
                matches(expression, "")
        except BadSchema as error:
            raise BadSchema(str(error), path) from error
        for key, value in schema.items():
            _check_patterns(value, (*path, key))


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
            for name in _unnamed(_object(error.schema), _object(found)):
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
    words = _object(error.schema).get("x-expected")
    if isinstance(words, str) and keyword != "type":
        return f"expected {words}"
    if keyword == "type":
        names = [wanted] if isinstance(wanted, str) else _texts(wanted)
        return f"expected {' or '.join(_ARTICLES.get(name, name) for name in names)}"
    if keyword == "enum" and isinstance(wanted, list):
        return f"expected one of {shorten(', '.join(map(json.dumps, wanted)), SHOWN * 3)}"
    template = _EXPECTATIONS.get(keyword, f"the schema's {keyword!r} does not allow it")
    return template.format(shorten(json.dumps(wanted)))
