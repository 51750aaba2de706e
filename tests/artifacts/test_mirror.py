"""A real repository, asked what it has of a revision, and what its `.taskcluster.yml` makes."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from secureworker.artifacts.mirror import read_tree, render
from secureworker.artifacts.rendering import answer
from secureworker.core.claim import Json
from secureworker.core.errors import HostError
from secureworker.core.ids import TaskId
from secureworker.core.origin import TracedRepository, TraceRule
from secureworker.core.trace import Tree

TASK = TaskId("ddVaxIRdRAaAAr5ryHnORA")
FILE = "tasks: [{taskId: {$eval: as_slugid('a')}, rev: '${event.after}'}]\n"


def git(directory: Path, *words: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    argv = ["git", *identity, *words]
    return subprocess.run(
        argv, cwd=directory, check=True, capture_output=True, text=True, env=environment
    ).stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    return tmp_path


def commit(tree: Path, content: str | None, branch: str = "main") -> str:
    git(tree, "checkout", "-q", "-B", branch)
    if content is not None:
        (tree / ".taskcluster.yml").write_text(content)
        git(tree, "add", ".taskcluster.yml")
    git(tree, "commit", "-q", "--allow-empty", "-m", branch)
    return git(tree, "rev-parse", "HEAD")


def read(tree: Path, revision: str, ref: str = "main", **changes: Any) -> Tree:
    repository = TracedRepository(
        "https", "github.com", "us", "app", str(tree / ".git"), changes.pop("branches", ("main",)), "APP"
    )
    definition: dict[str, Json] = {
        "created": "2026-01-31T12:00:00.000Z",
        "payload": {"env": {"APP_HEAD_REPOSITORY": repository.url, "APP_HEAD_REV": revision, "APP_HEAD_REF": ref}},
        "metadata": {"owner": "a@example.com"},
        "extra": {"tasks_for": "github-push"},
        **changes,
    }
    return read_tree(TASK, definition, TraceRule(("p/d",), (repository,), 5), "https://tc")


def test_a_revision_of_an_allowed_branch_is_rendered(tree: Path) -> None:
    revision = commit(tree, FILE)
    commit(tree, "tasks: []\n")
    git(tree, "tag", "-a", "v1", "-m", "v1", revision)

    found = read(tree, revision)

    assert found == Tree(
        refs=("refs/heads/main", "refs/tags/v1"), rendered={"tasks": [{"taskId": TASK, "rev": revision}]}
    )


def test_a_revision_of_another_branch_is_not_even_rendered(tree: Path) -> None:
    commit(tree, FILE)
    revision = commit(tree, FILE, "try")

    found = read(tree, revision)

    assert (found.refs, found.rendered) == (("refs/heads/try",), None)
    assert found.unrendered == "the revision is on no branch that the policy allows"
    assert read(tree, revision, "try", branches=("t*",)).rendered


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "the revision has none"),
        ("a: [", "not YAML"),
        ("a: '${event.pull_request}'", "it cannot be rendered"),
        ("a: [{$eval: as_slugid('a')}, {$eval: as_slugid('b')}]", "more than one task id"),
        ("#" + "x" * 2**20, "1048576 are read"),
        ("$let: {a: {$eval: 'range(0, 1000000000)'}}\nin: 1", "it"),
    ],
)
def test_what_cannot_be_rendered_says_why(tree: Path, content: str | None, why: str) -> None:
    found = read(tree, commit(tree, content))
    assert found.rendered is None
    assert why in found.unrendered


def test_a_directory_of_that_name_is_no_file(tree: Path) -> None:
    (tree / ".taskcluster.yml").mkdir()
    (tree / ".taskcluster.yml/x").write_text("x")
    git(tree, "add", ".")
    assert "it is no file" in read(tree, commit(tree, None)).unrendered


def test_what_the_mirror_does_not_have_is_missing(tree: Path) -> None:
    revision = commit(tree, FILE)
    blob = git(tree, "rev-parse", f"{revision}:.taskcluster.yml")
    assert "the mirror has no commit" in read(tree, "1" * 40).missing
    assert "the mirror has no commit" in read(tree, blob).missing
    assert "extra.tasks_for" in read(tree, revision, extra={}).missing
    assert "metadata.owner" in read(tree, revision, metadata={}).unrendered


def test_an_object_that_stands_for_another_does_not_count(tree: Path) -> None:
    revision = commit(tree, FILE)
    git(tree, "replace", revision, commit(tree, "tasks: [evil]\n", "try"))
    assert read(tree, revision).rendered == {"tasks": [{"taskId": TASK, "rev": revision}]}


def test_a_mirror_that_is_none_is_the_hosts_fault(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be read by git"):
        read(tmp_path, "1" * 40)


def test_rendering_is_bounded() -> None:
    doubling: Json = {"$let": {"a": "x" * 1000}, "in": {"$eval": "join(split(join(split(a, ''), a), ''), a)"}}
    rendered, why = render(doubling, {}, TASK)
    assert rendered is None
    assert why


def test_the_rendering_process_answers_what_it_is_asked() -> None:
    def ask(template: Json, **context: Json) -> dict[str, Any]:
        return answer({"template": template, "context": context, "taskId": str(TASK)})

    assert ask({"a": "${b}"}, b="c") == {"rendered": {"a": "c"}}
    assert "cannot be rendered" in ask({"a": "${b}"})["why"]
    assert "more than one task id" in ask("${as_slugid('a')}${as_slugid('b')}")["why"]
    assert "characters long" in ask("${b}", b="x" * 5_000_000)["why"]
