"""The life of one container: all of it in one thread, from an empty control group to no control group.

Blocking by design: a straight line, whose clean-up is pushed on one stack as it goes, is what makes "every process is
dead" something that can be read off. Only `stop` may be called from other threads.
"""

import fcntl
import json
import os
import select
import signal
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from secureworker.core.errors import SandboxError, Stop, StopReason
from secureworker.core.outcome import Execution, ExitCode, ExitStatus, KilledBySignal
from secureworker.core.plan import Plan
from secureworker.host import files, userns
from secureworker.ports import Network, TaskLog, Workspace
from secureworker.sandbox import readback
from secureworker.sandbox.bundle import INIT_PROCESS, Bundle, make_bundle, processes_at_first
from secureworker.sandbox.cgroups import Group, Hierarchy, Version
from secureworker.sandbox.executable import check_executable
from secureworker.sandbox.facts import HostFacts, Place
from secureworker.sandbox.guard import Guard
from secureworker.sandbox.netns import network_namespace
from secureworker.sandbox.root import make_root
from secureworker.sandbox.runtime import Containers

_READ_BYTES = 64 * 1024
_PIPE_BYTES = 1024 * 1024
"""The most that the kernel gives without privileges; fewer turns of the loop for a script that writes much."""
_DRAIN_SECONDS = 5.0
"""For what is left in the pipe once nothing is alive that could write: at most 1 MiB."""
_SHELL_SIGNAL = 128
"""The init exits with this plus the signal's number if a signal has killed the script, as shells do."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What all containers of a worker share."""

    facts: HostFacts
    containers: Containers
    hierarchy: Hierarchy
    roots: str
    """Directory for the generated roots; every directory above it lets others pass."""


class Stopped(Exception):
    """`stop` was called, and the container has ended, or never began."""


