"""The `Sandbox` port on an OCI runtime."""

import asyncio
import fcntl
import functools
import hashlib
import logging
import os
import stat
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from secureworker.core.errors import SandboxError
from secureworker.core.outcome import Execution
from secureworker.core.plan import Plan
from secureworker.host import files, userns
from secureworker.host.workspace import run_directory
from secureworker.ports import Network, TaskLog, Workspace
from secureworker.sandbox import kernel, survey
from secureworker.sandbox.cgroups import WITHOUT_GROUPS, Hierarchy, Version
from secureworker.sandbox.delegation import find_hierarchy
from secureworker.sandbox.life import Engine, Life, Stopped
from secureworker.sandbox.runtime import Containers
from secureworker.sandbox.selftest import TASK_ID, self_test

logger = logging.getLogger(__name__)

_MOST_RUNS = 64
"""Threads: one per run that is under way. Far beyond what one host's runs take otherwise."""


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """What an operator may choose."""

    state_dir: str
    """The worker's own directory. Its path is what this worker's groups and containers are known by: what is swept at
    start is what an earlier worker with the same directory left, and nothing else."""
    runtime: str | None = None
    """Name or path of the OCI runtime; None for the better one that is installed."""
    run_dir: str | None = None
    """For generated roots and the runtime's books; None for /run, or in the state directory where this is not root.
    Every directory above lets others pass."""
    secrets: tuple[str, ...] = ()
    """Files the self-test shows to be out of reach: the signing key, the policy, credentials."""
    unlimited: bool = False
    """Whether no plan has limits: then a host is good enough that cannot limit."""


class OciSandbox:
    """Runs plans in containers. Made by `open_sandbox`."""

    def __init__(self, engine: Engine, settings: SandboxSettings, threads: ThreadPoolExecutor, swept: int = 0) -> None:
        self._engine = engine
        self.swept = swept
        """Containers that an earlier worker had left, and that are gone."""
        self._settings = settings
        self._threads = threads

    @property
    def runtime(self) -> str:
        """Name and version of the runtime."""
        return self._engine.facts.runtime

    @property
    def runtime_path(self) -> str:
        """Path of the runtime."""
        return self._engine.containers.runtime.path

    @property
    def programs(self) -> tuple[str, ...]:
        """Paths of the programs that every run starts with: the runtime, the init."""
        return (self._engine.containers.runtime.path, self._engine.facts.init)

    @property
    def groups(self) -> Mapping[str, str]:
        """Directories that the control groups of runs are made in, by controller; none where there are no limits."""
        return self._engine.hierarchy.bases

    async def run(self, plan: Plan, workspace: Workspace, log: TaskLog, network: Network | None = None) -> Execution:
        """See `ports.Sandbox`. A second cancellation cuts the grace short.

        Raises:
            SandboxError: the container could not be made or is not what was asked for; the script did not run.
            Stop: `DISK_LIMIT`.
        """
        life = Life(plan, workspace, log, self._engine, network)
        running = asyncio.get_running_loop().run_in_executor(self._threads, life.live)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            life.stop()
            while not running.done():
                try:
                    await asyncio.wait((running,))
                except asyncio.CancelledError:
                    life.stop()
            error = running.exception()
            if error is not None and not isinstance(error, Stopped):
                # The cancellation has the last word; but the operator should know.
                logger.warning("stopping %s/%s: %s", plan.task_id, plan.run_id, error)
            raise

    async def self_test(self) -> tuple[str, ...]:
        """See `ports.Sandbox`. Takes a quarter of a second."""
        # Not below the run directory: systemd mounts /run with noexec.
        directory = f"{self._settings.state_dir}/self-test"
        without = self._engine.hierarchy.version is Version.NONE
        lines = await self_test(self.run, directory, self._settings.secrets, unlimited=without)
        left = [name for name in self._engine.hierarchy.leftovers() if TASK_ID in name]
        if left:
            raise SandboxError(f"the self-test left control groups behind: {', '.join(left)}")
        return (*lines, "leftovers: none")


@asynccontextmanager
async def open_sandbox(settings: SandboxSettings) -> AsyncIterator[OciSandbox]:
    """Check the host, sweep what an earlier worker left, and give the sandbox.

    This process becomes a child subreaper, and in a delegated cgroup of version 2 moves into a leaf of its own.

    Raises:
        SandboxError: something is missing, with how to get it; or another worker uses the same `state_dir`.
    """
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(_MOST_RUNS, thread_name_prefix="sandbox"))
        preparing = functools.partial(_prepare, settings, stack)
        engine, swept = await asyncio.get_running_loop().run_in_executor(threads, preparing)
        yield OciSandbox(engine, settings, threads, swept)


