"""What names say about artifacts."""

import pytest

from secureworker.artifacts.names import content_type, is_allowed, is_compressible, is_reserved


@pytest.mark.parametrize(
    ("glob", "name"),
    [
        ("public/a.txt", "public/a.txt"),
        ("public/*.txt", "public/a.txt"),
        ("public/*", "public/.hidden"),
        ("public/?.txt", "public/a.txt"),
        ("**", "a"),
        ("**", "a/b/c"),
        ("public/**", "public/a/b"),
        ("public/**/x", "public/x"),
        ("public/**/x", "public/a/b/x"),
        ("**/*.asc", "a.asc"),
        ("**/*.asc", "a/b/c.asc"),
        ("a**b", "a-b"),
        ("public/[draft].txt", "public/[draft].txt"),
        ("public/a+b(c).txt", "public/a+b(c).txt"),
    ],
)
def test_a_glob_allows(glob: str, name: str) -> None:
    assert is_allowed(name, ("no/such/name", glob))


@pytest.mark.parametrize(
    ("glob", "name"),
    [
        ("public/*.txt", "public/a/b.txt"),
        ("public/*", "public/a/b"),
        ("public/?", "public/ab"),
        ("public/**", "public"),
        ("public/**", "publicity/a"),
        ("public/**/x", "public/ax"),
        ("**/x", "ax"),
        ("a**b", "a/b"),
        ("public/[a].txt", "public/a.txt"),
        ("a.txt", "aXtxt"),
        ("a", "a/b"),
    ],
)
def test_a_glob_does_not_allow(glob: str, name: str) -> None:
    assert not is_allowed(name, (glob,))


def test_no_globs_allow_nothing() -> None:
    assert not is_allowed("a", ())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("public/logs/live.log", "text/plain"),
        ("a.asc", "text/plain"),
        ("a.diff", "text/plain"),
        ("SHA256SUMS.txt", "text/plain"),
        ("a.tar.gz", "application/x-tar"),
        ("a.tgz", "application/x-tar"),
        ("a.json.gz", "application/gzip"),
        ("a.json", "application/json"),
        ("a.html", "text/html"),
        ("a", "application/octet-stream"),
        ("a.TXT", "application/octet-stream"),
    ],
)
def test_the_longest_suffix_gives_the_content_type(name: str, kind: str) -> None:
    assert content_type(name, ()) == kind


def test_a_rules_own_types_come_before_the_built_in_table() -> None:
    rules = ((".gz", "application/x-mine"), (".txt", "text/x-mine"))

    assert content_type("a.tar.gz", rules) == "application/x-mine"
    assert content_type("a.txt", rules) == "text/x-mine"
    assert content_type("a.json", rules) == "application/json"


@pytest.mark.parametrize(
    "kind", ["text/plain", "text/html; charset=utf-8", "application/json", "application/ld+json", "image/svg+xml"]
)
def test_text_is_compressible(kind: str) -> None:
    assert is_compressible(kind)


@pytest.mark.parametrize("kind", ["application/x-tar", "application/gzip", "image/png", "application/octet-stream"])
def test_what_is_compressed_or_unknown_is_not_compressed_again(kind: str) -> None:
    assert not is_compressible(kind)


@pytest.mark.parametrize("name", ["public/chain-of-trust.json.asc", "public/logs.txt", "private/logs/a", "logs/a"])
def test_names_that_only_look_reserved_are_free(name: str) -> None:
    assert not is_reserved(name)
