"""Secrets of the host as files for one run of one script: the port `Secrets`.

They lie in a file system of their own, in memory, which the worker mounts in its state directory and takes away when
it ends. In it each run has a directory that only its own script's user may read, and that the sandbox shows to it. What
a crashed worker left is taken away before the first claim.
"""

import asyncio
import functools
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final, TypeAlias, assert_never, final

from secureworker.core.claim import Json
from secureworker.core.errors import HostError, ServiceError, SettingsError
from secureworker.core.plan import Plan
from secureworker.core.secrets import (
    MAX_SECRET_BYTES,
    HostFile,
    SecretBytes,
    SecretFile,
    SecretSource,
    SystemdCredential,
    TaskclusterSecret,
    parts,
    select,
)
from secureworker.host import files
from secureworker.host.mounts import mount_memory, unmount_all
from secureworker.host.private import read_private
from secureworker.host.threads import in_thread
from secureworker.ports import ClaimedRun, Workspace

logger = logging.getLogger(__name__)

_RUN_BYTES: Final = 64 * 1024 * 1024
_RUN_FILES: Final = 8192
"""For the secrets of one run: what one has, another never lacks."""


Fetch: TypeAlias = Callable[[TaskclusterSecret, ClaimedRun], Awaitable[dict[str, Json]]]
"""Gets a secret of Taskcluster's service with the credentials of a run; raises ServiceError."""


def read_source(source: SystemdCredential | HostFile, credentials_directory: str | None) -> SecretBytes:
    """Read a secret that lies on this host. Blocking.

    Raises:
        SettingsError: it is not there, others could have it, or it is none that can be kept out of logs.
    """
    match source:
        case SystemdCredential(name=name):
            if not credentials_directory:
                raise SettingsError(
                    f"the policy names the systemd credential {name}, and this process has none; start the worker as a "
                    f"systemd service with LoadCredential={name}:PATH"
                )
            path, ours = f"{credentials_directory}/{name}", False
        case HostFile(path=path):
            ours = True
        case _:
            assert_never(source)
    what = f"the secret {source}:"
    return _usable(
        SecretBytes(read_private(path, what, most_bytes=MAX_SECRET_BYTES, group_may_read=not ours)), str(source)
    )


def check_sources(sources: Iterable[SecretSource], credentials_directory: str | None) -> None:
    """See that all secrets of this host can be had; those of Taskcluster are the run's to fetch. Blocking.

    Raises:
        SettingsError: one cannot.
    """
    for source in sources:
        if not isinstance(source, TaskclusterSecret):
            read_source(source, credentials_directory)


def _usable(secret: SecretBytes, source: str) -> SecretBytes:
    try:
        if not parts(secret):
            raise ValueError("it is empty")
    except ValueError as error:
        raise SettingsError(f"the secret {source} cannot be used: {error}") from error
    return secret


def sweep_memory(path: str) -> int:
    """Take away what an earlier worker left mounted on `path`, and count it; whether we lend anything or not. Blocking.

    Raises:
        HostError: it cannot be taken away.
    """
    try:
        left = unmount_all(path)
    except OSError as error:
        raise HostError(
            f"secrets that an earlier worker left in {path} cannot be taken away: {error.strerror}; unmount it"
        ) from error
    if left:
        logger.warning("took away the secrets that an earlier worker left in memory")
    return left


@contextmanager
def memory_directory(path: str, runs: int = 1) -> Iterator[str]:
    """Mount the file system that so many runs' secrets are lent in, on `path`; take it away when left.

    Nobody else may use `path` meanwhile. What an earlier worker left mounted there is gone. Blocking.

    Raises:
        HostError: it cannot be mounted.
    """
    sweep_memory(path)
    try:
        with suppress(FileExistsError):
            files.make_directory(path, mode=0o711)
        # 0711: the container's own ids have to pass on the way to the run's directory, and cannot list others'.
        mount_memory(path, size=runs * _RUN_BYTES, inodes=runs * _RUN_FILES, mode=0o711)
    except OSError as error:
        raise HostError(
            f"secrets need a file system in memory, which cannot be mounted on {path}: {error.strerror}; "
            "the worker needs CAP_SYS_ADMIN"
        ) from error
    try:
        yield path
    finally:
        unmount_all(path)
        with suppress(OSError):
            os.rmdir(path)


@final
class LentSecrets:
    """Lends what `plan.secrets` names, for as long as a script runs."""

    def __init__(self, directory: str | None, credentials_directory: str | None, fetch: Fetch) -> None:
        """Take the directory that `memory_directory` gave, and systemd's `$CREDENTIALS_DIRECTORY`.

        Without a directory nothing can be lent: for policies without secrets.
        """
        self._directory = directory
        self._device = None if directory is None else os.stat(directory).st_dev
        self._credentials_directory = credentials_directory
        self._fetch = fetch

    @asynccontextmanager
    async def lend(self, plan: Plan, run: ClaimedRun, workspace: Workspace) -> AsyncIterator[tuple[SecretBytes, ...]]:
        """See `ports.Secrets`."""
        if not plan.secrets:
            yield ()
            return
        found = [(secret.name, await self._get(secret, run)) for secret in plan.secrets]
        place = workspace.secrets
        try:
            # Waits for the thread when it is cancelled: one that went on would lay them out after they were removed.
            await in_thread(lambda _: self._lay_out(place, workspace.uid, found))
            yield tuple(content for _, content in found)
        finally:
            # Not in a thread: a cancellation must not leave it behind, and memory does not block.
            files.remove_tree(place)

    async def _get(self, secret: SecretFile, run: ClaimedRun) -> SecretBytes:
        source = secret.source
        if not isinstance(source, TaskclusterSecret):
            return await asyncio.to_thread(functools.partial(read_source, source, self._credentials_directory))
        document = await self._fetch(source, run)
        try:
            return _usable(select(source, document), str(source))
        except KeyError:
            raise ServiceError(
                f"the secret {source.name} has no key {source.key!r}; correct the policy or the secret"
            ) from None
        except SettingsError as error:
            # Not this host's: whoever may change the secret could else end every worker that uses it.
            raise ServiceError(str(error)) from None

    def _lay_out(self, place: str, uid: int, found: list[tuple[str, SecretBytes]]) -> None:
        try:
            if self._directory is None or os.stat(self._directory).st_dev != self._device:
                raise HostError(
                    "the file system in memory that secrets are lent in is gone: somebody unmounted it; restart the "
                    "worker"
                )
            files.make_directory(place, mode=0o700)
            for name, content in found:
                files.write_new(f"{place}/{name}", content.reveal(), mode=0o400, owner=uid)
            with files.opened(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) as directory:
                os.fchown(directory, uid, uid)
                os.fchmod(directory, 0o500)
        except OSError as error:
            raise HostError(f"a run's secrets cannot be laid out in memory: {error.strerror}") from error
