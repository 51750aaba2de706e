"""Fixtures that tests of more than one area need, and what the markers mean."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
    if item.get_closest_marker("chromium") and shutil.which("chromium") is None and "CI" not in os.environ:
        pytest.skip("needs the package chromium, which `sh scripts/test` installs")


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    """Take back what `run`, called in this process, does to its signals: programs that tests start would inherit it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """Give the top directory of the sources. Tests do not write there."""
    return CHECKOUT


@contextmanager
def _made_once(name: str, lock: Path) -> Iterator[tuple[Path, bool]]:
    """Give a directory below the environment that runs the tests, and whether it is still to be made from `lock`.

    Made once per lock; parallel test processes wait for each other.
    """
    directory = Path(sys.prefix) / name
    stamp = directory / "lock"
    with (Path(sys.prefix) / f"{name}.guard").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        made = stamp.exists() and stamp.read_bytes() == lock.read_bytes()
        yield directory, not made
        stamp.write_bytes(lock.read_bytes())


def _python_with(name: str) -> Path:
    lock = CHECKOUT / "requirements" / f"{name}.txt"
    with _made_once(name, lock) as (environment, missing):
        python = environment / "bin" / "python"
        if missing:
            install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            locked = ["--require-hashes", "--only-binary=:all:", "-r", str(lock)]
            subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
            subprocess.run([python, *install, *locked], check=True)
    return python


@pytest.fixture(scope="session")
def scriptworker_python() -> Path:
    """Give an interpreter that can import the PyPI package `scriptworker`, in an environment of its own."""
    return _python_with("scriptworker")


@pytest.fixture(scope="session")
def models_python() -> Path:
    """Give an interpreter that can import in-toto's and sigstore's models, in an environment of its own."""
    return _python_with("models")


@pytest.fixture(scope="session")
def sigstore_modules() -> Path:
    """Give a directory whose node_modules has `@sigstore/verify`."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs node and npm: the packages nodejs and npm")
    source = CHECKOUT / "tests" / "signing" / "node"
    with _made_once("sigstore", source / "package-lock.json") as (directory, missing):
        if missing:
            directory.mkdir(exist_ok=True)
            for file in ("package.json", "package-lock.json"):
                shutil.copyfile(source / file, directory / file)
            # Nothing that was downloaded is run to install it.
            install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            subprocess.run(install, cwd=directory, check=True, timeout=240, stdout=subprocess.DEVNULL)
    return directory
