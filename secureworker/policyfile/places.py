"""Where a policy's paths lead, and what in its directory it may refer to."""

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from typing import Final

from secureworker.core.claim import Json
from secureworker.core.ids import Sha256
from secureworker.core.plan import PinnedFile
from secureworker.core.schemas import BadSchema, CompiledSchema, Path, show, too_much
from secureworker.host.documents import MAX_BYTES, BadDocument, parse
from secureworker.host.ownership import others_who_could_change

_BLOCK: Final = 1024 * 1024
_MAX_SCHEMAS: Final = 100
"""Files that one schema may draw in."""
_BASE: Final = "file:///"
"""The policy's directory, as references in schemas see it."""
_PLAIN = re.compile(r"[A-Za-z0-9._-][A-Za-z0-9._/-]*")
"""References to files: nothing that URLs and file systems understand differently (escapes, schemes, queries)."""


class Places:
    """The policy's directory, and the host as far as the policy speaks of it.

    Args:
        base: absolute path of the policy's directory.
        host: whether files outside the policy's directory are looked at, and owners and digests checked.
    """

    def __init__(self, base: str, *, host: bool) -> None:
        self.base = base
        self.host = host
        self._files: dict[str, Sha256] = {}

    def resolve(self, path: str) -> str:
        """Make a path of the policy absolute.

        Raises:
            ValueError: it leaves the policy's directory, or is not written in the plain way.
        """
        if path.startswith("/"):
            if os.path.normpath(path) != path:
                raise ValueError(f"found {path!r}; expected {os.path.normpath(path)!r}")
            return path
        full = os.path.normpath(os.path.join(self.base, path))
        inside = os.path.realpath(self.base).rstrip("/") + "/"
        if not full.startswith(self.base.rstrip("/") + "/") or not os.path.realpath(full).startswith(inside):
            raise ValueError(f"found {path!r}; expected a path that stays in the policy's directory")
        return full

    def exposed(self, path: str) -> tuple[str, ...]:
        """Say why others could change what lies at an absolute path; nothing where the host is not looked at."""
        return others_who_could_change(path) if self.host else ()

    def read(self, path: str) -> bytes:
        """Read a small file of the policy.

        Raises:
            ValueError: it cannot be read, or is too large.
        """
        try:
            with open(path, "rb", opener=_open_regular) as file:
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        if len(content) > MAX_BYTES:
            raise ValueError(f"{path} is larger than {MAX_BYTES} bytes")
        return content

    def referred(self, path: str) -> bytes:
        """Read a file that the policy refers to by an absolute path, and that is a part of it.

        Raises:
            ValueError: it cannot be read, or others could change it.
        """
        content = self.read(path)
        for problem in self.exposed(path):
            raise ValueError(problem)
        self._files[path] = Sha256(hashlib.sha256(content).hexdigest())
        return content

    def schema(self, document: Mapping[str, Json]) -> CompiledSchema:
        """Compile a payload schema of the policy: the schema itself, or `{$ref: file}`.

        Raises:
            BadSchema: it is no schema, or a reference in it leads out of the policy's directory, or nowhere.
            ValueError: a file cannot be read, or others could change it.
        """
        name, top = "", document
        start = document.get("$ref")
        if isinstance(start, str) and set(document) == {"$ref"} and not start.startswith("#"):
            if "#" in start:
                raise BadSchema(f"found {show(start)}; expected a file, without a #fragment", ("$ref",))
            name, top = self._load_schema("", start, ("$ref",))
        found: dict[str, Mapping[str, Json]] = {name: top}
        waiting = [name]
        while waiting:
            within = waiting.pop()
            own = str(found[within].get("$id", "")).rstrip("#")
            for path, reference in _references(found[within], ()):
                if own and reference.startswith(own):
                    continue
                if own:
                    raise BadSchema(f"found {show(reference)}; a schema with a $id may refer to itself only", path)
                target, schema = self._load_schema(within, reference, path)
                if target not in found:
                    found[target] = schema
                    waiting.append(target)
                if len(found) > _MAX_SCHEMAS:
                    raise BadSchema(f"more than {_MAX_SCHEMAS} files are referred to", path)
        del found[name]
        return CompiledSchema(top, _BASE + name, {_BASE + other: schema for other, schema in found.items()})

    def _load_schema(self, within: str, reference: str, path: Path) -> tuple[str, Mapping[str, Json]]:
        """Load what the file `within` refers to; give its path below the policy's directory too."""
        wanted = reference.partition("#")[0]
        if not _PLAIN.fullmatch(wanted):
            raise BadSchema(f"found {show(reference)}; expected a relative path in the policy's directory", path)
        try:
            full = self.resolve(os.path.join(os.path.dirname(within), wanted))
        except ValueError as error:
            raise BadSchema(str(error), path) from error
        name = os.path.relpath(full, self.base)
        content = self.read(full)
        self._files[full] = Sha256(hashlib.sha256(content).hexdigest())
        try:
            value = parse(content, name).value
        except BadDocument as error:
            raise ValueError(str(error)) from error
        for problem in self.exposed(full):
            raise ValueError(problem)
        if not isinstance(value, dict):
            raise BadSchema(f"{name} holds no JSON schema", path)
        excess = too_much(value)
        if excess:
            raise BadSchema(f"{name}: {excess}", path)
        return name, value

    def files(self) -> tuple[PinnedFile, ...]:
        """Give what the policy refers to, as it was read, by path."""
        return tuple(PinnedFile(path, digest) for path, digest in sorted(self._files.items()))

    def digest(self, path: str) -> Sha256:
        """Give the sha256 of a file of the host.

        Raises:
            ValueError: it cannot be read.
        """
        hashed = hashlib.sha256()
        try:
            with open(path, "rb", opener=_open_regular) as file:
                while block := file.read(_BLOCK):
                    hashed.update(block)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        return Sha256(hashed.hexdigest())


def _references(schema: object, path: Path) -> Iterator[tuple[Path, str]]:
    """Give every reference to another file, and where it stands."""
    if isinstance(schema, list):
        for index, item in enumerate(schema):
            yield from _references(item, (*path, index))
    if isinstance(schema, dict):
        for key in ("$ref", "$dynamicRef"):
            reference = schema.get(key)
            if isinstance(reference, str) and not reference.startswith("#"):
                yield (*path, key), reference
        for key, value in schema.items():
            yield from _references(value, (*path, key))


def _open_regular(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a FIFO that somebody left there would wait for ever.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is no regular file")
    return descriptor
