"""The keywords of JSON schema that jsonschema's own validators leave to run away, and the dialects that have them.

Whatever takes a regular expression uses RE2, which matches in time proportional to the text, whatever the expression.
`uniqueItems` compares items once. References are counted, so that schemas that multiply each other come to an end.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import re2
from jsonschema import Draft6Validator, Draft7Validator, Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from referencing import Specification
from referencing.jsonschema import DRAFT6, DRAFT7, DRAFT202012, Schema

from secureworker.core.claim import Json
from secureworker.core.wording import Path, show

MAX_REFERENCES: Final = 50_000
"""References followed for one document: the largest real payloads need 5,000. It is 0.7 s of work."""
MAX_NESTED: Final = 120
"""References within references: four frames of the interpreter's 1,000 each. A document has 64 levels at most."""


@dataclass(slots=True)
class _Followed:
    """References that were followed for the document at hand."""

    all: int = 0
    nested: int = 0


_followed: ContextVar[_Followed] = ContextVar("references followed")


class BadSchema(ValueError):
    """A JSON schema cannot be used: it is wrong, of an unknown dialect, or refers to what is not at hand.

    Attributes:
        path: where in the schema.
    """

    def __init__(self, message: str, path: Path = ()) -> None:
        super().__init__(message)
        self.path = path


class CannotFollow(Exception):
    """A schema cannot be followed to its end with this document."""


def as_object(value: object) -> Mapping[str, Json]:
    """Give an object as it is, and an empty one for anything else."""
    return value if isinstance(value, dict) else {}


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


def unnamed(schema: Mapping[str, Json], found: Mapping[str, object]) -> tuple[str, ...]:
    """Give the keys of `found` that neither `properties` nor `patternProperties` speaks of."""
    known, patterns = as_object(schema.get("properties")), as_object(schema.get("patternProperties"))
    return tuple(name for name in found if name not in known and not any(matches(each, name) for each in patterns))


def _additional_properties(
    validator: Any, wanted: Json, instance: object, schema: Mapping[str, Json]
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    extra = unnamed(schema, instance)
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


@contextmanager
def bounded() -> Iterator[None]:
    """Validate one document within bounds.

    Raises:
        CannotFollow: they do not suffice.
    """
    _followed.set(_Followed())
    try:
        yield
    except RecursionError:
        raise CannotFollow("it is nested deeper than its schema can follow") from None
    except BaseException as error:
        # Where the stack ends within a comparison of rpds (Rust, beneath jsonschema), it panics: no `Exception`.
        if type(error).__name__ != "PanicException":
            raise
        raise CannotFollow("it is nested deeper than its schema can follow") from None


def _reference(validator: Validator, reference: str, instance: object, schema: object) -> Iterator[ValidationError]:
    followed = _followed.get()
    followed.all += 1
    if followed.all > MAX_REFERENCES:
        raise CannotFollow(f"its schema takes more than {MAX_REFERENCES} references to look at it")
    if followed.nested >= MAX_NESTED:
        raise CannotFollow("it is nested deeper than its schema can follow")
    follow: Callable[..., Iterator[ValidationError]] = Draft202012Validator.VALIDATORS["$ref"]
    followed.nested += 1
    try:
        yield from follow(validator, reference, instance, schema)
    finally:
        followed.nested -= 1


@dataclass(frozen=True, slots=True)
class Dialect:
    """A version of JSON schema."""

    specification: Specification[Schema]
    validator: Callable[..., Validator]
    check_schema: Callable[[Mapping[str, Json]], None]


def _dialect(specification: Specification[Schema], validator: Any) -> Dialect:
    keywords = {
        "$ref": _reference,
        "uniqueItems": _unique_items,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
    }
    # jsonschema's stubs leave `extend` untyped.
    checked = extend(validator, keywords)  # type: ignore[no-untyped-call]
    return Dialect(specification, checked, validator.check_schema)


_DRAFT_2020_12 = _dialect(DRAFT202012, Draft202012Validator)
_DIALECTS: Final = {
    "https://json-schema.org/draft/2020-12/schema": _DRAFT_2020_12,
    "http://json-schema.org/draft-07/schema": _dialect(DRAFT7, Draft7Validator),
    "http://json-schema.org/draft-06/schema": _dialect(DRAFT6, Draft6Validator),
}


def dialect_of(schema: Mapping[str, Json]) -> Dialect:
    """Find the dialect that a schema names; 2020-12 where it names none."""
    name = schema.get("$schema")
    if name is None:
        return _DRAFT_2020_12
    dialect = _DIALECTS.get(name.rstrip("#")) if isinstance(name, str) else None
    if dialect is None:
        raise BadSchema(f"found {show(name)}; expected one of {', '.join(_DIALECTS)}", ("$schema",))
    return dialect
