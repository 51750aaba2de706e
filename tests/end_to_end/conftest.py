"""Fixtures of tests with whole workers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox.cage import a_directory


@pytest.fixture
def directory() -> Iterator[Path]:
    """Give a directory outside of /tmp that lets others pass."""
    with a_directory() as made:
        yield made
