"""Secrets in real containers: the script they are for can read them, and nobody can do anything else with them."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from secureworker.core.claim import Json
from secureworker.core.ids import RunId
from secureworker.core.outcome import ExitCode
from secureworker.core.plan import Plan
from secureworker.core.secrets import HostFile, SecretBytes, SecretFile, TaskclusterSecret
from secureworker.host.lending import LentSecrets, memory_directory
from secureworker.host.workspace import DirectoryWorkspaces
from secureworker.ports import ClaimedRun
from secureworker.testing import FakeClock, FakeRun, a_claim
from tests.sandbox.cage import Cage, Heard, Ran

pytestmark = pytest.mark.sandbox

CANARY = "canary-5b1d0e7a"
LOOK = """
import json, os, stat
at = "/run/secrets"
def attempt(what):
    try:
        what()
    except OSError as error:
        return type(error).__name__
    return "ok"
entry = os.stat(f"{at}/key.pem")
print(json.dumps({
    "names": os.listdir(at),
    "content": open(f"{at}/key.pem").read(),
    "mode": stat.S_IMODE(entry.st_mode),
    "owner": [entry.st_uid, entry.st_gid] == [os.getuid(), os.getgid()],
    "write": attempt(lambda: open(f"{at}/key.pem", "w")),
    "chmod": attempt(lambda: os.chmod(f"{at}/key.pem", 0o777)),
    "add": attempt(lambda: open(f"{at}/more", "w")),
    "remove": attempt(lambda: os.unlink(f"{at}/key.pem")),
    "execute": attempt(lambda: os.execv(f"{at}/key.pem", ["x"])),
    "above": sorted(os.listdir("/run")),
    "environment": "canary" in json.dumps(dict(os.environ)),
    "argv": "canary" in open("/proc/self/cmdline").read(),
}))
"""


class Lender:
    """Lends the secrets of plans that run in a cage."""

    def __init__(self, cage: Cage, memory: str) -> None:
        self.cage = cage
        self.memory = memory
        self.workspaces = DirectoryWorkspaces(str(cage.directory / "tasks"), memory=memory)
        self._lent = LentSecrets(memory, None, self._fetch)

    async def _fetch(self, source: TaskclusterSecret, run: ClaimedRun) -> dict[str, Json]:
        raise AssertionError(source, run)

    def plan(self, program: str, name: str = "key.pem", run_id: int = 0) -> Plan:
        path = self.cage.directory / "key.pem"
        if not path.exists():
            path.write_text(CANARY)
            path.chmod(0o600)
        script = f"#!/usr/bin/python3 -I\n{program}\n"
        return self.cage.plan(script, secrets=(SecretFile(name, HostFile(str(path))),), run_id=RunId(run_id))

    async def run(self, plan: Plan, log: Heard | None = None) -> Ran:
        heard = log or Heard()
        clock = FakeClock()
        async with self.workspaces.open(plan) as workspace, asyncio.timeout(60):
            async with self._lent.lend(plan, FakeRun(a_claim(clock), clock), workspace) as lent:
                assert lent == (SecretBytes(CANARY.encode()),)
                execution = await self.cage.sandbox.run(plan, workspace, heard)
            assert not os.path.exists(workspace.secrets)
        return Ran(execution, heard.text, {})


@pytest.fixture
def lender(cage: Cage) -> Iterator[Lender]:
    with memory_directory(str(cage.directory / "secrets")) as memory:
        yield Lender(cage, memory)


async def test_a_script_reads_its_secret_and_can_do_nothing_else_with_it(lender: Lender) -> None:
    ran = await lender.run(lender.plan(LOOK))
    assert ran.execution.status == ExitCode(0), ran.output
    answered: dict[str, Any] = json.loads(ran.output)
    # The mount is read-only, whoever owns what is in it.
    refused = {answered.pop(key) for key in ("write", "chmod", "add", "remove", "execute")}
    assert refused <= {"OSError", "PermissionError"}
    assert answered == {
        "names": ["key.pem"],
        "content": CANARY,
        "mode": 0o400,
        "owner": True,
        "above": ["secrets"],
        "environment": False,
        "argv": False,
    }


async def test_a_script_without_secrets_finds_no_directory_for_them(cage: Cage) -> None:
    ran = await cage.python("import os; print(os.path.exists('/run/secrets'), os.path.exists('/run'))")
    assert ran.output.split() == ["False", "False"]


async def test_runs_beside_each_other_do_not_see_each_others_secrets(lender: Lender) -> None:
    wait = (
        "import glob, os, time\n"
        "print(sorted(os.listdir('/run/secrets')), flush=True)\n"
        "time.sleep(1)\n"
        "print(glob.glob('/run/secrets/../*/*'), os.listdir('/run/secrets/..'))\n"
    )
    one, other = await asyncio.gather(
        lender.run(lender.plan(wait, "one", 0)), lender.run(lender.plan(wait, "other", 1))
    )
    assert one.output.splitlines() == ["['one']", "['/run/secrets/../secrets/one'] ['secrets']"]
    assert other.output.splitlines() == ["['other']", "['/run/secrets/../secrets/other'] ['secrets']"]
    assert os.listdir(lender.memory) == []


async def test_what_the_bundle_and_the_workspace_keep_of_a_secret_is_nothing(lender: Lender) -> None:
    found = []
    plan = lender.plan("pass")
    clock = FakeClock()
    lent = LentSecrets(lender.memory, None, lender._fetch)
    async with lender.workspaces.open(plan) as workspace:
        async with lent.lend(plan, FakeRun(a_claim(clock), clock), workspace):
            await lender.cage.sandbox.run(plan, workspace, Heard())
        home = Path(workspace.bundle).parent
        found = [path for path in home.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
        assert (home / "bundle" / "config.json").exists()
    assert found == []
    assert CANARY not in repr((plan, workspace))
