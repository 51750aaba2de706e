"""YAML and JSON documents that know where each of their values stands, read strictly.

YAML 1.2, core schema, one document, keys that are plain texts, no key twice, no tags. What is refused is refused with
its line. Depth and size are bounded before anything is built, so that aliases that multiply each other (a "bomb") and
deep nesting are errors like any other. Both kinds of file come out as the same `Document`.
"""

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
)

from secureworker.core.claim import Json
from secureworker.core.schemas import MAX_DEPTH, MAX_VALUES, CompiledSchema, Path, Problem, shorten, spell

MAX_BYTES: Final = 1024 * 1024
"""A policy with 50 scripts has 60 kB; the YAML reader needs 2.6 s for 1 MB."""

_MOST_PROBLEMS: Final = 1000
"""A file is mended by its author: all of what is wrong is listed."""

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_MAX_DIGITS: Final = 30
"""Longer numbers are texts to nobody but an attacker: Python's conversion takes quadratic time."""
_MOST_DIGITS_OF_JSON: Final = 4000
"""Below Python's own limit, whose message speaks of Python."""


class BadDocument(ValueError):
    """A document cannot be used.

    Attributes:
        problems: one line each, `file:line: key: what was found; what to do`.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file."""

    name: str
    """As it is to be called in messages."""
    value: Json
    lines: dict[Path, int]
    """The line, from 1, of every key and item."""

    def line(self, path: Path) -> int:
        """Give the line of what is at `path`, or of the nearest thing above it that exists."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def complain(self, path: Path, message: str) -> str:
        """Write a problem as `file:line: key: message`."""
        return f"{self.name}:{self.line(path)}: {spell(path)}: {message}" if path else f"{self.name}: {message}"

    def check(self, schema: CompiledSchema) -> tuple[tuple[Path, str], ...]:
        """Hold the document against a schema.

        Returns:
            (path, message) for everything that is wrong; a misspelt key comes with the nearest right one.
        """
        return tuple(
            (problem.path, self._reword(problem, schema)) for problem in schema.problems(self.value, _MOST_PROBLEMS)
        )

    def _reword(self, problem: Problem, schema: CompiledSchema) -> str:
        if not problem.on_key or problem.keyword != "additionalProperties":
            return problem.message
        known = tuple(schema.keys_at(problem.path[:-1]))
        near = nearest(str(problem.path[-1]), known)
        if near:
            return f"{problem.message}; did you mean {near!r}?"
        return f"{problem.message}; known here are {shorten(', '.join(known))}" if known else problem.message


def nearest(word: str, known: Iterable[str]) -> str:
    """Give the one of `known` that `word` was most likely meant to be; empty where none is near."""
    folded = {name.replace("_", "-").lower(): name for name in known}
    matches = difflib.get_close_matches(word[:100].replace("_", "-").lower(), folded, n=1, cutoff=0.6)
    return folded[matches[0]] if matches else ""


@dataclass(slots=True)
class _Node:
    """A value of the file before aliases are followed: a scalar, a list of nodes, or key nodes with value nodes."""

    line: int
    scalar: Json = None
    items: "list[_Node] | None" = None
    pairs: "dict[str, tuple[int, _Node]] | None" = None
    merged: "list[_Node]" = field(default_factory=list)
    """What `<<` names: their keys count where the mapping has none of its own."""


class _Reader:
    """Builds nodes from the events of ruamel's parser, keeping count and depth."""

    def __init__(self, name: str, events: Iterator[Event]) -> None:
        self._name = name
        self._events = events
        self._anchors: dict[str, _Node] = {}
        self.problems: list[str] = []

    def _fail(self, event: Event, message: str) -> BadDocument:
        return BadDocument((f"{self._name}:{event.start_mark.line + 1}: {message}",))

    def read(self) -> _Node | None:
        root: _Node | None = None
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    raise self._fail(event, "a second document begins; one file holds one")
                if event.version not in {None, (1, 2)} or event.tags:
                    raise self._fail(event, "found a directive; expected YAML 1.2 without tags")
            elif isinstance(event, ScalarEvent | CollectionStartEvent | AliasEvent):
                root = self._node(event, 0)
        return root

    def _node(self, event: Event, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            raise self._fail(event, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, AliasEvent):
            if event.anchor not in self._anchors:
                # Also the case of an alias within what it stands for: a circle.
                raise self._fail(event, f"the alias *{event.anchor} stands for nothing that is complete before it")
            return self._anchors[event.anchor]
        assert isinstance(event, ScalarEvent | CollectionStartEvent)
        if event.tag is not None:
            raise self._fail(event, f"found the tag {shorten(str(event.tag))}; tags are not used here")
        node = _Node(event.start_mark.line + 1)
        if isinstance(event, ScalarEvent):
            node.scalar = event.value if event.style is not None else _plain(event.value)
        elif isinstance(event, MappingStartEvent):
            node.pairs = self._pairs(node, depth)
        else:
            node.items = []
            while not isinstance(inner := next(self._events), SequenceEndEvent):
                node.items.append(self._node(inner, depth + 1))
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _pairs(self, node: _Node, depth: int) -> dict[str, tuple[int, _Node]]:
        pairs: dict[str, tuple[int, _Node]] = {}
        while not isinstance(key := next(self._events), MappingEndEvent):
            if not isinstance(key, ScalarEvent) or key.tag is not None or key.anchor is not None:
                raise self._fail(key, "found a key that is no plain text")
            name, line = str(key.value), key.start_mark.line + 1
            value = self._node(next(self._events), depth + 1)
            # A quoted "<<" is a key like any other.
            if name == "<<" and key.style is None:
                sources = [value] if value.items is None else value.items
                if node.merged or any(source.pairs is None for source in sources):
                    raise self._fail(key, "found << twice, or with something else than a mapping or a list of them")
                node.merged = sources
            elif name in pairs:
                where = f"{self._name}:{line}: {shorten(name)}"
                self.problems.append(f"{where}: this key is here twice, first in line {pairs[name][0]}; keep one")
            else:
                pairs[name] = (line, value)
        return pairs


def _plain(text: str) -> Json:
    """Resolve a plain scalar by YAML 1.2's core schema, but `.inf` and `.nan`: JSON has no such numbers."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if len(text) <= _MAX_DIGITS:
        if _INTEGER.fullmatch(text):
            bases = {"0o": 8, "0x": 16}
            return int(text[2:], bases[text[:2]]) if text[:2] in bases else int(text)
        if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
    return text


class _Builder:
    """Follows aliases and merges; counts what comes out, which is what a bomb makes large."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._merges = 0
        self.lines: dict[Path, int] = {}

    def build(self, node: _Node, path: Path) -> Json:
        self.lines.setdefault(path, node.line)
        if len(self.lines) > MAX_VALUES:
            raise BadDocument((f"{self._name}:{node.line}: more than {MAX_VALUES} values with all aliases followed",))
        if len(path) > MAX_DEPTH:
            raise BadDocument((f"{self._name}:{node.line}: nested deeper than {MAX_DEPTH} levels",))
        if node.items is not None:
            return [self.build(item, (*path, index)) for index, item in enumerate(node.items)]
        if node.pairs is None:
            return node.scalar
        built: dict[str, Json] = {}
        for name, (line, value) in self._merged(node, 0).items():
            self.lines[(*path, name)] = line
            built[name] = self.build(value, (*path, name))
        return built

    def _merged(self, node: _Node, depth: int) -> dict[str, tuple[int, _Node]]:
        """Give the keys of a mapping, its own before those of what is merged, and of those the earlier first."""
        self._merges += 1
        if depth > MAX_DEPTH or self._merges > MAX_VALUES:
            raise BadDocument((f"{self._name}:{node.line}: more is merged here with << than can be followed",))
        keys = dict(node.pairs or {})
        for source in node.merged:
            for name, inherited in self._merged(source, depth + 1).items():
                keys.setdefault(name, inherited)
        return keys


def _advice(problem: str) -> str:
    """Say in a person's words what the parser's mostly come of."""
    if "\\t" in problem:
        return "; indent by spaces"
    if "<block end>" in problem or "mapping values are not allowed" in problem:
        return "; a line here, or above, is indented too far or too little"
    return ""


def parse_yaml(text: str, name: str) -> Document:
    """Read YAML.

    Raises:
        BadDocument: it is no YAML 1.2, or not of the plain kind that is wanted here.
    """
    if len(text) > MAX_BYTES:
        raise BadDocument((f"{name}: it has more than {MAX_BYTES} characters",))
    try:
        reader = _Reader(name, YAML(typ="safe", pure=True).parse(text))
        root = reader.read()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        problem = error.problem or error.context or ""
        raise BadDocument((f"{name}:{line}: not YAML: {problem}{_advice(problem)}",)) from error
    except (YAMLError, ValueError) as error:
        if isinstance(error, BadDocument):
            raise
        raise BadDocument((f"{name}: not YAML: {shorten(str(error))}",)) from error
    if root is None:
        raise BadDocument((f"{name}: it is empty",))
    if reader.problems:
        raise BadDocument(tuple(reader.problems))
    builder = _Builder(name)
    return Document(name, builder.build(root, ()), builder.lines)


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    built = dict(pairs)
    if len(built) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shorten(json.dumps(twice))} is in one object twice")
    return built


