"""What comes back from the Queue, read without trusting its shape."""

import json
import re
from typing import Any, NoReturn

from secureworker.core.claim import MAX_NESTING

_CUT_AT = MAX_NESTING + 20
"""Levels kept of an answer that is nested too deep to be read: more than `MAX_NESTING` even below `tasks[0].task`, so
that the task in it is seen to be too deep."""

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


def read_json(text: str) -> Any:
    """Read JSON; where it is nested too deep for the interpreter, without its deepest levels.

    A task's author chooses the depth of its payload. If the answer that hands it out could not be read at all, the
    claim in it would be lost without a word, and the task would go on to do the same to the next worker.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        return json.loads(_cut(text), parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _cut(text: str) -> str:
    """Replace what is nested deeper than `_CUT_AT` by null, without recursion."""
    kept: list[str] = []
    depth = begin = 0
    for token in _TOKEN.finditer(text):
        match token[0]:
            case "[" | "{":
                if depth == _CUT_AT:
                    kept += (text[begin : token.start()], "null")
                depth += 1
            case "]" | "}":
                depth -= 1
                if depth == _CUT_AT:
                    begin = token.end()
            case _:
                pass
    return "".join((*kept, text[begin:]))
