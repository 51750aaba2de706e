"""Registering at worker-manager as a static worker, and again before the credentials end.

A static worker proves itself by a secret that its administrator has put on the host. What it gets are credentials, and
a second secret that the next registration takes, once. Those are kept in a private file, so that a restart goes on with
them. Where they are of no use any more, the worker registers anew.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol, TypeAlias, final

from secureworker.core.claim import Credentials, Secret
from secureworker.core.errors import AccessDenied, HostError, ServiceError, SettingsError
from secureworker.core.ids import WorkerIdentity
from secureworker.core.registration import Registered, read_registered, renew_in, write_registered
from secureworker.host.own_credentials import OwnCredentials
from secureworker.host.private import read_private, replace_private
from secureworker.ports import Clock

logger = logging.getLogger(__name__)

SYSTEMD_NAME: Final = "worker-registration"
"""Of the credential with the static secret in `$CREDENTIALS_DIRECTORY`."""
RETRY_SECONDS: Final = (10.0, 30.0, 60.0, 300.0)
"""Between attempts to register while worker-manager cannot be reached; the last one repeats."""
_FORM: Final = re.compile(r"[A-Za-z0-9_-]{44}")
_MOST_BYTES: Final = 65_536


class WorkerManager(Protocol):
    """What is asked of worker-manager; see `queue.services`."""

    async def register(self, identity: WorkerIdentity, provider_id: str, static_secret: Secret) -> Registered:
        """Register; HostError where worker-manager refuses, ServiceError where it cannot be reached."""

    async def reregister(self, identity: WorkerIdentity, last: Registered) -> Registered:
        """Get new credentials; AccessDenied where it refuses, ServiceError where it cannot be reached."""


Check: TypeAlias = Callable[[Credentials], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class StaticSettings:
    """How this worker registers."""

    identity: WorkerIdentity
    root_url: str
    provider_id: str
    static_secret: Secret
    kept: str
    """Path of the private file that outlives the process."""


def read_static_secret(path: str | None, credentials_directory: str | None) -> Secret:
    """Read the secret that proves who this worker is: the file that is named, else systemd's `worker-registration`.

    Raises:
        SettingsError: there is none, others could have it, or it has not the form of one.
    """
    from_systemd = path is None
    if path is None:
        if not credentials_directory:
            raise SettingsError(
                "there is no secret to register with; give a file with mode 0600 by --registration-secret, or load one "
                f"with systemd (LoadCredential={SYSTEMD_NAME}:...)"
            )
        path = f"{credentials_directory}/{SYSTEMD_NAME}"
    content = read_private(path, "the registration secret", most_bytes=1024, group_may_read=from_systemd)
    text = content.decode(errors="replace").strip()
    if not _FORM.fullmatch(text):
        raise SettingsError(
            f"the registration secret {path} has not the form of one: 44 letters, digits, '-' and '_' are expected"
        )
    return Secret(text)


@final
class StaticRegistration:
    """One worker's registration: what it is now, and how it goes on."""

    def __init__(self, settings: StaticSettings, manager: WorkerManager, clock: Clock) -> None:
        self._settings = settings
        self._manager = manager
        self._clock = clock
        self._last: Registered | None = None

    async def begin(self) -> Credentials:
        """Go on with what an earlier process kept; where that is of no use, register anew.

        Raises:
            HostError: worker-manager refuses this worker, or what it gave cannot be kept.
            ServiceError: it cannot be reached.
        """
        self._last = await asyncio.to_thread(self._read_kept)
        return (await self._renew()).credentials

    async def keep(self, own: OwnCredentials, check: Check) -> NoReturn:
        """Register again long before the credentials end, for ever. Needs `begin`.

        While worker-manager cannot be reached, or gives what the worker must not have, it is tried again; others see to
        it that nothing is claimed with credentials that end.
        """
        failures = 0
        while True:
            assert self._last is not None
            pause = renew_in(self._last.expires, self._clock.now()).total_seconds()
            await self._clock.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1] if failures else pause)
            try:
                fresh = await self._renew()
                await check(fresh.credentials)
            except (ServiceError, HostError) as error:
                failures += 1
                logger.warning("the registration is not renewed yet: %s", error)
                continue
            failures = 0
            own.take(fresh.credentials)
            logger.info("registered again, until %s", fresh.expires.isoformat(timespec="seconds"))

    async def _renew(self) -> Registered:
        settings, last = self._settings, self._last
        fresh: Registered | None = None
        if last is not None and last.expires > self._clock.now():
            try:
                fresh = await self._manager.reregister(settings.identity, last)
            except AccessDenied as error:
                # Its answer may have been lost on the way, and the secret with it: the static one proves us still.
                logger.warning("%s; registering anew", error)
        if fresh is None:
            fresh = await self._manager.register(settings.identity, settings.provider_id, settings.static_secret)
        # Kept before it is used: a secret that is used and not kept would be lost with the process.
        self._last = fresh
        await asyncio.to_thread(self._write_kept, fresh)
        return fresh

    def _read_kept(self) -> Registered | None:
        settings = self._settings
        try:
            content = read_private(settings.kept, "the registration", most_bytes=_MOST_BYTES)
            return read_registered(content, settings.identity, settings.root_url)
        except (SettingsError, ValueError) as error:
            logger.info("registering anew, as no earlier registration can be used: %s", error)
            return None

    def _write_kept(self, registered: Registered) -> None:
        settings = self._settings
        try:
            replace_private(settings.kept, write_registered(registered, settings.identity, settings.root_url))
        except OSError as error:
            raise HostError(f"the registration cannot be kept in {settings.kept}: {error.strerror}") from error