def _prepare(settings: SandboxSettings, stack: ExitStack) -> tuple[Engine, int]:
    try:
        return _prepare_engine(settings, stack)
    except OSError as error:
        raise SandboxError(f"the sandbox cannot be prepared: {error}; see `secureworker doctor`") from error


def _prepare_engine(settings: SandboxSettings, stack: ExitStack) -> tuple[Engine, int]:
    if os.geteuid() != 0:
        raise SandboxError(
            "the worker is neither root nor root of a user namespace of its own, as `secureworker run` makes one; "
            "see `secureworker doctor`"
        )
    name = instance_name(settings.state_dir)
    hierarchy = _hierarchy(name, unlimited=settings.unlimited)
    chosen = survey.find_runtime(settings.runtime, unified=hierarchy.version is Version.V2)
    facts = survey.survey(chosen)
    home = f"{settings.run_dir or run_directory(settings.state_dir)}/{name}"
    stack.callback(os.close, _lock(home))
    stack.callback(files.remove_tree, home)
    containers = Containers(chosen, f"{home}/containers")
    engine = Engine(facts, containers, hierarchy, f"{home}/roots")
    swept = sweep(engine)
    kernel.become_subreaper()
    stack.callback(hierarchy.remove)
    return engine, swept


def _hierarchy(name: str, *, unlimited: bool) -> Hierarchy:
    """Find the place for control groups; where there is none, go without if no plan needs any."""
    try:
        return find_hierarchy(name, privileged=userns.entered() is None)
    except (SandboxError, OSError) as error:
        if unlimited:
            logger.warning(
                "scripts have no limits but their time: the policy says so, and this host has none: %s", error
            )
            return WITHOUT_GROUPS
        raise SandboxError(
            f"this host cannot limit what scripts use, and the policy does not say `limits: none`: {error}"
        ) from error


def _make_home(home: str) -> None:
    """Make the directory, and see that the container's ids can get to what is in it."""
    try:
        # Each by itself: makedirs gives its mode to the last one only.
        os.makedirs(os.path.dirname(home), mode=0o711, exist_ok=True)
        os.makedirs(home, mode=0o711, exist_ok=True)
    except OSError as error:
        raise SandboxError(f"{home} cannot be made: {error.strerror}; choose another run directory") from error
    directory = home
    while directory != "/":
        if not os.stat(directory).st_mode & stat.S_IXOTH:
            raise SandboxError(
                f"{directory} lets only its owner pass, so that the container's ids cannot get to {home}; "
                f"choose another run directory, or chmod o+x {directory}"
            )
        directory = os.path.dirname(directory)


def _lock(home: str) -> int:
    """Make sure that we are the only worker of this name; give the descriptor that holds the lock."""
    path = f"{home}/lock"
    while True:
        _make_home(home)
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A worker that ends takes the directory away while it holds the lock: then ours is on a file that is gone.
            if os.path.samestat(os.fstat(lock), os.stat(path)):
                return lock
        except FileNotFoundError:
            continue
        except BlockingIOError:
            os.close(lock)
            raise SandboxError(
                "another worker uses the same state directory, and is running; stop it, or choose another directory"
            ) from None
        os.close(lock)


def instance_name(state_dir: str) -> str:
    """Give the name of this worker's level among control groups and below `run_dir`."""
    return f"secureworker-{hashlib.sha256(os.fsencode(os.path.realpath(state_dir))).hexdigest()[:12]}"


def sweep(engine: Engine) -> int:
    """Kill and remove all that an earlier worker of this name left: processes, control groups, roots, books.

    Returns:
        how many containers there were.
    """
    killed = engine.hierarchy.sweep() + _sweep_books(engine)
    if killed:
        logger.warning("removed %d containers that an earlier worker left", killed)
    for path in (engine.roots, engine.containers.state):
        files.remove_tree(path)
        # Roots have to be passed by the container's ids; the runtime's books are nobody's business.
        files.make_directory(path, mode=0o711 if path == engine.roots else 0o700)
    return killed


def _sweep_books(engine: Engine) -> int:
    """Where there are no groups: kill what the runtime's books hold, which had no init yet to end with the worker."""
    if engine.hierarchy.version is not Version.NONE or not os.path.isdir(engine.containers.state):
        return 0
    names = os.listdir(engine.containers.state)
    for name in names:
        # A container that the runtime cannot find any more has nothing that could begin.
        with suppress(SandboxError):
            engine.containers.delete(name, engine.containers.state)
    return len(names)
