"""Fixtures that tests of more than one area need, and what the markers mean."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# A test's time says more about the machine than about the code: hypothesis's 200 ms per example make tests flicker.
settings.register_profile("secureworker", deadline=None)
settings.load_profile("secureworker")

CHECKOUT = Path(__file__).parent.parent


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs root where there is none; as root, and in CI, such a test passes or fails."""
    if item.get_closest_marker("sandbox") and os.geteuid() != 0 and "CI" not in os.environ:
        pytest.skip("needs root: the sandbox's namespaces, user ids and cgroups are root's to give")


@pytest.fixture(scope="session")
def checkout() -> Path:
    """Give the top directory of the sources. Tests do not write there."""
    return CHECKOUT


@pytest.fixture(scope="session")
def scriptworker_python() -> Path:
    """Give an interpreter that can import the PyPI package `scriptworker`, in an environment of its own.

    Made once per lock, below the directory of the environment that runs the tests; parallel test processes wait
    for each other.
    """
    lock = CHECKOUT / "requirements" / "scriptworker.txt"
    environment = Path(sys.prefix) / "scriptworker"
    python = environment / "bin" / "python"
    stamp = environment / "lock"
    with (Path(sys.prefix) / "scriptworker.guard").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
            install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            locked = ["--require-hashes", "--only-binary=:all:", "-r", str(lock)]
            subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
            subprocess.run([python, *install, *locked], check=True)
            stamp.write_bytes(lock.read_bytes())
    return python
