"""What a worker does is written down, and what cannot be written down does not begin."""

import contextlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from secureworker.core.audit import AuditRecord, Ending, Event
from secureworker.core.decide import Admitted, decide
from secureworker.core.doors import Destination, Doors
from secureworker.core.errors import AuditEnded, AuditError, BadArtifact, HostError, SandboxError, SignerLost
from secureworker.core.happening import Hindrance, StateEntered
from secureworker.core.ids import Sha256
from secureworker.core.outcome import ExitStatus, KilledBySignal, Resolution
from secureworker.core.paths import Route
from secureworker.core.plan import PinnedFile, Plan
from secureworker.core.secrets import HostFile, SecretFile, TaskclusterSecret
from secureworker.core.templates import Template
from secureworker.ports import ArtifactStore, Network, Queue, Sandbox, Workspace
from secureworker.testing import IDENTITY, Failures, FakeRun, FakeTaskLog, a_policy, a_script, run_virtual
from secureworker.worker.audited import (
    AuditedDoors,
    AuditedQueue,
    AuditedRun,
    AuditedSandbox,
    AuditedSecrets,
    AuditedStore,
    policy_record,
)
from secureworker.worker.lease import Lease
from secureworker.worker.loop import ClaimLoop, Ended
from secureworker.worker.tools import Tools
from tests.worker.world import World


class AuditedWorld(World):
    """A worker whose ports are audited, as the program wires them."""

    @property
    def tools(self) -> Tools:
        tools = super().tools
        sandbox: Sandbox = AuditedSandbox(tools.sandbox, self.audit)
        store: ArtifactStore = AuditedStore(tools.store, self.audit)
        return Tools(**{**{name: getattr(tools, name) for name in Tools.__slots__}, "sandbox": sandbox, "store": store})

    def audited_loop(self) -> ClaimLoop:
        queue: Queue = AuditedQueue(self.queue, self.audit, self.clock)
        return ClaimLoop(queue, self.tools, self.shutdown, tasks=1)


def serve(arrange: Callable[[AuditedWorld, FakeRun], None] = lambda _, __: None) -> tuple[Ended, AuditedWorld, FakeRun]:
    async def scenario() -> tuple[Ended, AuditedWorld, FakeRun]:
        world = AuditedWorld()
        run = world.a_run()
        world.queue.add(run)
        arrange(world, run)
        return await world.audited_loop().serve(world.events), world, run

    return run_virtual(scenario())


def told(world: World) -> list[str]:
    return [f"{record.event.value} {record.ending.value}" for record in world.audit.records]


def only(world: World, event: Event) -> AuditRecord:
    (record,) = [record for record in world.audit.records if record.event is event]
    return record


def test_a_run_is_written_down_from_its_claim_to_its_resolution() -> None:
    _, world, run = serve()

    assert told(world) == [
        "claim ok",
        "decision ok",
        "sandbox-start ok",
        "sandbox-end ok",
        "seal ok",
        "upload ok",
        "upload ok",
        "upload ok",
        "resolve ok",
    ]
    assert {record.run for record in world.audit.records} == {(run.claim.task_id, run.claim.run_id)}
    assert dict(only(world, Event.CLAIM).details)["name"] == "a task"
    assert dict(only(world, Event.DECISION).details) == {"script": "build"}
    assert dict(only(world, Event.SANDBOX_END).details)["exitCode"] == 0
    assert dict(only(world, Event.SEAL).details) == {"artifacts": 2, "bytes": 2}
    assert dict(only(world, Event.RESOLVE).details) == {"resolution": "completed"}
    sealed, uploaded = [dict(record.digests).get("artifacts") for record in world.audit.records[4:6]]
    assert sealed is not None
    assert sealed == uploaded


def test_no_record_holds_a_credential() -> None:
    _, world, run = serve()

    assert run.claim.credentials.access_token.reveal() not in repr(world.audit.records)


def test_a_refusal_is_written_down_with_its_rules() -> None:
    def forbid(world: AuditedWorld, _: FakeRun) -> None:
        world.policy = a_policy(a_script(requires_scopes=(Template("project:x"),)))

    _, world, run = serve(forbid)

    decision = only(world, Event.DECISION)
    assert decision.ending is Ending.REFUSED
    assert "requires-scopes" in str(dict(decision.details)["rules"])
    assert run.resolved is Resolution.MALFORMED_PAYLOAD
    assert "sandbox-start ok" not in told(world)


