"""An ordinary user with subordinate ids, for tests that are run by root: nothing of the host is changed.

In a mount namespace of its own, a host is shown whose password file and tables of subordinate ids know the user, and
on which everybody may get to the interpreter and to these sources (they may lie in root's home).
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

USER, UID = "secureworker-test", 54_321
FIRST, COUNT = 3_000_000_000, 1000
"""Outside: ids that nobody else has; inside: 1 to 1000."""
TABLE = f"{USER}:{FIRST}:{COUNT}\n"
"""Of subordinate ids, for users and groups."""
CHECKOUT = Path(__file__).parent.parent.parent


def _shown(directory: Path, files: dict[str, str]) -> list[str]:
    lines = []
    for path, content in files.items():
        shown = directory / Path(path).name
        shown.write_text(content)
        shown.chmod(0o644)
        lines.append(f"mount --bind {shown} {path}")
    return lines


def _opened(directory: Path) -> list[str]:
    """Give commands that put a passable directory in the place of every closed one above what the user needs."""
    needed = {Path(path).resolve() for path in (CHECKOUT, sys.prefix, sys.base_prefix)}
    lines = []
    closed = {above for path in needed for above in path.parents if not above.stat().st_mode & 0o001}
    for number, above in enumerate(sorted(closed)):
        if any(other in above.parents for other in closed):
            continue
        within = sorted(path for path in needed if above in path.parents)
        keep = [directory / f"kept-{number}-{place}" for place in range(len(within))]
        for path, kept in zip(within, keep, strict=True):
            kept.mkdir(exist_ok=True)
            lines.append(f"mount --rbind {path} {kept}")
        lines.append(f"mount -t tmpfs -o mode=755 tmpfs {above}")
        for path, kept in zip(within, keep, strict=True):
            lines += [f"mkdir -p {path}", f"mount --rbind {kept} {path}"]
    return lines


def command(directory: Path, *arguments: str, table: str = TABLE) -> list[str]:
    """Give what root calls to run Python with `arguments` as the user, in the user's directory `directory/user`."""
    home = directory / "user"
    home.mkdir(exist_ok=True)
    home.chmod(0o711)
    os.chown(home, UID, UID)
    host = directory / "host"
    host.mkdir(exist_ok=True)
    host.chmod(0o755)
    passwd = Path("/etc/passwd").read_text() + f"{USER}:x:{UID}:{UID}::{home}:/bin/sh\n"
    lines = [
        "set -e",
        *_shown(host, {"/etc/passwd": passwd, "/etc/subuid": table, "/etc/subgid": table}),
        *_opened(host),
        # Where the locks of ids are.
        "mount -t tmpfs -o mode=1777 tmpfs /dev/shm",
        f"cd {home}",
        # Again, or these would be found where they lie outside of the new mounts.
        f"exec setpriv --reuid {UID} --regid {UID} --clear-groups {shlex.join([sys.executable, *arguments])}",
    ]
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines)]


def environment() -> dict[str, str]:
    """Give the user's environment; with what makes coverage measure, where there is a place for that alone."""
    measured = {}
    if "COVERAGE_FILE" in os.environ:
        Path(os.environ["COVERAGE_FILE"]).parent.chmod(0o1777)
        measured = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(CHECKOUT), **measured}


def run(directory: Path, program: str, *arguments: str, table: str = TABLE) -> subprocess.CompletedProcess[str]:
    """Run a program in Python as the user, until it ends."""
    return subprocess.run(
        command(directory, "-c", program, *arguments, table=table),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment(),
    )
