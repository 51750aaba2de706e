"""Attacking the sandbox from inside, by the way that every script goes: workspace, bundle, runtime, read-back.

Before the first claim. What is attacked is on this very host: the worker's own process, files and sockets.
"""

import importlib.resources
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256

from secureworker.core.claim import Json
from secureworker.core.doors import Door
from secureworker.core.errors import SandboxError
from secureworker.core.ids import RunId, ScriptName, Sha256, TaskId
from secureworker.core.outcome import Execution, ExitCode, KilledBySignal
from secureworker.core.plan import Limits, Mount, OutputRules, PinnedFile, Plan
from secureworker.host import files
from secureworker.host.workspace import DirectoryWorkspaces
from secureworker.ports import TaskLog, Workspace
from secureworker.sandbox.bundle import TMP, environment
from secureworker.sandbox.facts import TEMPLATE
from secureworker.sandbox.netns import network_namespace
from secureworker.sandbox.probe import PROBES

Run = Callable[[Plan, Workspace, TaskLog], Awaitable[Execution]]

_LIMITS = Limits(
    run_time=timedelta(minutes=1),
    memory_bytes=64 * 1024 * 1024,
    processes=24,
    cpus=1.0,
    disk_bytes=1024 * 1024,
    files=64,
    log_bytes=64 * 1024,
    open_files=256,
)
_HOG = "b'x' * (1 << 30)"
PROBE_NAMES = tuple(probe.__name__ for probe in PROBES)
TASK_ID = TaskId("SelfTestS-CofSandbox1A")
"""Of the self-test's runs: a slugid that no Queue has given out."""
_MOST_OUTPUT = 256 * 1024


class _Kept:
    """A task log in memory."""

    def __init__(self) -> None:
        self.content = b""

    def note(self, text: str) -> None:
        """Nobody reads it."""

    def error(self, text: str) -> None:
        """Nobody reads it."""

    def output(self, chunk: bytes) -> None:
        self.content = (self.content + chunk)[:_MOST_OUTPUT]


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The worker's own Python, as it is shown to the probes."""

    path: str
    mounts: tuple[Mount, ...]


def interpreter() -> Interpreter:
    """Find the worker's own Python, behind any virtual environment: it is there on every host."""
    path = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
    prefix = os.path.realpath(sys.base_prefix)
    return Interpreter(path, () if prefix == "/usr" else (Mount(prefix, prefix),))


async def self_test(run: Run, directory: str, targets: tuple[str, ...], *, unlimited: bool = False) -> tuple[str, ...]:
    """Run all probes.

    Args:
        run: of the sandbox.
        directory: for workspaces; made, swept and removed here.
        targets: files that must be out of reach.
        unlimited: the host cannot limit, and no policy asks it to: limits are not tried.

    Raises:
        SandboxError: with every probe that got through.
    """
    workspaces = DirectoryWorkspaces(f"{directory}/tasks")
    await workspaces.sweep()
    try:
        lines = await _probe(run, workspaces, directory, targets, unlimited=unlimited)
        if not unlimited:
            lines += await _hog(run, workspaces, directory)
    finally:
        files.remove_tree(directory)
    failures = [f"{name}: {says}" for name, passed, says in lines if not passed]
    if failures:
        raise SandboxError("the sandbox does not hold on this host, so no task is claimed: " + "; ".join(failures))
    return tuple(f"{name}: {says}" for name, _, says in lines)


Line = tuple[str, bool, str]


async def _probe(
    run: Run, workspaces: DirectoryWorkspaces, directory: str, targets: tuple[str, ...], *, unlimited: bool
) -> list[Line]:
    source = importlib.resources.files("secureworker.sandbox").joinpath("probe.py").read_text("utf-8")
    with _listening() as (port, abstract), network_namespace(tuple(Door)):
        config: dict[str, Json] = {
            "secrets": list(targets),
            "worker": os.getpid(),
            "port": port,
            "abstract": abstract,
            "doors": [door.value for door in Door],
            "environment": [name for name, _ in environment(_plan(directory, "", {}), TEMPLATE)],
            "tmp": list({path.split("/")[2] for path in (directory, sys.base_prefix) if path.startswith(f"{TMP}/")}),
            "disk_bytes": _LIMITS.disk_bytes,
            "processes": _LIMITS.processes,
            "unlimited": unlimited,
        }
        plan = replace(_plan(directory, source, config), unlimited=unlimited)
        status, output = await _run_once(run, workspaces, plan)
    if status != ExitCode(0):
        return [("probes", False, f"they did not come to their end: {status}, {output[-300:]!r}")]
    answers = {line["probe"]: line for line in map(json.loads, output.splitlines())}
    missing = {"probe": "", "passed": False, "says": "no answer"}
    return [(name, *_judge(answers.get(name, missing))) for name in PROBE_NAMES]


def _judge(answer: Mapping[str, object]) -> tuple[bool, str]:
    return answer["passed"] is True, str(answer["says"])


async def _hog(run: Run, workspaces: DirectoryWorkspaces, directory: str) -> list[Line]:
    status, _ = await _run_once(run, workspaces, _plan(directory, _HOG, None))
    held = status == KilledBySignal(int(signal.SIGKILL), out_of_memory=True)
    return [("memory", held, "a script over its limit is killed" if held else f"a script over its limit: {status}")]


async def _run_once(run: Run, workspaces: DirectoryWorkspaces, plan: Plan) -> tuple[object, str]:
    log = _Kept()
    async with workspaces.open(plan) as workspace:
        execution = await run(plan, workspace, log)
    return execution.status, log.content.decode("utf-8", "replace")


def _plan(directory: str, source: str, config: Mapping[str, Json] | None) -> Plan:
    """Write `source` as an executable of this interpreter, and give the plan that runs it."""
    python = interpreter()
    script = f"{directory}/probe"
    # -I, -S: no user's and no site's modules.
    content = f"#!{python.path} -IS\n{source}\n".encode()
    with suppress(FileNotFoundError):
        os.unlink(script)
    files.write_new(script, content, mode=0o700)
    return Plan(
        task_id=TASK_ID,
        run_id=RunId(0),
        task_group_id=TASK_ID,
        root_url="https://self-test.invalid",
        script=ScriptName("self-test"),
        argv=(script,),
        pinned=(PinnedFile(script, Sha256(sha256(content).hexdigest())),),
        environment=(),
        config=config,
        task={},
        mounts=python.mounts,
        limits=_LIMITS,
        outputs=OutputRules(allow=(), max_size=0, max_total=0, max_count=0),
        grace=timedelta(seconds=1),
    )


@contextmanager
def _listening() -> Iterator[tuple[int, str]]:
    """Listen on the host, for the probes to find nobody."""
    abstract = f"secureworker-{secrets.token_hex(8)}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(f"\0{abstract}")
        unix.listen()
        port: int = tcp.getsockname()[1]
        yield port, abstract
