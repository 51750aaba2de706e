"""Workspaces: what a script finds, whose it is, and that nothing of it stays."""

import asyncio
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from secureworker.core.errors import HostError
from secureworker.core.ids import RunId, Sha256
from secureworker.core.plan import PinnedFile, Plan
from secureworker.host.workspace import DirectoryWorkspaces, UidRange, container_root, pinned_copy
from tests.sandbox.cage import a_plan

pytestmark = pytest.mark.sandbox

SCRIPT = b"#!/bin/sh\n"


@pytest.fixture
def uids(tmp_path: Path) -> UidRange:
    return UidRange(base=1_950_000_000, count=8, locks=str(tmp_path / "ids"))


@pytest.fixture
def workspaces(tmp_path: Path, uids: UidRange) -> DirectoryWorkspaces:
    (tmp_path / "tasks").mkdir()
    return DirectoryWorkspaces(str(tmp_path / "tasks"), uids)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "sign").write_bytes(SCRIPT)
    return a_plan(str(tmp_path / "sign"), SCRIPT, config={"url": "x", "verbose": True})


async def test_the_files_of_the_script_contract_are_there(workspaces: DirectoryWorkspaces, plan: Plan) -> None:
    async with workspaces.open(plan) as workspace:
        task = Path(workspace.task)
        found = sorted(str(path.relative_to(task)) for path in task.rglob("*"))
        assert found == [
            "artifacts", "artifacts/public", "artifacts/public/logs", "config.json", "home", "work",
            "work/current_task_info.json", "work/task.json",
        ]  # fmt: skip
        assert (task / "work" / "task.json").read_text() == json.dumps(plan.task, indent=2, sort_keys=True) + "\n"
        info = json.loads((task / "work" / "current_task_info.json").read_text())
        assert info == {"runId": 0, "taskId": str(plan.task_id)}
        assert json.loads((task / "config.json").read_text()) == {
            "artifact_dir": "/task/artifacts", "url": "x", "verbose": True, "work_dir": "/task/work",
        }  # fmt: skip


async def test_a_config_may_say_other_directories(workspaces: DirectoryWorkspaces, plan: Plan) -> None:
    async with workspaces.open(replace(plan, config={"work_dir": "/elsewhere"})) as workspace:
        config = json.loads((Path(workspace.task) / "config.json").read_text())
    assert config["work_dir"] == "/elsewhere"
    assert config["verbose"] is False


async def test_without_a_config_there_is_no_config_file(workspaces: DirectoryWorkspaces, plan: Plan) -> None:
    async with workspaces.open(replace(plan, config=None)) as workspace:
        assert not (Path(workspace.task) / "config.json").exists()


async def test_the_script_owns_what_it_may_write_and_nothing_else(
    workspaces: DirectoryWorkspaces, plan: Plan, uids: UidRange
) -> None:
    async with workspaces.open(plan) as workspace:
        assert workspace.uid == uids.base + 1
        assert container_root(workspace.uid) == uids.base
        task = Path(workspace.task)
        owners = {str(path.relative_to(task)): path.stat().st_uid for path in (task, *task.rglob("*"))}
        assert {name for name, owner in owners.items() if owner == 0} == {".", "config.json"}
        assert set(owners.values()) == {0, workspace.uid}
        assert stat.S_IMODE((task / "home").stat().st_mode) == 0o700
        for place, mode in ((workspace.spool, 0o700), (workspace.scripts, 0o711), (workspace.bundle, 0o711)):
            assert (Path(place).stat().st_uid, stat.S_IMODE(Path(place).stat().st_mode)) == (0, mode)


async def test_what_is_pinned_is_copied_with_its_digest(
    workspaces: DirectoryWorkspaces, plan: Plan, tmp_path: Path
) -> None:
    async with workspaces.open(plan) as workspace:
        (tmp_path / "sign").write_bytes(b"changed since")
        copy = Path(pinned_copy(workspace.scripts, 0))
        assert copy.read_bytes() == SCRIPT
        assert (copy.stat().st_uid, stat.S_IMODE(copy.stat().st_mode)) == (0, 0o555)


async def test_a_pinned_file_that_differs_is_refused_and_nothing_is_left(
    workspaces: DirectoryWorkspaces, plan: Plan, tmp_path: Path
) -> None:
    wrong = replace(plan, pinned=(PinnedFile(plan.argv[0], Sha256("0" * 64)),))
    with pytest.raises(
        HostError, match=r"has sha256 .*, the policy pins 0000.*; review the change and pin the new digest"
    ):
        async with workspaces.open(wrong):
            pass
    assert list((tmp_path / "tasks").iterdir()) == []


async def test_a_pinned_file_that_is_missing_is_refused(
    workspaces: DirectoryWorkspaces, plan: Plan, tmp_path: Path
) -> None:
    (tmp_path / "sign").unlink()
    with pytest.raises(HostError, match="sign cannot be copied: No such file or directory"):
        async with workspaces.open(plan):
            pass
    assert list((tmp_path / "tasks").iterdir()) == []


