"""The lines of worker-runner's protocol."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.core.claim import Credentials, Secret
from secureworker.registration.messages import (
    BadMessage,
    GracefulTermination,
    Message,
    NewCredentials,
    Unknown,
    Welcome,
    line,
    parse,
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('~{"type": "welcome", "capabilities": []}', Welcome(frozenset())),
        ('~{"type": "welcome", "capabilities": ["log", "x", 7]}', Welcome(frozenset({"log", "x"}))),
        ('~{"type": "graceful-termination", "finish-tasks": true}', GracefulTermination(finish_tasks=True)),
        ('~{"type":"graceful-termination","finish-tasks":false,"more":1}', GracefulTermination(finish_tasks=False)),
        (
            '~{"type": "new-credentials", "client-id": "a", "access-token": "b"}',
            NewCredentials(Credentials("a", Secret("b"))),
        ),
        (
            '~{"type": "new-credentials", "client-id": "a", "access-token": "b", "certificate": ""}',
            NewCredentials(Credentials("a", Secret("b"))),
        ),
        (
            '~{"type": "new-credentials", "client-id": "a", "access-token": "b", "certificate": "{}"}',
            NewCredentials(Credentials("a", Secret("b"), Secret("{}"))),
        ),
        ('~{"type": "from-the-future"}', Unknown("from-the-future")),
        ("a line of a log", None),
        ("", None),
        ("~", None),
        ("~ {}", None),
        (' ~{"type": "welcome", "capabilities": []}', None),
    ],
)
def test_a_line_is_a_message_or_none(text: str, message: Message | None) -> None:
    assert parse(text.encode()) == message


@pytest.mark.parametrize(
    "text",
    [
        "~{canary",
        "~{}",
        '~{"type": 7, "canary": 1}',
        '~{"type": "welcome"}',
        '~{"type": "welcome", "capabilities": "canary"}',
        '~{"type": "graceful-termination"}',
        '~{"type": "graceful-termination", "finish-tasks": "canary"}',
        '~{"type": "new-credentials", "access-token": "canary"}',
        '~{"type": "new-credentials", "client-id": "a", "access-token": ["canary"]}',
        '~{"type": "new-credentials", "client-id": "a", "access-token": "canary", "certificate": {"canary": 1}}',
        "~" + '{"canary":' * 100_000,
        '~{"type": "canary\udcff"}',
    ],
)
def test_a_message_that_cannot_be_understood_is_an_error_that_does_not_repeat_it(text: str) -> None:
    with pytest.raises(BadMessage) as failure:
        parse(text.encode("utf-8", "surrogateescape"))
    assert "canary" not in str(failure.value)


def test_new_credentials_hide_themselves() -> None:
    message = parse(
        b'~{"type": "new-credentials", "client-id": "a", "access-token": "canary", "certificate": "canary"}'
    )
    assert "canary" not in repr(message)


def test_what_is_written_is_one_line_that_worker_runner_reads() -> None:
    written = line("error-report", kind="worker-error", title="a\nb", extra={"n": 1})
    assert written.startswith(b"~{")
    assert written.count(b"\n") == 1
    assert json.loads(written[1:]) == {
        "type": "error-report",
        "kind": "worker-error",
        "title": "a\nb",
        "extra": {"n": 1},
    }


@given(st.binary(max_size=200) | st.binary(max_size=50).map(lambda rest: b"~{" + rest))
def test_whatever_comes_is_a_message_or_none_or_bad(content: bytes) -> None:
    with contextlib.suppress(BadMessage):
        parse(content)


JSON: Any = st.recursive(st.none() | st.booleans() | st.text(max_size=5) | st.integers(), st.lists)


@given(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["welcome", "graceful-termination", "new-credentials"]) | JSON},
        optional=dict.fromkeys(
            ("capabilities", "finish-tasks", "client-id", "access-token", "certificate", "other"), JSON
        ),
    )
)
def test_whatever_a_message_holds_it_is_read_or_bad(document: dict[str, Any]) -> None:
    with contextlib.suppress(BadMessage):
        assert parse(b"~" + json.dumps(document).encode()) is not None