class Life:
    """One container. Make it, call `live` once in a thread of its own; call `stop` at any time, from anywhere."""

    def __init__(
        self, plan: Plan, workspace: Workspace, log: TaskLog, engine: Engine, network: Network | None = None
    ) -> None:
        self._plan = plan
        self._workspace = workspace
        self._log = log
        self._engine = engine
        self._network = network
        # Task ids may begin with a dash, which would be an option to the runtime.
        self._name = f"run-{plan.task_id}.{plan.run_id}"
        self._stops = 0
        self._reaped = False
        self._deadline: float | None = None
        self._waking = threading.Lock()
        self._wake: int | None = None

    def stop(self) -> None:
        """End the container: TERM, the plan's grace, KILL. Called a second time: KILL."""
        self._stops += 1
        self._rouse()

    def _rouse(self) -> None:
        with self._waking:
            if self._wake is not None:
                os.eventfd_write(self._wake, 1)

    def live(self) -> Execution:
        """Make, check, start, watch, and remove the container; all of its processes are dead afterwards.

        Raises:
            SandboxError: it could not be made, is not what was asked for, or cannot be removed.
            Stop: `DISK_LIMIT`.
            Stopped: `stop` was called.
        """
        try:
            with ExitStack() as stack:
                self._open_wake(stack)
                return self._live(stack)
        except OSError as error:
            raise SandboxError(f"the container {self._name} cannot be made, or not be removed: {error}") from error

    def _live(self, stack: ExitStack) -> Execution:
        if self._stops:
            raise Stopped
        network = (self._network or stack.enter_context(network_namespace())).namespace
        if self._engine.hierarchy.version is Version.NONE and not self._plan.unlimited:
            raise SandboxError(f"{self._plan.script} has limits, and this host gives the worker no control groups")
        group = self._engine.hierarchy.open(self._name)
        stack.callback(group.remove)
        self._limit(group, processes_at_first(self._plan.limits))
        bundle = self._make_bundle(stack, network, group)
        reading, writing = _make_pipe(stack, self._workspace.uid)
        pid = self._create(stack, group, writing)
        pidfd = os.pidfd_open(pid)
        stack.callback(os.close, pidfd)
        stack.callback(self._reap, pidfd)
        self._check(pid, bundle, network, group)
        return self._run(bundle, group, pid, pidfd, reading)

    def _limit(self, group: Group, processes: int) -> None:
        if not self._plan.unlimited:
            group.limit(self._plan.limits, processes)

    def _open_wake(self, stack: ExitStack) -> None:
        with self._waking:
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        stack.callback(self._close_wake)

    def _close_wake(self) -> None:
        with self._waking:
            if self._wake is not None:
                os.close(self._wake)
            self._wake = None

    def _make_bundle(self, stack: ExitStack, network: int, group: Group) -> Bundle:
        plan, workspace, engine = self._plan, self._workspace, self._engine
        place = Place(
            root=f"{engine.roots}/{self._name}",
            task=workspace.task,
            scripts=workspace.scripts,
            network=f"/proc/{os.getpid()}/fd/{network}",
            cgroup=group.path if engine.containers.runtime.places_itself else "",
            uid=workspace.uid,
            task_id=str(plan.task_id),
            run_id=str(int(plan.run_id)),
            task_group_id=plan.task_group_id,
            secrets=workspace.secrets,
            directories=frozenset(mount.source for mount in plan.mounts if os.path.isdir(mount.source)),
        )
        bundle = make_bundle(plan, place, engine.facts)
        stack.callback(files.remove_tree, place.root)
        make_root(place.root, bundle.targets, bundle.sources, engine.facts)
        with suppress(FileNotFoundError):
            os.unlink(f"{workspace.bundle}/config.json")
        files.write_new(f"{workspace.bundle}/config.json", bundle.config, mode=0o600)
        return bundle

    def _create(self, stack: ExitStack, group: Group, writing: int) -> int:
        containers, where = self._engine.containers, self._workspace.bundle
        stack.callback(self._forget, group)
        # Whatever create leaves behind, also if it fails half-way, is in the group, and dies first of all.
        stack.callback(group.kill)
        enter = () if containers.runtime.places_itself else group.procs_files()
        try:
            return containers.create(self._name, where, writing, enter)
        finally:
            # Or the pipe would never come to its end.
            os.close(writing)

    def _reap(self, pidfd: int) -> None:
        """Kill the init and wait for it, with all that is in its pid namespace. Fine if that was done before."""
        _signal(pidfd, signal.SIGKILL)
        # By descriptor: the number may be another process's by now.
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        self._reaped = True

    def _forget(self, group: Group) -> None:
        """Take the container out of the runtime's books.

        The runtime itself costs as much as a start, and has nothing left to do where all is seen to be dead: the init,
        whose pid namespace the kernel has emptied before it could be reaped, and whatever was in the group.
        """
        containers = self._engine.containers
        if self._reaped and not group.pids():
            containers.forget(self._name)
        else:
            containers.delete(self._name, self._workspace.bundle)

    def _check(self, pid: int, bundle: Bundle, network: int, group: Group) -> None:
        paths = {"": group.path} if group.version is Version.V2 else dict(group.paths)
        readback.check_created(pid, json.loads(bundle.config), network, paths)
        if not self._plan.unlimited:
            group.check(self._plan.limits, processes_at_first(self._plan.limits))
        if userns.entered() is None:
            # Only now: runc has allowed more, to make nodes. Without root, the kernel lets nobody make any.
            group.restrict_devices()
        with files.opened(f"/proc/{pid}/root", os.O_PATH) as root:
            check_executable(root, self._plan.argv[0])

    def _run(self, bundle: Bundle, group: Group, pid: int, pidfd: int, reading: int) -> Execution:
        if self._stops:
            raise Stopped
        limits = None if self._plan.unlimited else self._plan.limits
        started = datetime.now(UTC)
        self._engine.containers.start(self._name, self._workspace.bundle)
        with Guard(self._workspace.task, limits, group, self._rouse) as guard:
            readback.check_started(pid, self._engine.facts.init, json.loads(bundle.config))
            # The runtime's own threads are gone now.
            self._limit(group, self._plan.limits.processes + INIT_PROCESS)
            self._watch(guard, group, pidfd, reading)
        finished = datetime.now(UTC)
        status = _status(pidfd)
        group.kill()
        self._drain(reading)
        if self._stops:
            raise Stopped
        guard.look()
        if guard.excess:
            raise Stop(StopReason.DISK_LIMIT, guard.excess)
        if group.out_of_memory_kills():
            status = KilledBySignal(int(signal.SIGKILL), out_of_memory=True)
        return Execution(
            status=status,
            started=started,
            finished=finished,
            usage=group.usage(),
            runtime=self._engine.facts.runtime,
            template_sha256=bundle.template_sha256,
            bundle_sha256=bundle.sha256,
            unlimited=self._plan.unlimited,
        )

    def _watch(self, guard: Guard, group: Group, pidfd: int, reading: int) -> None:
        """Pass on what the script writes until the init has ended; kill it when it is time to."""
        assert self._wake is not None
        ready = select.poll()
        for descriptor in (pidfd, reading, self._wake):
            ready.register(descriptor, select.POLLIN)
        while True:
            events = {descriptor for descriptor, _ in ready.poll(self._patience())}
            if reading in events and not self._pass_on(reading):
                # The script has closed its output, and goes on.
                ready.unregister(reading)
            if pidfd in events:
                return
            if self._wake in events:
                os.eventfd_read(self._wake)
            if guard.excess or group.out_of_memory_kills() or self._is_over_time():
                _signal(pidfd, signal.SIGKILL)
            elif self._stops and self._deadline is None:
                self._deadline = time.monotonic() + self._plan.grace / timedelta(seconds=1)
                _signal(pidfd, signal.SIGTERM)

    def _patience(self) -> float | None:
        """Give milliseconds until something is due."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - time.monotonic()) * 1000 + 1

    def _is_over_time(self) -> bool:
        return self._stops > 1 or (self._deadline is not None and time.monotonic() >= self._deadline)

    def _pass_on(self, reading: int) -> bool:
        chunk = os.read(reading, _READ_BYTES)
        if chunk:
            self._log.output(chunk)
        return bool(chunk)

    def _drain(self, reading: int) -> None:
        """Pass on the rest. The deadline is for a writer that is out of reach; there should be none."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        ready = select.poll()
        ready.register(reading, select.POLLIN)
        while time.monotonic() < deadline:
            if ready.poll(max(0.0, deadline - time.monotonic()) * 1000) and not self._pass_on(reading):
                return


def _make_pipe(stack: ExitStack, uid: int) -> tuple[int, int]:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    stack.callback(os.close, reading)
    # Opening /dev/stdout again asks for the right to do so. A pipe, unlike a file, cannot be truncated or rewritten.
    os.fchown(writing, uid, uid)
    with suppress(OSError):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return reading, writing


def _signal(pidfd: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def _status(pidfd: int) -> ExitStatus:
    """Reap the init, and say how the script ended."""
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    if result is None:
        raise SandboxError("the container's init cannot be waited for; another part of the worker has reaped it")
    if result.si_code != os.CLD_EXITED:
        return KilledBySignal(result.si_status)
    number = result.si_status - _SHELL_SIGNAL
    return KilledBySignal(number) if number in signal.valid_signals() else ExitCode(result.si_status)
