"""A plan or a limit that exists is legal."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.core.claims import a_claim, a_rule, admitted


@pytest.mark.parametrize(
    "change",
    [
        {"memory_bytes": 2**20},
        {"processes": 1},
        {"disk_bytes": 0},
        {"files": 1},
        {"log_bytes": 1},
        {"open_files": 3},
        {"cpus": 0.001},
        {"run_time": timedelta(0)},
    ],
)
def test_a_limit_under_which_nothing_runs_cannot_be_made(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"below|more than"):
        replace(a_rule().limits, **change)


@pytest.mark.parametrize("argv", [(), ("sign",), ("/opt/other",)])
def test_a_plan_that_runs_something_unpinned_cannot_be_made(argv: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"argv|pinned"):
        replace(admitted(a_claim()), argv=argv)
