"""Options of the simulation. Where another directory is given too, they are not there, and the defaults hold."""

import pytest

SEEDS = 2000
"""Played where no option says otherwise: about ten seconds."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a seed be given, or their number."""
    group = parser.getgroup("simulation")
    group.addoption("--seed", type=int, default=None, help="play the scenario of this one seed")
    group.addoption("--seeds", type=int, default=SEEDS, help=f"play so many scenarios (default: {SEEDS})")
    group.addoption("--first-seed", type=int, default=0, help="begin with this seed (default: 0)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Cut the seeds into batches: a test each would take longer than the scenarios."""
    if "seeds" not in metafunc.fixturenames:
        return
    one = metafunc.config.getoption("--seed", None)
    if one is not None:
        metafunc.parametrize("seeds", [range(one, one + 1)], ids=[f"seed {one}"])
        return
    first = metafunc.config.getoption("--first-seed", 0)
    last = first + metafunc.config.getoption("--seeds", SEEDS)
    batches = [range(begin, min(begin + 250, last)) for begin in range(first, last, 250)]
    metafunc.parametrize("seeds", batches, ids=[f"seeds {batch.start} to {batch.stop - 1}" for batch in batches])
