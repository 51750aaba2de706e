"""The signer: holds the key, builds what it signs itself, and refuses what is not this worker's to say.

It runs in the worker's process for now. Its interface is that of the separate process it will become: it is asked
with typed requests (`Statement`), never with bytes, and trusts no fact about the worker but its own settings.
"""

import asyncio
import threading
from collections import OrderedDict

from secureworker.core.errors import HostError
from secureworker.core.ids import RunId, Sha256, TaskId, WorkerIdentity
from secureworker.ports import SignedFile, Statement
from secureworker.signing.keys import PublicKey, SigningKey
from secureworker.signing.statements import build, sign

_REMEMBERED_RUNS = 10_000
"""About 2 MB. A run is signed for once, within its claim; a worker's runs are hours apart from being forgotten."""


class InProcessSigner:
    """Signs for one worker: the `Signer` port."""

    def __init__(
        self,
        key: SigningKey,
        worker: WorkerIdentity,
        policy_sha256: Sha256,
        *,
        root_url: str,
        remembered_runs: int = _REMEMBERED_RUNS,
    ) -> None:
        self._key = key
        self._worker = worker
        self._policy_sha256 = policy_sha256
        self._root_url = root_url
        self._remembered_runs = remembered_runs
        self._lock = threading.Lock()
        self._signed: OrderedDict[tuple[TaskId, RunId], bytes] = OrderedDict()

    @property
    def public_key(self) -> PublicKey:
        """What verifies what this signs."""
        return self._key.public

    async def sign(self, statement: Statement) -> tuple[SignedFile, ...]:
        """Make and sign the statements of a run; asked again with the same request, give the same bytes.

        Raises:
            HostError: the statement is not of this worker, or differs from one already signed for the run.
            BadPayload: the task's definition cannot be written as a statement.
        """
        # A definition of 1 MB, or 10,000 artifacts, takes some 50 ms to write.
        return await asyncio.to_thread(self._sign, statement)

    def _sign(self, statement: Statement) -> tuple[SignedFile, ...]:
        """Check, build, remember, sign: in this order.

        1. The claim names this worker: pool, group and id.
        2. The task was written for this pool.
        3. The deployment and the policy are those this signer was started for.
        4. No other statement was signed for this run.
        """
        claim = statement.claim
        # 1.
        if claim.worker != self._worker:
            raise HostError(f"the signer of {self._worker} refuses a statement of {claim.worker}")
        # 2.
        if claim.task.pool != self._worker.pool:
            raise HostError(f"the signer of {self._worker} refuses a task of the pool {claim.task.pool}")
        # 3.
        if statement.root_url != self._root_url:
            raise HostError(f"the signer for {self._root_url} refuses a statement for {statement.root_url}")
        if statement.policy_sha256 != self._policy_sha256:
            raise HostError(
                f"the signer was started for the policy {self._policy_sha256}, the statement says "
                f"{statement.policy_sha256}; restart the worker"
            )
        bodies = build(statement)
        # 4.
        self._remember((claim.task_id, claim.run_id), bodies.digest)
        return sign(bodies, self._key)

    def _remember(self, run: tuple[TaskId, RunId], digest: bytes) -> None:
        with self._lock:
            if self._signed.setdefault(run, digest) != digest:
                raise HostError(f"a different statement was already signed for the run {run[0]}/{int(run[1])}")
            while len(self._signed) > self._remembered_runs:
                self._signed.popitem(last=False)
