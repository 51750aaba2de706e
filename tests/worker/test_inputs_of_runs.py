"""What a run does about inputs: nothing is prepared, run or signed before they are what they were signed as."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from secureworker.core.audit import Ending, Event
from secureworker.core.claim import Json
from secureworker.core.errors import BadPayload, HostError, ServiceError
from secureworker.core.ids import ArtifactName, RunId, Sha256
from secureworker.core.outcome import Outcome, Resolution
from secureworker.core.policy import Policy, UpstreamRule
from secureworker.ports import VerifiedInput
from secureworker.testing import FakeRun, a_policy, a_script, run_virtual
from secureworker.testing.build import an_artifact
from secureworker.worker.run import run_claim
from tests.core.upstreams import BUILD, STRANGER, Build, trusted_pools
from tests.worker.world import World

ZIP, ASC = "public/build/a.zip", "public/build/a.zip.asc"
CONTENTS = {ZIP: b"a zip", ASC: b"a signature"}
RULE = UpstreamRule(required=True, worker_pools=("release-3/*",), max_size=100, forbid_features=())


def digest(name: str) -> Sha256:
    return an_artifact(name, CONTENTS[name]).sha256


def signed() -> dict[str, Json]:
    return {name: {"sha256": str(digest(name))} for name in CONTENTS}


def a_policy_with_inputs(rule: UpstreamRule | None = RULE) -> Policy:
    return replace(a_policy(a_script(upstream=rule)), trust=trusted_pools())


def carry_out(
    arrange: Callable[[World], object] = lambda _: None,
    build: Build | None = None,
    *more: Json,
    rule: UpstreamRule | None = RULE,
) -> tuple[Outcome, World, FakeRun]:
    """Run a task that wants what a build made."""

    async def main() -> tuple[Outcome, World, FakeRun]:
        world = World(a_policy_with_inputs(rule))
        world.inputs.facts = {BUILD: (build or Build(body={"artifacts": signed()})).facts()}
        world.inputs.contents = {f"{BUILD}/{name}": content for name, content in CONTENTS.items()}
        arrange(world)
        wanted: Json = [{"taskId": BUILD, "taskType": "build", "paths": [ZIP]}, *more]
        run = world.a_run(payload={"upstreamArtifacts": wanted}, dependencies=[BUILD])
        return await run_claim(run, world.tools, world.shutdown), world, run

    return run_virtual(main())


def test_what_was_verified_and_fetched_is_named_in_what_is_signed() -> None:
    _, world, run = carry_out()

    assert run.reports == [Resolution.COMPLETED], world.log(run)
    (statement,) = world.signer.signed
    chain = Sha256(hashlib.sha256(world.inputs.facts[BUILD].statements.signed).hexdigest())
    assert statement.inputs == (
        VerifiedInput(BUILD, RunId(1), ArtifactName(ZIP), digest(ZIP)),
        VerifiedInput(BUILD, RunId(1), ArtifactName("public/chain-of-trust.json"), chain),
    )
    assert world.store.names(run.claim)[-2:] == ["public/verification.json", "public/logs/live_backing.log"]
    log = world.log(run)
    assert f"inputs of the task {BUILD}, run 1: verified" in log
    assert "  12. key: passed" in log
    assert "1 inputs of 5 bytes have the digests that were signed" in log
    (record,) = [each for each in world.audit.records if each.event is Event.INPUT_VERIFICATION]
    assert record.ending is Ending.OK
    assert dict(record.details)["upstreamTaskId"] == BUILD


def test_a_task_that_is_not_verified_stops_the_run_before_anything_is_prepared() -> None:
    _, world, run = carry_out(build=Build(body={"artifacts": signed()}, key=STRANGER))

    assert run.reports == [Resolution.MALFORMED_PAYLOAD]
    assert world.workspaces.opened == 0
    assert world.inputs.fetched == []
    assert world.signer.signed == []
    assert "  6. signature: NOT PASSED" in world.log(run)
    assert "refused: scripts.build.upstream: the task" in world.log(run)
    (record,) = [each for each in world.audit.records if each.event is Event.INPUT_VERIFICATION]
    assert record.ending is Ending.FAILED
    assert str(dict(record.details)["reason"]).startswith("signature: ")


def test_an_artifact_that_is_not_what_was_signed_stops_the_run_before_its_script_begins() -> None:
    def arrange(world: World) -> None:
        world.inputs.contents[f"{BUILD}/{ZIP}"] = b"another zip"

    _, world, run = carry_out(arrange)

    assert run.reports == [Resolution.MALFORMED_PAYLOAD]
    assert world.sandbox.alive == []
    assert world.signer.signed == []
    assert "it has the sha256" in world.log(run)


def test_an_optional_input_that_is_bad_is_left_out_of_what_is_signed_too() -> None:
    def arrange(world: World) -> None:
        world.inputs.contents[f"{BUILD}/{ASC}"] = b"another"

    optional: Json = {"taskId": BUILD, "taskType": "build", "paths": [ASC, "public/none"], "optional": True}
    _, world, run = carry_out(arrange, None, optional)

    assert run.reports == [Resolution.COMPLETED]
    assert [each.name for each in world.signer.signed[0].inputs] == [ZIP, "public/chain-of-trust.json"]
    assert f"the optional input {BUILD}/{ASC} is left out: it has the sha256" in world.log(run)
    assert 'an optional input is left out: the task TyRoGA_OS3W2QMCEuF1icw signed no artifact "public/none"' in (
        world.log(run)
    )
    endings = [each.ending for each in world.audit.records if each.event is Event.INPUT_VERIFICATION]
    assert endings == [Ending.OK, Ending.FAILED]


@pytest.mark.parametrize(("required", "resolution"), [(True, "malformed-payload"), (False, "completed")])
def test_a_script_that_takes_inputs_does_not_run_where_all_turn_out_to_be_absent(
    *, required: bool, resolution: str
) -> None:
    async def main() -> tuple[World, FakeRun]:
        world = World(a_policy_with_inputs(replace(RULE, required=required)))
        world.inputs.facts = {BUILD: Build(body={"artifacts": signed()}).facts()}
        wanted: Json = [{"taskId": BUILD, "taskType": "build", "paths": ["public/*"], "optional": True}]
        run = world.a_run(payload={"upstreamArtifacts": wanted}, dependencies=[BUILD])
        await run_claim(run, world.tools, world.shutdown)
        return world, run

    world, run = run_virtual(main())
    assert run.reports == [Resolution(resolution)]
    assert [statement.inputs for statement in world.signer.signed] == ([] if required else [()])


@pytest.mark.parametrize("method", ["gather", "fetch"])
@pytest.mark.parametrize(
    ("error", "resolution"),
    [
        (ServiceError("503"), Resolution.RESOURCE_UNAVAILABLE),
        (BadPayload(("gone",)), Resolution.MALFORMED_PAYLOAD),
        (HostError("disk full"), Resolution.INTERNAL_ERROR),
    ],
)
def test_what_fails_is_resolved_by_whose_fault_it_is(method: str, error: Exception, resolution: Resolution) -> None:
    _, world, run = carry_out(lambda world: world.inputs.failures.add(method, error))

    assert run.reports == [resolution]
    assert world.sandbox.alive == []
    assert world.workspaces.open_now == 0


def test_a_claim_is_renewed_while_inputs_come() -> None:
    def arrange(world: World) -> None:
        world.inputs.seconds = 5000

    _, _, run = carry_out(arrange)

    assert run.reports == [Resolution.COMPLETED]
    assert run.reclaims > 3


@pytest.mark.parametrize("when", [100, 700])
def test_a_stop_while_inputs_are_asked_for_or_come_ends_the_run_and_a_cancellation_too(when: float) -> None:
    def at(moment: float, happens: Callable[[World, FakeRun], object]) -> tuple[World, FakeRun]:
        async def main() -> tuple[World, FakeRun]:
            world = World(a_policy_with_inputs())
            world.inputs.facts = {BUILD: Build(body={"artifacts": signed()}).facts()}
            world.inputs.seconds = 500
            wanted: Json = [{"taskId": BUILD, "taskType": "build", "paths": [ZIP]}]
            run = world.a_run(payload={"upstreamArtifacts": wanted}, dependencies=[BUILD])

            async def meanwhile() -> None:
                await world.clock.sleep(moment)
                happens(world, run)

            async with asyncio.TaskGroup() as group:
                group.create_task(meanwhile())
                await run_claim(run, world.tools, world.shutdown)
            return world, run

        return run_virtual(main())

    world, run = at(when, lambda world, _: world.shutdown.now("asked"))
    assert run.reports == [Resolution.WORKER_SHUTDOWN]
    assert (world.sandbox.alive, world.workspaces.open_now) == ([], 0)
    world, run = at(when, lambda _, run: run.cancel())
    assert run.reports == []
    assert (world.sandbox.alive, world.workspaces.open_now) == ([], 0)


def test_a_task_without_inputs_asks_nothing() -> None:
    async def main() -> World:
        world = World()
        world.inputs.failures.add("gather", HostError("asked"))
        world.inputs.failures.add("fetch", HostError("asked"))
        run = world.a_run()
        await run_claim(run, world.tools, world.shutdown)
        assert run.reports == [Resolution.COMPLETED]
        return world

    assert run_virtual(main()).inputs.fetched == []


def test_large_statements_are_judged_beside_the_loop() -> None:
    body = {"artifacts": signed(), "environment": {"note": "x" * 2**20}}

    _, _, run = carry_out(build=Build(body=body))

    assert run.reports == [Resolution.COMPLETED]