def _no_constant(text: str) -> Json:
    raise ValueError(f"{text} is no JSON")


def parse_json(content: str | bytes, name: str, most: int = MAX_BYTES) -> Document:
    """Read JSON (RFC 8259, no key twice in an object). Lines are known for syntax errors only.

    Args:
        content: text, or text in UTF-8.
        name: as it is to be called in messages.
        most: characters that it may have.

    Raises:
        BadDocument: it is no JSON.
    """
    text = content if isinstance(content, str) else _decode(content, name)
    if len(text) > most:
        raise BadDocument((f"{name}: it has more than {most} characters",))
    try:
        value: Json = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_bounded_integer
        )
    except json.JSONDecodeError as error:
        raise BadDocument((f"{name}:{error.lineno}: not JSON: {error.msg}",)) from error
    except ValueError as error:
        raise BadDocument((f"{name}: not JSON: {error}",)) from error
    except RecursionError:
        raise BadDocument((f"{name}: nested deeper than can be read",)) from None
    return Document(name, value, {})


def _bounded_integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS_OF_JSON:
        raise ValueError(f"a number has {len(digits)} digits, and {_MOST_DIGITS_OF_JSON} can be read")
    return int(digits)


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadDocument((f"{name}: not UTF-8 at byte {error.start}",)) from error


def parse(content: bytes, name: str) -> Document:
    """Read the bytes of a file, as JSON where its name ends in `.json`, else as YAML.

    Raises:
        BadDocument: it is neither, or not UTF-8.
    """
    text = _decode(content, name)
    return parse_json(text, name) if FilePath(name).suffix == ".json" else parse_yaml(text, name)
