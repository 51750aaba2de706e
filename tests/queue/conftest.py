"""A scripted server for tests of the Queue's adapter."""

from collections.abc import AsyncIterator

import pytest

from tests.queue.scripted import Scripted, scripted


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with scripted() as running:
        yield running
