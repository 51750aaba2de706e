"""The programs that every run depends on, and the control groups it is limited by: are they still what was tested?"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, final

from secureworker.core.happening import Hindrance

_CHUNK: Final = 1 << 20
_V2_CONTROL: Final = "cgroup.subtree_control"

Version: TypeAlias = tuple[int, int, int, int, int, int]
"""What changes whenever a file's content, or the file, does."""


@dataclass(slots=True)
class _Tested:
    """A file as the self-test found it."""

    version: Version
    sha256: str


@final
class Programs:
    """Looks at files that must be there, with the content that they had at the start.

    The digest is compared, not the file: one that was moved away and back, or replaced by itself, is fine.
    """

    def __init__(self, paths: tuple[str, ...]) -> None:
        """Take the paths. Reads the files, so not to be called in the event loop.

        Raises:
            OSError: one cannot be read.
        """
        self._tested = {path: _Tested(_version(path), _digest(path)) for path in paths}

    def __call__(self, runs: int) -> tuple[Hindrance, ...]:  # noqa: ARG002 - the same for any number
        """See `Look`."""
        return tuple(self._look())

    def _look(self) -> Iterator[Hindrance]:
        for path, tested in self._tested.items():
            try:
                version = _version(path)
                if version == tested.version:
                    continue
                digest = _digest(path)
            except OSError as error:
                yield Hindrance("runtime", f"{path} cannot be used any more: {error.strerror}; bring it back")
                continue
            if digest != tested.sha256:
                yield Hindrance(
                    "runtime",
                    f"{path} is another program than the one that was tested at the start; the worker begins anew "
                    "soon, and tests it; or bring the old one back",
                    ends_by_beginning_anew=True,
                )
            elif not os.access(path, os.X_OK):
                yield Hindrance("runtime", f"{path} may not be executed any more; let it")
            else:
                tested.version = version


@final
class PinnedFiles:
    """Looks whether the files that the policy pins still have the digests that it pins.

    No task's script is known before its claim, so that one file that is another keeps the worker from all: it may be
    any task's, and other workers of the pool may have the right one.
    """

    def __init__(self, pins: Mapping[str, str]) -> None:
        """Take the digests by path."""
        self._pins = dict(pins)
        self._seen: dict[str, Version] = {}

    def __call__(self, runs: int) -> tuple[Hindrance, ...]:  # noqa: ARG002 - the same for any number
        """See `Look`."""
        return tuple(self._look())

    def _look(self) -> Iterator[Hindrance]:
        for path, sha256 in self._pins.items():
            try:
                version = _version(path)
                if self._seen.get(path) == version:
                    continue
                digest = _digest(path)
            except OSError as error:
                yield Hindrance(
                    "host", f"{path}, which the policy pins, cannot be read: {error.strerror}; bring it back"
                )
                continue
            if digest == sha256:
                self._seen[path] = version
                continue
            yield Hindrance(
                "host",
                f"{path} has sha256 {digest}, and the policy pins {sha256}; review the change and pin the new digest, "
                "or bring the old file back",
            )


def _version(path: str) -> Version:
    status = os.stat(path)
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mode,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@final
class ControlGroups:
    """Looks whether groups with limits can still be made where the worker makes them."""

    def __init__(self, bases: Mapping[str, str]) -> None:
        """Take, by controller, the directory that holds the groups of runs; none: nothing is looked at."""
        self._controllers: dict[str, set[str]] = {}
        for controller, base in bases.items():
            self._controllers.setdefault(base, set()).add(controller)
        self._delegated = tuple(base for base in self._controllers if os.path.exists(f"{base}/{_V2_CONTROL}"))

    def __call__(self, runs: int) -> tuple[Hindrance, ...]:  # noqa: ARG002 - the same for any number
        """See `Look`."""
        return tuple(self._look())

    def _look(self) -> Iterator[Hindrance]:
        for base, controllers in self._controllers.items():
            if base in self._delegated:
                try:
                    with open(f"{base}/{_V2_CONTROL}") as file:
                        missing = controllers.difference(file.read().split())
                except OSError as error:
                    yield _no_group(f"the control group {base} is gone: {error.strerror}")
                    continue
                if missing:
                    names = ", ".join(sorted(missing))
                    yield _no_group(f"{names} cannot be limited in {base} any more")
                    continue
            # In version 1 the worker makes it again, where it may.
            place = base if os.path.isdir(base) else os.path.dirname(base)
            if not os.access(place, os.W_OK | os.X_OK):
                yield _no_group(f"no control groups can be made in {place} any more")


def _no_group(why: str) -> Hindrance:
    return Hindrance("cgroup", f"{why}; give it back, or the worker begins anew soon", ends_by_beginning_anew=True)
