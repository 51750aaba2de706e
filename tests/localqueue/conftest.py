"""Fixtures of the embedded Taskcluster. Whatever a test sends and gets is held against the published schemas."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.localqueue.harness import REFERENCES, Checked, References, World, a_world


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot be checked without the references."""
    if item.get_closest_marker("references") and not REFERENCES.exists():
        pytest.skip(f"needs Taskcluster's references: set SECUREWORKER_REFERENCES, or put them at {REFERENCES}")


@pytest.fixture(scope="session")
def references() -> References | None:
    """Give the published schemas; None where they are not at hand."""
    return References(REFERENCES) if REFERENCES.exists() else None


@pytest.fixture
def checked(references: References | None) -> Iterator[Checked | None]:
    """Give what notes requests and answers that do not fit their schemas; a test that led to one fails."""
    if references is None:
        yield None
        return
    noted = Checked(references)
    yield noted
    assert not noted.problems


@pytest.fixture
async def world(checked: Checked | None) -> AsyncIterator[World]:
    """Give a server that answers fast and whose resolvers act when they are called."""
    async with a_world(checked) as running:
        yield running