def test_how_a_script_was_killed_is_written_down() -> None:
    def kill(world: AuditedWorld, _: FakeRun) -> None:
        status: ExitStatus = KilledBySignal(9, out_of_memory=True)
        world.sandbox.status = status

    _, world, _ = serve(kill)

    details = dict(only(world, Event.SANDBOX_END).details)
    assert (details["signal"], details["outOfMemory"]) == (9, True)


def test_what_failed_is_written_down_with_its_reason() -> None:
    def break_it(world: AuditedWorld, _: FakeRun) -> None:
        world.outputs.failures.add("seal", BadArtifact("a link", ("public/x",)))

    _, world, _ = serve(break_it)

    seal = only(world, Event.SEAL)
    assert seal.ending is Ending.FAILED
    assert dict(seal.details) == {"reason": "a link"}
    assert world.signer.signed == []


def test_a_sandbox_that_could_not_be_made_is_written_down() -> None:
    def break_it(world: AuditedWorld, _: FakeRun) -> None:
        world.sandbox.failures.add("run", SandboxError("no cgroup"))

    _, world, _ = serve(break_it)

    end = only(world, Event.SANDBOX_END)
    assert (end.ending, dict(end.details)) == (Ending.FAILED, {"reason": "SandboxError: no cgroup"})


def test_a_script_that_was_stopped_has_an_end_in_the_log_too() -> None:
    def stop(world: AuditedWorld, run: FakeRun) -> None:
        world.sandbox.seconds = 3600
        world.sandbox.on_begin = run.cancel

    _, world, run = serve(stop)

    assert not run.reports
    end = only(world, Event.SANDBOX_END)
    assert (end.ending, dict(end.details)) == (Ending.FAILED, {"reason": "CancelledError"})
    resolve = only(world, Event.RESOLVE)
    assert dict(resolve.details)["resolution"] == "not-ours"


def broken(method: str, times: int = 1, after: int = 0) -> Callable[[AuditedWorld, FakeRun], None]:
    def arrange(world: AuditedWorld, _: FakeRun) -> None:
        appended = 0
        strike = world.audit.failures.strike

        class Counting:
            def strike(self, asked: str) -> None:
                nonlocal appended
                if asked != method:
                    return strike(asked)
                appended += 1
                if after < appended <= after + times:
                    raise AuditError("the disk is full")
                return None

        world.audit.failures = Counting()  # type: ignore[assignment] # counts, where the other has a queue

    return arrange


def test_while_the_log_cannot_be_written_nothing_is_claimed() -> None:
    def arrange(world: AuditedWorld, run: FakeRun) -> None:
        broken("check", times=3)(world, run)

    ended, world, run = serve(arrange)

    assert ended.fault is None
    hindered = [each for each in world.watcher.seen if isinstance(each, StateEntered) and each.hindrances]
    assert [each.hindrances for each in hindered] == [(Hindrance("audit", "the disk is full"),)] * 3
    assert world.queue.asked == [1]
    assert run.resolved is Resolution.COMPLETED


@pytest.mark.parametrize("lost", [AuditEnded("takes no more records"), SignerLost("the signer is gone")])
def test_a_log_that_only_a_new_start_mends_ends_the_worker(lost: HostError) -> None:
    ended, world, run = serve(lambda world, _: world.audit.failures.add("check", lost))

    assert ended.fault is lost
    assert world.queue.asked == []
    assert run.resolved is None


@pytest.mark.parametrize("after", [0, 1, 2])
def test_where_its_record_cannot_be_written_a_script_does_not_begin(after: int) -> None:
    """The claim, the decision, the sandbox's start: whichever it is, the run is resolved and the worker ends."""
    ended, world, run = serve(broken("append", times=100, after=after))

    assert isinstance(ended.fault, AuditError)
    assert world.sandbox.alive == []
    assert world.signer.signed == []
    assert run.resolved is Resolution.INTERNAL_ERROR


def test_where_it_cannot_be_written_down_what_was_sealed_nothing_is_signed() -> None:
    ended, world, run = serve(broken("append", times=100, after=4))

    assert isinstance(ended.fault, AuditError)
    assert world.signer.signed == []
    assert run.resolved is Resolution.INTERNAL_ERROR


