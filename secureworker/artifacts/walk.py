"""Finding what a script left in its artifact directory, and refusing whatever may not be published.

Only looks; `spool` copies. Everything that is wrong is collected, so that an author sees all of it at once.
"""

import errno
import os
import stat
from dataclasses import dataclass, field

from secureworker.artifacts.names import is_allowed, is_reserved
from secureworker.core.errors import BadArtifact
from secureworker.core.ids import ArtifactName
from secureworker.core.plan import OutputRules
from secureworker.host.beneath import open_beneath

MAX_DEPTH = 32
"""Segments of an artifact's name."""
MAX_PATH = 1024
"""Bytes of a name, as in `ArtifactName`; a deeper directory cannot hold an output, and beyond 4096 not be opened."""
MAX_ENTRIES = 100_000
"""Files and directories looked at; ten times the most artifacts a release task has been seen with."""
MAX_SHOWN = 20
"""Offenders named in the message; the rest is counted."""

_KINDS = {
    stat.S_IFLNK: "is a symlink",
    stat.S_IFIFO: "is a FIFO",
    stat.S_IFSOCK: "is a socket",
    stat.S_IFBLK: "is a block device",
    stat.S_IFCHR: "is a character device",
}
_REFUSED_BY_KERNEL = {
    errno.EACCES: "cannot be read by the worker",
    errno.EAGAIN: "changed while it was sealed",
    errno.EPERM: "cannot be read by the worker",
    errno.ELOOP: "is a symlink, or lies behind one",
    errno.ENOENT: "vanished while it was sealed",
    errno.ENOTDIR: "changed while it was sealed",
    errno.ENXIO: "is a socket or a device",
    errno.EXDEV: "lies on another file system",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file that may be published, as the walk saw it."""

    path: bytes
    """Relative to the artifact directory."""
    name: ArtifactName
    size: int
    identity: tuple[int, ...]
    """What must be the same when the file is opened, and after it was copied."""


@dataclass(slots=True)
class Offences:
    """What is wrong with a script's outputs, collected until there is a good moment to refuse them."""

    found: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, why: str) -> None:
        """Note that the output shown as `name` may not be published."""
        self.found.append((name, why))

    def raise_any(self) -> None:
        """Raise BadArtifact where there is any offence."""
        if not self.found:
            return
        told = [f"{name!a} {why}" if name else why for name, why in sorted(self.found)]
        if len(told) > MAX_SHOWN:
            told[MAX_SHOWN:] = [f"and {len(told) - MAX_SHOWN} more"]
        names = tuple(dict.fromkeys(ascii(name)[1:-1] for name, _ in sorted(self.found) if name))
        raise BadArtifact("outputs may not be published: " + "; ".join(told), names)


def identity(status: os.stat_result) -> tuple[int, ...]:
    """Give what tells a file from another, and from itself changed."""
    return (status.st_dev, status.st_ino, status.st_mode, status.st_nlink, status.st_size, status.st_mtime_ns)


def kernel_refusal(error: OSError) -> str | None:
    """Say what an error of `open_beneath` tells about the script's file; None where it tells about this host."""
    return _REFUSED_BY_KERNEL.get(error.errno or 0)


def shown(path: bytes) -> str:
    """Give a path as it is put into messages: short, and with what is no text escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return text if len(text) <= 100 else f"{text[:97]}..."  # noqa: PLR2004 - a line of a log


def find_outputs(root: int, rules: OutputRules, *, max_entries: int = MAX_ENTRIES) -> tuple[Found, ...]:
    """Walk the directory open as `root`; give its files by ascending name.

    Raises:
        BadArtifact: something in it may not be published; all such things are named.
    """
    walk = _Walk(root, rules, max_entries)
    walk.run()
    walk.offences.raise_any()
    return tuple(sorted(walk.files, key=lambda found: found.name))


class _Walk:
    """One walk; exists to be run once."""

    def __init__(self, root: int, rules: OutputRules, max_entries: int) -> None:
        self.root = root
        self.rules = rules
        self.offences = Offences()
        self.files: list[Found] = []
        self.total = 0
        self._pending = [b""]
        self._entries = 0
        self._max_entries = max_entries

    def run(self) -> None:
        """Look at every directory; stop early where there are more entries, or files, than could be published."""
        while self._within_limits() and self._pending:
            path = self._pending.pop()
            try:
                directory = open_beneath(self.root, path or b".", os.O_DIRECTORY)
            except OSError as error:
                why = kernel_refusal(error)
                if why is None:
                    raise
                self.offences.add(shown(path), why)
                continue
            try:
                self._look_into(directory, path)
            finally:
                os.close(directory)

    def _within_limits(self) -> bool:
        if self._entries > self._max_entries:
            self.offences.add("", f"there are more than {self._max_entries} files and directories; publish fewer")
            return False
        if len(self.files) > self.rules.max_count:
            self.offences.add("", f"there are more than {self.rules.max_count} outputs, the rule's limit")
            return False
        if self.total > self.rules.max_total:
            self.offences.add("", f"together they are larger than {self.rules.max_total} bytes, the rule's limit")
            return False
        return True

    def _look_into(self, directory: int, path: bytes) -> None:
        with os.scandir(directory) as entries:
            for entry in entries:
                self._entries += 1
                # Checked per entry too: one directory may hold millions.
                if self._entries > self._max_entries or len(self.files) > self.rules.max_count:
                    break
                below = (path + b"/" if path else b"") + os.fsencode(entry.name)
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    self.offences.add(shown(below), "vanished while it was sealed")
                    continue
                self._look_at(below, status)

    def _look_at(self, path: bytes, status: os.stat_result) -> None:
        if stat.S_ISDIR(status.st_mode):
            if path.count(b"/") + 1 >= MAX_DEPTH or len(path) >= MAX_PATH:
                self.offences.add(
                    shown(path), f"is nested deeper than {MAX_DEPTH} directories or {MAX_PATH} characters"
                )
            else:
                self._pending.append(path)
            return
        why = _why_not(path, status, self.rules)
        if why is not None:
            self.offences.add(shown(path), why)
            return
        self.total += status.st_size
        self.files.append(Found(path, ArtifactName(os.fsdecode(path)), status.st_size, identity(status)))


def _why_not(path: bytes, status: os.stat_result, rules: OutputRules) -> str | None:
    """Say why the file may not be published, or None: kind, links, name, size, rule, in this order."""
    if not stat.S_ISREG(status.st_mode):
        return _KINDS.get(stat.S_IFMT(status.st_mode), "is no regular file")
    if status.st_nlink != 1:
        return "has a second hard link, and so may be another file of this host"
    try:
        name = ArtifactName(os.fsdecode(path))
    except ValueError:
        return "is no artifact name: 1 to 1024 printable ASCII characters are expected"
    if status.st_size > rules.max_size:
        return f"has {status.st_size} bytes, more than the rule's limit of {rules.max_size}"
    return _why_not_named(name, rules)


def _why_not_named(name: str, rules: OutputRules) -> str | None:
    if is_reserved(name):
        return "is a name that only the worker may publish"
    if not is_allowed(name, rules.allow):
        return "is not among the outputs that the policy allows: " + (", ".join(rules.allow) or "none")
    return None
