"""Sizes and imports of modules: what an auditor has to read, and what the import contracts cannot say."""

import ast
from pathlib import Path

MAX_LINES = 400

# What a pure function may need. The linter has a list of what is forbidden; this one fails for what nobody thought of.
PURE = {
    "base64",
    "binascii",
    "collections",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fnmatch",
    "functools",
    "hashlib",
    "ipaddress",
    "itertools",
    "json",
    "jsone",
    "jsonschema",
    "math",
    "operator",
    "posixpath",
    "re",
    "re2",
    "referencing",
    "rfc8785",
    "secureworker",
    "string",
    "struct",
    "textwrap",
    "types",
    "typing",
    "unicodedata",
}
# Of a package that is not pure as a whole, what is.
PURE_PARTS = {
    "contextlib.AbstractAsyncContextManager",
    "contextlib.contextmanager",
    # What is counted during one call, where a library calls back without handing a counter on.
    "contextvars.ContextVar",
    "urllib.parse",
}


def _modules(directory: Path) -> list[Path]:
    found = sorted(directory.rglob("*.py"))
    assert found
    return found


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def _is_pure(name: str) -> bool:
    return name.partition(".")[0] in PURE or any(name == part or name.startswith(f"{part}.") for part in PURE_PARTS)


def test_no_module_is_longer_than_400_lines(checkout: Path) -> None:
    lengths = {
        str(path.relative_to(checkout)): len(path.read_text().splitlines())
        for top in ("secureworker", "scripts")
        for path in _modules(checkout / top)
    }

    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


def test_core_and_ports_import_only_what_is_known_to_be_pure(checkout: Path) -> None:
    modules = [*_modules(checkout / "secureworker" / "core"), *_modules(checkout / "secureworker" / "ports")]

    impure = {path.name: bad for path in modules if (bad := {name for name in _imports(path) if not _is_pure(name)})}

    assert impure == {}


def test_nothing_starts_a_task_that_no_group_waits_for(checkout: Path) -> None:
    offenders = [
        str(path.relative_to(checkout))
        for path in _modules(checkout / "secureworker")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"create_task", "ensure_future"}
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in {"asyncio", "loop"}
    ]

    assert offenders == []


def test_no_two_test_files_share_a_name(checkout: Path) -> None:
    names = [path.name for path in _modules(checkout / "tests") if path.name.startswith("test_")]

    assert sorted(names) == sorted(set(names))