@pytest.mark.parametrize("after", [3, 5, 6, 7, 8])
def test_what_has_ended_is_not_undone_by_a_record_that_is_lost(after: int) -> None:
    _, _, run = serve(broken("append", after=after))

    assert run.resolved is Resolution.COMPLETED


def test_an_audited_run_is_the_run() -> None:
    async def scenario() -> None:
        world = AuditedWorld()
        run = world.a_run()
        audited = AuditedRun(run, world.audit, Lease(world.clock, run.taken_until))
        assert audited.credentials == run.credentials
        until = await audited.reclaim()
        assert audited.taken_until == until
        await audited.finish_artifact(run.claim.task.name, "upload")  # type: ignore[arg-type] # only passed through
        assert run.finished == ["a task"]

    run_virtual(scenario())


def test_a_self_test_is_written_down() -> None:
    async def scenario() -> AuditedWorld:
        world = AuditedWorld()
        sandbox = AuditedSandbox(world.sandbox, world.audit)
        await sandbox.self_test()
        world.sandbox.failures.add("self_test", SandboxError("it got out"))
        with pytest.raises(SandboxError):
            await sandbox.self_test()
        return world

    assert told(run_virtual(scenario())) == ["self-test ok", "self-test failed"]


def a_plan(world: World) -> Plan:
    """Give a plan with two secrets and both doors."""
    decision = decide(world.a_run().claim, world.policy, IDENTITY, world.clock.now())
    assert isinstance(decision, Admitted)
    secrets = (
        SecretFile("token", HostFile("/etc/secureworker/token")),
        SecretFile("cert", TaskclusterSecret("project/cert", None)),
    )
    doors = Doors((Route("GET", "/api/queue/v1/x"),), ("queue:get-artifact:*",), (Destination("example.com", 443),))
    return replace(decision.plan, secrets=secrets, doors=doors)


@pytest.mark.parametrize("writable", [True, False])
def test_what_a_script_may_use_is_written_down_before_it_is_given(*, writable: bool) -> None:
    async def scenario() -> World:
        world = World()
        if not writable:
            world.audit.failures.add("append", AuditError("the disk is full"), times=2)
        run, plan = world.a_run(), a_plan(world)
        workspace = Workspace("/t", "/s", "/o", "/b", 1000)
        expected = contextlib.nullcontext() if writable else pytest.raises(AuditError)
        with expected:
            async with AuditedSecrets(world.secrets, world.audit).lend(plan, run, workspace) as lent:
                assert len(lent) == 2
        with expected:
            async with AuditedDoors(world.doors, world.audit).open(run, plan, Network(-1, ()), FakeTaskLog(Failures())):
                assert world.doors.open_now == 1
        return world

    world = run_virtual(scenario())
    told = [dict(record.details) for record in world.audit.records]
    if not writable:
        assert (told, world.secrets.lent) == ([], 0)
        return
    assert told == [
        {"secrets": "token=file:/etc/secureworker/token cert=taskcluster:project/cert"},
        {"scopes": "queue:get-artifact:*", "routes": 1, "destinations": "example.com:443"},
    ]
    assert world.secrets.SECRET.reveal().decode() not in repr(world.audit.records)


def test_a_script_that_is_given_nothing_leaves_no_record_of_it() -> None:
    async def scenario() -> World:
        world = World()
        run, plan = world.a_run(), replace(a_plan(world), secrets=(), doors=Doors())
        async with (
            AuditedSecrets(world.secrets, world.audit).lend(plan, run, Workspace("/t", "/s", "/o", "/b", 1000)),
            AuditedDoors(world.doors, world.audit).open(run, plan, Network(-1, ()), FakeTaskLog(Failures())),
        ):
            pass
        return world

    assert run_virtual(scenario()).audit.records == []


def test_a_policy_is_written_down_with_the_digest_of_the_trust_file_that_it_names() -> None:
    policy = a_policy(a_script())
    assert policy_record(policy).digests == (("policy", policy.sha256),)
    file = PinnedFile("/etc/trust.yml", Sha256("ab" * 32))
    assert policy_record(replace(policy, trust_file=file)).digests == (
        ("policy", policy.sha256),
        ("trust", file.sha256),
    )
