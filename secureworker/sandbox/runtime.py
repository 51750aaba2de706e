"""Calling an OCI runtime: crun or runc, by the command line that all of them share."""

import json
import os
import re
import select
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from secureworker.core.errors import SandboxError
from secureworker.host import files

_CALL_SECONDS = 60.0
"""create takes 15 to 70 ms; a minute means that the host hangs."""
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Enters the groups before it becomes the runtime: a process that was moved later has used memory that nobody counted.
_ENTER = 'while [ "$1" != -- ]; do echo 0 > "$1" || exit 125; shift; done; shift; exec "$@"'
_VERSION = re.compile(r"^(crun|runc) version (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Runtime:
    """An installed runtime."""

    path: str
    name: str
    """`crun` or `runc`."""
    version: str

    @property
    def places_itself(self) -> bool:
        """Whether it joins `cgroupsPath` (runc), or is started in the group and told to leave groups alone (crun).

        runc refuses to be in the container's group itself (from 1.2 on). crun refuses to look at a hybrid host's
        groups at all, and as a user at those that were delegated to the worker.
        """
        return self.name == "runc"


def identify(path: str) -> Runtime:
    """Ask the program at `path` what it is.

    Raises:
        SandboxError: it cannot be run, or is neither crun nor runc.
    """
    try:
        answer = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_CALL_SECONDS, check=False, env=_environment()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxError(f"the OCI runtime {path} cannot be run: {error}; install crun or runc") from error
    match = _VERSION.search(answer.stdout)
    if match is None:
        raise SandboxError(f"{path} is neither crun nor runc: it says {answer.stdout[:80]!r}; install one of them")
    return Runtime(path, match[1], match[2])


def find(name: str) -> str | None:
    """Give the path of a program in the system's directories, or None. The worker's own PATH does not count."""
    return shutil.which(name, path=_SYSTEM_PATH)


def _environment() -> dict[str, str]:
    # Nothing of the worker's: runtimes take settings from variables. runc's Go needs no more threads than this.
    return {"PATH": _SYSTEM_PATH, "GOMAXPROCS": "2"}


@dataclass(frozen=True, slots=True)
class Containers:
    """The containers of this worker in the runtime's books."""

    runtime: Runtime
    state: str
    """Directory of the runtime's own state, this worker's alone."""
    call_seconds: float = _CALL_SECONDS
    """After which a call has failed, and is killed."""

    def create(self, name: str, bundle: str, output: int, enter: Sequence[str]) -> int:
        """Make the container, all but the start of its process, and give the pid of its init, a child of ours.

        Args:
            name: of the container.
            bundle: directory with `config.json`.
            output: descriptor for what the script writes.
            enter: files of control groups to enter before; empty where the runtime does it.

        Raises:
            SandboxError: the runtime could not; with what it says.
        """
        pid_file = f"{bundle}/init.pid"
        call = ["create", "--bundle", bundle, "--pid-file", pid_file, name]
        self._call(call, name=name, log=f"{bundle}/runtime.log", output=output, enter=enter)
        try:
            with open(pid_file) as file:
                return int(file.read())
        except (OSError, ValueError) as error:
            raise SandboxError(
                f"{self.runtime.name} made the container {name}, and does not say its process"
            ) from error

    def start(self, name: str, bundle: str) -> None:
        """Let the process of a created container begin."""
        self._call(["start", name], name=name, log=f"{bundle}/runtime.log")

    def delete(self, name: str, bundle: str) -> None:
        """Remove the container from the books, killing what is left. Fine if there is none."""
        # The directory says whether there is one: a call of the runtime would cost as much as a whole start.
        if os.path.isdir(f"{self.state}/{name}"):
            self._call(["delete", "--force", name], name=name, log=f"{bundle}/runtime.log")

    def forget(self, name: str) -> None:
        """Remove a container from the books without the runtime. Only for one whose processes are dead and reaped.

        What else a runtime's `delete` does is to kill, and to remove control groups: the worker does both itself. A
        directory that something is mounted on is not removed, but an error.
        """
        files.remove_tree(f"{self.state}/{name}")

    def _call(
        self,
        arguments: Sequence[str],
        *,
        name: str,
        log: str,
        output: int = subprocess.DEVNULL,
        enter: Sequence[str] = (),
    ) -> None:
        options = ["--root", self.state, "--log", log, "--log-format", "json"]
        if not self.runtime.places_itself:
            options += ["--cgroup-manager", "disabled"]
        command = [self.runtime.path, *options, *arguments]
        if enter:
            command = ["/bin/sh", "-c", _ENTER, "enter", *enter, "--", *command]
        try:
            status = _finished(command, output, self.call_seconds)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SandboxError(f"{self.runtime.name} {arguments[0]} did not work for {name}: {error}") from error
        if status:
            raise SandboxError(
                f"{self.runtime.name} {arguments[0]} failed for {name} with status {status}: {_complaints(log)}"
            )


def _finished(command: Sequence[str], output: int, seconds: float) -> int:
    """Run a command to its end, and give its status.

    By descriptor, as `subprocess.run` with a timeout does not: it looks every 0.5 ms, 1 ms, 2 ms … 50 ms, and finds
    a call of 35 ms ended after 63.

    Raises:
        OSError: it cannot be run.
        subprocess.TimeoutExpired: it took too long, and was killed.
    """
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=_environment()
    ) as process:
        try:
            with _descriptor(process.pid) as pidfd:
                ready = select.poll()
                ready.register(pidfd, select.POLLIN)
                if not ready.poll(seconds * 1000):
                    raise subprocess.TimeoutExpired(command, seconds)
        except BaseException:
            process.kill()
            raise
        return process.wait()


@contextmanager
def _descriptor(pid: int) -> Iterator[int]:
    pidfd = os.pidfd_open(pid)
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def _complaints(log: str) -> str:
    """Give the errors in a runtime's log, shortened."""
    messages = []
    try:
        with open(log, errors="replace") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                except ValueError:
                    entry = {"level": "error", "msg": line.strip()}
                if entry.get("level") in {"error", "fatal"}:
                    messages.append(str(entry.get("msg")))
    except OSError:
        pass
    return "; ".join(messages)[:1000] or "it says nothing"
