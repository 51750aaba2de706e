"""How many tasks at once, and which alone: as a policy says it, and as reviewers are told."""

from pathlib import Path

import pytest

from secureworker.core.policy import Policy
from secureworker.policyfile.compare import Effect, compare
from secureworker.policyfile.words import describe
from tests.policyfile.policies import TEXT, problems, read


def with_capacity(directory: Path, written: str) -> Policy:
    return read(directory, TEXT.replace("tasks:\n", f"max-capacity: {written}\ntasks:\n", 1))


@pytest.mark.parametrize("written", ["0", "33", "1.5", '"4"', "true"])
def test_a_capacity_is_a_whole_number_that_one_claim_can_ask_for(tmp_path: Path, written: str) -> None:
    found = problems(tmp_path, TEXT.replace("tasks:\n", f"max-capacity: {written}\ntasks:\n", 1))
    assert any("max-capacity: found" in line for line in found), found


def test_more_at_once_is_looser_and_fewer_tighter(tmp_path: Path) -> None:
    four, one = with_capacity(tmp_path, "4"), read(tmp_path)
    (looser,), (tighter,) = compare(one, four), compare(four, one)
    assert (looser.effect, looser.key, looser.message) == (Effect.LOOSER, "max-capacity", "was 1, is 4")
    assert tighter.effect is Effect.TIGHTER


def test_that_a_script_is_alone_no_longer_is_told(tmp_path: Path) -> None:
    (change,) = compare(read(tmp_path, f"{TEXT}    exclusive: true\n"), read(tmp_path))
    assert (change.key, change.message) == ("scripts.sign.exclusive", "was true, is false")


def test_reviewers_are_told_in_words(tmp_path: Path) -> None:
    assert "It runs 1 task at a time at most." in describe(read(tmp_path))
    assert "It runs 4 tasks at a time at most." in describe(with_capacity(tmp_path, "4"))
    alone = "alone: no other task of the worker is at work meanwhile"
    assert any(alone in line for line in describe(read(tmp_path, f"{TEXT}    exclusive: true\n")))
    assert not any(alone in line for line in describe(read(tmp_path)))
