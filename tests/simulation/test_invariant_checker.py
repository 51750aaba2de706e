"""The checker sees what it is there for: each promise broken on purpose, by a part of the worker or by a record."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from secureworker.core.outcome import Execution, Resolution
from secureworker.core.plan import Plan
from secureworker.ports import Artifact, ArtifactStore, ClaimedRun, Network, Queue, Sandbox, TaskLog, Workspace
from secureworker.worker.tools import Tools
from tests.simulation.invariants import violations
from tests.simulation.record import Record, Report, RunRecord, Upload
from tests.simulation.scenario import Replaced, Scenario, play

COMPLETED, FAILED = Resolution.COMPLETED, Resolution.FAILED
SIGNED = {"public/a": "00"}
STATEMENT = "public/chain-of-trust.json"


def a_report(resolution: Resolution = COMPLETED, begun: float = 40.0) -> Report:
    return Report(resolution, begun, begun + 1, accepted=True, arrived=True, answered=True)


def a_record(**changes: Any) -> Record:
    """Build the record of one run, claimed at 0 until 100, that went well; `changes` are of the run."""
    run = RunRecord(
        "task/0",
        heard=0.0,
        leases=[(0.0, 100.0, 100.0)],
        closed=39.0,
        reports=[a_report()],
        uploads=[Upload("public/a", "00", 20.0, 21.0), Upload(STATEMENT, "11", 22.0, 23.0)],
        scripts=[(10.0, 15.0)],
        signed=[SIGNED],
        resolved="completed",
    )
    return Record(0, runs=[replace(run, **changes)], ended=50.0)


def test_a_run_that_goes_well_breaks_nothing() -> None:
    assert violations(a_record()) == []


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"reports": [a_report(), replace(a_report(FAILED, 45.0), accepted=False)]}, "reports differ"),
        ({"reports": [a_report(), a_report(begun=45.0)]}, "resolved more than once"),
        ({"reports": [a_report(), a_report(begun=45.0)]}, "it was known that the report had arrived"),
        ({"reports": [a_report(begun=101.0)]}, "after its claim ended"),
        ({"reports": [a_report(Resolution.NOT_OURS)]}, "not-ours was reported"),
        ({"told_lost": 30.0}, "reported, and it was known to be lost"),
        ({"heard": None}, "a run that the worker does not have"),
        ({"reports": [], "closed": 20.0}, "never reported"),
        ({"reports": [Report(COMPLETED, 10.0, 11.0)]}, "given up on"),
        ({"unwanted": True}, "its script ran, and the worker had been told to end"),
        ({"unwanted": True}, "told to end, and reported completed"),
        ({"scripts": [(10.0, 101.0)]}, "its script lived until 101.000"),
        ({"scripts": [(10.0, 12.0), (13.0, 14.0)]}, "ran more than once"),
        ({"scripts": [(-1.0, 12.0)]}, "before it was claimed"),
        ({"scripts": [(10.0, 41.0)]}, "alive when it was reported"),
        ({"told_lost": 5.0, "reports": []}, "its script was started, and it was known to be lost"),
        ({"told_lost": 16.0, "reports": []}, "public/a was uploaded, and the run was known to be lost"),
        ({"uploads": [Upload("public/a", "00", 101.0)]}, "public/a was uploaded after its claim ended"),
        ({"uploads": [Upload("public/a", "00", 41.0)]}, "public/a was uploaded after its report"),
        ({"signed": [SIGNED, SIGNED]}, "2 statements were signed"),
        ({"signed": []}, "a statement is stored that nobody signed"),
        ({"uploads": []}, "completed without a statement"),
        ({"signed": [{**SIGNED, "public/b": "00"}]}, "public/b was signed, and is missing"),
        ({"signed": [{"public/a": "22"}]}, "public/a differs from what was signed"),
        ({"signed": [{}]}, "public/a is stored, and was not signed"),
        (
            {"uploads": [Upload(STATEMENT, "11", 16.0, 17.0), Upload("public/a", "00", 20.0, 21.0)]},
            "public/a was stored after its statement",
        ),
    ],
)
def test_a_promise_about_a_run_that_is_broken_is_seen(changes: dict[str, Any], broken: str) -> None:
    assert any(broken in found for found in violations(a_record(**changes))), violations(a_record(**changes))


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"ended": None}, "the loop did not end"),
        ({"died_of": "KeyError"}, "the loop died"),
        ({"asked": [(0.0, "now")], "ended": 1000.0}, "went on for 1000 s after now"),
        ({"asked": [(0.0, "stop")], "ended": 10_000.0}, "went on for 10000 s after stop"),
        ({"claimed_after_end": True}, "asked for after the worker was told to end"),
        ({"left_open": {"workspaces": 1}}, "1 of the workspaces are open still"),
        ({"capacity": 0}, "1 scripts ran at once"),
    ],
)
def test_a_promise_about_the_loop_that_is_broken_is_seen(changes: dict[str, Any], broken: str) -> None:
    assert any(broken in found for found in violations(replace(a_record(), **changes)))


def test_a_script_beside_one_that_runs_alone_is_seen() -> None:
    one, other = a_record().runs[0], a_record(scripts=[(14.0, 20.0)]).runs[0]
    beside = Record(0, capacity=2, runs=[replace(one, exclusive=True), replace(other, name="other/0")], ended=50.0)
    assert any("runs alone, and ran beside those of other/0" in found for found in violations(beside))
    assert violations(replace(beside, runs=[one, replace(other, name="other/0")])) == []


@dataclass
class _Changed:
    """Another object, but for what a stand-in does otherwise."""

    inner: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _ReportsTwice(_Changed):
    async def report(self, resolution: Resolution) -> None:
        await self.inner.report(resolution)
        await self.inner.report(Resolution.FAILED)


class _ReportsNothing(_Changed):
    async def report(self, resolution: Resolution) -> None:
        """Forget it."""


class _NeverRenews(_Changed):
    async def reclaim(self) -> Any:
        return self.inner.taken_until + timedelta(days=1)


@dataclass
class _Giving:
    """A Queue whose runs are changed."""

    queue: Queue
    change: Callable[[Any], Any]

    async def claim(self, count: int) -> tuple[ClaimedRun, ...]:
        return tuple(self.change(run) for run in await self.queue.claim(count))


@dataclass
class _Unstoppable:
    """A sandbox whose scripts nobody can stop."""

    sandbox: Sandbox

    async def run(self, plan: Plan, workspace: Workspace, log: TaskLog, network: Network | None = None) -> Execution:
        running = asyncio.ensure_future(self.sandbox.run(plan, workspace, log, network))
        while not running.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((running,))
        return running.result()

    async def self_test(self) -> tuple[str, ...]:
        return ()


@dataclass
class _Losing:
    """A store that says that all is stored, and leaves out the first."""

    store: ArtifactStore

    async def put(self, run: ClaimedRun, artifacts: tuple[Artifact, ...]) -> None:
        await self.store.put(run, artifacts[1:])

    async def put_signed(self, run: ClaimedRun, files: Any) -> None:
        await self.store.put_signed(run, files)

    async def put_error(self, run: ClaimedRun, name: Any, reason: str, message: str) -> None:
        await self.store.put_error(run, name, reason, message)


class _Impatient(_Changed):
    """Turns in which everybody is beside everybody."""

    @contextlib.asynccontextmanager
    async def take(self, *, alone: bool) -> AsyncIterator[None]:  # noqa: ARG002 - the lock's
        yield


def runs_changed(change: Callable[[Any], Any]) -> Replaced:
    return Replaced(queue=lambda queue, _: _Giving(queue, change))


def tools_changed(**change: Callable[[Any], Any]) -> Replaced:
    def changed(tools: Tools, _: Scenario) -> Tools:
        return replace(tools, **{name: by(getattr(tools, name)) for name, by in change.items()})

    return Replaced(tools=changed)


@pytest.mark.parametrize(
    ("replaced", "broken"),
    [
        (runs_changed(_ReportsTwice), "reports differ"),
        (runs_changed(_ReportsNothing), "never reported"),
        (runs_changed(_NeverRenews), "its script lived until"),
        (tools_changed(sandbox=_Unstoppable), "its script lived until"),
        (tools_changed(store=_Losing), "was signed, and is missing"),
        (tools_changed(turns=_Impatient), "runs alone, and ran beside"),
    ],
)
def test_a_worker_with_a_broken_part_is_found_out_by_some_seed(replaced: Replaced, broken: str) -> None:
    assert any(broken in found for seed in range(200) for found in violations(play(seed, replaced)))
