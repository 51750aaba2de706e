"""What the documents point at is there, and every promise of SECURITY.md names the tests that hold it."""

import ast
import re
from pathlib import Path

import pytest

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TEST = re.compile(r"\[`(test_\w+)`\]\((?:\.\./)*(tests/[\w/.-]+\.py)\)")


def _documents(checkout: Path) -> list[Path]:
    return sorted([*checkout.glob("*.md"), *(checkout / "docs").rglob("*.md")])


def _anchor(heading: str) -> str:
    """Make a heading's anchor as forges do."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _anchors(document: Path) -> set[str]:
    return {_anchor(heading) for heading in re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)}


def test_every_link_leads_somewhere(checkout: Path) -> None:
    broken = []
    for document in _documents(checkout):
        for target in LINK.findall(document.read_text()):
            path, _, anchor = target.partition("#")
            place = document.parent / path if path else document
            if re.match(r"https?:|mailto:", target):
                continue
            if not place.exists() or (anchor and anchor not in _anchors(place)):
                broken.append(f"{document.relative_to(checkout)}: {target}")

    assert broken == []


def test_every_test_that_a_document_names_exists(checkout: Path) -> None:
    missing = []
    for document in _documents(checkout):
        for name, path in TEST.findall(document.read_text()):
            file = checkout / path
            defined = (
                {
                    node.name
                    for node in ast.walk(ast.parse(file.read_text()))
                    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                }
                if file.is_file()
                else set()
            )
            if name not in defined:
                missing.append(f"{document.relative_to(checkout)}: {path}::{name}")

    assert missing == []


def _promises(checkout: Path) -> list[str]:
    text = (checkout / "SECURITY.md").read_text()
    section = text.partition("\n## What is promised\n")[2].partition("\n## ")[0]
    return re.split(r"^(?=\d+\. )", section, flags=re.MULTILINE)[1:]


def test_every_promise_names_a_test_that_holds_it(checkout: Path) -> None:
    promises = _promises(checkout)

    assert promises
    assert [promise.splitlines()[0] for promise in promises if not TEST.search(promise)] == []


@pytest.mark.parametrize("word", ["blazing", "seamless", "robust", "leverage", "world-class", "cutting-edge"])
def test_the_documents_are_plain(checkout: Path, word: str) -> None:
    assert [path.name for path in _documents(checkout) if word in path.read_text().lower()] == []
