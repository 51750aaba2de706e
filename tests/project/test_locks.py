"""What is installed is what was reviewed: locks name versions and hashes, agree with pyproject.toml, and no address."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCKS = ["build", "lint", "locks", "models", "runtime", "scriptworker", "tests", "tox"]


@pytest.fixture(scope="module")
def project(checkout: Path) -> dict[str, Any]:
    return tomllib.loads((checkout / "pyproject.toml").read_text())


def _pinned(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def _wanted(project: dict[str, Any], lock: str) -> list[Requirement]:
    groups = project["dependency-groups"]
    named = {"runtime": [], "tests": ["tests", "types", "build"]}.get(lock, [lock])
    texts = [text for group in named for text in groups[group] if isinstance(text, str)]
    if lock in {"runtime", "tests"}:
        texts += project["project"]["dependencies"]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_every_requirement_of_its_group(checkout: Path, project: dict[str, Any], lock: str) -> None:
    pinned = _pinned(checkout / "requirements" / f"{lock}.txt")

    stale = [
        str(wanted)
        for wanted in _wanted(project, lock)
        if not wanted.specifier.contains(pinned.get(canonicalize_name(wanted.name), "0.dev0"))
    ]

    assert stale == [], f"run `sh scripts/lock`: requirements/{lock}.txt lacks them"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_gives_hashes_for_every_version_and_names_no_index(checkout: Path, lock: str) -> None:
    text = (checkout / "requirements" / f"{lock}.txt").read_text()
    entries = re.split(r"^(?=[a-z0-9])", re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)

    assert all("--hash=sha256:" in entry for entry in entries if entry.strip())
    assert "://" not in text
    assert not re.search(r"^(--|-[a-z] )", text, re.MULTILINE)


def test_every_lock_is_known_here(checkout: Path) -> None:
    assert sorted(path.stem for path in (checkout / "requirements").glob("*.txt")) == LOCKS
