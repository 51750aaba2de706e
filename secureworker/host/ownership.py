"""Who else could change a file: the checks that ssh makes of `authorized_keys`, for policies and scripts."""

import os
import stat
from collections import deque
from typing import Final

from secureworker.host.userns import owner

_MAX_LINKS: Final = 40
"""MAXSYMLINKS of the kernel (path_resolution(7))."""


def others_who_could_change(path: str) -> tuple[str, ...]:
    """Say why somebody other than root and this process's user could change what `path` stands for.

    Every component is looked at from the root down, as the kernel resolves it, symbolic links and what they lead
    through included: whoever may write a directory may put another file in the place of the one that was reviewed. In
    a directory with the sticky bit only an entry's owner may do so, and the entry itself is checked as well.

    Args:
        path: absolute.

    Returns:
        a sentence each, with what to do; nothing where all is well. A path that does not exist is a sentence too.
    """
    problems: list[str] = []
    trail = deque(part for part in path.split("/") if part)
    place, links = "/", 0
    _look_at(place, problems)
    while trail:
        part = trail.popleft()
        if part in {".", ".."}:
            place = place if part == "." else os.path.dirname(place)
            continue
        place = os.path.join(place, part)
        try:
            link = _look_at(place, problems)
        except OSError as error:
            problems.append(f"{place}: {error.strerror}")
            break
        if link:
            links += 1
            if links > _MAX_LINKS:
                problems.append(f"{place}: more than {_MAX_LINKS} symbolic links")
                break
            trail.extendleft(part for part in reversed(link.split("/")) if part)
            place = "/" if link.startswith("/") else os.path.dirname(place)
    return tuple(problems)


def _look_at(place: str, problems: list[str]) -> str:
    """Check one component; give where it leads if it is a symbolic link."""
    status = os.lstat(place)
    if owner(status, place) not in {0, os.geteuid()}:
        problems.append(
            f"{place} belongs to uid {status.st_uid}, who could change it; "
            f"it must belong to root or to this user (uid {os.geteuid()})"
        )
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(place)
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
        who = "everybody" if status.st_mode & stat.S_IWOTH else f"the group {status.st_gid}"
        problems.append(
            f"{place} may be written by {who} (mode {stat.S_IMODE(status.st_mode):04o}); chmod go-w {place}"
        )
    return ""
