"""Scripts in the sandbox of a worker that an ordinary user has started: real user namespaces, and no root in them."""

import json
import os
from pathlib import Path

import pytest

from tests.sandbox import ordinary

pytestmark = pytest.mark.sandbox

WORKER = """
import asyncio, os, sys
from pathlib import Path
from secureworker.core.errors import SandboxError, SecureworkerError
from secureworker.host import files, userns
from secureworker.host.workspace import own_range
userns.enter()
from tests.sandbox.cage import a_cage

async def main():
    here = Path.cwd()
    {main}

asyncio.run(main())
"""


def worker(directory: Path, main: str) -> str:
    """Run a worker's program as the user; give what it prints."""
    lines = main.strip("\n").replace("\n", "\n    ")
    done = ordinary.run(directory, WORKER.replace("{main}", lines))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_a_script_of_an_ordinary_users_worker_has_ids_of_its_own(directory: Path, runtime: str) -> None:
    said = worker(
        directory,
        f"""
async with a_cage(here, {runtime!r}, unlimited=True) as cage:
    ran = await cage.shell("id -u; cat /proc/self/uid_map; grep Cap /proc/self/status; echo x > ../artifacts/public/a;"
        "chmod 000 ../artifacts/public/a; mkdir -p deep/er; chmod 000 deep; exit 3", unlimited=True)
    print(ran.output, ran.execution.status, ran.execution.unlimited)
    print(list(here.glob("tasks/*")))
""",
    )
    lines = said.splitlines()
    assert lines[0] == "1000"
    # Root of the container is the user's first subordinate id, the script is the second one.
    assert [line.split() for line in lines[1:3]] == [["0", "1", "1"], ["1000", "2", "1"]]
    assert {line.split()[1] for line in lines[3:8]} == {"0" * 16}
    assert lines[8] == " ExitCode(code=3) True"
    assert lines[9] == "[]"


def test_what_a_script_owns_belongs_to_a_subordinate_id_on_the_host(directory: Path) -> None:
    worker(directory, 'files.write_new("mine", b"", mode=0o600, owner=2)\nfiles.write_new("ours", b"", mode=0o600)')
    assert (directory / "user" / "mine").stat().st_uid == ordinary.FIRST + 1
    assert (directory / "user" / "ours").stat().st_uid == ordinary.UID


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_all_probes_fail_to_get_out_of_an_ordinary_users_sandbox(directory: Path, runtime: str) -> None:
    said = worker(
        directory,
        f"""
Path("key").write_text("secret")
async with a_cage(here, {runtime!r}, unlimited=True, secrets=(str(here / "key"),)) as cage:
    print("\\n".join(await cage.sandbox.self_test()))
""",
    )
    names = [line.partition(":")[0] for line in said.splitlines()]
    assert names[:2] == ["secrets", "worker"]
    assert "limits: none, as the policy says; and no core dumps" in said
    assert "memory" not in names
    assert names[-1] == "leftovers"


def test_without_control_groups_a_policy_with_limits_is_refused(directory: Path) -> None:
    said = worker(
        directory,
        """
try:
    async with a_cage(here, "runc"):
        print("it was opened")
except SandboxError as error:
    print(error)
""",
    )
    assert said.startswith("this host cannot limit what scripts use, and the policy does not say `limits: none`: ")
    assert "Delegate=yes" in said


def test_without_control_groups_a_plan_with_limits_is_refused_too(directory: Path) -> None:
    said = worker(
        directory,
        """
async with a_cage(here, "runc", unlimited=True) as cage:
    try:
        await cage.shell("exit 0")
    except SandboxError as error:
        print(error)
""",
    )
    assert said == "sign has limits, and this host gives the worker no control groups\n"


def test_a_script_that_leaves_processes_behind_leaves_none_without_control_groups(directory: Path) -> None:
    said = worker(
        directory,
        """
async with a_cage(here, "runc", unlimited=True) as cage:
    ran = await cage.shell("trap '' TERM; setsid -f sleep 98661; setsid -f sleep 98661; exit 0", unlimited=True)
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if path.read_bytes() == b"sleep\\x0098661\\x00"]
    print(ran.execution.status, left)
""",
    )
    assert said == "ExitCode(code=0) []\n"


def test_files_of_root_are_told_from_those_of_strangers(directory: Path) -> None:
    (directory / "roots").write_text("")
    (directory / "strangers").write_text("")
    os.chown(directory / "strangers", 12345, 12345)
    said = worker(
        directory,
        f"""
for name in ("roots", "strangers"):
    path = "{directory}/" + name
    print(os.lstat(path).st_uid, userns.owner(os.lstat(path), path))
print(userns.owner(os.lstat("{directory}/roots"), "{directory}/strangers"))
""",
    )
    assert said == "65534 0\n65534 65534\n65534\n"


def test_without_the_witness_nobody_is_taken_for_root(directory: Path) -> None:
    said = worker(
        directory,
        """
userns.entered().witness.close()
try:
    print(userns.owner(os.lstat("/"), "/"))
except SecureworkerError as error:
    print(error)
""",
    )
    assert said == "whom a file belongs to cannot be found out: the witness outside is gone; restart\n"


def test_the_doctor_shows_an_ordinary_user_what_it_can_do(directory: Path) -> None:
    program = "from click.testing import CliRunner\nfrom secureworker.cli.doctor import command\n"
    done = ordinary.run(directory, program + "print(CliRunner().invoke(command, ['--json']).output)")
    told = json.loads(done.stdout)
    found = {check["name"]: check for check in told["checks"]}
    assert told["able"] is True
    assert found["user"]["found"] == "uid 54321, not root: scripts get its subordinate ids, 1000 from 3000000000 on"
    if found["control groups"]["state"] == "note":
        assert "limits: none" in found["control groups"]["advice"]
    assert "run directory" not in found


def test_a_process_with_threads_cannot_become_root_of_a_namespace(directory: Path) -> None:
    program = """
import threading
from secureworker.host import userns
over = threading.Event()
threading.Thread(target=over.wait).start()
try:
    userns.enter()
except userns.HostError as error:
    print(error, userns.entered())
over.set()
"""
    done = ordinary.run(directory, program)
    assert done.stdout.startswith("without root, a user namespace is needed, which this host does not give: Invalid")
    assert done.stdout.endswith(" None\n")


def test_ids_that_cannot_be_mapped_are_an_error(directory: Path) -> None:
    # There are no ids beyond 32 bits.
    table = f"{ordinary.USER}:4294967290:1000\n"
    done = ordinary.run(directory, "from secureworker.host import userns; userns.enter()", table=table)
    assert done.returncode == 1
    assert "this user's subordinate ids cannot be mapped: " in done.stderr


def test_a_user_without_subordinate_ids_is_told_how_to_get_them(directory: Path) -> None:
    done = ordinary.run(directory, "from secureworker.host import userns; userns.enter()", table="")
    assert done.returncode == 1
    assert "subordinate ids are needed, and secureworker-test has none in /etc/subuid" in done.stderr
    assert "usermod --add-subuids" in done.stderr
