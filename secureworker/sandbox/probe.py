"""Attacks that a script would try, run inside the sandbox by the worker's own interpreter; see `selftest`.

Standard library only: it is copied into the sandbox as a single file, and told by its config file what to look for.
Prints a line of JSON per probe. A probe that gets through says what it reached.
"""

import ctypes
import functools
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

_MS_BIND = 4096
_CLONE_NEWUSER = 0x10000000
_PTRACE_ATTACH = 16
_SECONDS = 2.0


class Reached(Exception):
    """Something that must be out of reach is not."""


def _refused(what: str, attempt: Callable[[], object]) -> str:
    """Expect an OSError; give its name."""
    try:
        attempt()
    except OSError as error:
        return os.strerror(error.errno or 0)
    raise Reached(what)


def _refused_in_time(what: str, attempt: Callable[[], object]) -> str:
    """Expect an OSError soon: the worker lowers the limit when the script has started, and both are in a hurry."""
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            return _refused(what, attempt)
        except Reached:
            if time.monotonic() > deadline:
                raise


def _call(name: str, *arguments: object) -> None:
    """Call a function of the C library; an error becomes OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def secrets(config: dict[str, Any]) -> str:
    """The signing key, the policy, credentials, and the host's own secrets."""
    places = ["", "/proc/1/root", f"/proc/{config['worker']}/root", "/proc/self/root/.."]
    for path in [*config["secrets"], "/etc/shadow", "/etc/ssl/private", "/root/.ssh"]:
        for place in places:
            _refused(f"{place}{path}", lambda path=path, place=place: os.open(place + path, os.O_RDONLY))  # type: ignore[misc]
    return f"{len(config['secrets'])} files of the worker, and the host's, are not there"


def worker(config: dict[str, Any]) -> str:
    """The worker's memory, environment and descriptors, and signals to it."""
    for name in ("mem", "environ", "fd", "maps", "cmdline"):
        path = f"/proc/{config['worker']}/{name}"
        _refused(path, lambda path=path: os.open(path, os.O_RDONLY))  # type: ignore[misc]
    _refused("a signal to the worker", lambda: os.kill(config["worker"], 0))
    return "memory, environment and descriptors are not there"


def processes(_: dict[str, Any]) -> str:
    """Processes of the host."""
    found = [name for name in os.listdir("/proc") if name.isdigit()]
    if len(found) > 2:  # noqa: PLR2004 - the init and this one
        raise Reached(f"the processes {found}")
    return "init and the script are alone"


def environment(config: dict[str, Any]) -> str:
    """Variables that nobody planned."""
    # As the kernel keeps it: the interpreter adds variables of its own to os.environ.
    with open("/proc/self/environ") as file:
        extra = {line.split("=")[0] for line in file.read().split("\0") if line} - set(config["environment"])
    if extra:
        raise Reached(f"the variables {sorted(extra)}")
    return "as planned"


def descriptors(_: dict[str, Any]) -> str:
    """Descriptors beyond 0, 1 and 2."""
    extra = []
    for number in range(3, 1024):
        try:
            os.fstat(number)
        except OSError:
            continue
        extra.append(number)
    if extra:
        raise Reached(f"the descriptors {extra}")
    return "0, 1 and 2"


def privileges(_: dict[str, Any]) -> str:
    """Capabilities, root, setuid, new privileges."""
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    held = [name for name, value in status.items() if name.startswith("Cap") and int(value, 16)]
    if held or status["NoNewPrivs"] != "1" or status["Seccomp"] != "2" or 0 in {*os.getresuid(), *os.getresgid()}:
        raise Reached(f"privileges: {held or status}")
    _refused("uid 0", lambda: os.setuid(0))
    _refused("gid 0", lambda: os.setgid(0))
    return "no capability, no new privileges, a filter"


def system_calls(_: dict[str, Any]) -> str:
    """System calls that make namespaces and mounts, or look into others."""
    _refused("a user namespace", lambda: _call("unshare", _CLONE_NEWUSER))
    _refused("a mount", lambda: _call("mount", b"/", b"/tmp", b"", _MS_BIND, None))
    _refused("ptrace of the init", lambda: _call("ptrace", _PTRACE_ATTACH, 1, None, None))
    _refused("another root", lambda: os.chroot("/tmp"))  # noqa: S108 - of the sandbox
    _refused("a host name", lambda: socket.sethostname("reached"))
    return "unshare, mount, ptrace, chroot, sethostname are refused"


