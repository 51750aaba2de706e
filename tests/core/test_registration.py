"""Until when credentials are good, when they are renewed, and what a registration is on disk."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.core.claim import Credentials, Secret
from secureworker.core.ids import WorkerIdentity, WorkerPool
from secureworker.core.registration import (
    DRAIN_BEFORE,
    Registered,
    drain_in,
    expiry,
    parse_registered,
    read_registered,
    renew_in,
    write_registered,
)

ME = WorkerIdentity(WorkerPool("releng", "signing"), "dc1", "signer-1")
ROOT_URL = "https://tc.example.com"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ANSWER: dict[str, Any] = {
    "expires": "2026-11-23T12:59:40.936Z",
    "credentials": {"clientId": "worker/static", "accessToken": "canary-token", "certificate": "canary-certificate"},
    "workerConfig": {"any": "thing"},
    "secret": "canary-secret",
}


def a_registration(**credentials: Any) -> Registered:
    return parse_registered(ANSWER | {"credentials": {**ANSWER["credentials"], **credentials}})


def test_an_answer_is_read() -> None:
    registered = parse_registered(ANSWER)
    assert registered.expires == datetime(2026, 11, 23, 12, 59, 40, 936000, UTC)
    assert registered.credentials == Credentials("worker/static", Secret("canary-token"), Secret("canary-certificate"))
    assert registered.secret == Secret("canary-secret")
    assert "canary" not in repr(registered)


@pytest.mark.parametrize(
    "wrong",
    [
        {"secret": ""},
        {"secret": None},
        {"secret": 7},
        {"expires": "tomorrow"},
        {"expires": None},
        {"credentials": None},
        {"credentials": {"clientId": "a"}},
        {"credentials": {"clientId": "a", "accessToken": "canary", "certificate": {"canary": 1}}},
    ],
)
def test_an_answer_that_lacks_something_is_an_error_that_shows_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"secret|time|clientId|accessToken|certificate") as failure:
        parse_registered(ANSWER | wrong)
    assert "canary" not in str(failure.value)


@pytest.mark.parametrize("certificate", ["canary-certificate", None])
def test_what_is_kept_is_read_again(certificate: str | None) -> None:
    registered = a_registration(certificate=certificate)
    assert read_registered(write_registered(registered, ME, ROOT_URL), ME, ROOT_URL) == registered


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no JSON"),
        (b"canary", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff", "no JSON"),
        (b'["canary"]', "no object"),
        (b'{"worker": "canary"}', "another worker"),
    ],
)
def test_what_is_no_registration_is_an_error_that_shows_nothing(content: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says) as failure:
        read_registered(content, ME, ROOT_URL)
    assert "canary" not in str(failure.value)


@pytest.mark.parametrize(
    ("me", "root_url"),
    [(replace(ME, worker_id="signer-2"), ROOT_URL), (ME, "https://other.example.com")],
)
def test_the_registration_of_another_is_not_taken(me: WorkerIdentity, root_url: str) -> None:
    with pytest.raises(ValueError, match="of another worker"):
        read_registered(write_registered(a_registration(), ME, ROOT_URL), me, root_url)


@pytest.mark.parametrize(
    ("certificate", "until"),
    [
        (None, None),
        (json.dumps({"expiry": 1795438780936}), datetime(2026, 11, 23, 12, 59, 40, 936000, UTC)),
        ("nonsense", None),
        ("[]", None),
        ("{}", None),
        ('{"expiry": "soon"}', None),
        ('{"expiry": 1e300}', None),
        ("[" * 100_000, None),
    ],
)
def test_credentials_are_good_until_their_certificate_ends(certificate: str | None, until: datetime | None) -> None:
    credentials = Credentials("a", Secret("b"), None if certificate is None else Secret(certificate))
    assert expiry(credentials) == until


@pytest.mark.parametrize(
    ("left", "renew", "drain"),
    [
        (timedelta(hours=96), timedelta(hours=57, minutes=36), timedelta(hours=95, minutes=55)),
        (timedelta(hours=1), timedelta(minutes=36), timedelta(minutes=55)),
        (timedelta(seconds=10), timedelta(seconds=6), timedelta(seconds=9)),
        (timedelta(0), timedelta(0), timedelta(0)),
        (-timedelta(hours=1), timedelta(0), timedelta(0)),
    ],
)
def test_there_is_time_to_renew_and_to_drain(left: timedelta, renew: timedelta, drain: timedelta) -> None:
    assert (renew_in(NOW + left, NOW), drain_in(NOW + left, NOW)) == (renew, drain)


@given(left=st.timedeltas(timedelta(0), timedelta(days=31)))
def test_renewing_comes_before_draining_and_draining_before_the_end(left: timedelta) -> None:
    renew, drain = renew_in(NOW + left, NOW), drain_in(NOW + left, NOW)
    assert timedelta(0) <= renew <= drain <= left
    assert left - drain <= DRAIN_BEFORE
