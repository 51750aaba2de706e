"""`/proc/<pid>/mountinfo` as values (proc(5)). Pure."""

import re
from dataclasses import dataclass

_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mounted:
    """One mount, as its mount namespace sees it."""

    root: str
    """What of the file system is mounted."""
    target: str
    options: frozenset[str]
    """Of the mount: ro, nosuid, …"""
    kind: str
    """Type of the file system."""
    super_options: frozenset[str]
    """Of the file system, shared by all its mounts."""


def parse(text: str) -> tuple[Mounted, ...]:
    """Read a mountinfo file, in its order."""
    mounts = []
    for line in text.splitlines():
        # 36 35 98:0 /root /target rw,noatime master:1 - ext3 /dev/root rw,errors=continue
        before, _, after = line.partition(" - ")
        _, _, _, root, target, options, *_ = before.split(" ")
        kind, _, super_options = after.split(" ", 2)
        mounts.append(
            Mounted(
                _unescape(root),
                _unescape(target),
                frozenset(options.split(",")),
                kind,
                frozenset(super_options.split(",")),
            )
        )
    return tuple(mounts)


def _unescape(text: str) -> str:
    # Blank, tab, newline and backslash are written as octal numbers.
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def submounts(mounts: tuple[Mounted, ...], path: str) -> tuple[str, ...]:
    """Give the mount points below `path`, relative to it with a leading slash."""
    prefix = path.rstrip("/") + "/"
    return tuple(mount.target.removeprefix(path) for mount in mounts if mount.target.startswith(prefix))
