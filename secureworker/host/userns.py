"""Working without root: this process becomes root of a user namespace of its own, which holds its subordinate ids.

Then all that a worker does as root (ids of their own for scripts, network namespaces, mounts, taking outputs, removing
what scripts left) is done by the very same code, and reaches no further than this user and its subordinate ids do.

One thing is different inside: whatever belongs to an id that is not mapped shows the same owner, be it the host's root
or a stranger. So a small process is left outside, which can tell: the witness.
"""

import ctypes
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import Final, NoReturn

from secureworker.core.errors import HostError

_CLONE_NEWNS: Final = 0x0002_0000  # include/uapi/linux/sched.h
_CLONE_NEWUSER: Final = 0x1000_0000
_PR_SET_PDEATHSIG: Final = 1  # include/uapi/linux/prctl.h
MOST_IDS: Final = 65_536
"""Two per run that is under way are used."""
SET_ASIDE: Final = 2
"""Ids for processes of our own: the signer's, and that of whoever shows logs to the world."""
_LEAST_IDS: Final = 2 + SET_ASIDE
"""Two for a run, and those."""
_TOOLS: Final = (("newuidmap", "/etc/subuid"), ("newgidmap", "/etc/subgid"))
_SYSTEM_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_SECONDS: Final = 30.0
_LONGEST: Final = 4096
_GO: Final = b"go"
_DONE: Final = b"done"


