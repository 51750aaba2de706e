"""What a run's doors are made of."""

from hypothesis import given
from hypothesis import strategies as st

from secureworker.core.addresses import HostPort
from secureworker.core.doors import NEVER_GRANTED, Destination, Door, Doors, granted_scopes
from secureworker.core.paths import Route
from secureworker.core.scopes import overlaps, satisfies

SCOPE = st.text("ab:*", max_size=6) | st.sampled_from(
    [
        "*",
        "queue:*",
        "queue:reclaim-task:x/0",
        "queue:resolve-task:*",
        "queue:create-artifact:x/0",
        "queue:claim-work:a/b",
        "assume:x",
        "assume:*",
        "queue:get-artifact:private/*",
        "worker-manager:register-worker",
    ]
)


def test_scopes_are_what_both_the_rule_and_the_task_satisfy() -> None:
    assert granted_scopes(("secrets:get:x/*",), ("secrets:get:x/y", "secrets:get:z")) == ("secrets:get:x/y",)
    assert granted_scopes(("secrets:get:x/y",), ("secrets:get:*",)) == ("secrets:get:x/y",)
    assert granted_scopes(("secrets:get:x/y",), ()) == ()


def test_the_workers_own_scopes_are_never_granted() -> None:
    for scope in ("*", "queue:*", "queue:reclaim-task:x/0", "queue:resolve-task:x/0", "queue:create-artifact:x/0"):
        assert granted_scopes(("*",), (scope,)) == ()
    assert granted_scopes(("*",), ("queue:claim-work:a/b", "assume:anyone", "a:b")) == ("a:b",)


@given(st.lists(SCOPE, max_size=4), st.lists(SCOPE, max_size=4))
def test_nothing_is_granted_that_one_side_does_not_have(allowed: list[str], held: list[str]) -> None:
    for scope in granted_scopes(tuple(allowed), tuple(held)):
        assert satisfies(allowed, scope)
        assert satisfies(held, scope)
        assert not any(overlaps(never, scope) for never in NEVER_GRANTED)


def test_a_door_is_there_where_something_is_behind_it() -> None:
    routes, hosts = (Route("GET", "/api/queue/v1/ping"),), (Destination("a.example", 443),)
    assert Doors().open == ()
    assert Doors(scopes=("a",)).open == ()
    assert Doors(routes=routes).open == (Door.TASKCLUSTER,)
    assert Doors(routes=routes, destinations=hosts).open == (Door.TASKCLUSTER, Door.EGRESS)


def test_a_script_is_told_of_the_doors_there_are() -> None:
    assert Doors().environment() == ()
    assert Doors(routes=(Route("GET", "/x"),)).environment() == (("TASKCLUSTER_PROXY_URL", "http://taskcluster"),)
    told = dict(Doors(destinations=(Destination("a.example", 443),)).environment())
    assert told == {
        "http_proxy": "http://127.0.0.1:3128",
        "https_proxy": "http://127.0.0.1:3128",
        "HTTP_PROXY": "http://127.0.0.1:3128",
        "HTTPS_PROXY": "http://127.0.0.1:3128",
        "no_proxy": "127.0.0.1,localhost,taskcluster",
        "NO_PROXY": "127.0.0.1,localhost,taskcluster",
    }


def test_a_destination_shows_what_it_is() -> None:
    assert str(Destination("a.example", 443)) == "a.example:443"
    assert str(Destination("a.example", 80, plain=True, internal=True)) == "http://a.example:80 (internal)"
    assert str(Destination("::1", 443)) == "[::1]:443"
    assert Destination("::1", 443).at == HostPort("::1", 443)
