"""Paths to Taskcluster: one spelling each, and which of them a script may ask for."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.core.paths import MAX_TARGET, BadTarget, Route, canonical, is_workers_own, permits

NAME = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="/\\%"), min_size=1).filter(
    lambda text: text not in {".", ".."}
)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/api/queue/v1/ping", "/api/queue/v1/ping"),
        ("/api/queue/v1/task/abc?x=1&y=%20%C3%A4", "/api/queue/v1/task/abc"),
        ("/api/secrets/v1/secret/project%2Fx%2Fy", "/api/secrets/v1/secret/project/x/y"),
        ("/api/secrets/v1/secret/project/x/y", "/api/secrets/v1/secret/project/x/y"),
        ("/api/queue/v1/task/a/artifacts/public%2Fa%20b%3A%40.txt", "/api/queue/v1/task/a/artifacts/public/a b:@.txt"),
        ("/api/index/v1/task/a.b..c", "/api/index/v1/task/a.b..c"),
        ("/api/index/v1/task/bewit=a&abewit=b?bewits&x=bewit", "/api/index/v1/task/bewit=a&abewit=b"),
    ],
)  # fmt: skip
def test_a_path_is_decoded(target: str, path: str) -> None:
    assert canonical(target) == path


@pytest.mark.parametrize(
    "target",
    [
        "",
        "/",
        "*",
        "api/queue/v1/ping",
        "/api",
        "/api/queue",
        "/api/queue/v1",
        "/api/queue/v1/",
        "/api/queue/v1/ping/",
        "/api/queue/v1//ping",
        "//api/queue/v1/ping",
        "/api/Queue/v1/ping",
        "/api/queue/1/ping",
        "/api/queue/v1/%70ing",
        "/api%2Fqueue/v1/ping",
        "/api/queue/v1/task/.",
        "/api/queue/v1/task/..",
        "/api/queue/v1/task/../ping",
        "/api/queue/v1/task/..%2Fping",
        "/api/queue/v1/task/%2E%2E/ping",
        "/api/queue/v1/task/%2Fping",
        "/api/queue/v1/task/a%2F",
        "/api/queue/v1/task/a%2Fb%2f",
        "/api/queue/v1/task/%252F",
        "/api/queue/v1/task/%",
        "/api/queue/v1/task/%2",
        "/api/queue/v1/task/%zz",
        "/api/queue/v1/task/%00",
        "/api/queue/v1/task/%0D%0A",
        "/api/queue/v1/task/%7F",
        "/api/queue/v1/task/%C3%A4",
        "/api/queue/v1/task/ä",
        "/api/queue/v1/task/a b",
        "/api/queue/v1/task/a\\b",
        "/api/queue/v1/task/a%5Cb",
        "/api/queue/v1/task/a;b",
        "/api/queue/v1/task/a#b",
        "/api/queue/v1/task/a?b#c",
        "/api/queue/v1/task/a?b c",
        "/api/queue/v1/task/a?%0A",
        "/api/queue/v1/task/a?%7f",
        "/api/queue/v1/task/a?bewit",
        "/api/queue/v1/task/a?b=1&bewit=x",
        "/api/queue/v1/task/a?b=1;bewit=x",
        "/api/queue/v1/task/a??bewit=x",
        "/api/queue/v1/task/a?b&%42e%77it=x",
        "/api/queue/v1/task/a?+bewit=x",
        "/api/queue/v1/task/a&bewit=x",
        "/api/queue/v1/task/a&bewit=x/b",
        "/api/queue/v1/task/a&BEWIT=x",
        "/api/queue/v1/task/a?b/c&bewit=x",
        "/api/queue/v1/task/a?bewit[]=x",
        "/api/queue/v1/task/a?bewit%5B%5D=x",
        "/api/queue/v1/task/a?b=%26bewit%3Dx",
        "/api/secrets/v1/secret/a%26bewit=x",
        "/api/secrets/v1/secret/a%3Fbewit%3Dx",
        "/__version__",
        "/credentials",
        "http://taskcluster/api/queue/v1/ping",
        "/api/queue/v1/task/" + "a" * MAX_TARGET,
    ],
)
def test_every_other_spelling_is_refused(target: str) -> None:
    with pytest.raises(BadTarget):
        canonical(target)


@given(st.lists(NAME, min_size=1, max_size=4))
def test_whatever_a_client_encodes_is_what_is_matched(segments: list[str]) -> None:
    raw = "/api/queue/v1/task/" + "/".join(quote(segment, safe="") for segment in segments)
    assert canonical(raw) == "/api/queue/v1/task/" + "/".join(segments)


@given(st.text())
def test_whatever_is_sent_is_a_path_of_an_api_or_refused(target: str) -> None:
    try:
        path = canonical(target)
    except BadTarget:
        return
    assert path.startswith("/api/")
    assert not {"", ".", ".."} & set(path[1:].split("/"))


def test_two_spellings_of_a_path_differ_in_slashes_of_names_only() -> None:
    path = canonical("/api/secrets/v1/secret/a%2Fb")
    assert path == canonical("/api/secrets/v1/secret/a/b")


@pytest.mark.parametrize(
    ("route", "method", "path", "allowed"),
    [
        ("/api/a/v1/x", "GET", "/api/a/v1/x", True),
        ("/api/a/v1/x", "HEAD", "/api/a/v1/x", False),
        ("/api/a/v1/x", "GET", "/api/a/v1/xy", False),
        ("/api/a/v1/x", "GET", "/api/a/v1/X", False),
        ("/api/a/v1/x/*", "GET", "/api/a/v1/x/y/z", True),
        ("/api/a/v1/x/*", "GET", "/api/a/v1/xy", False),
        ("/api/a/v1/x*", "GET", "/api/a/v1/xy", True),
    ],
)
def test_a_route_allows_its_path_and_what_its_star_stands_for(
    route: str, method: str, path: str, *, allowed: bool
) -> None:
    assert permits((Route("GET", route),), method, path) is allowed


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/queue/v1/claim-work/a/b"),
        ("POST", "/api/queue/v1/Claim-Work/a/b"),
        ("POST", "/api/queue/v2/task/x/runs/0/reclaim"),
        ("POST", "/api/queue/v1/task/x/runs/0/completed"),
        ("POST", "/api/queue/v1/task/x/runs/0/failed"),
        ("POST", "/api/queue/v1/task/x/runs/0/exception"),
        ("POST", "/api/queue/v1/task/x/runs/0/artifacts/public/x"),
        ("PUT", "/api/queue/v1/task/x/runs/0/artifacts/public/x"),
        ("POST", "/api/queue/v1/task/x/runs/0/RECLAIM"),
        ("POST", "/api/worker-manager/v1/worker/register"),
        ("PUT", "/api/queue/v1/provisioners/a/worker-types/b/workers/c/d"),
    ],
)
def test_what_only_the_worker_says_is_never_allowed(method: str, path: str) -> None:
    assert is_workers_own(method, path)
    assert not permits((Route(method, "/api/*"), Route(method, path)), method, path)


def test_artifacts_may_be_read() -> None:
    assert permits((Route("GET", "/api/queue/*"),), "GET", "/api/queue/v1/task/x/runs/0/artifacts/public/x")
    assert str(Route("GET", "/api/queue/*")) == "GET /api/queue/*"


@pytest.mark.parametrize(
    "target",
    [
        "/api/hooks/v1/hooks/proj/build%2Ftrigger",
        "/api/auth/v1/clients/foo%2Fdisable",
        "/api/queue/v1/task/x%2Fy/runs/0/reclaim",
        "/api/queue/v1/task/x/runs/0%2F0/reclaim",
        "/api/queue/v1/task/x/y%2Fclaim",
    ],
)
def test_an_encoded_slash_cannot_turn_one_method_into_another(target: str) -> None:
    with pytest.raises(BadTarget, match="%2F outside of the name"):
        canonical(target)
