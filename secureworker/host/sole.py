"""One worker of an identity on a host: the Queue could not tell two apart, nor could a reader of their statements."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from secureworker.core.errors import HostError
from secureworker.core.ids import WorkerIdentity
from secureworker.host.workspace import make_locks, own_range


@contextmanager
def sole_worker(identity: WorkerIdentity, root_url: str, directory: str | None = None) -> Iterator[None]:
    """Be the only worker of this host that is `identity` at `root_url`; for as long as the context lasts, or we live.

    Args:
        identity: who claims.
        root_url: where. The same name at another Taskcluster is another worker.
        directory: of the locks; None: the one that all workers of this user, or of root, share.

    Raises:
        HostError: another one runs.
    """
    directory = directory or f"{os.path.dirname(own_range().locks)}/workers"
    named = f"{root_url.rstrip('/')}\n{identity}"
    path = f"{directory}/{hashlib.sha256(named.encode()).hexdigest()[:32]}"
    try:
        make_locks(directory)
        # It stays when we go: were it removed, two who come at once could each hold the lock of another file.
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"{path} cannot be made: {error.strerror}; the worker must be able to write there") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HostError(
                f"another worker on this host is {identity} at {root_url}, and is running; stop it, or give this one "
                "another --worker-id"
            ) from None
        yield
    finally:
        os.close(lock)
