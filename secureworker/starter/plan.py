"""Which files a host begins with, and writing them: all that are wanted, none that is there already."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files as package_files
from typing import Final

from secureworker.core.errors import SettingsError
from secureworker.core.ids import ScriptName, Sha256
from secureworker.host import files
from secureworker.signing.keys import create_signing_key
from secureworker.starter import host, texts

USUAL_STATE: Final = "/var/lib/secureworker"
USUAL_DIRECTORY: Final = "/etc/secureworker"
_USUAL_PREFIX: Final = "/opt/secureworker"
_PLAIN_PATH: Final = re.compile(r"/[A-Za-z0-9._/@+-]*")
"""Paths that mean the same in a unit, a file of variables, YAML and a shell."""
_STATE_LINES: Final = "StateDirectory=secureworker\nStateDirectoryMode=0711\n"
_UNITS: Final = ("secureworker.service", "secureworker-signer.service")
_PLACES: Final = {
    "secureworker.service": "/etc/systemd/system/secureworker.service",
    "secureworker-signer.service": "/etc/systemd/system/secureworker-signer.service",
    "secureworker.sysusers": "/etc/sysusers.d/secureworker.conf",
    "secureworker.tmpfiles": "/etc/tmpfiles.d/secureworker.conf",
}
_PACKAGED: Final = {
    "secureworker.service": "/usr/lib/systemd/system/secureworker.service",
    "secureworker-signer.service": "/usr/lib/systemd/system/secureworker-signer.service",
    "secureworker.sysusers": "/usr/lib/sysusers.d/secureworker.conf",
    "secureworker.tmpfiles": "/usr/lib/tmpfiles.d/secureworker.conf",
}
"""Where a package puts them: there they are left alone, and need not be written again."""


@dataclass(frozen=True, slots=True)
class File:
    """A file to be written."""

    path: str
    what: str
    """For people: a word or two."""
    content: bytes | None
    """None: a signing key, which is made when it is written."""
    mode: int = 0o644

    @property
    def paths(self) -> tuple[str, ...]:
        """Give the paths that must not exist."""
        return (self.path,) if self.content is not None else (self.path, f"{self.path}.pub")


@dataclass(frozen=True, slots=True)
class Planned:
    """What is to be done on a host."""

    files: tuple[File, ...]
    installed: tuple[str, ...]
    """Units that are there already, as they should be."""


def plain(path: str, what: str) -> str:
    """Give an absolute path without surprises.

    Raises:
        SettingsError: it has characters that would have to be quoted in one of the files.
    """
    absolute = os.path.abspath(path)
    if not _PLAIN_PATH.fullmatch(absolute):
        raise SettingsError(f"{what} {absolute!r}: use a path of letters, digits and . _ - @ + only")
    return absolute


def find_scripts(paths: tuple[str, ...]) -> tuple[texts.Script, ...]:
    """Name and measure the scripts that the policy shall allow.

    Raises:
        SettingsError: one cannot be read or executed, or two would have the same name.
    """
    found: dict[str, texts.Script] = {}
    for given in paths:
        path = plain(given, "the script")
        stem = re.sub(r"[^a-z0-9-]+", "-", os.path.splitext(os.path.basename(path))[0].lower()).strip("-")
        try:
            name = ScriptName(stem[:63])
            with open(path, "rb") as file:
                sha256 = Sha256(hashlib.file_digest(file, "sha256").hexdigest())
        except ValueError as error:
            raise SettingsError(f"the script {path}: {error}; rename the file") from error
        except OSError as error:
            raise SettingsError(f"the script {path} cannot be read: {error.strerror}") from error
        if not os.access(path, os.X_OK):
            raise SettingsError(f"the script {path} is not executable; chmod +x it")
        if name in found:
            raise SettingsError(f"two scripts would be called {name}: {found[name].path} and {path}; rename one")
        found[name] = texts.Script(name, path, sha256)
    return tuple(found.values())


def plan(
    worker: texts.Worker, admits: texts.Admits, scripts: tuple[texts.Script, ...], units: str | None = None
) -> Planned:
    """Say what is to be written. Looks at the host only for units that are there already.

    Args:
        worker: who it is.
        admits: which tasks its policy admits.
        scripts: which its policy allows; none: an example, which is written too.
        units: a directory for units and what belongs to them; None: where systemd looks for them.
    """
    found: list[File] = []
    if not scripts:
        example = package_files("secureworker").joinpath("_policies", "scripts", "hello").read_bytes()
        digest = Sha256(hashlib.sha256(example).hexdigest())
        scripts = (texts.Script(ScriptName("hello"), "scripts/hello", digest),)
        found.append(File(worker.path("scripts/hello"), "example script", example, 0o755))
    found += [
        File(worker.path("policy.yml"), "policy", texts.policy(worker, admits, scripts).encode()),
        File(worker.path("worker.env"), "settings", texts.worker_settings(worker).encode()),
        File(worker.path("signing.key"), "signing key", None, 0o400),
    ]
    installed = []
    if worker.units:
        found.append(File(worker.path("signer.yml"), "settings of the signer", texts.signer_settings(worker).encode()))
        for name in _PLACES:
            content = unit(name, worker)
            there = host.same_file(_PACKAGED[name], content) if units is None else False
            if there:
                installed.append(_PACKAGED[name])
            else:
                path = _PLACES[name] if units is None else os.path.join(units, name)
                found.append(File(path, "unit" if name in _UNITS else f"for systemd-{name.partition('.')[2]}", content))
    return Planned(tuple(found), tuple(installed))


def unit(name: str, worker: texts.Worker) -> bytes:
    """Give a file of deploy/systemd with the paths of this host."""
    text = package_files("secureworker").joinpath("_units", name).read_text(encoding="utf-8")
    if worker.state_dir != USUAL_STATE:
        text = text.replace(_STATE_LINES, f"ReadWritePaths={worker.state_dir}\n")
    program = host.program()
    places: Mapping[str, str] = {
        f"{_USUAL_PREFIX}/bin/secureworker": program,
        USUAL_DIRECTORY: worker.directory,
        USUAL_STATE: worker.state_dir,
    }
    return host.replaced(text, places).encode()


def existing(planned: Planned) -> tuple[str, ...]:
    """Name what is there already, and so is in the way."""
    return tuple(path for file in planned.files for path in file.paths if os.path.lexists(path))


def write(planned: Planned, directories: tuple[tuple[str, int], ...] = ()) -> tuple[str, ...]:
    """Write everything; give the paths.

    Args:
        planned: what.
        directories: others that are to be there, with their modes.

    Raises:
        SettingsError: a file is there already, or cannot be written; what was written before it stays, and is named.
    """
    done: list[str] = []
    try:
        for directory, mode in directories:
            if not os.path.isdir(directory):
                _make(os.path.dirname(directory))
                files.make_directory(directory, mode=mode)
        for file in planned.files:
            _make(os.path.dirname(file.path))
            if file.content is None:
                create_signing_key(file.path)
            else:
                files.write_new(file.path, file.content, mode=file.mode)
            done += file.paths
    except OSError as error:
        after = f"; written before it, and still there: {', '.join(done)}" if done else ""
        raise SettingsError(
            f"{error.filename} cannot be written: {error.strerror}{after}; run this as root, or give other directories"
        ) from error
    return tuple(done)


def _make(directory: str) -> None:
    """Make a directory and those above it, each readable by all and writable by nobody else, whatever the umask."""
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    for path in reversed(missing):
        files.make_directory(path, mode=0o755)
