"""The worker's own code, on virtual time, in thousands of worlds that each come from one number.

`python tests/simulation/replay.py SEED` tells the story of one; CONTRIBUTING.md says more.
"""

import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from secureworker.core.outcome import Resolution
from tests.simulation.invariants import violations
from tests.simulation.scenario import digest, play


@pytest.fixture(autouse=True)
def _without_logs() -> Iterator[None]:
    # Thousands of scenarios log millions of lines, which nobody reads and pytest keeps.
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_no_promise_is_broken_in_any_world(seeds: range) -> None:
    for seed in seeds:
        found = violations(play(seed))
        replay = f"python tests/simulation/replay.py {seed}"
        assert not found, f"seed {seed} breaks a promise; its story: {replay}\n" + "\n".join(found)


def test_the_worlds_are_not_all_alike() -> None:
    records = [play(seed) for seed in range(300)]
    ends = Counter(run.resolved for record in records for run in record.runs)
    assert {each.value for each in Resolution if each is not Resolution.NOT_OURS} <= ends.keys()
    assert {"canceled", "claim-lost"} <= ends.keys()
    assert {what for record in records for _, what in record.asked} == {"drain", "stop", "now", "reload"}
    runs = [run for record in records for run in record.runs]
    assert any(run.heard is None for run in runs), "no claim's answer was lost"
    assert any(run.unwanted for run in runs), "no claim was answered after the end"
    assert any(len(run.reports) > 1 for run in runs), "no report was tried again"
    assert any(len(run.leases) > 1 for run in runs), "no claim was renewed"
    assert any(run.name.endswith("/1") and run.scripts for run in runs), "no task was run again"
    told = "\n".join(line for record in records for line in record.story)
    assert all(f"{port}\n" in told for port in ("inputs.fetch", "secrets.lend", "doors.open")), "a port is never used"
    several = [record for record in records if record.capacity > 1 and len(record.runs) > 1]
    assert any(run.exclusive for record in several for run in record.runs), "no script had to run alone"
    assert any(record.slow_by for record in records), "no clock jumped back"
    assert any(run.told_lost is not None and run.scripts for run in runs), "no run was lost while its script ran"


def test_one_seed_is_one_story_in_every_process(checkout: Path) -> None:
    program = "from tests.simulation.scenario import *; print([digest(play(seed)) for seed in range(20)])"
    here = str([digest(play(seed)) for seed in range(20)])
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", program]
    other = subprocess.run(
        command, env=environment, cwd=checkout, check=True, capture_output=True, text=True, timeout=60
    )
    assert other.stdout.strip() == here


def test_the_story_of_a_seed_can_be_read(checkout: Path) -> None:
    script = checkout / "tests" / "simulation" / "replay.py"
    replayed = subprocess.run([sys.executable, script, "0"], check=False, capture_output=True, text=True, timeout=60)
    assert "claim" in replayed.stdout
    assert replayed.stdout.endswith("every promise was kept\n")
