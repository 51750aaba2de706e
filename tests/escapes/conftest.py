"""Attacks run in real containers, with every runtime that is installed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sandbox.cage import Cage, a_cage, a_directory


@pytest.fixture(params=["runc", "crun"])
async def cage(request: pytest.FixtureRequest) -> AsyncIterator[Cage]:
    with a_directory() as directory:
        async with a_cage(directory, request.param) as made:
            yield made


@pytest.fixture
async def runc() -> AsyncIterator[Cage]:
    """Give one sandbox, for what does not depend on the runtime."""
    with a_directory() as directory:
        async with a_cage(directory, "runc") as made:
            yield made


@pytest.fixture
def secret(cage: Cage) -> Path:
    """Give a file of the host that no script may read, readable by everybody who can reach it."""
    path = cage.directory / "secret"
    path.write_text("the-secret-itself")
    path.chmod(0o644)
    return path
