"""What the demonstration prints, and what can go wrong in it."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from secureworker.demo.account import Account
from secureworker.demo.play import _why
from secureworker.demo.scenes import scenes
from secureworker.demo.stage import WorkerEnded, build, worker, write_policy
from secureworker.policyfile import load


def told(tell: Callable[[Account], None]) -> str:
    written = io.StringIO()
    tell(Account(Console(file=written, width=120)))
    return written.getvalue()


def test_what_tasks_and_workers_say_cannot_move_the_cursor_or_be_markup() -> None:
    said = told(lambda account: account.worker("\x1b[2J[bold]x[/bold]\x07\u202e"))

    assert "[bold]x[/bold]" in said
    assert not {"\x1b", "\x07", "\u202e"} & set(said)


def test_the_table_says_of_each_task_whether_it_ended_as_it_should() -> None:
    said = told(
        lambda account: account.table([("a", "T1", "completed", "exit code: 0", True), ("b", "T2", "", "", False)])
    )

    assert [line.split()[0] for line in said.splitlines() if "✔" in line] == ["a"]
    assert [line.split()[0] for line in said.splitlines() if "✘" in line] == ["b"]


def test_why_a_task_ended_is_the_first_error_else_its_exit_code_else_the_last_line() -> None:
    note = "[taskcluster 2026-01-01T00:00:00.000Z] "

    assert _why(f"{note}begun\n[taskcluster:error] refused: no\n{note}exit code: 1\n") == "refused: no"
    assert _why(f"{note}begun\nexit code: 7\n{note}exit code: 1\n{note}over\n") == "exit code: 1"
    assert _why(f"{note}begun\n{note}over\n") == "over"
    assert _why("") == ""


async def test_a_worker_that_ends_early_ends_the_demo_with_what_it_said(tmp_path: Path) -> None:
    # Without a policy there is nothing that a worker could do.
    lines: list[str] = []

    async with worker(build(tmp_path), lines.append) as process:
        with pytest.raises(WorkerEnded, match="exit code 2"):
            await process.follow()

    assert "demo.yml" in lines[-1]


def test_the_worker_of_the_demo_may_claim_for_its_pool_and_nothing_else(tmp_path: Path) -> None:
    stage = build(tmp_path)

    assert {scope.split(":")[1] for scope in stage.worker.scopes} == {"claim-work", "worker-id"}
    assert stage.key.stat().st_mode & 0o777 == 0o400
    assert stage.credentials.stat().st_mode & 0o777 == 0o600


def test_the_policy_of_the_demo_is_the_shipped_one_for_the_embedded_address(tmp_path: Path) -> None:
    stage = build(tmp_path)

    write_policy(stage, "http://127.0.0.1:1234")

    policy = load(str(stage.policy))
    assert policy.root_url == "http://127.0.0.1:1234"
    actions = {scene.scopes[0].rpartition(":")[2] for scene in scenes((), ())}
    assert actions == {script.name for script in policy.scripts}
