"""Scripts in the real sandbox, with doors that are served from outside, and clients to go through them."""

import fcntl
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from secureworker.core.doors import Doors, Traffic
from secureworker.core.outcome import ExitCode
from secureworker.core.plan import Mount
from secureworker.proxy.doors import ProxyDoors, open_doors
from secureworker.proxy.tunnel import TunnelLimits
from secureworker.sandbox.netns import NamespaceNetworks
from tests.proxy.harness import Authority, resolver
from tests.sandbox.cage import Cage, Heard, a_cage, a_directory, some_limits

NPM = Path(__file__).parent / "npm"
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "npm_config_cafile")


@dataclass
class Said(Heard):
    """A task log that keeps the worker's lines apart from the script's."""

    def __post_init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass(frozen=True)
class Result:
    """What came of a script."""

    output: str
    status: object
    notes: list[str]
    traffic: tuple[Traffic, ...]

    def succeeded(self) -> str:
        assert self.status == ExitCode(0), self.output
        return self.output


@dataclass(frozen=True)
class DoorCage:
    """A sandbox, and doors for what runs in it."""

    cage: Cage
    proxy: ProxyDoors
    names: dict[str, str]

    async def run(
        self, script: str, doors: Doors, *, run: Any, root_url: str, authority: Authority | None = None, **changes: Any
    ) -> Result:
        """Run a script with doors. `mounts` and `environment` are added to what clients need."""
        mounts = (*python_mounts(), *changes.pop("mounts", ()))
        environment: Mapping[str, str] = changes.pop("environment", {})
        if authority is not None:
            # The tests' own directories let nobody else pass.
            place = self.cage.directory / "authority"
            place.mkdir(exist_ok=True)
            shutil.copy(authority.file, place / "ca.pem")
            mounts += (Mount(str(place), "/opt/authority"),)
            environment = dict.fromkeys(CA_VARIABLES, "/opt/authority/ca.pem") | dict(environment)
        limits = changes.pop(
            "limits", some_limits(memory_bytes=1 << 30, open_files=1024, disk_bytes=1 << 28, files=10_000)
        )
        plan = self.cage.plan(
            script, doors=doors, root_url=root_url, mounts=mounts, environment=tuple(environment.items()), limits=limits
        )
        plan = replace(plan, **changes)
        log = Said()
        async with (
            self.cage.workspaces.open(plan) as workspace,
            NamespaceNetworks().open(plan) as network,
            self.proxy.open(run, plan, network, log) as opened,
        ):
            execution = await self.cage.sandbox.run(plan, workspace, log, network)
            return Result(log.text, execution.status, log.notes, opened.traffic())


def python_mounts() -> tuple[Mount, ...]:
    """Show the environment that the tests run in, and its interpreter."""
    places = {Path(sys.prefix), Path(sys.base_prefix)}
    return tuple(Mount(str(place), str(place)) for place in sorted(places) if not place.is_relative_to("/usr"))


def python(program: str) -> str:
    """Write a script for that interpreter."""
    return f"#!{sys.executable}\n{program}\n"


@asynccontextmanager
async def a_door_cage(runtime: str = "runc", limits: TunnelLimits | None = None) -> AsyncIterator[DoorCage]:
    names: dict[str, str] = {}
    with a_directory() as directory:
        async with a_cage(directory, runtime) as cage, open_doors(limits or TunnelLimits(), resolver(names)) as proxy:
            yield DoorCage(cage, proxy, names)


def npm_modules() -> Path:
    """Give a directory with the locked npm packages, installed once by npm itself. Skip where there is no node."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    place = Path(sys.prefix) / "npm-clients"
    place.mkdir(exist_ok=True)
    with (Path(sys.prefix) / "npm-clients.guard").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        lock = (NPM / "package-lock.json").read_bytes()
        stamp = place / "installed"
        if not stamp.exists() or stamp.read_bytes() != lock:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(NPM / name, place / name)
            install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            subprocess.run(install, cwd=place, check=True)
            stamp.write_bytes(lock)
    return place
