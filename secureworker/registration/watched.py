"""Taking over credentials whose file was replaced, without a pause."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

from secureworker.core.claim import Credentials
from secureworker.core.errors import AccessDenied, HostError, ServiceError
from secureworker.host.credentials import read_credentials
from secureworker.host.own_credentials import OwnCredentials
from secureworker.ports import Clock

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 10.0
"""Between looks at the file. Whoever replaces it a minute before the old credentials end is in time."""

Check: TypeAlias = Callable[[Credentials], Awaitable[None]]
"""Raises HostError or ServiceError where credentials are not those that the worker needs."""
_Version: TypeAlias = tuple[int, int, int, int] | None


async def watch_file(path: str, own: OwnCredentials, check: Check, clock: Clock) -> NoReturn:
    """Take over what the credentials file at `path` holds, whenever it is replaced. Never returns.

    Each version of the file is read once. One that cannot be used, or whose scopes are not those that the worker needs,
    is an error in the log, and the old credentials stay; so nothing is worse for a mistake than it was before.
    """
    seen: _Version = None  # The first look finds what was replaced while the worker started.
    while True:
        await clock.sleep(LOOK_SECONDS)
        found = await asyncio.to_thread(_version, path)
        if found == seen:
            continue
        try:
            fresh = await asyncio.to_thread(read_credentials, path)
            if fresh != own.current():
                await check(fresh)
                own.take(fresh)
                logger.info("using the new credentials of %s from %s", fresh.client_id, path)
        except (AccessDenied, HostError) as error:
            logger.error("the new credentials are not used, the old ones stay: %s", error)  # noqa: TRY400 - it says all
        except ServiceError as error:
            logger.warning("the new credentials in %s cannot be checked now: %s", path, error)
            continue  # They are looked at again.
        seen = found


def _version(path: str) -> _Version:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
