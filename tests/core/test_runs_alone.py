"""Which tasks will be alone on their worker, as it is seen before they are decided on: as `decide` says it then."""

from typing import Any

import pytest

from secureworker.core.choose import runs_alone
from secureworker.core.claim import TaskDefinition
from secureworker.core.decide import Admitted, decide
from secureworker.core.ids import ScriptName
from secureworker.core.policy import PayloadEquals, Policy
from secureworker.testing import EPOCH, IDENTITY, a_claim, a_policy, a_script


def mixed() -> Policy:
    return a_policy(
        a_script(name=ScriptName("ordinary"), when=PayloadEquals("do", "ordinary")),
        a_script(name=ScriptName("alone"), when=PayloadEquals("do", "alone"), exclusive=True),
    )


def a_task(**payload: Any) -> TaskDefinition:
    return a_claim(payload=payload).task


@pytest.mark.parametrize(("do", "expected"), [("alone", True), ("ordinary", False), ("neither", False)])
def test_the_script_that_a_task_is_for_says_whether_it_is_alone(do: str, *, expected: bool) -> None:
    assert runs_alone(a_task(do=do), mixed()) is expected


def test_where_no_script_runs_alone_no_task_is_looked_at() -> None:
    assert not runs_alone(a_task(do="alone"), a_policy())


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_single_script_says_it_for_every_task(*, exclusive: bool) -> None:
    assert runs_alone(a_task(), a_policy(a_script(exclusive=exclusive))) is exclusive


def test_a_task_that_is_too_much_to_look_at_will_be_refused_and_keeps_nobody_waiting() -> None:
    nested: Any = {}
    for _ in range(5_000):
        nested = {"a": nested}
    assert not runs_alone(a_task(do=nested), mixed())


@pytest.mark.parametrize("do", ["alone", "ordinary"])
def test_what_is_admitted_is_as_it_was_seen_before(do: str) -> None:
    claim = a_claim(payload={"do": do})
    decision = decide(claim, mixed(), IDENTITY, EPOCH)
    assert isinstance(decision, Admitted)
    assert decision.plan.exclusive is runs_alone(claim.task, mixed())
