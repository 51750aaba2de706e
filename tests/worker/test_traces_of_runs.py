"""What a run does with the trace of its inputs: told, written down, published, and a reason to refuse."""

import hashlib
from dataclasses import replace

import pytest

from secureworker.core.audit import Ending, Event
from secureworker.core.claim import Json
from secureworker.core.errors import HostError, SecureworkerError, ServiceError
from secureworker.core.outcome import Resolution
from secureworker.core.policy import Policy, UpstreamRule
from secureworker.testing import FakeRun, a_policy, a_script, run_virtual
from secureworker.worker.run import run_claim
from tests.core.ancestries import DECISION, IMAGE, RULE, TRUST
from tests.core.ancestries import World as Facts
from tests.worker.world import World

ZIP, CONTENT = "public/image.tar.zst", b"an image"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def a_policy_with_trace() -> Policy:
    rule = UpstreamRule(required=True, worker_pools=("release-3/*",), max_size=100, forbid_features=(), trace=RULE)
    return replace(a_policy(a_script(upstream=rule)), trust=TRUST.pools)


def carry_out(facts: Facts, failure: SecureworkerError | None = None) -> tuple[World, FakeRun]:
    """Run a task that wants an image that a decision task had made."""

    async def main() -> tuple[World, FakeRun]:
        world = World(a_policy_with_trace())
        ancestry = facts.facts()
        world.inputs.facts = {each.task_id: each for each in ancestry.tasks}
        world.inputs.contents = {f"{IMAGE}/{ZIP}": CONTENT}
        world.inputs.ancestry = ancestry
        if failure is not None:
            world.inputs.failures.add("trace", failure)
        wanted: Json = [{"taskId": IMAGE, "taskType": "image", "paths": [ZIP]}]
        run = world.a_run(payload={"upstreamArtifacts": wanted}, dependencies=[IMAGE])
        await run_claim(run, world.tools, world.shutdown)
        return world, run

    return run_virtual(main())


def the_facts(**changes: object) -> Facts:
    return Facts(made=SHA256, **changes)  # type: ignore[arg-type] # of any field


def test_a_trace_is_told_written_down_and_named_in_what_is_signed() -> None:
    world, run = carry_out(the_facts())

    assert run.reports == [Resolution.COMPLETED], world.log(run)
    log = world.log(run)
    assert f"trace: the decision {DECISION}: verified" in log
    assert f"trace: the task {IMAGE}: verified" in log
    assert "  17. tree: passed: it is as .taskcluster.yml of" in log
    records = [each for each in world.audit.records if each.event is Event.INPUT_VERIFICATION]
    assert [(each.ending, dict(each.details)["upstreamTaskId"]) for each in records] == [
        (Ending.OK, IMAGE),
        (Ending.OK, DECISION),
        (Ending.OK, IMAGE),
    ]
    (statement,) = world.signer.signed
    assert [(each.task_id, each.name) for each in statement.inputs] == [
        (IMAGE, ZIP),
        (IMAGE, "public/chain-of-trust.json"),
        (DECISION, "public/chain-of-trust.json"),
    ]
    assert "public/verification.json" in world.store.names(run.claim)


def test_what_does_not_come_from_the_tree_stops_the_run_before_anything_is_prepared() -> None:
    world, run = carry_out(the_facts(refs=("refs/heads/try",)))

    assert run.reports == [Resolution.MALFORMED_PAYLOAD]
    assert world.inputs.fetched == []
    assert world.sandbox.alive == []
    assert world.signer.signed == []
    assert "origin: NOT PASSED: the revision" in world.log(run)
    failed = [each for each in world.audit.records if each.ending is Ending.FAILED]
    assert [dict(each.details)["upstreamTaskId"] for each in failed] == [DECISION, IMAGE]
    assert str(dict(failed[0].details)["reason"]).startswith("origin: the revision")


def test_a_task_of_which_nothing_is_known_is_no_part_of_a_trace() -> None:
    world, run = carry_out(the_facts(left_out=(DECISION,)))
    assert run.reports == [Resolution.MALFORMED_PAYLOAD]
    assert f"trace: the task {DECISION}: not verified" in world.log(run)


@pytest.mark.parametrize(
    ("failure", "resolution"),
    [
        (ServiceError("the inputs could not be followed to the tree within 600 s"), Resolution.RESOURCE_UNAVAILABLE),
        (HostError("the mirror /m cannot be read by git"), Resolution.INTERNAL_ERROR),
    ],
)
def test_what_cannot_be_followed_is_resolved_by_whose_fault_it_is(
    failure: SecureworkerError, resolution: Resolution
) -> None:
    world, run = carry_out(the_facts(), failure)
    assert run.reports == [resolution]
    assert world.signer.signed == []
