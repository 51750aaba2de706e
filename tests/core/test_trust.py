"""Whose signature counts for what, and when."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from secureworker.core.checkpoint import Checkpoint
from secureworker.core.ids import WorkerPool
from secureworker.core.trust import (
    Implementation,
    KeyState,
    Logged,
    OneKey,
    Signed,
    Trust,
    TrustKey,
    TrustPool,
    why_not_trusted,
)

POOL = WorkerPool("a", "b")
OTHER_POOL = WorkerPool("a", "c")
RAW = bytes(31) + b"\x01"
OTHER_RAW = bytes(31) + b"\x02"
NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)
DAY = date(2026, 6, 15)
SIGNED = Signed(NOON, NOON)


def why(key: TrustKey, signed: Signed = SIGNED) -> str:
    others = TrustPool(OTHER_POOL, Implementation.SECUREWORKER, (TrustKey(OTHER_RAW),))
    trust = Trust((TrustPool(POOL, Implementation.SECUREWORKER, (key,)), others))
    return why_not_trusted(trust, key.raw, POOL, signed)


@pytest.mark.parametrize("state", [KeyState.ACTIVE, KeyState.NEXT, KeyState.RETIRED])
def test_a_key_counts_in_its_days_whatever_comes_after(state: KeyState) -> None:
    assert why(TrustKey(RAW, state, DAY, DAY)) == ""


@pytest.mark.parametrize("moment", [NOON.replace(hour=0, minute=0), NOON.replace(hour=23, minute=59)])
def test_first_and_last_day_count_whole_in_utc(moment: datetime) -> None:
    elsewhere = moment.astimezone(timezone(timedelta(hours=14)))

    assert why(TrustKey(RAW, valid_from=DAY, valid_until=DAY), Signed(elsewhere, elsewhere)) == ""


def test_before_its_first_day_a_key_does_not_count() -> None:
    assert "is valid from 2026-06-16" in why(TrustKey(RAW, KeyState.NEXT, valid_from=date(2026, 6, 16)))


def test_after_its_last_day_a_key_does_not_count() -> None:
    assert "was valid until 2026-06-14" in why(TrustKey(RAW, KeyState.RETIRED, valid_until=date(2026, 6, 14)))


def test_where_the_time_is_known_as_a_span_one_day_of_it_is_enough() -> None:
    span = Signed(NOON - timedelta(days=1), NOON + timedelta(days=1))

    assert why(TrustKey(RAW, valid_from=date(2026, 6, 16)), span) == ""
    assert why(TrustKey(RAW, valid_until=date(2026, 6, 14)), span) == ""
    assert why(TrustKey(RAW, valid_until=date(2026, 6, 13)), span) != ""


def test_a_revoked_key_does_not_count_in_its_days_either() -> None:
    reason = why(TrustKey(RAW, KeyState.REVOKED, DAY, DAY))

    assert "is revoked, and the trust file has no checkpoint of a log from before" in reason


GOOD = Checkpoint("secureworker/a/b/dc1/w/000002", 10, bytes(32))
OF_ANOTHER = Checkpoint("secureworker/a/b/dc1/w/000001", 7, bytes(32))


@pytest.mark.parametrize(
    ("logged", "says"),
    [
        (Logged(GOOD, 0), ""),
        (Logged(GOOD, 9), ""),
        (None, "no proof shows that this is in its log from before"),
        (
            Logged(replace(GOOD, origin="secureworker/a/b/dc1/w/000003"), 0),
            "no checkpoint of secureworker/a/b/dc1/w/000003",
        ),
        # The thief's own tree, of the same size.
        (Logged(replace(GOOD, root=bytes(31) + b"x"), 0), "its root is not the trust file's"),
        (
            Logged(replace(GOOD, size=11), 10),
            "this is record 10 of secureworker/a/b/dc1/w/000002, of which only the first 10 count",
        ),
        # Older it says, by a log of which nothing shows that it is the same.
        (Logged(replace(GOOD, size=9), 8), "have it proved there: secureworker audit prove --checkpoint"),
        (Logged(replace(GOOD, size=99), 3), "have it proved there: secureworker audit prove --checkpoint"),
    ],
)
def test_of_a_revoked_key_only_what_is_in_the_log_from_before_counts(logged: Logged | None, says: str) -> None:
    key = TrustKey(RAW, KeyState.REVOKED, last_good=(OF_ANOTHER, GOOD))

    reason = why(key, Signed(NOON, NOON, logged))

    assert says in reason
    assert (reason == "") is (says == "")


def test_what_a_revoked_key_signed_before_still_has_its_days() -> None:
    key = TrustKey(RAW, KeyState.REVOKED, valid_until=date(2026, 6, 14), last_good=(GOOD,))

    assert "was valid until 2026-06-14" in why(key, Signed(NOON, NOON, Logged(GOOD, 0)))


def test_another_pools_key_is_as_bad_as_a_strangers() -> None:
    trust = Trust(
        (
            TrustPool(POOL, Implementation.SECUREWORKER, (TrustKey(RAW),)),
            TrustPool(OTHER_POOL, Implementation.SECUREWORKER, (TrustKey(OTHER_RAW),)),
        )
    )

    assert "is no key of the worker pool a/b" in why_not_trusted(trust, OTHER_RAW, POOL, SIGNED)
    assert "has no worker pool x/y" in why_not_trusted(trust, RAW, WorkerPool("x", "y"), SIGNED)


def test_one_key_counts_for_every_pool_and_no_other_key_does() -> None:
    assert why_not_trusted(OneKey(RAW), RAW, POOL, SIGNED) == ""
    assert "is not the key that was given" in why_not_trusted(OneKey(RAW), OTHER_RAW, POOL, SIGNED)


def test_a_key_that_several_pools_share_is_tried_once() -> None:
    pools = [TrustPool(pool, Implementation.SCRIPTWORKER, (TrustKey(RAW),)) for pool in (POOL, OTHER_POOL)]

    assert Trust(tuple(pools)).raw_keys() == (RAW,)


def test_a_key_of_another_length_is_none() -> None:
    with pytest.raises(ValueError, match="has 32 bytes, not 31"):
        TrustKey(bytes(31))
