"""JSON-e, tamed: values that a policy derives from a task's payload.

The language is Taskcluster's own (json-e.js.org), less what could do harm here. A template is the policy author's and
is looked at when the policy is read; the payload is anybody's and is data only. So left out are: what evaluates text of
the payload (`$find`), what tells the time (`$fromNow`, `now`), and what grows faster than its input (`$reduce`,
`range`, `**`, loops in loops). What a loop may multiply is bounded before it runs, and the result once it has.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final

from jsone.AST import ASTNode, BinOp, ContextValue, FunctionCall, List, Object, UnaryOp, ValueAccess
from jsone.builtins import build
from jsone.parser import Parser
from jsone.render import DeleteMarker, operators, renderValue, tokenizer

from secureworker.core.claim import Json
from secureworker.core.schemas import Path, shorten, show

MAX_RENDERED: Final = 1024 * 1024
"""Characters of one rendered value as JSON. Linux takes 128 KiB in one argument, 2 MiB in all (execve(2))."""
_MAX_PRODUCT: Final = 16 * 1024 * 1024
"""The payload's characters times its longest list: what one loop over a list can make of it, at worst."""
_MAX_PIECES: Final = 10_000
"""Items that `split` may give."""

_FUNCTIONS: Final = ("len", "str", "lowercase", "uppercase", "strip", "lstrip", "rstrip", "join", "split", "typeof")
_OPERATORS: Final = ("$eval", "$if", "$map", "$flatten", "$merge", "$json", "$switch")
_MULTIPLYING: Final = ("$map", "join")
_EACH = re.compile(r"each\(([a-zA-Z_][a-zA-Z0-9_]*)(?:,\s*([a-zA-Z_][a-zA-Z0-9_]*))?\)")
_INTERPOLATION = re.compile(r"\$?\$\{")
_RESERVED = re.compile(r"\$[a-zA-Z_][a-zA-Z0-9_]*")


class BadTemplate(ValueError):
    """A template is not of the language that is understood here.

    Attributes:
        path: where in the template.
    """

    def __init__(self, message: str, path: Path = ()) -> None:
        super().__init__(message)
        self.path = path


class CannotRender(ValueError):
    """A template makes nothing, or too much, of this payload. The message is for the task's author."""


class Template:
    """A value with expressions in it, checked. Immutable; equal where the sources are."""

    __slots__ = ("_fixed", "_multiplies", "source")

    source: Json
    """As it stands in the policy."""

    def __init__(self, source: Json, names: tuple[str, ...] = ("payload", "sandbox")) -> None:
        """Check a template.

        Args:
            source: the template.
            names: what its expressions may speak of.

        Raises:
            BadTemplate: something in it is not of the language.
        """
        self.source = source
        survey = _Survey()
        try:
            survey.template(source, (), frozenset(names), looping=False)
        except RecursionError:
            raise BadTemplate("an expression is nested deeper than can be followed") from None
        self._fixed = not survey.expressions
        self._multiplies = survey.multiplies

    def __repr__(self) -> str:
        return f"Template({shorten(repr(self.source))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and other.source == self.source

    def __hash__(self) -> int:
        return hash(json.dumps(self.source, sort_keys=True))

    @property
    def fixed(self) -> bool:
        """Whether it says the same for every task."""
        return self._fixed

    def render(self, payload: Mapping[str, Json], **names: Json) -> Json:
        """Evaluate it.

        Args:
            payload: the task's, which the script's schema has admitted.
            names: what else expressions may speak of.

        Raises:
            CannotRender: the payload lacks something, or makes too much.
        """
        if self._multiplies:
            _bound(payload)
        context = {**_functions(), "payload": dict(payload), **names}
        try:
            value: Json = renderValue(self.source, context)
            if value is DeleteMarker:
                return None
            size = len(json.dumps(value))
        except CannotRender:
            raise
        # json-e raises its own errors, and whatever Python does with operands of the wrong kind. None of it may end
        # the worker, and all of it means the same: this payload is not what the policy's author thought of.
        except Exception as error:
            raise CannotRender(shorten(f"the payload does not fit: {error}", 200)) from error
        if size > MAX_RENDERED:
            raise CannotRender(f"it becomes {size} characters long; {MAX_RENDERED} are allowed")
        return value


def _bound(payload: Mapping[str, Json]) -> None:
    """Refuse payloads whose lists times whose texts make more than anybody needs."""
    characters, longest = len(json.dumps(payload)), 1
    layer: list[Json] = [dict(payload)]
    while layer:
        longest = max(longest, *(len(value) for value in layer if isinstance(value, list | dict)), 1)
        layer = [inner for value in layer for inner in _members(value)]
    if characters * longest > _MAX_PRODUCT:
        raise CannotRender(f"the payload has {characters} characters and a list of {longest}: too much to loop over")


def _members(value: Json) -> tuple[Json, ...]:
    if isinstance(value, dict):
        return tuple(value.values())
    return tuple(value) if isinstance(value, list) else ()


def _split(text: object, separator: object = "") -> list[str]:
    if not isinstance(text, str) or not isinstance(separator, str):
        raise CannotRender("split takes two texts")
    pieces = text.split(separator) if separator else list(text)
    if len(pieces) > _MAX_PIECES:
        raise CannotRender(f"split gives {len(pieces)} pieces; {_MAX_PIECES} are allowed")
    return pieces


@cache
def _functions() -> dict[str, Callable[..., Any]]:
    known = build()
    return {**{name: known[name] for name in _FUNCTIONS}, "split": _split}


