"""What is only done when it is asked for: the long list of scenarios."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the long list be asked for."""
    parser.addoption("--long", action="store_true", help="play the scenarios of the long list too (tests/life)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what nobody has asked for."""
    if config.getoption("--long", default=False):
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("long")]
