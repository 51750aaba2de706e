"""Finding out what this host has, for the sandbox to be made and for `secureworker doctor` to show."""

import os
import platform
import resource

from secureworker.core.errors import SandboxError
from secureworker.sandbox import runtime, seccomp
from secureworker.sandbox.facts import HostFacts
from secureworker.sandbox.runtime import Runtime

_ETC_BINDS = (
    "/etc/alternatives",
    "/etc/crypto-policies",
    "/etc/ld.so.cache",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
)
"""Certificates, the loader's cache, and what commands link to. No keys: /etc/ssl/private is not here."""
_ROOT_LINKS = ("/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin")
_LIMITS = ("CORE", "FSIZE", "MEMLOCK", "MSGQUEUE", "NOFILE", "NPROC", "RTPRIO", "SIGPENDING")
INITS = ("/usr/bin/tini-static", "/usr/bin/docker-init", "/usr/libexec/tini-static")


def find_runtime(wanted: str | None, *, unified: bool) -> Runtime:
    """Choose the OCI runtime.

    Args:
        wanted: name or path; None for the better one that is installed.
        unified: whether limits are set by cgroup version 2: then crun is preferred, which is twice as fast. It
            refuses hosts with version 1.
    """
    if wanted is not None:
        path = wanted if "/" in wanted else runtime.find(wanted)
        if path is None:
            raise SandboxError(
                f"the OCI runtime {wanted} is not installed; take runc or crun (Debian: apt-get install runc crun)"
            )
        return runtime.identify(path)
    for name in ("crun", "runc") if unified else ("runc",):
        path = runtime.find(name)
        if path is not None:
            return runtime.identify(path)
    names = "crun or runc" if unified else "runc (this host has cgroups of version 1, which crun does not take)"
    raise SandboxError(f"there is no OCI runtime: install {names} (Debian: apt-get install runc)")


def find_init() -> str:
    """Give the path of a static tini.

    Raises:
        SandboxError: there is none below /usr.
    """
    for path in INITS:
        if os.access(path, os.X_OK):
            return path
    raise SandboxError(f"there is no static tini in {' or '.join(INITS)} (Debian: apt-get install tini)")


def root_links() -> tuple[tuple[str, str], ...]:
    """Give the links that merge `/` with `/usr`.

    Raises:
        SandboxError: the host is not merged, so that `/usr` alone holds no whole system.
    """
    links = []
    for name in _ROOT_LINKS:
        if os.path.islink(name):
            links.append((name, os.readlink(name).strip("/")))
        elif os.path.isdir(name):
            raise SandboxError(f"{name} is a directory: this host's / is not merged with /usr (Debian: usrmerge)")
    return tuple(links)


def survey(chosen: Runtime, machine: str = "") -> HostFacts:
    """Collect what bundles are made from; `machine` is this host's where it is empty."""
    machine = machine or platform.machine()
    try:
        profile = seccomp.oci(seccomp.load(), machine)
    except KeyError as error:
        raise SandboxError(f"there is no system-call filter for the architecture {machine}") from error
    return HostFacts(
        runtime_name=chosen.name,
        runtime_version=chosen.version,
        machine=machine,
        init=find_init(),
        root_links=root_links(),
        etc_directories=tuple(path for path in _ETC_BINDS if os.path.isdir(path)),
        etc_files=tuple(path for path in _ETC_BINDS if os.path.isfile(path)),
        hard_limits=hard_limits(),
        seccomp=profile,
    )


def hard_limits() -> dict[str, int]:
    """Give this process's hard limits, those that are none left out."""
    limits = {f"RLIMIT_{name}": resource.getrlimit(_number(name))[1] for name in _LIMITS}
    return {name: value for name, value in limits.items() if value != resource.RLIM_INFINITY}


def _number(name: str) -> int:
    number: int = getattr(resource, f"RLIMIT_{name}")
    return number
