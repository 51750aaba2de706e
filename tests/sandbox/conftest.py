"""Fixtures of the sandbox: real containers, by every runtime that is installed."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.sandbox.cage import Cage, a_cage, a_directory


@pytest.fixture
def directory() -> Iterator[Path]:
    with a_directory() as made:
        yield made


@pytest.fixture(params=["runc", "crun"])
async def cage(request: pytest.FixtureRequest, directory: Path) -> AsyncIterator[Cage]:
    async with a_cage(directory, request.param) as made:
        yield made