@dataclass(frozen=True, slots=True)
class Span:
    """Ids that this user may give away, in a row."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Entered:
    """What this process has become."""

    uid: int
    """Of this user, outside."""
    ids: int
    """Subordinate ids: inside, they are 1 to this number. The last `SET_ASIDE` are not for scripts."""
    overflow: int
    """What all ids that are not mapped look like."""
    witness: socket.socket
    asking: threading.Lock = field(default_factory=threading.Lock)


class _Process:
    """A process enters at most once, and never leaves: no caller could have another answer."""

    entered: Entered | None = None


def entered() -> Entered | None:
    """Say whether this process is root of a namespace of its own; None: it is as it was started."""
    return _Process.entered


def set_aside(wanted: int, *, before_last: int = 0) -> int:
    """Give an id that nobody else has for one of our own processes: `wanted` where it is mapped, else the last that is.

    For processes that root has started, in whatever user namespace; no script ever has this id.

    Args:
        wanted: the id.
        before_last: how many others are set aside so; see `SET_ASIDE`.
    """
    ranges = [tuple(map(int, line.split())) for line in _text("/proc/self/uid_map").splitlines()]
    if any(inside <= wanted < inside + count for inside, _, count in ranges):
        return wanted
    return max(inside + count - 1 for inside, _, count in ranges) - before_last


def subordinate(text: str, user: str, uid: int) -> Span | None:
    """Find the largest span of a user in `/etc/subuid` or `/etc/subgid`; pure (subuid(5))."""
    spans = []
    for line in text.splitlines():
        owner, _, numbers = line.strip().partition(":")
        first, _, count = numbers.partition(":")
        if owner in {user, str(uid)} and first.isdigit() and count.isdigit() and int(count) >= _LEAST_IDS:
            spans.append(Span(int(first), min(int(count), MOST_IDS)))
    return max(spans, key=lambda span: span.count, default=None)


def find_spans() -> tuple[Span, Span]:
    """Give this user's subordinate user ids and group ids.

    Raises:
        HostError: there are none, or the programs that map them are missing; with how to get them.
    """
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        raise HostError(f"uid {os.getuid()} is in no password file; without a name it has no subordinate ids") from None
    spans = []
    for tool, path in _TOOLS:
        if shutil.which(tool, path=_SYSTEM_PATH) is None:
            raise HostError(f"without root, {tool} is needed, which is not installed (Debian: apt-get install uidmap)")
        span = subordinate(_text(path), user, os.getuid())
        if span is None:
            raise HostError(
                f"without root, subordinate ids are needed, and {user} has none in {path}; as root: "
                f"usermod --add-subuids 200000-265535 --add-subgids 200000-265535 {user} (a range nobody else has)"
            )
        spans.append(span)
    return spans[0], spans[1]


def _text(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def enter() -> None:
    """Become root of a new user namespace, with a mount namespace beside. Nothing is done where this is root.

    Call it first of all, before any thread is started and before secrets are read: the witness is a copy of this
    process.

    1. A child that stays outside. 2. The namespace. 3. The child has this user and its subordinate ids mapped.
    4. Root of the namespace. 5. A mount namespace, so that what is mounted is nobody else's.

    Raises:
        HostError: this host does not let this user; with what to do.
    """
    if os.geteuid() == 0:
        return
    users, groups = find_spans()
    ids = min(users.count, groups.count)
    uid, gid = os.getuid(), os.getgid()
    # 1.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork() == 0:
        _stay_outside(theirs, (_mapping(uid, users, ids), _mapping(gid, groups, ids)))
    theirs.close()
    ours.settimeout(_SECONDS)
    try:
        # 2.
        _unshare(_CLONE_NEWUSER)
        # 3.
        ours.send(_GO)
        answer = ours.recv(_LONGEST)
        if answer != _DONE:
            raise HostError(f"this user's subordinate ids cannot be mapped: {answer.decode(errors='replace')}")
        # 4.
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        # 5. Where user namespaces are given without their privileges (AppArmor), this is what is refused.
        _unshare(_CLONE_NEWNS)
    except OSError as error:
        ours.close()
        raise HostError(
            f"without root, a user namespace is needed, which this host does not give: {error.strerror}; look at the "
            "sysctls user.max_user_namespaces, kernel.unprivileged_userns_clone (Debian) and "
            "kernel.apparmor_restrict_unprivileged_userns (Ubuntu)"
        ) from error
    except HostError:
        ours.close()
        raise
    overflow = int(_text("/proc/sys/kernel/overflowuid") or "65534")
    _Process.entered = Entered(uid, ids, overflow, ours)


def _mapping(own: int, span: Span, ids: int) -> tuple[str, ...]:
    """Give the arguments of newuidmap: inside, outside, count, of each range."""
    return tuple(map(str, (0, own, 1, 1, span.first, ids)))


def _unshare(flag: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(flag) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _stay_outside(channel: socket.socket, mappings: tuple[tuple[str, ...], ...]) -> NoReturn:
    """Be the witness; nothing of what this process was a copy of goes on."""
    try:
        # The worker's end is what ends the witness: no signal to the group, and no closed terminal.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.dup2(channel.detach(), 3, inheritable=False)
        channel = socket.socket(fileno=3)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        if channel.recv(len(_GO)) == _GO:
            channel.send(map_ids(os.getppid(), mappings))
            quiet = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(quiet, number)
            answer_owners(channel)
    finally:
        os._exit(0)


def map_ids(pid: int, mappings: tuple[tuple[str, ...], ...]) -> bytes:
    """Have the ids of a process in a new user namespace mapped: `done`, or what the tools complain of."""
    for (tool, _), mapping in zip(_TOOLS, mappings, strict=True):
        path = shutil.which(tool, path=_SYSTEM_PATH) or tool
        try:
            done = subprocess.run(
                [path, str(pid), *mapping],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SECONDS,
                check=False,
                env={},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{tool}: {error}".encode()[:_LONGEST]
        if done.returncode:
            return (done.stderr.strip() or f"{tool} ended with {done.returncode}".encode())[:_LONGEST]
    return _DONE


def answer_owners(channel: socket.socket) -> None:
    """Say of every file that comes along whom it belongs to, as seen from here, until the other side is closed."""
    while True:
        asked, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        if not asked:
            return
        for descriptor in descriptors:
            channel.send(struct.pack("=I", os.fstat(descriptor).st_uid))
            os.close(descriptor)


def owner(status: os.stat_result, place: str | int) -> int:
    """Give whom a file belongs to: 0 for the host's root too, where this process cannot see that by itself.

    Everybody else who is not mapped has a number that is neither 0 nor any that this process knows.

    Args:
        status: of the file, without following a link.
        place: its path or a descriptor of it.
    """
    own = _Process.entered
    if own is None or status.st_uid != own.overflow:
        return status.st_uid
    descriptor = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC) if isinstance(place, str) else os.dup(place)
    try:
        # Another file by now: then nothing is known of the one that was looked at.
        if not os.path.samestat(status, os.fstat(descriptor)):
            return own.overflow
        with own.asking:
            socket.send_fds(own.witness, [b"?"], [descriptor])
            (uid,) = struct.unpack("=I", own.witness.recv(4))
    except (OSError, struct.error) as error:
        raise HostError("whom a file belongs to cannot be found out: the witness outside is gone; restart") from error
    finally:
        os.close(descriptor)
    return 0 if uid == 0 else own.overflow
