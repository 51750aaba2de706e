"""What may be signed: the checks that every statement passes, and the writing down that comes before every signature.

One set of statements per run, for ever. The desk builds what it signs itself, from typed values, and trusts no fact
about the worker but its own settings.
"""

import hashlib
import threading
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol, TypeAlias

from secureworker.core.audit import AuditRecord, Ending, Event, text
from secureworker.core.errors import BadPayload, HostError
from secureworker.core.ids import RunId, Sha256, TaskId, WorkerIdentity
from secureworker.ports import SignedFile, Statement
from secureworker.signing.publickeys import Key, PublicKey
from secureworker.signing.statements import Bodies, build, sign

Run: TypeAlias = tuple[TaskId, RunId]
MAX_REMEMBERED: Final = 2_000_000
"""Runs. Some 400 bytes each; a worker that does one every minute has done half a million in a year."""


class Ledger(Protocol):
    """Where it is written down what is signed, before it is."""

    def write(self, record: AuditRecord) -> None:
        """Return when the record is kept for good.

        Raises:
            AuditError: it is not; nothing may be signed.
        """


class SignedRuns:
    """Which runs have been signed for, with what. Filled from the audit log, and never emptied."""

    def __init__(self, most: int = MAX_REMEMBERED) -> None:
        self._most = most
        self._digests: dict[Run, bytes] = {}

    def __len__(self) -> int:
        return len(self._digests)

    def learn(self, record: AuditRecord) -> None:
        """Take over what a record of the log says was signed."""
        if record.event is Event.SIGNATURE and record.run is not None and record.ending is Ending.OK:
            digests = dict(record.digests)
            # The same choice as that of `Bodies.digest`.
            self._digests[record.run] = bytes.fromhex(digests.get("provenance") or digests["chainOfTrust"])

    def differs(self, run: Run, digest: bytes) -> bool:
        """Whether something else was signed for this run."""
        return self._digests.get(run, digest) != digest

    def remember(self, run: Run, digest: bytes) -> None:
        """Keep what is about to be signed.

        Raises:
            HostError: there is no room to remember more.
        """
        if run not in self._digests and len(self._digests) >= self._most:
            raise HostError(f"the signer remembers {self._most} runs, and no more; start it with a new audit log")
        self._digests[run] = digest


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a signer signs for, and nothing else."""

    worker: WorkerIdentity
    policies: frozenset[Sha256] | None = None
    """None: those that the worker has had written down in the audit log as loaded, in this signer's life."""
    root_url: str | None = None
    """None: whichever deployment the worker is of."""


class Desk:
    """Signs for one worker. Safe to call from threads."""

    def __init__(self, key: Key, bounds: Bounds, ledger: Ledger, signed: SignedRuns | None = None) -> None:
        self._key = key
        self._bounds = bounds
        self._ledger = ledger
        self._signed = SignedRuns() if signed is None else signed
        self._lock = threading.Lock()
        self._loaded: set[Sha256] = set()

    def policy_loaded(self, sha256: Sha256) -> None:
        """Learn that the log says of a policy that the worker works by it."""
        with self._lock:
            self._loaded.add(sha256)

    @property
    def public_key(self) -> PublicKey:
        """What verifies what this signs."""
        return self._key.public

    def sign(self, statement: Statement) -> tuple[SignedFile, ...]:
        """Make and sign the statements of a run; asked again with the same, give the same bytes.

        1. The claim names this worker: pool, group and id.
        2. The task was written for this pool.
        3. The deployment and the policy are those that this signer was started for.
        4. The bodies are built here.
        5. Nothing else was signed for this run, ever.
        6. It is written down.
        7. Only now it is signed.

        Raises:
            HostError: a check does not pass. That, too, is written down.
            AuditError: it could not be written down; nothing was signed.
            BadPayload: the task's definition cannot be written as a statement.
        """
        claim = statement.claim
        run = (claim.task_id, claim.run_id)
        with self._lock:
            reason = self._refusal(statement)
            if reason:
                self._refuse(run, reason)
            # 4.
            bodies = self._build(run, statement)
            # 5.
            if self._signed.differs(run, bodies.digest):
                self._refuse(run, f"a different statement was already signed for the run {run[0]}/{int(run[1])}")
            # 6. In memory first: if the writing fails half way, nothing else is signed for this run either.
            self._signed.remember(run, bodies.digest)
            self._ledger.write(_signature(statement, bodies, self._key.public))
            # 7.
            return sign(bodies, self._key)

    def _build(self, run: Run, statement: Statement) -> Bodies:
        try:
            return build(statement)
        except BadPayload as error:
            # Its author's fault and no attack, but it was asked for.
            self._write_refusal(run, str(error))
            raise
        except ValueError as error:
            self._refuse(run, str(error))

    def _refusal(self, statement: Statement) -> str:
        claim, bounds = statement.claim, self._bounds
        # 1.
        if claim.worker != bounds.worker:
            return f"the signer of {bounds.worker} refuses a statement of {claim.worker}"
        # 2.
        if claim.task.pool != bounds.worker.pool:
            return f"the signer of {bounds.worker} refuses a task of the pool {claim.task.pool}"
        # 3.
        if bounds.root_url is not None and statement.root_url != bounds.root_url:
            return f"the signer for {bounds.root_url} refuses a statement for {statement.root_url}"
        policies = self._loaded if bounds.policies is None else bounds.policies
        if statement.policy_sha256 not in policies:
            return (
                f"the signer signs under the policy {', '.join(sorted(policies)) or '(none yet)'}, the statement says "
                f"{statement.policy_sha256}; restart the worker"
            )
        return ""

    def _refuse(self, run: Run, reason: str) -> NoReturn:
        self._write_refusal(run, reason)
        raise HostError(reason)

    def _write_refusal(self, run: Run, reason: str) -> None:
        details = (("request", "sign"), ("reason", text(reason)))
        self._ledger.write(AuditRecord(Event.REFUSAL, Ending.REFUSED, run, details=details))


def _signature(statement: Statement, bodies: Bodies, key: PublicKey) -> AuditRecord:
    claim = statement.claim
    named = (
        ("chainOfTrust", bodies.chain_of_trust),
        ("provenance", bodies.provenance),
        ("verificationSummary", bodies.summary),
    )
    digests = [(name, Sha256(hashlib.sha256(body).hexdigest())) for name, body in named if body is not None]
    return AuditRecord(
        Event.SIGNATURE,
        run=(claim.task_id, claim.run_id),
        digests=(
            *digests,
            ("policy", statement.policy_sha256),
            ("script", statement.script_sha256),
            ("sandboxBundle", statement.execution.bundle_sha256),
        ),
        details=(("key", key.fingerprint), ("artifacts", len(statement.artifacts))),
    )
