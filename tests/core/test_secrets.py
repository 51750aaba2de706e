"""Where secrets come from, what of them is kept out of logs, and that they hide themselves."""

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.core.secrets import (
    MOST_PARTS,
    HostFile,
    SecretBytes,
    SecretFile,
    SecretSource,
    SystemdCredential,
    TaskclusterSecret,
    parse_source,
    parts,
    select,
)

CANARY = b"correct horse battery staple"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("credential:autograph", SystemdCredential("autograph")),
        ("credential:a.b_c-d", SystemdCredential("a.b_c-d")),
        ("file:/etc/releng/key.pem", HostFile("/etc/releng/key.pem")),
        ("taskcluster:project/releng/autograph", TaskclusterSecret("project/releng/autograph", None)),
        ("taskcluster:project/releng/autograph#password", TaskclusterSecret("project/releng/autograph", "password")),
    ],
)
def test_a_source_is_read_and_written_the_same(text: str, source: SecretSource) -> None:
    assert parse_source(text) == source
    assert str(source) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hunter2",
        "env:PASSWORD",
        "credential:",
        "credential:..",
        "credential:.hidden",
        "credential:a/b",
        "credential:a b",
        "file:",
        "file:relative",
        "file:/",
        "file:/a/../b",
        "file:/a//b",
        "file:/a/./b",
        "taskcluster:",
        "taskcluster:#key",
        "taskcluster:name#",
    ],
)
def test_what_is_no_source_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"needs|comes from") as refusal:
        parse_source(text)
    assert "hunter2" not in str(refusal.value)


def test_a_taskcluster_secret_takes_the_scope_of_its_name() -> None:
    assert TaskclusterSecret("project/releng/a", "key").scope == "secrets:get:project/releng/a"


def test_a_secret_hides_itself() -> None:
    secret = SecretBytes(CANARY)
    shown = (repr(secret), str(secret), f"{secret}", repr((secret,)), repr({"a": secret}))
    assert all("horse" not in text for text in shown)
    for way in (pickle.dumps, copy.copy, json.dumps):
        with pytest.raises(TypeError) as refusal:
            way(secret)
        assert "horse" not in str(refusal.value)
    assert "horse" not in repr(SecretFile("a", SystemdCredential("b")))


def test_secrets_are_equal_by_value() -> None:
    assert SecretBytes(CANARY) == SecretBytes(CANARY)
    assert SecretBytes(CANARY) != SecretBytes(b"")
    assert SecretBytes(CANARY) != CANARY
    assert len({SecretBytes(CANARY), SecretBytes(CANARY)}) == 1


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("password", b"s3cret"),
        ("nested", b'{\n  "a": 1\n}\n'),
        ("number", b"7\n"),
        ("none", b"null\n"),
        ("surrogate", b"\xed\xa0\x80"),
    ],
)
def test_a_key_of_a_taskcluster_secret_is_text_as_it_is_and_all_else_json(key: str, content: bytes) -> None:
    secret: dict[str, Any] = {
        "password": "s3cret",
        "nested": {"a": 1},
        "number": 7,
        "none": None,
        "surrogate": "\ud800",
    }
    assert select(TaskclusterSecret("a", key), secret).reveal() == content


def test_without_a_key_the_whole_secret_is_json_in_order() -> None:
    assert select(TaskclusterSecret("a", None), {"b": 1, "a": "x"}).reveal() == b'{\n  "a": "x",\n  "b": 1\n}\n'


def test_a_key_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError):
        select(TaskclusterSecret("a", "b"), {})


def test_a_secret_is_looked_for_with_and_without_white_space_around_it() -> None:
    assert set(parts(SecretBytes(b" token-1234\n"))) == {b" token-1234\n", b"token-1234"}


def test_each_line_of_a_text_is_looked_for() -> None:
    key = b"-----BEGIN KEY-----\nMIIEvQIBADANBg\n  kqhkiG9w0BAQ\n}\n-----END KEY-----\n"
    assert {b"MIIEvQIBADANBg", b"kqhkiG9w0BAQ"} < set(parts(SecretBytes(key)))
    assert b"}" not in parts(SecretBytes(key))


def test_each_value_in_json_is_looked_for() -> None:
    document = {"user": "releng", "keys": [{"pin": 123456, "pass": "a\nb"}], "on": True, "off": None, "f": 1.5}
    found = parts(SecretBytes(json.dumps(document).encode()))
    assert {b"releng", b"123456", b"a\nb", b"1.5"} < set(found)
    assert not {b"user", b"true", b"null"} & set(found)


def test_bytes_that_are_no_text_are_looked_for_as_a_whole() -> None:
    content = b"\xff\xfe\x00keystore\npassword-of-it"
    assert parts(SecretBytes(content)) == (content,)


def test_a_secret_nested_too_deep_for_json_is_text() -> None:
    assert parts(SecretBytes(b"[" * 50_000)) == (b"[" * 50_000,)


def test_a_secret_in_too_many_parts_is_refused_and_not_shown() -> None:
    content = b"\n".join(b"password-%d" % number for number in range(MOST_PARTS))
    with pytest.raises(ValueError, match="513 lines and values") as refusal:
        parts(SecretBytes(content))
    assert "password" not in str(refusal.value)


@given(content=st.binary(max_size=200))
def test_whatever_it_is_the_whole_of_it_is_looked_for(content: bytes) -> None:
    found = parts(SecretBytes(content))
    assert b"" not in found
    assert (content in found) is bool(content)
