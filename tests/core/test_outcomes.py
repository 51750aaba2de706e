"""How a run is resolved: one total function."""

import itertools

import pytest

from secureworker.core.errors import (
    AccessDenied,
    BadArtifact,
    BadPayload,
    Defect,
    HostError,
    KeyUnusable,
    PolicyError,
    SandboxError,
    SecureworkerError,
    ServiceError,
    SettingsError,
    Stop,
    StopReason,
    TaskError,
)
from secureworker.core.outcome import (
    Errored,
    ExitCode,
    ExitCodes,
    Exited,
    KilledBySignal,
    Reason,
    Refused,
    Resolution,
    Stopped,
    resolve,
)
from secureworker.testing import an_execution

MAPPED = {
    0: Resolution.COMPLETED,
    3: Resolution.MALFORMED_PAYLOAD,
    4: Resolution.RESOURCE_UNAVAILABLE,
    5: Resolution.INTERNAL_ERROR,
    7: Resolution.INTERMITTENT_TASK,
    241: Resolution.INTERMITTENT_TASK,
    245: Resolution.INTERMITTENT_TASK,
}


@pytest.mark.parametrize("code", [*range(9), 42, 126, 127, 241, 245, 255])
def test_exit_codes_mean_what_scriptworker_means_by_them_but_2_and_6(code: int) -> None:
    assert resolve(Exited(an_execution(ExitCode(code)))) is MAPPED.get(code, Resolution.FAILED)


@pytest.mark.parametrize("signal", [6, 9, 11, 15])
@pytest.mark.parametrize("out_of_memory", [True, False])
def test_a_script_killed_by_a_signal_failed(signal: int, *, out_of_memory: bool) -> None:
    assert resolve(Exited(an_execution(KilledBySignal(signal, out_of_memory)))) is Resolution.FAILED


def test_a_rules_own_exit_codes_come_first() -> None:
    codes = ExitCodes(((2, Resolution.WORKER_SHUTDOWN), (0, Resolution.FAILED), (99, Resolution.COMPLETED)))
    ends = [resolve(Exited(an_execution(ExitCode(code)), codes)) for code in (2, 0, 99, 4)]
    assert ends == [
        Resolution.WORKER_SHUTDOWN,
        Resolution.FAILED,
        Resolution.COMPLETED,
        Resolution.RESOURCE_UNAVAILABLE,
    ]


def test_a_refused_task_is_malformed() -> None:
    assert resolve(Refused((Reason("tasks.scopes", "no"),))) is Resolution.MALFORMED_PAYLOAD


def test_a_reason_names_its_rule_where_there_is_one() -> None:
    assert str(Reason("tasks.scopes", "no")) == "tasks.scopes: no"
    assert str(Reason("", "no")) == "no"


@pytest.mark.parametrize("reason", [StopReason.CLAIM_LOST, StopReason.CANCELED])
@pytest.mark.parametrize(("started", "repeatable"), list(itertools.product([True, False], repeat=2)))
def test_nothing_is_reported_for_a_run_that_is_not_ours(reason: StopReason, *, started: bool, repeatable: bool) -> None:
    assert resolve(Stopped(reason, "", started, repeatable)) is Resolution.NOT_OURS


@pytest.mark.parametrize("reason", [StopReason.TIME_LIMIT, StopReason.DISK_LIMIT])
def test_a_script_over_a_limit_failed(reason: StopReason) -> None:
    assert resolve(Stopped(reason, "", started=True)) is Resolution.FAILED


@pytest.mark.parametrize(
    ("started", "repeatable", "resolution"),
    [
        (False, True, Resolution.WORKER_SHUTDOWN),
        (False, False, Resolution.WORKER_SHUTDOWN),
        (True, True, Resolution.WORKER_SHUTDOWN),
        (True, False, Resolution.INTERNAL_ERROR),
    ],
)
def test_a_script_that_must_not_be_repeated_is_not_given_back_once_it_has_begun(
    resolution: Resolution, *, started: bool, repeatable: bool
) -> None:
    assert resolve(Stopped(StopReason.SHUTDOWN, "", started, repeatable)) is resolution


@pytest.mark.parametrize(
    ("error", "before", "after"),
    [
        (BadPayload(("one", "two")), Resolution.MALFORMED_PAYLOAD, Resolution.MALFORMED_PAYLOAD),
        (BadArtifact("a link"), Resolution.FAILED, Resolution.FAILED),
        (TaskError("x"), Resolution.FAILED, Resolution.FAILED),
        (ServiceError("x"), Resolution.RESOURCE_UNAVAILABLE, Resolution.INTERNAL_ERROR),
        (AccessDenied("x"), Resolution.RESOURCE_UNAVAILABLE, Resolution.INTERNAL_ERROR),
        (HostError("x"), Resolution.INTERNAL_ERROR, Resolution.INTERNAL_ERROR),
        (SettingsError("x"), Resolution.INTERNAL_ERROR, Resolution.INTERNAL_ERROR),
        (SandboxError("x"), Resolution.INTERNAL_ERROR, Resolution.INTERNAL_ERROR),
        (KeyUnusable("x"), Resolution.INTERNAL_ERROR, Resolution.INTERNAL_ERROR),
        (PolicyError(("x",)), Resolution.INTERNAL_ERROR, Resolution.INTERNAL_ERROR),
        (Defect("x"), Resolution.INTERNAL_ERROR, Resolution.INTERNAL_ERROR),
        (SecureworkerError("x"), Resolution.INTERNAL_ERROR, Resolution.INTERNAL_ERROR),
    ],
)
def test_errors_are_resolved_by_whose_fault_they_are(
    error: SecureworkerError, before: Resolution, after: Resolution
) -> None:
    assert resolve(Errored(error, started=False)) is before
    assert resolve(Errored(error, started=True)) is after


def test_errors_keep_all_that_was_found() -> None:
    assert BadPayload(("one", "two")).reasons == ("one", "two")
    assert str(BadPayload(("one", "two"))) == "one; two"
    assert str(PolicyError(("a:1: x", "a:2: y"))) == "a:1: x\na:2: y"
    assert BadArtifact("x", ("public/a",)).names == ("public/a",)
    stop = Stop(StopReason.SHUTDOWN, "why")
    assert (stop.reason, stop.detail, str(stop)) == (StopReason.SHUTDOWN, "why", "why")
