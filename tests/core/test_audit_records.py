"""Audit records: one vocabulary, one form."""

import json
from dataclasses import replace
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.core import audit
from secureworker.core.audit import (
    DETAILS,
    DIGESTS,
    MAX_LINE_BYTES,
    AuditRecord,
    BadRecord,
    Ending,
    Event,
    Stamp,
    parse_record,
    read_record,
    record_as_json,
    write_record,
)
from secureworker.core.ids import RunId, TaskId
from secureworker.core.schemas import CompiledSchema
from secureworker.testing import EPOCH, IDENTITY, SHA256, TASK_ID

STAMP = Stamp(7, EPOCH, 1234, "1b9a5c2e-6f0d-4c3b-9a44-0d1e2f3a4b5c", "worker", IDENTITY)
RECORD = AuditRecord(
    Event.SANDBOX_END,
    Ending.FAILED,
    (TaskId(TASK_ID), RunId(3)),
    (("sandboxBundle", SHA256),),
    (("exitCode", 1), ("outOfMemory", False), ("runtime", "runc 1.2")),
)
LINE = write_record(RECORD, STAMP)


@pytest.fixture(scope="module")
def schema(checkout: Path) -> CompiledSchema:
    return CompiledSchema(json.loads((checkout / "schemas" / "audit-record.schema.json").read_text()))


def test_a_record_says_who_what_when_and_how_it_ended(schema: CompiledSchema) -> None:
    document = json.loads(LINE)

    assert document == {
        "version": 1,
        "index": 7,
        "time": "2026-01-31T12:00:00.000Z",
        "monotonicMs": 1234,
        "bootId": STAMP.boot,
        "writer": "worker",
        "worker": {"pool": "test-provisioner/test-pool", "workerGroup": "test-group", "workerId": "test-worker"},
        "event": "sandbox-end",
        "outcome": "failed",
        "run": {"taskId": TASK_ID, "runId": 3},
        "digests": {"sandboxBundle": SHA256},
        "details": {"exitCode": 1, "outOfMemory": False, "runtime": "runc 1.2"},
    }
    assert list(document) == sorted(document)
    assert schema.problems(document) == ()
    assert read_record(LINE) == (RECORD, STAMP)


@pytest.mark.parametrize("event", Event)
def test_the_schema_knows_every_event_with_exactly_its_details(schema: CompiledSchema, event: Event) -> None:
    for name in (*DETAILS[event], None):
        record = AuditRecord(event, details=() if name is None else ((name, "x"),))
        assert schema.problems(json.loads(write_record(record, STAMP))) == ()
    strange = json.loads(write_record(AuditRecord(event), STAMP))
    strange["details"]["other"] = 1
    assert schema.problems(strange)


def test_the_schema_knows_exactly_the_digests(schema: CompiledSchema) -> None:
    properties: Any = schema.document["properties"]

    assert set(properties["digests"]["properties"]) == DIGESTS


@pytest.mark.parametrize(
    "changes",
    [
        {"details": (("accessToken", "x"),)},
        {"details": (("exitCode", 1), ("exitCode", 1))},
        {"details": (("exitCode", 1.5),)},
        {"details": (("exitCode", None),)},
        {"details": (("exitCode", 2**53),)},
        {"details": (("runtime", "x" * 2001),)},
        {"details": (("runtime", "\ud800"),)},
        {"digests": (("other", SHA256),)},
        {"digests": (("policy", SHA256), ("policy", SHA256))},
    ],
)
def test_what_is_not_in_the_vocabulary_is_no_record(changes: dict[str, Any]) -> None:
    with pytest.raises(BadRecord):
        replace(RECORD, **changes)


@pytest.mark.parametrize(
    "changes", [{"index": -1}, {"index": True}, {"monotonic_ms": 2**53}, {"boot": "x"}, {"writer": "script"}]
)
def test_a_stamp_has_its_form(changes: dict[str, Any]) -> None:
    with pytest.raises(BadRecord):
        replace(STAMP, **changes)


def test_what_a_worker_asks_for_is_read_as_it_was_meant() -> None:
    assert parse_record(record_as_json(RECORD)) == RECORD
    assert parse_record(record_as_json(AuditRecord(Event.WORKER_STOP))) == AuditRecord(Event.WORKER_STOP)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {**record_as_json(RECORD), "index": 1},
        {**record_as_json(RECORD), "event": "other"},
        {**record_as_json(RECORD), "event": []},
        {**record_as_json(RECORD), "outcome": "fine"},
        {**record_as_json(RECORD), "details": []},
        {**record_as_json(RECORD), "digests": {"policy": "short"}},
        {**record_as_json(RECORD), "digests": {"policy": 1}},
        {**record_as_json(RECORD), "run": {"taskId": TASK_ID}},
        {**record_as_json(RECORD), "run": {"taskId": TASK_ID, "runId": True}},
        {**record_as_json(RECORD), "run": {"taskId": "short", "runId": 1}},
    ],
)
def test_what_has_another_form_is_no_request(document: object) -> None:
    with pytest.raises(BadRecord):
        parse_record(document)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        LINE + b" ",
        LINE.replace(b'"index":7', b'"index":7.0'),
        LINE.replace(b'"index":7', b'"index":7,"index":7'),
        LINE.replace(b'"version":1', b'"version":2'),
        LINE.replace(b'"worker":{', b'"worker":{"x":1,'),
        LINE.replace(b"test-group", b"test group"),
        LINE.replace(b".000Z", b".000+00:00"),
        LINE.replace(b'"exitCode":1', b'"exitCode":9007199254740993'),
        LINE.replace(b'"writer":"worker"', b'"writer":1'),
        b"[" * 100_000,
        b" " * (MAX_LINE_BYTES + 1),
    ],
)
def test_what_would_be_written_otherwise_is_no_record(line: bytes) -> None:
    with pytest.raises(BadRecord):
        read_record(line)


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=3000))
def test_any_text_can_be_made_a_detail(value: str) -> None:
    record = AuditRecord(Event.WORKER_STOP, details=(("reason", audit.text(value)),))

    assert read_record(write_record(record, STAMP))[0] == record


def test_the_longest_record_fits_a_line() -> None:
    for event in Event:
        details = tuple((name, "\x01" * audit.MAX_TEXT) for name in DETAILS[event])
        assert len(write_record(AuditRecord(event, details=details), STAMP)) < MAX_LINE_BYTES


def test_times_are_written_in_utc() -> None:
    east = STAMP.time.astimezone(timezone(timedelta(hours=5)))

    assert write_record(RECORD, replace(STAMP, time=east)) == LINE