def sockets(_: dict[str, Any]) -> str:
    """Sockets that ignore network namespaces, or reach below TCP."""
    kinds = {
        "AF_VSOCK": (40, socket.SOCK_STREAM),
        "AF_PACKET": (17, socket.SOCK_RAW),
        "AF_ALG": (38, socket.SOCK_SEQPACKET),
        "a raw socket": (socket.AF_INET, socket.SOCK_RAW),
    }
    for what, (family, kind) in kinds.items():
        _refused(what, lambda family=family, kind=kind: socket.socket(family, kind))  # type: ignore[misc]
    return f"{', '.join(kinds)} are refused"


def network(config: dict[str, Any]) -> str:
    """The host's loopback and abstract sockets, clouds' metadata addresses, the world."""
    metadata = (
        *("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("fd00:ec2::254", "fd00:c1::a9fe:a9fe", "fd00:42::42", "fd20:ce::254"),
    )
    places = [("127.0.0.1", config["port"]), *((host, 80) for host in metadata), ("192.0.2.1", 443), ("1.1.1.1", 53)]
    for host, port in places:
        _refused(f"{host}:{port}", lambda at=(host, port): socket.create_connection(at, _SECONDS))  # type: ignore[misc]
    with socket.socket(socket.AF_UNIX) as unix:
        _refused("an abstract socket of the host", lambda: unix.connect(f"\0{config['abstract']}"))
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        raise Reached(f"the interfaces {socket.if_nameindex()}")
    return "loopback of the host, abstract sockets, metadata and other addresses cannot be reached"


def names(_: dict[str, Any]) -> str:
    """Name servers: a way out for whoever can ask for names of his own."""
    for server in ("1.1.1.1", "192.0.2.53", "2606:4700:4700::1111"):
        with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as asking:
            _refused(f"a name server at {server}", functools.partial(asking.connect, (server, 53)))
    _refused("a name", functools.partial(socket.getaddrinfo, "example.com", 443))
    return "no name server can be asked"


def doors(config: dict[str, Any]) -> str:
    """The listeners of another task, which are open at this very moment."""
    for port in config["doors"]:
        at = ("127.0.0.1", port)
        _refused(f"another task's port {port}", functools.partial(socket.create_connection, at, _SECONDS))
    return "another task's doors are not here"


def files(config: dict[str, Any]) -> str:
    """Writing where nothing may be written, and reading what an earlier run left."""
    for path in (
        "/reached",
        "/usr/reached",
        "/etc/reached",
        "/etc/passwd",
        "/dev/reached",
        "/task/reached",
        sys.argv[0],
    ):
        _refused(f"writing {path}", lambda path=path: os.open(path, os.O_WRONLY | os.O_CREAT))  # type: ignore[misc]
    for path in (
        "/sys/kernel",
        "/sys/fs/cgroup/cgroup.procs",
        "/proc/sys/kernel/core_pattern",
        "/dev/kmsg",
        "/dev/mem",
    ):
        _refused(path, lambda path=path: os.open(path, os.O_RDONLY))  # type: ignore[misc]
    if os.listdir("/dev/shm") or set(os.listdir("/tmp")) - set(config["tmp"]):  # noqa: S108 - of the sandbox
        raise Reached("files of an earlier run")
    return "read-only but for the task's own; no /sys, no device; nothing of an earlier run"


def limits(config: dict[str, Any]) -> str:
    """More processes, files or bytes than planned."""
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):
        raise Reached("core dumps")
    if config["unlimited"]:
        return "none, as the policy says; and no core dumps"
    with open("large", "wb") as file:
        _refused("a file over the limit", lambda: os.ftruncate(file.fileno(), config["disk_bytes"] + 1))
    os.unlink("large")
    error = _refused_in_time("processes over the limit", lambda: list(_forks(config["processes"] + 1)))
    return f"a file that is too large is refused, and a process too many: {error}"


def _forks(count: int) -> Iterator[int]:
    reading, writing = os.pipe()
    children = []
    try:
        for _ in range(count):
            child = os.fork()
            if child == 0:
                os.close(writing)
                os.read(reading, 1)
                os._exit(0)
            children.append(child)
            yield child
    finally:
        os.close(writing)
        os.close(reading)
        for child in children:
            os.waitpid(child, 0)


PROBES: tuple[Callable[[dict[str, Any]], str], ...] = (
    secrets,
    worker,
    processes,
    environment,
    descriptors,
    privileges,
    system_calls,
    sockets,
    network,
    names,
    doors,
    files,
    limits,
)


def main(config_file: str) -> int:
    """Run all probes; the exit code says nothing, the lines do."""
    with open(config_file) as file:
        config = json.load(file)
    for probe in PROBES:
        try:
            line = {"probe": probe.__name__, "passed": True, "says": probe(config)}
        except Exception as error:  # noqa: BLE001 - a probe that breaks has not passed, and the others go on
            line = {"probe": probe.__name__, "passed": False, "says": f"{type(error).__name__}: {error}"}
        print(json.dumps(line), flush=True)  # noqa: T201 - this is the answer
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
