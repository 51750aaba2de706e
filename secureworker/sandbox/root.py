"""The generated root directory of a run: empty mount points, the links that merge `/` with `/usr`, a minimal `/etc`.

Made by and belonging to the worker, read-only for everybody else, and new for every run: nothing in it can have been
prepared by anybody.
"""

import os
from collections.abc import Mapping

from secureworker.core.errors import SandboxError
from secureworker.core.plan import HOME_DIR
from secureworker.host import files
from secureworker.sandbox.bundle import SCRIPT_UID
from secureworker.sandbox.facts import HostFacts

_ETC = {
    "passwd": f"root:x:0:0:root:/:/usr/sbin/nologin\nscript:x:{SCRIPT_UID}:{SCRIPT_UID}:script:{HOME_DIR}:/bin/sh\n",
    "group": f"root:x:0:\nscript:x:{SCRIPT_UID}:\n",
    "hosts": "127.0.0.1 localhost taskcluster\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "resolv.conf": "",
}


def make_root(root: str, targets: tuple[str, ...], sources: Mapping[str, str], facts: HostFacts) -> None:
    """Make `root`, which must not exist.

    Args:
        root: host path; every directory above it must let others pass.
        targets: mount points inside, parents first.
        sources: host paths of those mounts that are binds, by target.
        facts: of this host.

    Raises:
        SandboxError: a mount point cannot be made, or lies in another mount that does not have it.
    """
    try:
        files.make_directory(root, mode=0o755)
        for name, link in facts.root_links:
            os.symlink(link, root + name)
        files.make_directory(f"{root}/etc", mode=0o755)
        for name, content in _ETC.items():
            files.write_new(f"{root}/etc/{name}", content.encode(), mode=0o644)
        for target in targets:
            _make_mount_point(root, target, sources)
    except OSError as error:
        raise SandboxError(f"the sandbox's root cannot be made in {root}: {error.strerror}") from error


def _make_mount_point(root: str, target: str, sources: Mapping[str, str]) -> None:
    # A target within another mount is looked for in that one's source: it must be there already.
    for parent, source in sources.items():
        if target.startswith(f"{parent}/"):
            if not os.path.lexists(source + target.removeprefix(parent)):
                raise SandboxError(
                    f"{target} cannot be mounted: it lies in the mount {parent}, which has no such place; "
                    "make it there, or choose another target"
                )
            return
    if target.startswith(("/dev/", "/tmp/")):  # noqa: S108 - the sandbox's own
        return  # In a tmpfs: the runtime makes it there.
    *parents, last = target.strip("/").split("/")
    path = root
    for name in parents:
        path = f"{path}/{name}"
        if not os.path.lexists(path):
            files.make_directory(path, mode=0o755)
    if os.path.lexists(f"{path}/{last}"):
        return
    if target in sources and not os.path.isdir(sources[target]):
        files.write_new(f"{path}/{last}", b"", mode=0o444)
    else:
        files.make_directory(f"{path}/{last}", mode=0o755)
