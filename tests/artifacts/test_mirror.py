"""A real repository, asked what it has of a revision, and what its `.taskcluster.yml` makes."""

import io
import os
import resource
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from secureworker.artifacts.mirror import read_tree, render
from secureworker.artifacts.rendering import answer, main
from secureworker.core.claim import Json
from secureworker.core.errors import HostError, ServiceError
from secureworker.core.ids import TaskId
from secureworker.core.origin import TracedRepository, TraceRule, read_origin
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
    origin = read_origin(definition, TraceRule(("p/d",), (repository,), 5))
    return read_tree(origin, TASK, definition, "https://tc")


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


def test_a_link_of_that_name_is_no_file(tree: Path) -> None:
    (tree / ".taskcluster.yml").symlink_to("/etc/passwd")
    git(tree, "add", ".")
    assert "it is no file" in read(tree, commit(tree, None)).unrendered


def forge(tree: Path, name: str, kind: str, content: bytes) -> None:
    """Put something else in the place of an object."""
    place = tree / ".git" / "objects" / name[:2] / name[2:]
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    place.write_bytes(zlib.compress(b"%b %d\0%b" % (kind.encode(), len(content), content)))


@pytest.mark.parametrize("kind", ["tree", "blob"])
def test_an_object_that_is_not_what_its_name_says_is_the_hosts_fault(tree: Path, kind: str) -> None:
    revision = commit(tree, FILE)
    forge_by_another(tree, revision, kind)
    with pytest.raises(HostError, match="is not what its name says"):
        read(tree, revision)


def test_a_commit_that_is_not_what_its_name_says_is_on_no_branch(tree: Path) -> None:
    revision = commit(tree, FILE)
    forge_by_another(tree, revision, "commit")
    assert "the mirror has no commit" in read(tree, revision).missing


def forge_by_another(tree: Path, revision: str, kind: str) -> None:
    evil = commit(tree, "tasks: [evil]\n", "evil")
    names = {"commit": "", "tree": "^{tree}", "blob": ":.taskcluster.yml"}
    name, other = (git(tree, "rev-parse", each + names[kind]) for each in (revision, evil))
    content = subprocess.run(["git", "cat-file", kind, other], cwd=tree, check=True, capture_output=True).stdout
    git(tree, "checkout", "-q", "main")
    forge(tree, name, kind, content)


def test_objects_that_are_borrowed_are_hashed_too(tree: Path, tmp_path: Path) -> None:
    revision = commit(tree, FILE)
    blob = git(tree, "rev-parse", f"{revision}:.taskcluster.yml")
    lender = tmp_path / "lender"
    (tree / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    lender.mkdir()
    git(lender, "init", "-q")
    (tree / ".git" / "objects" / "info" / "alternates").write_text(f"{lender}/.git/objects\n")
    forge(lender, blob, "blob", b"tasks: [evil]\n")
    with pytest.raises(HostError, match="is not what its name says"):
        read(tree, revision)
    forge(lender, blob, "blob", FILE.encode())
    assert read(tree, revision).rendered == {"tasks": [{"taskId": TASK, "rev": revision}]}


def test_a_mirrors_own_hooks_and_commands_are_not_run(tree: Path) -> None:
    revision = commit(tree, FILE)
    for key in ("core.fsmonitor", "core.sshCommand", "core.alternateRefsCommand", "core.pager", "alias.cat-file"):
        git(tree, "config", key, f"!touch {tree}/ran; touch {tree}/ran")
    git(tree, "config", "extensions.partialClone", "origin")
    git(tree, "config", "remote.origin.url", f"ext::touch {tree}/ran")
    assert read(tree, revision).rendered
    assert "no commit" in read(tree, "1" * 40).missing
    assert not (tree / "ran").exists()


def test_a_large_directory_is_searched_to_its_end(tree: Path) -> None:
    for number in range(50):
        (tree / f"{number}").write_text("x")
        (tree / f".taskcluster.yml.{number}").write_text("tasks: [evil]")
    git(tree, "add", ".")
    assert read(tree, commit(tree, FILE)).rendered
    git(tree, "rm", "-q", ".taskcluster.yml")
    assert "the revision has none" in read(tree, commit(tree, None)).unrendered


def test_what_the_mirror_does_not_have_is_missing(tree: Path) -> None:
    revision = commit(tree, FILE)
    blob = git(tree, "rev-parse", f"{revision}:.taskcluster.yml")
    assert "the mirror has no commit" in read(tree, "1" * 40).missing
    assert "the mirror has no commit" in read(tree, blob).missing
    assert "metadata.owner" in read(tree, revision, metadata={}).unrendered


def test_an_object_that_stands_for_another_does_not_count(tree: Path) -> None:
    revision = commit(tree, FILE)
    git(tree, "replace", revision, commit(tree, "tasks: [evil]\n", "try"))
    assert read(tree, revision).rendered == {"tasks": [{"taskId": TASK, "rev": revision}]}


def test_a_mirror_that_is_none_is_the_hosts_fault(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be read by git"):
        read(tmp_path, "1" * 40)


@pytest.mark.parametrize("content", [b"", b"100644 .taskcluster.yml", b"100644 .taskcluster.yml\0short", b"\0" * 30])
def test_a_directory_that_cannot_be_read_has_no_file(tree: Path, content: bytes) -> None:
    commit(tree, FILE)
    argv = ["git", "hash-object", "-t", "tree", "--literally", "-w", "--stdin"]
    name = subprocess.run(argv, input=content, cwd=tree, check=True, capture_output=True).stdout.decode().strip()
    revision = git(tree, "commit-tree", name, "-m", "odd")
    git(tree, "update-ref", "refs/heads/main", revision)
    assert "the revision has none" in read(tree, revision).unrendered


def test_a_host_without_python_or_time_renders_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServiceError, match=r"took more than 0\.001 s"):
        render({}, {}, TASK, seconds=0.001)
    monkeypatch.setattr(sys, "executable", "/usr/bin/true")
    assert render({}, {}, TASK)[1] == "it takes more time or memory to render than it is given"
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    with pytest.raises(HostError, match="/nonexistent cannot be started: No such file or directory; install it"):
        render({}, {}, TASK)


def test_the_rendering_process_bounds_itself_before_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(resource, "setrlimit", bounds.__setitem__)
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"template": {"a": "${b}"}, "context": {"b": "c"}, "taskId": "x"}'))
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    main()
    assert written.getvalue() == '{"rendered": {"a": "c"}}'
    assert bounds == {resource.RLIMIT_CPU: (5, 5), resource.RLIMIT_AS: (2**30, 2**30)}


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
