"""Where this worker's own credentials come from, and what keeps them alive beside the claim loop."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias, assert_never

from secureworker.core.claim import Credentials, Secret
from secureworker.core.ids import WorkerIdentity
from secureworker.host.credentials import read_credentials
from secureworker.host.own_credentials import OwnCredentials
from secureworker.ports import Clock
from secureworker.registration.expiry import watch_expiry
from secureworker.registration.runner import Check, Ending, Runner
from secureworker.registration.static import StaticRegistration, StaticSettings, WorkerManager
from secureworker.registration.watched import watch_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CredentialsFile:
    """A file that somebody replaces before what is in it ends."""

    path: str


@dataclass(frozen=True, slots=True)
class StaticProvider:
    """worker-manager gives them, to a worker that it knows."""

    provider_id: str
    static_secret: Secret
    kept: str
    """Path of the private file that the registration is kept in."""


@dataclass(frozen=True, slots=True)
class FromRunner:
    """worker-runner gives them: the first in a file, others by its protocol."""

    runner: Runner
    own: OwnCredentials
    """Those of the file, and later the newest: they outlive a change of the policy."""


Source: TypeAlias = Credentials | CredentialsFile | StaticProvider | FromRunner
"""`Credentials` alone are all that the worker will have."""

Keeper: TypeAlias = Coroutine[Any, Any, NoReturn]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all sources need."""

    identity: WorkerIdentity
    root_url: str
    manager: WorkerManager
    check: Check
    """Raises HostError where credentials are not those that this worker needs, ServiceError where that is unknown."""
    clock: Clock


@dataclass(frozen=True, slots=True)
class Held:
    """Credentials that are checked, and what keeps them alive."""

    own: OwnCredentials
    keepers: Callable[[Ending], tuple[Keeper, ...]]
    """To be run beside the claim loop. None of them ever returns or raises."""
    lapsed: list[str]
    """Why the worker drained because of its credentials: empty, unless it did."""


async def begin(source: Source, around: Surroundings) -> Held:
    """Get the first credentials, and see that they are those that this worker needs.

    Raises:
        HostError: they are not, or worker-manager refuses the worker.
        ServiceError: Auth or worker-manager cannot be reached.
    """
    own, renewing = await _first(source, around)
    await around.check(own.current())
    lapsed: list[str] = []

    def keepers(ending: Ending) -> tuple[Keeper, ...]:
        def lapse(reason: str) -> None:
            if isinstance(source, CredentialsFile):
                # Somebody may replace it yet. Until then nothing is claimed, and the runs end with their own.
                logger.warning("%s in %s", reason, source.path)
                return
            lapsed.append(reason)
            ending.drain(reason)

        found = (watch_expiry(own, around.clock, lapse), *(each(ending) for each in renewing))
        return tuple(_undisturbed(keeper, ending) for keeper in found)

    return Held(own, keepers, lapsed)


async def _first(source: Source, around: Surroundings) -> tuple[OwnCredentials, tuple[Callable[[Ending], Keeper], ...]]:
    """Get the first credentials, and what gets others later."""
    match source:
        case Credentials():
            return OwnCredentials(source), ()
        case CredentialsFile(path=path):
            read = OwnCredentials(await asyncio.to_thread(read_credentials, path))
            return read, (lambda _: watch_file(path, read, around.check, around.clock),)
        case FromRunner(runner=runner, own=newest):
            return newest, (lambda ending: runner.serve(newest, around.check, ending, around.clock),)
        case StaticProvider():
            settings = StaticSettings(
                around.identity, around.root_url, source.provider_id, source.static_secret, source.kept
            )
            registration = StaticRegistration(settings, around.manager, around.clock)
            registered = OwnCredentials(await registration.begin())
            return registered, (lambda _: registration.keep(registered, around.check),)
        case _:
            assert_never(source)


async def _undisturbed(keeper: Keeper, ending: Ending) -> NoReturn:
    """Keep an error in renewing credentials away from the runs: they go on with their own, and the worker drains."""
    try:
        await keeper
    except Exception:
        logger.exception("an error of the worker's own while keeping its credentials")
        ending.drain("the worker's credentials are not kept any more")
    await asyncio.Event().wait()
    raise AssertionError  # nobody sets it
