"""A policy while it is read: its document, the host, and the problems found so far."""

from collections.abc import Iterable
from typing import Any, Final

from secureworker.core.errors import PolicyError
from secureworker.core.schemas import CompiledSchema, Path
from secureworker.host.documents import Document
from secureworker.policyfile.places import Places

_MISSING: Final = object()


class Draft:
    """Collects problems, so that one reading finds all of them.

    What the schema refuses is never shown to the checks that come after it: `get` gives the default instead. So those
    can trust the shape of what they get, and still every other part of the file is looked at.
    """

    def __init__(self, document: Document, places: Places, schema: CompiledSchema) -> None:
        self.document = document
        self.places = places
        self._problems: list[tuple[int, str]] = []
        found = document.check(schema)
        self._unsound = {path for path, _ in found}
        for path, message in found:
            self.complain(path, message)

    def complain(self, path: Path, message: str) -> None:
        """Note a problem with what is at `path`."""
        problem = (self.document.line(path), self.document.complain(path, message))
        if problem not in self._problems:
            self._problems.append(problem)

    def complain_all(self, path: Path, messages: Iterable[str]) -> None:
        """Note several problems with what is at `path`."""
        for message in messages:
            self.complain(path, message)

    def _sound(self, path: Path) -> bool:
        shortest = range(len(path) + 1)
        return not any(path[:length] in self._unsound for length in shortest) and not any(
            bad[: len(path)] == path for bad in self._unsound
        )

    def get(self, path: Path, default: Any) -> Any:
        """Give what is at `path`, shaped as the schema says; `default` where nothing is, or nothing sound."""
        value: Any = self.document.value
        for part in path:
            value = value.get(part, _MISSING) if isinstance(value, dict) else _MISSING
        return value if value is not _MISSING and self._sound(path) else default

    def first(self, paths: tuple[Path, ...], default: Any) -> Any:
        """Give what is at the first of `paths` where the file says something; `default` where none is, or unsound."""
        for path in paths:
            if self.has(path):
                return self.get(path, default)
        return default

    def has(self, path: Path) -> bool:
        """Whether the file says something at `path`, sound or not."""
        return path in self.document.lines

    def keys(self, path: Path) -> tuple[str, ...]:
        """Give the keys of the mapping at `path`, whatever is wrong below it."""
        value: Any = self.document.value
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        if not isinstance(value, dict):
            return ()
        return tuple(key for key in value if (*path, key) not in self._unsound)

    def finish(self) -> None:
        """Raise everything that was found, in the order of the file.

        Raises:
            PolicyError: there was something.
        """
        if self._problems:
            raise PolicyError(tuple(message for _, message in sorted(self._problems)))
