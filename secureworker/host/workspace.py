"""The places of runs on this host, and the user ids that scripts run as.

A run gets its own directory tree and its own pair of host ids for as long as it lasts. Nothing here starts a process.
"""

import asyncio
import fcntl
import functools
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from secureworker.core.errors import HostError
from secureworker.core.plan import ARTIFACT_DIR, CONFIG_FILE, HOME_DIR, TASK_DIR, WORK_DIR, PinnedFile, Plan
from secureworker.host import files, userns
from secureworker.host.ownership import others_who_could_change
from secureworker.ports import Workspace

T = TypeVar("T")

UID_BASE = 1_900_000_000
"""Beyond every range that systemd (up to 1879048191), useradd's subordinate ids (up to 600100000) and DynamicUser
hand out, and below 2147352576, where systemd's foreign ids begin (systemd's docs/UIDS-GIDS.md)."""
UID_COUNT = 65_536
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
RUN_DIR = "/run/secureworker"
"""Locks of ids, shared by all workers of the host: so no two runs have the same, whoever runs them."""


@dataclass(frozen=True, slots=True)
class UidRange:
    """Host ids for scripts, two per run: an even offset is container 0 (set-up only), the next is the script's."""

    base: int = UID_BASE
    count: int = UID_COUNT
    locks: str = f"{RUN_DIR}/ids"
    """Directory of lock files; the same for all workers that share the range."""

    def __post_init__(self) -> None:
        if self.base < 1 or self.count < 2:  # noqa: PLR2004 - a pair
            raise ValueError(f"the range of ids {self.base}+{self.count} has no pair of unprivileged ids")


def own_range() -> UidRange:
    """Give the ids that this process may give to scripts: those set aside for root, or this user's subordinate ones."""
    own = userns.entered()
    # In memory, as all workers of this user find it, whatever session or service they belong to.
    locks = "" if own is None else f"/dev/shm/secureworker-{own.uid}/ids"  # noqa: S108 - `make_locks` looks at it
    return UidRange() if own is None else UidRange(1, own.ids - userns.SET_ASIDE, locks)


def run_directory(state_dir: str) -> str:
    """Give the directory for generated roots and the runtime's books: an ordinary user has only its own."""
    return RUN_DIR if userns.entered() is None else f"{state_dir}/run"


def container_root(uid: int) -> int:
    """Give the host id that container 0 is mapped to, for a script that runs as host id `uid`."""
    return uid - 1


def pinned_copy(scripts: str, index: int) -> str:
    """Give the place of the private copy of `plan.pinned[index]`."""
    return f"{scripts}/{index}"


class DirectoryWorkspaces:
    """Workspaces below one directory of the worker's own.

    Make it once, before the first claim: `sweep` takes all that lies in `base` for leftovers.
    """

    def __init__(self, base: str, uids: UidRange | None = None, *, memory: str = "") -> None:
        """Take the directory of the workspaces, and the one in memory that secrets are lent in."""
        self._base = base
        self._memory = memory
        self._uids = uids or own_range()

    async def sweep(self) -> int:
        """Make the directory where it is missing, remove what an earlier worker left in it, and count that."""
        return await _uninterrupted(functools.partial(_sweep, self._base))

    def open(self, plan: Plan) -> AbstractAsyncContextManager[Workspace]:
        """See `ports.Workspaces`. Removal takes as long as the tree is large, and cancellation waits for it."""
        return self._open(plan)

    @asynccontextmanager
    async def _open(self, plan: Plan) -> AsyncIterator[Workspace]:
        lock, uid = await _uninterrupted(functools.partial(_reserve, self._uids))
        try:
            home = f"{self._base}/{plan.task_id}.{plan.run_id}"
            workspace = Workspace(
                task=f"{home}/task",
                scripts=f"{home}/scripts",
                spool=f"{home}/spool",
                bundle=f"{home}/bundle",
                uid=uid,
                secrets=f"{self._memory}/{plan.task_id}.{plan.run_id}" if plan.secrets else "",
            )
            try:
                await _uninterrupted(functools.partial(_fill, home, workspace, plan))
                yield workspace
            finally:
                await _uninterrupted(functools.partial(_remove, home))
        finally:
            # Last: the ids are free for others only when nothing on disk belongs to them any more.
            os.close(lock)


async def _uninterrupted(work: Callable[[], T]) -> T:
    """Run `work` in a thread; a cancellation waits until it is done, then goes on its way."""
    running = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait((running,))
        if running.exception() is None:
            result = running.result()
            _release(result)
        raise


def _release(result: object) -> None:
    # A reservation that nobody will receive.
    match result:
        case (int(lock), int()):
            os.close(lock)
        case _:
            pass