class _Survey:
    """Walks a template once, when the policy is read."""

    def __init__(self) -> None:
        self.expressions = 0
        self.multiplies = False

    def template(self, source: Json, path: Path, names: frozenset[str], *, looping: bool) -> None:
        """Check a template; `looping` says that it is within a loop already."""
        if isinstance(source, str):
            self._text(source, path, names)
        elif isinstance(source, list):
            for index, item in enumerate(source):
                self.template(item, (*path, index), names, looping=looping)
        elif isinstance(source, dict):
            found = [key for key in source if key in operators]
            if found:
                self._operator(source, found, path, names, looping=looping)
                return
            for key, value in source.items():
                if not key.startswith("$$"):
                    if _RESERVED.fullmatch(key):
                        raise BadTemplate(f"found the key {show(key)}; write ${key} for the key itself", path)
                    self._text(key, path, names)
                self.template(value, (*path, key), names, looping=looping)

    def _operator(
        self, source: dict[str, Json], found: list[str], path: Path, names: frozenset[str], *, looping: bool
    ) -> None:
        name = found[0]
        if len(found) > 1 or name not in _OPERATORS:
            raise BadTemplate(f"found {' and '.join(found)}; expected one of {', '.join(_OPERATORS)}", path)
        self.expressions += 1
        others = {key: value for key, value in source.items() if key != name}
        allowed = {"then", "else"} if name == "$if" else {key for key in others if name == "$map" and _EACH.match(key)}
        if not others.keys() <= allowed or (name == "$map" and len(others) != 1):
            raise BadTemplate(f"found the keys {', '.join(map(show, source))} together", path)
        value = source[name]
        match name:
            case "$eval" | "$if":
                self._expression_at(value, path, names)
                for key, branch in others.items():
                    self.template(branch, (*path, key), names, looping=looping)
            case "$map":
                self._loop(source, path, names, looping=looping)
            case "$switch":
                if not isinstance(value, dict):
                    raise BadTemplate("$switch takes an object of conditions", path)
                for condition, branch in value.items():
                    if condition != "$default":
                        self._expression_at(condition, (*path, name, condition), names)
                    self.template(branch, (*path, name, condition), names, looping=looping)
            case _:
                self.template(value, (*path, name), names, looping=looping)

    def _loop(self, source: dict[str, Json], path: Path, names: frozenset[str], *, looping: bool) -> None:
        if looping:
            raise BadTemplate("found a $map within a $map; one loop is enough to go through a payload's list", path)
        self.multiplies = True
        (each,) = (key for key in source if key != "$map")
        match = _EACH.fullmatch(each)
        if match is None:
            raise BadTemplate(f"found {show(each)}; expected each(name) or each(name, index)", path)
        self.template(source["$map"], (*path, "$map"), names, looping=False)
        bound = frozenset(name for name in match.groups() if name)
        self.template(source[each], (*path, each), names | bound, looping=True)

    def _text(self, text: str, path: Path, names: frozenset[str]) -> None:
        """Check the expressions in `a${b}c`; `$${` stands for itself."""
        rest = text
        while (match := _INTERPOLATION.search(rest)) is not None:
            rest = rest[match.end() :]
            self.expressions += 1
            if match[0] == "${":
                parser = self._parse(rest, path, names)
                if parser.current_token is None or parser.current_token.kind != "}":
                    raise BadTemplate(f"found {show(text)}; expected a }} after the expression", path)
                rest = rest[parser.current_token.start + 1 :]

    def _expression_at(self, text: Json, path: Path, names: frozenset[str]) -> None:
        if not isinstance(text, str):
            raise BadTemplate(f"found {show(text)}; expected an expression", path)
        if self._parse(text, path, names).current_token is not None:
            raise BadTemplate(f"found {show(text)}; expected one expression", path)

    def _parse(self, text: str, path: Path, names: frozenset[str]) -> Any:
        try:
            parser = Parser(text, tokenizer)
            tree = parser.parse()
        except RecursionError:
            raise
        # json-e's parser raises what it likes on what it does not understand.
        except Exception as error:
            raise BadTemplate(f"found {show(text)}; this is no expression ({shorten(str(error))})", path) from error
        if tree is None:
            raise BadTemplate(f"found {show(text)}; expected an expression", path)
        for node in _nodes(tree):
            self._node(node, text, path, names)
        return parser

    def _node(self, node: ASTNode, text: str, path: Path, names: frozenset[str]) -> None:
        if isinstance(node, BinOp) and node.token.kind == "**":
            raise BadTemplate(f"found ** in {show(text)}; powers are not computed here", path)
        if isinstance(node, FunctionCall):
            called = node.name.token.value if isinstance(node.name, ContextValue) else ""
            if called not in _FUNCTIONS:
                raise BadTemplate(
                    f"found a call of {show(called)} in {show(text)}; expected one of {', '.join(_FUNCTIONS)}", path
                )
            self.multiplies = self.multiplies or called in _MULTIPLYING
        elif isinstance(node, ContextValue) and node.token.value not in names:
            raise BadTemplate(
                f"found {show(node.token.value)} in {show(text)}; expected one of {', '.join(sorted(names))}", path
            )


def _nodes(node: ASTNode) -> Iterator[ASTNode]:
    """Give a node and all below it."""
    yield node
    match node:
        case BinOp():
            below: list[ASTNode | None] = [node.left, node.right]
        case UnaryOp():
            below = [node.expr]
        case List():
            below = list(node.list)
        case ValueAccess():
            below = [node.arr, node.left, node.right]
        case FunctionCall():
            # What is called is no value: `_node` has looked at its name.
            below = list(node.args or ())
        case Object():
            below = list(node.obj.values())
        case _:
            below = []
    for inner in below:
        if isinstance(inner, ASTNode):
            yield from _nodes(inner)
