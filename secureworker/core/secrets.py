"""Secrets for scripts: where they come from, and what of them must not be seen in a log. Values hide themselves."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never, final

from secureworker.core.claim import Json

SECRETS_DIR: Final = "/run/secrets"
"""Inside: where a script finds its secrets, a file each. There only for scripts that have any."""
MAX_SECRET_BYTES: Final = 64 * 1024
"""Of one file. Keys and passwords are below 10 KiB; the Secrets service is not made for more either."""
MOST_PARTS: Final = 512
"""Lines and values of one secret that are looked for in the log. A private key of 16,384 bits has 260 lines."""
SHORTEST_LINE: Final = 8
"""Shorter lines of a secret are brackets and labels; as secrets they could be guessed."""
_CREDENTIAL_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}")


@final
class SecretBytes:
    """Content that no `repr`, log line or traceback shows."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """Give the value; call it only where it is written for the script, or masked."""
        return self._value

    def __repr__(self) -> str:
        return "<hidden>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretBytes) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a secret is not pickled")


@dataclass(frozen=True, slots=True)
class SystemdCredential:
    """A file of the service's `$CREDENTIALS_DIRECTORY` (systemd.exec(5), LoadCredential=)."""

    name: str

    def __str__(self) -> str:
        return f"credential:{self.name}"


@dataclass(frozen=True, slots=True)
class HostFile:
    """A private file of the host."""

    path: str

    def __str__(self) -> str:
        return f"file:{self.path}"


@dataclass(frozen=True, slots=True)
class TaskclusterSecret:
    """A secret of Taskcluster's secrets service, fetched with the credentials of the run that gets it."""

    name: str
    key: str | None
    """Of the secret's object; None: the whole object, as JSON."""

    def __str__(self) -> str:
        return f"taskcluster:{self.name}" + (f"#{self.key}" if self.key else "")

    @property
    def scope(self) -> str:
        """Give the scope that a task must have for it."""
        return f"secrets:get:{self.name}"


SecretSource: TypeAlias = SystemdCredential | HostFile | TaskclusterSecret


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file that a script gets."""

    name: str
    """Below `SECRETS_DIR`."""
    source: SecretSource


def parse_source(text: str) -> SecretSource:
    """Read where a secret comes from, as policies write it.

    Raises:
        ValueError: it is none of the three forms. The message shows no more than the form.
    """
    kind, _, place = text.partition(":")
    match kind:
        case "credential":
            if not _CREDENTIAL_NAME.fullmatch(place):
                raise ValueError("credential: needs the name of a file, without a path")
            return SystemdCredential(place)
        case "file":
            if not place.startswith("/") or any(part in {"", ".", ".."} for part in place[1:].split("/")):
                raise ValueError("file: needs an absolute path without empty parts, '.' and '..'")
            return HostFile(place)
        case "taskcluster":
            name, hash_sign, key = place.partition("#")
            if not name or (hash_sign and not key):
                raise ValueError("taskcluster: needs a secret's name, and after a # one of its keys")
            return TaskclusterSecret(name, key or None)
        case _:
            raise ValueError("a secret comes from credential:NAME, file:PATH or taskcluster:NAME#KEY")


def select(source: TaskclusterSecret, secret: dict[str, Json]) -> SecretBytes:
    """Take out of a secret of the service what a policy names.

    Text is given as it is; anything else as JSON, indented by two, keys in order.

    Raises:
        KeyError: the secret has no such key.
    """
    value: Json = secret if source.key is None else secret[source.key]
    if isinstance(value, str):
        return SecretBytes(value.encode("utf-8", "surrogatepass"))
    return SecretBytes(json.dumps(value, indent=2, sort_keys=True).encode() + b"\n")


def parts(secret: SecretBytes) -> tuple[bytes, ...]:
    """Give what of a secret must not be seen in a log, alone or as a whole.

    1. All of it, with and without the white space around it.
    2. If it is text: each line, for a key is printed line by line.
    3. If it is JSON: each text and number in it, for a password is printed without the braces around it.

    Raises:
        ValueError: they are more than `MOST_PARTS`: too many to be looked for in everything that a script writes.
    """
    content = secret.reveal()
    found = dict.fromkeys((content, content.strip()))
    found.update(dict.fromkeys(_lines(content)))
    found.update(dict.fromkeys(_leaves(content)))
    found.pop(b"", None)
    if len(found) > MOST_PARTS:
        raise ValueError(
            f"it has {len(found)} lines and values, and at most {MOST_PARTS} can be kept out of the log; "
            "split it, or pack it into one line"
        )
    return tuple(found)


def _lines(content: bytes) -> Iterator[bytes]:
    try:
        content.decode()
    except UnicodeDecodeError:
        return
    for line in content.splitlines():
        if len(line.strip()) >= SHORTEST_LINE:
            yield line.strip()


def _leaves(content: bytes) -> Iterator[bytes]:
    try:
        document: Json = json.loads(content)
    except (ValueError, RecursionError):
        return
    pending = [document]
    while pending:
        match pending.pop():
            case dict() as mapping:
                pending += mapping.values()
            case list() as values:
                pending += values
            case str() as text:
                yield text.encode("utf-8", "surrogatepass")
            case bool() | None:
                pass
            case int() | float() as number:
                yield json.dumps(number).encode()
            case other:
                assert_never(other)
