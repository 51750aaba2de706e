"""Taking the outputs of a run out of its script's reach: the `Outputs` port."""

import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime

from secureworker.artifacts.names import content_type
from secureworker.artifacts.spool import Changed, Copy, copy_hashed
from secureworker.artifacts.walk import Found, Offences, find_outputs, identity, kernel_refusal, shown
from secureworker.core.errors import BadArtifact, HostError
from secureworker.core.plan import ARTIFACT_DIR, TASK_DIR, OutputRules
from secureworker.host.beneath import open_beneath
from secureworker.host.threads import Abandoned, in_thread
from secureworker.ports import Artifact, Clock, Workspace

logger = logging.getLogger(__name__)

_ARTIFACTS = ARTIFACT_DIR.removeprefix(f"{TASK_DIR}/").encode()
_AT_A_TIME = max(2, min(4, os.cpu_count() or 2))
"""Files copied at once: each keeps a processor busy, and holds two buffers."""


class SealedOutputs:
    """Copies outputs into the spool, once, and measures the copies."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def seal(self, rules: OutputRules, workspace: Workspace, task_expires: datetime) -> tuple[Artifact, ...]:
        """Copy and measure the outputs; names in ascending order.

        Each file is opened once without following links; name, size, digest and later upload all come from the
        copy made through that one descriptor, so what is signed is what is stored. Nothing is copied where the
        walk has found anything that may not be published.

        On cancellation: ends within a buffer's copy, and leaves what it has copied in the spool.

        Raises:
            BadArtifact: an output is a link, a device, too large, badly named, or outside the rules; all are named.
            HostError: the spool cannot be written, or this host cannot open files safely.
        """
        expires = task_expires
        if rules.expires is not None:
            # Whole milliseconds, as Taskcluster writes them: the Object service compares what it is told twice.
            ends = self._clock.now() + rules.expires
            expires = min(task_expires, ends.replace(microsecond=ends.microsecond // 1000 * 1000))
        copies = await in_thread(lambda abandoned: _seal(rules, workspace, abandoned))
        return tuple(
            Artifact(
                name=found.name,
                size=copy.size,
                sha256=copy.sha256,
                path=path,
                content_type=content_type(found.name, rules.content_types),
                expires=expires,
            )
            for found, copy, path in copies
        )


def _seal(rules: OutputRules, workspace: Workspace, abandoned: threading.Event) -> list[tuple[Found, Copy, str]]:
    """Walk, refuse or copy. Blocking."""
    try:
        with _artifact_directory(workspace.task) as root:
            if root is None:
                return []
            found = find_outputs(root, rules)
            targets = [f"{workspace.spool}/{number:06d}" for number in range(len(found))]
            copies = copy_all(root, found, targets, abandoned)
    except OSError as error:
        raise HostError(f"the outputs cannot be sealed: {error}; check the disk of the workspaces") from error
    logger.debug("sealed %d outputs, %d bytes", len(found), sum(copy.size for copy in copies))
    return list(zip(found, copies, targets, strict=True))


@contextmanager
def _artifact_directory(task: str) -> Iterator[int | None]:
    """Open the directory of the outputs; None where the script has removed it.

    `task` is the worker's, but what lies in it is the script's, who may have put a link in the directory's place.
    """
    parent = os.open(task, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            root = open_beneath(parent, _ARTIFACTS, os.O_DIRECTORY)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            why = kernel_refusal(error)
            if why is None:
                raise
            raise BadArtifact(f"outputs may not be published: the artifact directory {why}") from error
    finally:
        os.close(parent)
    try:
        yield root
    finally:
        os.close(root)


def copy_all(root: int, found: tuple[Found, ...], targets: list[str], abandoned: threading.Event) -> list[Copy]:
    """Copy several at a time. Blocking.

    Raises:
        BadArtifact: some are not what the walk saw; all of them are named.
        Abandoned: nobody waits for the copies.
        OSError: of this host.
    """
    offences = Offences()
    failed = threading.Event()

    def copy(one: Found, target: str) -> Copy | None:
        if abandoned.is_set() or failed.is_set():
            raise Abandoned
        try:
            return _copy_one(root, one, target, abandoned)
        except Changed:
            offences.add(shown(one.path), "changed while it was sealed")
            return None

    with ThreadPoolExecutor(max_workers=_AT_A_TIME, thread_name_prefix="seal") as pool:
        try:
            copies = list(pool.map(copy, found, targets))
        except BaseException:
            # The first that raised ends it: the others must not go on to fill a full disk.
            failed.set()
            raise
    offences.raise_any()
    return [one for one in copies if one is not None]


def _copy_one(root: int, found: Found, target: str, abandoned: threading.Event) -> Copy:
    try:
        source = open_beneath(root, found.path, 0)
    except OSError as error:
        if kernel_refusal(error) is None:
            raise
        raise Changed from error
    try:
        if identity(os.fstat(source)) != found.identity:
            raise Changed
        spooled = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            copied = copy_hashed(source, spooled, found.size, abandoned)
        finally:
            os.close(spooled)
        # Nothing is alive that could have written; if something has, the copy may be torn.
        if identity(os.fstat(source)) != found.identity:
            raise Changed
    finally:
        os.close(source)
    return copied
