"""Requests against their schemas: defaults filled in, errors in the words of the validator the services use (ajv)."""

import copy
import functools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, cast
from urllib.parse import urlsplit

import jsonschema

from secureworker.localqueue.errors import ApiError
from secureworker.localqueue.schemas import SCHEMAS
from secureworker.localqueue.times import is_date_time

_URI = re.compile(r"[!#-;=?-\[\]_a-z~]+")
"""The letters RFC 3986 allows, and `%`."""


def _is_uri(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme) and bool(parts.netloc or parts.path) and _URI.fullmatch(text) is not None


_FORMATS = jsonschema.FormatChecker(formats=())
_FORMATS.checks("date-time")(lambda value: not isinstance(value, str) or is_date_time(value))
_FORMATS.checks("uri")(lambda value: not isinstance(value, str) or _is_uri(value))


@functools.cache
def _validator(name: str) -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(SCHEMAS[name], format_checker=_FORMATS)


def check(name: str, payload: Any, root_url: str) -> None:
    """Hold a payload against a schema.

    Raises:
        ApiError: `InputValidationError`, with everything that is wrong.
    """
    problems = [f"  * {line}" for line in _lines(_validator(name).iter_errors(payload))]
    if problems:
        where = f"{root_url}/schemas/{name}"
        lines = "\n".join(problems)
        raise ApiError(
            "InputValidationError", f"\nSchema Validation Failed!\nRejecting Schema: {where}\nErrors:\n{lines}"
        )


def with_defaults(name: str, payload: Any) -> Any:
    """Fill in what the schema has defaults for, valid or not; the argument is left as it is."""
    if not isinstance(payload, dict):
        return payload
    missing = {
        key: copy.deepcopy(schema["default"])
        for key, schema in SCHEMAS[name].get("properties", {}).items()
        if "default" in schema and key not in payload
    }
    return payload | missing


def _lines(errors: Iterable[jsonschema.ValidationError]) -> Iterator[str]:
    for error in errors:
        if error.validator in {"oneOf", "anyOf"}:
            branches = sorted(error.context or (), key=lambda inner: int(inner.relative_schema_path[0]))
            yield from _lines(branches)
        path = "/".join(["data", *(str(part) for part in error.absolute_path)])
        for text in _texts(error):
            yield f"{path} {text}"


def _texts(error: jsonschema.ValidationError) -> list[str]:
    value: Any = error.validator_value
    match error.validator:
        case "required":
            # One error for each missing property; which one, only the message says.
            return [f"must have required property {error.message.removesuffix(' is a required property')}"]
        case "additionalProperties" if value is False:
            known = error.schema["properties"] if isinstance(error.schema, dict) else {}
            unknown = [key for key in cast("dict[str, Any]", error.instance) if key not in known]
            return [f"must NOT have additional properties: {json.dumps(key)}" for key in unknown]
        case "uniqueItems":
            return ["must NOT have duplicate items"]
        case other:
            return [_SAYS[str(other)].format(value)]


_SAYS = {
    "type": "must be {}",
    "enum": "must be equal to one of the allowed values",
    "const": "must be equal to constant",
    "minimum": "must be >= {}",
    "maximum": "must be <= {}",
    "minLength": "must NOT have fewer than {} characters",
    "maxLength": "must NOT have more than {} characters",
    "maxItems": "must NOT have more than {} items",
    "pattern": 'must match pattern "{}"',
    "format": 'must match format "{}"',
    "oneOf": "must match exactly one schema in oneOf",
}
