"""Fixtures of the doors' tests."""

import pytest

from tests.proxy.harness import Authority, an_authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give a CA that test servers' certificates are issued by."""
    return an_authority(tmp_path_factory.mktemp("authority"))
