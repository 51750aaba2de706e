"""The ports `Networks` and `Doors`: what opens nothing keeps the promises of what serves real listeners."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from secureworker.core.doors import Destination, Door, Doors
from secureworker.core.errors import SandboxError
from secureworker.core.paths import Route
from secureworker.core.plan import Plan
from secureworker.ports import Doors as DoorsPort
from secureworker.ports import Networks
from secureworker.proxy.doors import open_doors
from secureworker.sandbox import kernel
from secureworker.sandbox.netns import NamespaceNetworks, network_namespace
from secureworker.testing import FakeClock, FakeDoors, FakeNetworks, FakeRun, FakeTaskLog, a_claim
from secureworker.testing.time import Failures
from tests.sandbox.cage import a_plan

BOTH = Doors(routes=(Route("GET", "/api/queue/v1/ping"),), destinations=(Destination("files.test", 443),))


@dataclass
class Outside:
    """What is around a run's network."""

    networks: Networks
    doors: DoorsPort
    real: bool

    def plan(self, doors: Doors) -> Plan:
        return a_plan(doors=doors)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.sandbox)])
async def outside(request: pytest.FixtureRequest) -> AsyncIterator[Outside]:
    if request.param == "fake":
        yield Outside(FakeNetworks(), FakeDoors(), real=False)
        return
    async with open_doors() as doors:
        yield Outside(NamespaceNetworks(), doors, real=True)


def log() -> FakeTaskLog:
    return FakeTaskLog(Failures())


@pytest.mark.parametrize("doors", [Doors(), BOTH, Doors(routes=BOTH.routes)])
async def test_there_is_a_listener_for_each_open_door_and_no_other(outside: Outside, doors: Doors) -> None:
    async with outside.networks.open(outside.plan(doors)) as network:
        assert tuple(door for door, _ in network.listeners) == doors.open


async def test_a_run_that_calls_nobody_has_no_traffic(outside: Outside) -> None:
    plan, run = outside.plan(BOTH), FakeRun(a_claim(), FakeClock())
    async with outside.networks.open(plan) as network, outside.doors.open(run, plan, network, log()) as opened:
        assert opened.traffic() == ()


async def test_what_goes_wrong_within_comes_out_as_it_is(outside: Outside) -> None:
    plan, run = outside.plan(BOTH), FakeRun(a_claim(), FakeClock())
    with pytest.raises(LookupError, match="as it is"):
        async with outside.networks.open(plan) as network, outside.doors.open(run, plan, network, log()):
            raise LookupError("as it is")


async def test_a_cancellation_within_closes_everything(outside: Outside) -> None:
    plan, run, begun = outside.plan(BOTH), FakeRun(a_claim(), FakeClock()), asyncio.Event()
    before = len(os.listdir("/proc/self/fd"))

    async def work() -> None:
        async with outside.networks.open(plan) as network, outside.doors.open(run, plan, network, log()):
            begun.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        working = group.create_task(work())
        await begun.wait()
        working.cancel()
    assert working.cancelled()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_two_runs_have_networks_of_their_own(outside: Outside) -> None:
    plan = outside.plan(BOTH)
    async with outside.networks.open(plan) as one, outside.networks.open(plan) as other:
        if outside.real:
            assert os.fstat(one.namespace).st_ino != os.fstat(other.namespace).st_ino


@pytest.mark.sandbox
async def test_the_listeners_are_on_the_loopback_of_the_namespace_and_gone_with_it() -> None:
    found: list[object] = []

    def enter(namespace: int) -> None:
        """Look from inside, in a thread that ends there."""
        kernel_setns(namespace)
        for door in Door:
            with socket.create_connection(("127.0.0.1", door.value), 5) as connection:
                found.append(connection.getpeername())

    async with NamespaceNetworks().open(a_plan(doors=BOTH)) as network:
        for _, listener in network.listeners:
            assert not os.get_blocking(listener)
            assert not os.get_inheritable(listener)
        thread = threading.Thread(target=enter, args=(network.namespace,))
        thread.start()
        await asyncio.to_thread(thread.join)
        held = {network.namespace, *(listener for _, listener in network.listeners)}
    assert found == [("127.0.0.1", 80), ("127.0.0.1", 3128)]
    for descriptor in held:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


@pytest.mark.sandbox
async def test_a_network_that_cannot_be_made_is_an_error_and_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with (
        pytest.raises(SandboxError, match="a network namespace cannot be made: Address already in use"),
        network_namespace((Door.EGRESS, Door.EGRESS)),
    ):
        pytest.fail("it was made")
    assert len(os.listdir("/proc/self/fd")) == before


UNPRIVILEGED = """
import ctypes, os, socket
# As a worker that is not root on its host, but root of a user namespace of its own.
if ctypes.CDLL(None, use_errno=True).unshare(0x10000000) < 0:
    raise SystemExit("no user namespaces")
from secureworker.core.doors import Door
from secureworker.sandbox.netns import network_namespace
with network_namespace(tuple(Door)) as network:
    print([socket.socket(fileno=os.dup(there)).getsockname() for _, there in network.listeners])
"""


@pytest.mark.sandbox
def test_root_of_a_user_namespace_may_open_them_too(checkout: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED], capture_output=True, text=True, check=False, timeout=60, cwd=checkout
    )
    assert answer.stdout == "[('127.0.0.1', 80), ('127.0.0.1', 3128)]\n", answer.stderr


@pytest.mark.sandbox
async def test_a_hundred_runs_leave_no_descriptor_and_no_thread() -> None:
    networks, plan, run = NamespaceNetworks(), a_plan(doors=BOTH), FakeRun(a_claim(), FakeClock())
    async with open_doors() as doors:
        counted = []
        for _ in range(100):
            async with networks.open(plan) as network, doors.open(run, plan, network, log()):
                await asyncio.sleep(0)
            counted.append((len(os.listdir("/proc/self/fd")), threading.active_count()))
    assert len(set(counted[1:])) == 1


def kernel_setns(namespace: int) -> None:
    """Enter a network namespace, with the calling thread only."""
    kernel._check(kernel._libc().setns(namespace, kernel._CLONE_NEWNET), "setns")