def _reserve(uids: UidRange) -> tuple[int, int]:
    """Lock the first free pair of ids; the lock goes when the descriptor is closed, or the worker dies."""
    try:
        make_locks(uids.locks)
        for offset in range(0, uids.count - 1, 2):
            uid = uids.base + offset + 1
            lock = os.open(f"{uids.locks}/{uid}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            return lock, uid
    except OSError as error:
        raise HostError(
            f"no user ids for the script can be reserved in {uids.locks}: {error.strerror}; "
            "the worker must be able to write there"
        ) from error
    raise HostError(f"all {uids.count // 2} pairs of user ids from {uids.base} on are in use; reserve a larger range")


def make_locks(locks: str) -> None:
    """Make a directory of lock files that nobody else may write to, and see that it is one.

    Raises:
        HostError: it is somebody else's.
    """
    for directory in (os.path.dirname(locks), locks):
        # Each by itself: makedirs gives its mode to the last one only, and others might then write to the first.
        os.makedirs(directory, mode=0o711, exist_ok=True)
        status = os.lstat(directory)
        # Of a user without root, the directory lies where everybody may make one of that name.
        if userns.owner(status, directory) not in {0, os.geteuid()} or status.st_mode & _OTHERS_WRITE:
            raise HostError(
                f"{directory} belongs to uid {status.st_uid}, or others may write there: they could take the ids of "
                "scripts; remove it"
            )


def _sweep(base: str) -> int:
    try:
        os.makedirs(base, mode=0o711, exist_ok=True)
        # Whoever may rename a directory above it could put another tree in the place of this one, or of a run's.
        problems = others_who_could_change(os.path.abspath(base))
        if problems:
            raise HostError(f"others could change what lies in the workspace directory {base}: {'; '.join(problems)}")
        leftovers = os.listdir(base)
        for name in leftovers:
            files.remove_tree(f"{base}/{name.removesuffix('.removing')}")
    except OSError as error:
        raise HostError(f"the workspace directory {base} cannot be made or emptied: {error.strerror}") from error
    return len(leftovers)


def _remove(home: str) -> None:
    try:
        files.remove_tree(home)
    except OSError as error:
        raise HostError(f"the workspace {home} cannot be removed: {error.strerror}; remove it by hand") from error


def _fill(home: str, workspace: Workspace, plan: Plan) -> None:
    """Make the tree. The script owns what it may write; the rest belongs to the worker and is closed to others."""
    uid = workspace.uid

    def inside(path: str) -> str:
        return workspace.task + path.removeprefix(TASK_DIR)

    try:
        files.make_directory(home, mode=0o700)
        # The container's own ids have to pass on the way to their mounts. Nobody else may: the task's id, and with it
        # this path, is public, and other users of the host could read what scripts leave readable.
        os.chown(home, -1, container_root(uid))
        os.chmod(home, 0o710)  # noqa: S103 - of a group that only this container has
        # Listing is denied, searching is not.
        for path in (workspace.scripts, workspace.bundle):
            files.make_directory(path, mode=0o711)
        files.make_directory(workspace.spool, mode=0o700)
        # Not the script's: so it cannot put a link where `artifacts` is, to be followed when outputs are sealed.
        files.make_directory(workspace.task, mode=0o755)
        for path in (WORK_DIR, ARTIFACT_DIR, f"{ARTIFACT_DIR}/public", f"{ARTIFACT_DIR}/public/logs"):
            files.make_directory(inside(path), mode=0o755, owner=uid)
        # 0700: gpg and ssh refuse a home that others can enter.
        files.make_directory(inside(HOME_DIR), mode=0o700, owner=uid)
        for path, content in _contract(plan):
            # The config file is the policy's word, and stays the worker's.
            owner = None if path == CONFIG_FILE else uid
            files.write_new(inside(path), files.as_json(content), mode=0o644, owner=owner)
    except OSError as error:
        raise HostError(f"the workspace {home} cannot be made: {error.strerror}; is the disk full?") from error
    for index, pin in enumerate(plan.pinned):
        _copy_pinned(pin, pinned_copy(workspace.scripts, index))


def _contract(plan: Plan) -> list[tuple[str, object]]:
    """Give the files that scripts rely on, by their paths inside."""
    contract: list[tuple[str, object]] = [
        (f"{WORK_DIR}/task.json", plan.task),
        (f"{WORK_DIR}/current_task_info.json", {"runId": int(plan.run_id), "taskId": str(plan.task_id)}),
    ]
    if plan.config is not None:
        defaults = {"work_dir": WORK_DIR, "artifact_dir": ARTIFACT_DIR, "verbose": False}
        contract.append((CONFIG_FILE, defaults | dict(plan.config)))
    return contract


def _copy_pinned(pin: PinnedFile, target: str) -> None:
    try:
        # 0555: the script's user executes it, and nobody changes it.
        found = files.copy_hashed(pin.path, target, mode=0o555)
    except OSError as error:
        raise HostError(
            f"the pinned file {pin.path} cannot be copied: {error.strerror}; the policy names a file of this host"
        ) from error
    if found != pin.sha256:
        raise HostError(
            f"the pinned file {pin.path} has sha256 {found}, the policy pins {pin.sha256}; "
            "review the change and pin the new digest"
        )
