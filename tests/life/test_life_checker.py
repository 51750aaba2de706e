"""The checker sees what it is there for: each promise broken on purpose, in a record that is otherwise all right."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from secureworker.localqueue.journal import CLAIM_RESOLVER, DEADLINE_RESOLVER, Entry
from secureworker.localqueue.times import javascript
from tests.life.faults import Seen
from tests.life.invariants import STATEMENT, violations
from tests.life.story import Sighting, Story

RUN = ("fN1SbArXTPSVFUUvaOlinQ", 0)
NAME = f"{RUN[0]}/{RUN[1]}"
WORKER = "test-group/test-worker"
OWN = f"task-client/{NAME}/on/{WORKER}/until/1"
BEGAN = datetime(2026, 1, 31, 12, tzinfo=UTC)
LOG = "public/logs/live_backing.log"
CONTENT = b"built"
SIGNED = json.dumps({"artifacts": {"public/a": {"sha256": hashlib.sha256(CONTENT).hexdigest()}}}).encode()


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def an_entry(seconds: float, what: str, by: str = OWN, **details: str) -> Entry:
    return Entry(at(seconds), what, *RUN, by, tuple(details.items()))


def a_lease(seconds: float, what: str, until: float) -> Entry:
    return an_entry(seconds, what, "worker", worker=WORKER, takenUntil=javascript(at(until)))


def stored(seconds: float, name: str, content: bytes) -> Entry:
    return an_entry(seconds, "stored", "storage", name=name, sha256=hashlib.sha256(content).hexdigest())


def a_report(seconds: float, name: str = "reportCompleted", status: int | None = 200, body: bytes = b"") -> Seen:
    return Seen(at(seconds), name, *RUN, "", body, arrived=True, status=status)


RESOLVED = an_entry(40, "resolved", reason="completed", state="completed")


@dataclass
class Told:
    """A run, claimed at 0 until 60, renewed at 24 until 84, that went well; to be changed."""

    claim: Entry = field(default_factory=lambda: a_lease(0, "claimed", 60))
    renewed: tuple[Entry, ...] = field(default_factory=lambda: (a_lease(24, "reclaimed", 84),))
    ends: tuple[Entry, ...] = (RESOLVED,)
    reports: tuple[Seen, ...] = field(default_factory=lambda: (a_report(40),))
    sighting: Sighting | None = field(default_factory=lambda: Sighting(at(5), at(30)))
    stamps: tuple[tuple[str, datetime], ...] = field(default_factory=lambda: (("begun", at(5)), ("ended", at(30))))
    contents: tuple[tuple[str, bytes], ...] = (("public/a", CONTENT), (STATEMENT, SIGNED), (LOG, b"..."))
    blobs: tuple[Entry, ...] = field(
        default_factory=lambda: (stored(33, "public/a", CONTENT), stored(34, STATEMENT, SIGNED))
    )
    signatures: int = 1
    given_up: bool = False

    def story(self) -> Story:
        """Make what the checker reads."""
        return Story(
            journal=sorted((self.claim, *self.renewed, *self.blobs, *self.ends), key=lambda entry: entry.when),
            seen=list(self.reports),
            sightings={RUN: self.sighting} if self.sighting else {},
            stamps={RUN: list(self.stamps)},
            contents={RUN: dict(self.contents)},
            signatures=[RUN] * self.signatures,
            given_up={RUN} if self.given_up else set(),
        )


def expired() -> Told:
    """Give a run that was lost with its worker."""
    ended = an_entry(85, "resolved", CLAIM_RESOLVER, reason="claim-expired")
    return Told(ends=(ended,), reports=(), contents=(), blobs=(), signatures=0, given_up=True)


def test_a_run_that_goes_well_breaks_nothing() -> None:
    assert violations(Told().story()) == []
    assert violations(expired().story()) == []


@pytest.mark.parametrize(
    ("changed", "broken"),
    [
        (lambda: replace(Told(), ends=(RESOLVED, replace(RESOLVED, when=at(41)))), "resolved 2 times"),
        (lambda: replace(Told(), ends=(replace(RESOLVED, by=OWN.replace("test-w", "other-w")),)), "it was claimed by"),
        (lambda: replace(Told(), ends=(replace(RESOLVED, by="owner"),)), "resolved by owner"),
        (lambda: replace(Told(), ends=(replace(RESOLVED, when=at(85)),)), "its claim had ended"),
        (lambda: replace(Told(), renewed=(), ends=(replace(RESOLVED, when=at(61)),)), "its claim had ended"),
        (lambda: replace(Told(), ends=()), "never resolved"),
        (lambda: replace(expired(), given_up=False), "forgotten: its claim expired"),
        (
            lambda: replace(expired(), ends=(an_entry(70, "resolved", CLAIM_RESOLVER, reason="claim-expired"),)),
            "before its time",
        ),
        (lambda: replace(Told(), reports=(a_report(40, status=None), a_report(41, "reportFailed"))), "reports differ"),
        (
            lambda: replace(
                Told(),
                reports=(
                    a_report(40, "reportException", None, b'{"reason": "worker-shutdown"}'),
                    a_report(41, "reportException", 200, b'{"reason": "internal-error"}'),
                ),
            ),
            "reports differ",
        ),
        (lambda: replace(Told(), reports=(a_report(40), a_report(41))), "known that the report had arrived"),
        (lambda: replace(Told(), reports=(a_report(40, status=None), a_report(84.5))), "after its claim ended"),
        (lambda: replace(Told(), sighting=Sighting(at(-1), at(30))), "before it was claimed"),
        (lambda: replace(expired(), sighting=Sighting(at(5), at(85))), "its script was alive at"),
        (lambda: replace(expired(), renewed=(), sighting=Sighting(at(5), at(61))), "its script was alive at"),
        (lambda: replace(Told(), sighting=Sighting(at(5), at(41))), "alive when it was resolved"),
        (
            lambda: replace(
                Told(),
                ends=(an_entry(10, "resolved", "owner", reason="canceled"),),
                reports=(),
                sighting=Sighting(at(5), at(45)),
            ),
            "alive long after it was cancelled",
        ),
        (lambda: replace(Told(), stamps=(("begun", at(5)), ("begun", at(6)))), "began more than once"),
        (lambda: replace(Told(), stamps=(("begun", at(-5)),)), "outside of its claim"),
        (lambda: replace(expired(), stamps=(("ended", at(99)),)), "outside of its claim"),
        (lambda: replace(Told(), stamps=(("ended", at(41)),)), "wrote after the run was resolved"),
        (lambda: replace(Told(), blobs=(*Told().blobs, an_entry(50, "artifact", name="public/b"))), "after it was res"),
        (lambda: replace(Told(), contents=(("public/a", CONTENT), (LOG, b""))), "there is no statement"),
        (lambda: replace(Told(), contents=(("public/a", CONTENT), (STATEMENT, SIGNED))), "there is no log"),
        (lambda: replace(Told(), contents=((STATEMENT, SIGNED), (LOG, b""))), "public/a was signed, and is missing"),
        (
            lambda: replace(Told(), contents=(("public/a", b"another"), (STATEMENT, SIGNED), (LOG, b""))),
            "public/a differs from what was signed",
        ),
        (lambda: replace(Told(), contents=(*Told().contents, ("public/b", b""))), "public/b is there, and was not"),
        (
            lambda: replace(Told(), blobs=(stored(33, STATEMENT, SIGNED), stored(34, "public/a", CONTENT))),
            "stored after the statement",
        ),
        (
            lambda: replace(Told(), blobs=(stored(33, STATEMENT, b"{}"), stored(34, STATEMENT, SIGNED))),
            "2 different statements",
        ),
        (lambda: replace(Told(), signatures=2), "2 statements were signed"),
        (lambda: replace(Told(), signatures=0), "the audit log knows of no signature"),
        (lambda: replace(Told(), renewed=(a_lease(24, "claimed", 84),)), "gave it away twice"),
    ],
)
def test_a_promise_that_is_broken_is_seen(changed: Callable[[], Told], broken: str) -> None:
    found = violations(changed().story())
    assert any(broken in each for each in found), found


def test_a_script_of_a_run_that_nobody_had_claimed_is_seen() -> None:
    story = Told().story()
    story.sightings["another", 0] = Sighting(at(1), at(2))
    assert any("nobody had claimed" in each for each in violations(story))


def test_a_deadline_and_a_cancellation_are_nobodys_fault() -> None:
    for by, reason in ((DEADLINE_RESOLVER, "deadline-exceeded"), ("owner", "canceled")):
        ended = an_entry(20, "resolved", by, reason=reason)
        assert violations(replace(Told(), ends=(ended,), reports=(), sighting=Sighting(at(5), at(25))).story()) == []
