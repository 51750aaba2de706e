"""Which scopes of the worker's own are too many, and which are missing."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.core.ids import WorkerIdentity, WorkerPool
from secureworker.core.privileges import (
    ANONYMOUS,
    ExtraScope,
    Verdict,
    by_registration,
    is_registered,
    judge,
    needed,
)
from secureworker.core.scopes import pattern_covers, satisfies

ME = WorkerIdentity(WorkerPool("tc-real", "static"), "tc-real-group", "static-1")
CLAIM, WHO = "queue:claim-work:tc-real/static", "queue:worker-id:tc-real-group/static-1"
EVERYBODYS = (ANONYMOUS, "auth:current-scopes", "queue:status:*")
EXACT = (CLAIM, WHO, *EVERYBODYS)
FINE = Verdict((), ())


def test_exactly_what_is_needed_is_fine() -> None:
    assert needed(ME) == (CLAIM, WHO)
    assert judge(EXACT, ME, everybodys=EVERYBODYS) == FINE


@pytest.mark.parametrize(
    "scope",
    [
        "*",
        "queue:*",
        "queue:claim-work:*",
        "queue:claim-work:tc-real/*",
        "queue:claim-work:tc-real/static*",
        "queue:claim-work:tc-real/other",
        "queue:worker-id:tc-real-group/*",
        "queue:worker-id:tc-real-group/static-2",
        "queue:create-task:lowest:tc-real/static",
        "assume:worker-pool:tc-real/static",
        "assume:*",
        "secrets:get:*",
        "auth:*",
        "queue:status*",
    ],
)
def test_whatever_goes_further_is_surplus(scope: str) -> None:
    assert judge((*EXACT, scope), ME, everybodys=EVERYBODYS) == Verdict((scope,), ())


@pytest.mark.parametrize("missing", [CLAIM, WHO])
def test_what_is_needed_and_not_held_is_lacking(missing: str) -> None:
    held = tuple(scope for scope in EXACT if scope != missing)
    assert judge(held, ME, everybodys=EVERYBODYS) == Verdict((), (missing,))


def test_a_pattern_that_holds_what_is_needed_is_surplus_and_nothing_lacks() -> None:
    held = ("queue:claim-work:tc-real/*", WHO)
    assert judge(held, ME, everybodys=()) == Verdict(("queue:claim-work:tc-real/*",), ())


def test_what_the_policy_lists_is_no_surplus_and_lacks_where_it_is_not_held() -> None:
    extra = (ExtraScope("queue:get-artifact:releng/*", "inputs are private"),)
    assert judge((*EXACT, "queue:get-artifact:releng/*"), ME, everybodys=EVERYBODYS, extra=extra) == FINE
    assert judge(EXACT, ME, everybodys=EVERYBODYS, extra=extra) == Verdict((), ("queue:get-artifact:releng/*",))


def test_what_comes_with_registration_is_fine_for_who_is_registered_and_for_nobody_else() -> None:
    held = (*EXACT, *by_registration(ME))
    assert judge(held, ME, everybodys=EVERYBODYS, registered=True) == FINE
    assert judge(held, ME, everybodys=EVERYBODYS) == Verdict(by_registration(ME), ())


def test_what_a_role_of_a_registered_worker_stands_for_is_surplus() -> None:
    held = (*EXACT, *by_registration(ME), "queue:create-task:highest:*")
    assert judge(held, ME, everybodys=EVERYBODYS, registered=True) == Verdict(("queue:create-task:highest:*",), ())


def test_scopes_of_another_registered_worker_are_surplus() -> None:
    other = WorkerIdentity(ME.pool, ME.worker_group, "static-2")
    verdict = judge((*EXACT, *by_registration(other)), ME, everybodys=EVERYBODYS, registered=True)
    assert set(verdict.surplus) == set(by_registration(other)) - set(by_registration(ME))
    assert verdict.surplus


@pytest.mark.parametrize(
    ("client_id", "registered"),
    [
        ("worker/static/tc-real/static/tc-real-group/static-1", True),
        ("worker/static/tc-real/static/tc-real-group/static-2", False),
        ("worker/tc-real/static/tc-real-group/static-1", False),
        ("worker//tc-real/static/tc-real-group/static-1", False),
        ("project/worker/static/tc-real/static/tc-real-group/static-1", False),
        ("tc-real/static/tc-real-group/static-1", False),
        ("worker", False),
        ("", False),
    ],
)
def test_registered_is_who_worker_manager_named_so(client_id: str, *, registered: bool) -> None:
    assert is_registered(client_id, ME) is registered


@pytest.mark.references
def test_the_scopes_of_a_really_registered_worker_are_fine(checkout: Path) -> None:
    samples = checkout.parent / "shared" / "taskcluster" / "samples"
    if not samples.is_dir():
        pytest.skip("needs the recorded answers of a Taskcluster beside the checkout")
    held = json.loads((samples / "registered-worker-currentScopes.json").read_text())["scopes"]
    me = WorkerIdentity(ME.pool, "tc-real-group", "static-1--42a79")
    own = (*needed(me), *by_registration(me))
    everybodys = [scope for scope in held if scope not in own]
    assert ANONYMOUS in everybodys
    assert judge(held, me, everybodys=everybodys, registered=True) == FINE
    assert set(own) < set(held)


SCOPES = st.lists(
    st.sampled_from(["*", "a", "ab*", "queue:", "claim-work:", "tc-real/", "static", CLAIM, WHO]),
    min_size=1,
    max_size=4,
).map("".join)


@given(held=st.lists(SCOPES), everybodys=st.lists(SCOPES), extra=st.lists(SCOPES))
def test_what_is_no_surplus_is_covered_by_one_allowed_scope(
    held: list[str], everybodys: list[str], extra: list[str]
) -> None:
    extras = tuple(ExtraScope(scope, "why not") for scope in extra)
    verdict = judge(held, ME, everybodys=everybodys, extra=extras)
    allowed = [*needed(ME), ANONYMOUS, *everybodys, *extra]
    for scope in held:
        assert (scope in verdict.surplus) is not any(pattern_covers(pattern, scope) for pattern in allowed)


@given(held=st.lists(SCOPES), more=st.lists(SCOPES))
def test_more_scopes_never_lack_more_and_never_hide_a_surplus(held: list[str], more: list[str]) -> None:
    before, after = judge(held, ME, everybodys=()), judge([*held, *more], ME, everybodys=())
    assert set(before.surplus) <= set(after.surplus)
    assert set(after.lacking) <= set(before.lacking)


@given(held=st.lists(SCOPES))
def test_credentials_that_are_fine_can_do_nothing_but_the_workers_work(held: list[str]) -> None:
    verdict = judge(held, ME, everybodys=())
    if verdict == FINE:
        assert not satisfies(held, "queue:create-task:highest:a/b")
        assert not satisfies(held, "queue:claim-work:tc-real/other")
