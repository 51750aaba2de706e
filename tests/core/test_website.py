"""What is asked of a repository's site, and which answers mean yes."""

import json

import pytest

from secureworker.core.website import Question, Website, agrees, fill

REVISION = "ab" * 20
COMPARE = Question("https://api/compare/{branch}...{revision}", "status", ("identical", "behind"))
TAG = Question("https://api/tags/{tag}", "object.sha", ("{revision}",))


def test_names_and_revisions_get_into_addresses_as_one_part_each() -> None:
    assert fill(COMPARE.url, REVISION, "release/1") == f"https://api/compare/release%2F1...{REVISION}"
    assert fill(TAG.url, REVISION, "v1") == "https://api/tags/v1"
    assert fill("https://raw/{revision}/.taskcluster.yml", REVISION) == f"https://raw/{REVISION}/.taskcluster.yml"


@pytest.mark.parametrize("status", ["identical", "behind"])
def test_one_of_the_values_will_do(status: str) -> None:
    assert agrees(COMPARE, json.dumps({"status": status, "more": [1]}).encode(), REVISION)


@pytest.mark.parametrize(
    "answer",
    [
        b'{"status": "ahead"}',
        b'{"status": "diverged"}',
        b'{"status": ["behind"]}',
        b'{"status": {"behind": "behind"}}',
        b'{"status": null}',
        b'{"status": "Behind"}',
        b'{"status": "behind", "status": "ahead"}',
        b'{"other": "behind"}',
        b'["behind"]',
        b'"behind"',
        b"behind",
        b"",
        b"\xff",
        b"<html>behind</html>",
        b"[" * 100_000,
    ],
)
def test_nothing_else_will(answer: bytes) -> None:
    assert not agrees(COMPARE, answer, REVISION)


def test_a_tag_must_be_the_revision_in_full() -> None:
    def says(sha: str) -> bool:
        return agrees(TAG, json.dumps({"object": {"sha": sha}}).encode(), REVISION)

    assert says(REVISION)
    assert not says(REVISION[:12])
    assert not says("{revision}")
    assert not says("cd" * 20)


def test_a_site_says_what_is_asked_where() -> None:
    assert str(Website("https://raw/{revision}", COMPARE, None)) == (
        "https://raw/{revision}; https://api/compare/{branch}...{revision} says status: identical or behind"
    )
    assert str(Website("https://raw/{revision}", COMPARE, TAG)).endswith(
        "; https://api/tags/{tag} says object.sha: {revision}"
    )
