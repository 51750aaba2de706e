"""How values and places are spelled in messages: shortened, in ASCII, harmless to a terminal."""

import json
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""Where in a document: keys and indexes, from the top."""

SHOWN: Final = 80
"""Characters of an offending value that a message shows."""


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
