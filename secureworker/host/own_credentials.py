"""The worker's own credentials while it runs: one place that all who use them ask, and that renewals write to."""

import asyncio
from typing import Final, final

from secureworker.core.claim import Credentials

_REMEMBERED: Final = 8
"""Sets of credentials that logs still mask: those before them have ended."""


@final
class OwnCredentials:
    """The newest credentials of the worker. To be asked for every use, never kept."""

    def __init__(self, first: Credentials) -> None:
        self._held: tuple[Credentials, ...] = (first,)
        self._taken = asyncio.Event()

    def __repr__(self) -> str:
        return f"OwnCredentials({self.current().client_id!r})"

    def current(self) -> Credentials:
        """Give the newest."""
        return self._held[-1]

    def take(self, new: Credentials) -> None:
        """Use `new` from now on; requests under way end with what they began with."""
        self._held = (*self._held, new)[-_REMEMBERED:]
        self._taken.set()
        self._taken = asyncio.Event()

    async def taken(self) -> None:
        """Return when others have been taken."""
        await self._taken.wait()

    def masked(self) -> tuple[bytes, ...]:
        """Give what must not be seen in a log: of the newest and of some before them."""
        return tuple(
            secret.reveal().encode()
            for credentials in self._held
            for secret in (credentials.access_token, credentials.certificate)
            if secret is not None
        )
