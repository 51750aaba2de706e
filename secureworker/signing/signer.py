"""A signer in the process that asks it, with all the checks of the one that workers use, and nothing written down.

For tests, and for whoever embeds statements in something else. A worker's signer is a process of its own: `process`.
"""

import asyncio

from secureworker.core.audit import AuditRecord
from secureworker.core.ids import Sha256, WorkerIdentity
from secureworker.ports import SignedFile, Statement
from secureworker.signing.desk import MAX_REMEMBERED, Bounds, Desk, SignedRuns
from secureworker.signing.publickeys import Key, PublicKey


class _Nowhere:
    """Where nothing is written down."""

    def write(self, record: AuditRecord) -> None:
        """Forget it."""


class InProcessSigner:
    """Signs for one worker: the `Signer` port."""

    def __init__(
        self,
        key: Key,
        worker: WorkerIdentity,
        policy_sha256: Sha256,
        *,
        root_url: str,
        remembered_runs: int = MAX_REMEMBERED,
    ) -> None:
        bounds = Bounds(worker, frozenset({policy_sha256}), root_url)
        self._desk = Desk(key, bounds, _Nowhere(), SignedRuns(remembered_runs))

    @property
    def public_key(self) -> PublicKey:
        """What verifies what this signs."""
        return self._desk.public_key

    async def sign(self, statement: Statement) -> tuple[SignedFile, ...]:
        """See `ports.Signer`; asked again with the same request, give the same bytes."""
        # A definition of 1 MB, or 10,000 artifacts, takes some 50 ms to write.
        return await asyncio.to_thread(self._desk.sign, statement)