async def test_nothing_is_left_whatever_the_script_made(
    workspaces: DirectoryWorkspaces, plan: Plan, tmp_path: Path
) -> None:
    async with workspaces.open(plan) as workspace:
        (Path(workspace.task) / "work" / "a" / "b").mkdir(parents=True)
        (Path(workspace.task) / "work" / "a").chmod(0)
    assert list((tmp_path / "tasks").iterdir()) == []


async def test_runs_beside_each_other_have_ids_of_their_own(workspaces: DirectoryWorkspaces, plan: Plan) -> None:
    async with workspaces.open(plan) as first, workspaces.open(replace(plan, run_id=RunId(1))) as second:
        assert {first.uid, second.uid} == {1_950_000_001, 1_950_000_003}
    async with workspaces.open(plan) as again:
        assert again.uid == first.uid


async def test_ids_are_reserved_across_workers(
    workspaces: DirectoryWorkspaces, plan: Plan, uids: UidRange, tmp_path: Path
) -> None:
    (tmp_path / "others").mkdir()
    others = DirectoryWorkspaces(str(tmp_path / "others"), replace(uids, count=2))
    async with workspaces.open(plan):
        with pytest.raises(HostError, match="all 1 pairs of user ids from 1950000000 on are in use"):
            async with others.open(plan):
                pass
    async with others.open(plan) as workspace:
        assert workspace.uid == uids.base + 1


async def test_ids_that_cannot_be_reserved_are_said(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    workspaces = DirectoryWorkspaces(str(tmp_path / "tasks"), UidRange(locks=f"{tmp_path}/file/ids"))
    with pytest.raises(HostError, match="no user ids for the script can be reserved"):
        async with workspaces.open(plan):
            pass


@pytest.mark.parametrize(("base", "count"), [(0, 10), (100, 1)])
def test_a_range_of_ids_has_a_pair_and_no_root(base: int, count: int) -> None:
    with pytest.raises(ValueError, match="no pair of unprivileged ids"):
        UidRange(base=base, count=count)


async def test_leftovers_are_swept(workspaces: DirectoryWorkspaces, tmp_path: Path) -> None:
    (tmp_path / "tasks" / "old" / "task").mkdir(parents=True)
    (tmp_path / "tasks" / "older.removing" / "1").mkdir(parents=True)
    (tmp_path / "tasks" / "file").write_text("")
    assert await workspaces.sweep() == 3
    assert list((tmp_path / "tasks").iterdir()) == []
    assert await workspaces.sweep() == 0


async def test_the_directory_is_made_where_it_is_missing(tmp_path: Path) -> None:
    assert await DirectoryWorkspaces(str(tmp_path / "a" / "b")).sweep() == 0
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot be made or emptied"):
        await DirectoryWorkspaces(str(tmp_path / "file")).sweep()


async def test_a_workspace_that_cannot_be_made_is_said(plan: Plan, tmp_path: Path, uids: UidRange) -> None:
    with pytest.raises(HostError, match="cannot be made: No such file or directory"):
        async with DirectoryWorkspaces(str(tmp_path / "missing"), uids).open(plan):
            pass


async def test_cancellation_while_a_workspace_is_made_leaves_nothing(
    workspaces: DirectoryWorkspaces, plan: Plan, tmp_path: Path, uids: UidRange
) -> None:
    async def use() -> None:
        async with workspaces.open(plan):
            await asyncio.Event().wait()

    before = len(os.listdir("/proc/self/fd"))
    for turns in range(12):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(use())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            task.cancel()
            await asyncio.wait((task,))
        assert list((tmp_path / "tasks").iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("of", ["a stranger", "everybody", "a link"])
async def test_locks_of_ids_that_others_could_take_are_refused(tmp_path: Path, plan: Plan, of: str) -> None:
    place = tmp_path / "shared" / "secureworker-1000"
    place.parent.mkdir()
    if of == "a link":
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to(tmp_path / "elsewhere")
    else:
        place.mkdir()
        os.chown(place, 12345 if of == "a stranger" else 0, 0)
        place.chmod(0o777 if of == "everybody" else 0o755)
    workspaces = DirectoryWorkspaces(str(tmp_path / "tasks"), UidRange(1_950_000_000, 8, str(place / "ids")))
    with pytest.raises(HostError, match="they could take the ids of scripts; remove it"):
        async with workspaces.open(plan):
            pass
    assert not (place / "ids").exists()


@pytest.mark.parametrize("mode", [0o777, 0o775])
async def test_workspaces_in_a_directory_that_others_may_write_are_refused(tmp_path: Path, mode: int) -> None:
    shared = tmp_path / "shared"
    (shared / "tasks").mkdir(parents=True)
    shared.chmod(mode)
    with pytest.raises(HostError, match=r"shared may be written by .*; chmod go-w"):
        await DirectoryWorkspaces(str(shared / "tasks")).sweep()


async def test_workspaces_that_lie_in_somebody_elses_directory_are_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o711)
    os.chown(theirs, 65534, 65534)
    with pytest.raises(HostError, match="theirs belongs to uid 65534"):
        await DirectoryWorkspaces(str(theirs / "tasks")).sweep()
