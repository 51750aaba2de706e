"""What comes back from a service: bounded in size, and read without trusting its shape."""

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

import aiohttp

from secureworker.core.claim import MAX_NESTING

MAX_ANSWER_BYTES = 40_000_000
"""Of one answer, decompressed. A task definition is at most 10 MB at the Queue; claimWork gives up to 32, and asks for
as many as there are free places."""
_CUT_AT = MAX_NESTING + 20
"""Levels kept of an answer that is nested too deep to be read: more than `MAX_NESTING` even below `tasks[0].task`, so
that the task in it is seen to be too deep."""

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


class BoundedResponse(aiohttp.ClientResponse):
    """An answer that is not read further than `MAX_ANSWER_BYTES`."""

    async def read(self) -> bytes:
        """Read the body once.

        Raises:
            ClientPayloadError: it is too large. What was read is dropped.
        """
        if self._body is None:
            body = bytearray()
            async for chunk in self.content.iter_chunked(65_536):
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    self.close()
                    raise aiohttp.ClientPayloadError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
            self._body = bytes(body)
        return self._body

    async def json(
        self,
        *,
        encoding: str | None = None,
        loads: Callable[[str], Any] | None = None,  # noqa: ARG002 - overridden on purpose: answers are read one way
        content_type: str | None = "application/json",
    ) -> Any:
        """Read the body as JSON, whatever its depth."""
        return await super().json(encoding=encoding, loads=read_json, content_type=content_type)


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
