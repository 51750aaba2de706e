"""Honest in-memory fakes of every port, and builders with defaults, for tests of the worker and of what uses it.

Time is virtual: under `run_virtual`, an hour of sleeping takes no time, and the clock moves only when everybody
sleeps. Fakes keep the promises of `secureworker.ports` (`tests/contracts/` holds them to it) and record what was
asked of them in public attributes. Each takes failures to raise, by the name of the method, first come first served.
"""

from secureworker.testing.build import (
    IDENTITY,
    ROOT_URL,
    SHA256,
    TASK_ID,
    a_claim,
    a_claim_answer,
    a_policy,
    a_script,
    an_artifact,
    an_execution,
)
from secureworker.testing.host import (
    FakeAuditLog,
    FakeDoors,
    FakeEvents,
    FakeHostGuard,
    FakeLiveLogs,
    FakeNetworks,
    FakeOutputs,
    FakeSandbox,
    FakeSecrets,
    FakeSigner,
    FakeStore,
    FakeTaskLog,
    FakeTaskLogs,
    FakeWatcher,
    FakeWorkspaces,
)
from secureworker.testing.inputs import FAKE_CHECKS, FakeInputs, fake_signature
from secureworker.testing.queue import FakeQueue, FakeRun
from secureworker.testing.time import EPOCH, Failures, FakeClock, VirtualLoop, run_virtual

__all__ = [
    "EPOCH",
    "FAKE_CHECKS",
    "IDENTITY",
    "ROOT_URL",
    "SHA256",
    "TASK_ID",
    "Failures",
    "FakeAuditLog",
    "FakeClock",
    "FakeDoors",
    "FakeEvents",
    "FakeHostGuard",
    "FakeInputs",
    "FakeLiveLogs",
    "FakeNetworks",
    "FakeOutputs",
    "FakeQueue",
    "FakeRun",
    "FakeSandbox",
    "FakeSecrets",
    "FakeSigner",
    "FakeStore",
    "FakeTaskLog",
    "FakeTaskLogs",
    "FakeWatcher",
    "FakeWorkspaces",
    "VirtualLoop",
    "a_claim",
    "a_claim_answer",
    "a_policy",
    "a_script",
    "an_artifact",
    "an_execution",
    "fake_signature",
    "run_virtual",
]
