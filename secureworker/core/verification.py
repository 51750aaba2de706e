"""What makes statements count: their steps, over bytes that are there already. Nothing here reads a file.

The same steps hold for what `secureworker verify` is shown and for what the worker takes as an input of a script. Each
is a method whose docstring says what is true once it has passed; none believes what a later one has yet to prove.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, TypeVar

from secureworker.core.claim import Json
from secureworker.core.evidence import (
    BadEvidence,
    ChainOfTrust,
    Envelope,
    ProvenanceFacts,
    read_bundle,
    read_chain_of_trust,
    read_provenance,
)
from secureworker.core.ids import RunId, TaskId, WorkerIdentity, WorkerPool
from secureworker.core.provenance import PROVENANCE, message
from secureworker.core.schemas import CompiledSchema
from secureworker.core.statement import CHAIN_OF_TRUST
from secureworker.core.trust import (
    Implementation,
    KeyState,
    Logged,
    Signed,
    Trust,
    Trusted,
    fingerprint,
    hint,
    why_not_trusted,
)

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
_CLOCKS_DIFFER: Final = timedelta(minutes=5)


class Verifies(Protocol):
    """Whether `signature` is one by the Ed25519 public key `raw` over `content`. Nothing that is malformed is."""

    def __call__(self, raw: bytes, signature: bytes, content: bytes) -> bool:
        """Say so."""


@dataclass(frozen=True, slots=True)
class Checks:
    """What the steps cannot do by themselves."""

    verifies: Verifies
    provenance: CompiledSchema
    """schemas/provenance.schema.json."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the statements must be about; None: whatever they say."""

    task_id: TaskId | None = None
    run_id: RunId | None = None
    worker_pool: WorkerPool | None = None
    root_url: str | None = None
    worker: WorkerIdentity | None = None
    """Who the Queue says held the run."""
    definition: Mapping[str, Json] | None = None
    """The task as the Queue has it."""
    run_state: str | None = None
    """How the Queue says the run ended; only `completed` will do."""


class NotVerified(Exception):
    """A step does not pass; its arguments say why."""


@dataclass
class StatementSteps:
    """What the steps find out, each for those after it."""

    trusted: Trusted
    expected: Expected
    now: datetime | None
    """None: no statement is too new."""
    checks: Checks
    bundle: bytes = b""
    """The content of public/provenance.sigstore.json, once it is read."""
    has_bundle: bool = False
    signed: bytes = b""
    signature: bytes = b""
    signer: bytes = b""
    """The key whose signature was found good."""
    chain: ChainOfTrust | None = None
    envelope: Envelope | None = None
    facts: ProvenanceFacts | None = None
    logged: Logged | None = None
    """Where a proof shows the signature to be written down."""

    def check_signature(self) -> str:
        """The signature of the chain of trust is a trusted key's, over exactly the bytes of the file."""
        return self._found_signer(self.signature, self.signed, CHAIN_OF_TRUST)

    def read_chain(self) -> str:
        """The body has exactly the fields of a Chain of Trust v1, each of its form; no key is there twice."""
        known = (
            {pool.worker_pool: pool.implementation for pool in self.trusted.pools}
            if isinstance(self.trusted, Trust)
            else {}
        )
        try:
            self.chain = read_chain_of_trust(self.signed, known)
        except BadEvidence as error:
            raise NotVerified(str(error)) from error
        written = "" if self.chain.implementation is None else f", as {self.chain.implementation.value} writes it"
        return f"a chain of trust, version 1{written}"

    def check_subject(self) -> str:
        """It is about the task, run, pool and worker that were asked for, and agrees with the definition it holds."""
        chain = self.the_chain()
        wrong = []
        if chain.worker_type != chain.worker.pool.worker_type:
            wrong.append(f"the worker's type is not that of its task's pool, {chain.worker.pool}")
        wrong += self._unexpected(chain.task_id, chain.run_id, chain.worker, dict(chain.definition.verbatim))
        if wrong:
            raise NotVerified(*wrong)
        return f"task {chain.task_id}, run {int(chain.run_id)}, worker {chain.worker}"

    def check_key(self) -> str:
        """The key that signed is one of the pool that the statements are about, and was valid when they were signed."""
        if self.facts is not None:
            pool, signed = self.facts.worker.pool, Signed(self.facts.finished, self.facts.finished, self.logged)
        else:
            # A chain of trust has no time in it. The Queue gives a run out after `created`, and takes no end of it
            # after `deadline`.
            task = self.the_chain().definition
            pool, signed = self.the_chain().worker.pool, Signed(task.created, task.deadline, self.logged)
        if self.now is not None and signed.earliest > self.now + _CLOCKS_DIFFER:
            raise NotVerified(f"it says of itself that it is of {signed.earliest.astimezone(UTC)}, which is to come")
        why = why_not_trusted(self.trusted, self.signer, pool, signed)
        if why:
            raise NotVerified(why)
        return f"{fingerprint(self.signer)} counts for {pool}{self._in_spite_of_revocation(pool)}"

    def _in_spite_of_revocation(self, pool: WorkerPool) -> str:
        listed = self.trusted.pool(pool) if isinstance(self.trusted, Trust) else None
        key = next((key for key in listed.keys if key.raw == self.signer), None) if listed else None
        if key is None or key.state is not KeyState.REVOKED or self.logged is None:
            return ""
        good = self.logged.checkpoint
        return f", though it is revoked: record {self.logged.index} of the {good.size} of {good.origin} from before"

    def check_envelope(self) -> str:
        """Provenance is there if the worker makes it; its only signature is by the same key, over payload and type."""
        chain = self.the_chain()
        # A body without outputs has none; an absent file must never do instead.
        due = chain.implementation is Implementation.SECUREWORKER and bool(chain.artifacts)
        if not self.has_bundle:
            if due:
                raise NotVerified(f"{PROVENANCE}: is missing, and its worker signs one for every run with outputs")
            return "none is there, and none is due"
        return self._open_envelope((self.signer,))

    def read_statement(self) -> str:
        """The payload is an in-toto statement with SLSA provenance of our build type, as its closed schema says."""
        if self.envelope is None:
            return "none is there"
        try:
            self.facts = read_provenance(self.envelope.payload, self.checks.provenance)
        except BadEvidence as error:
            raise NotVerified(f"{PROVENANCE}: {error}") from error
        return f"SLSA provenance v1 of {len(self.facts.subjects)} artifacts"

    def check_agreement(self) -> str:
        """Both statements say the same of the same run: task, run, worker, definition, artifacts; and of each other."""
        if self.facts is None:
            return "one statement, nothing to compare"
        chain, facts = self.the_chain(), self.facts
        wrong = [
            f"the statements differ in the {what}"
            for what, one, other in (
                ("task", chain.task_id, facts.task_id),
                ("run", chain.run_id, facts.run_id),
                ("worker", chain.worker, facts.worker),
                ("task's definition", dict(chain.definition.verbatim), dict(facts.definition.verbatim)),
                ("artifacts", dict(chain.artifacts), dict(facts.subjects)),
            )
            if one != other
        ]
        if hashlib.sha256(self.signed).hexdigest() != facts.chain_of_trust:
            wrong.append("the provenance was signed beside another chain of trust")
        wrong += self._elsewhere(facts)
        if wrong:
            raise NotVerified(*wrong)
        return f"the statements agree; the run is of {facts.root_url}"

    def check_lone_envelope(self) -> str:
        """The bundle has one signature, by a trusted key, over its payload and the payload's type."""
        return self._open_envelope(self.trusted.raw_keys())

    def check_lone_subject(self) -> str:
        """The statement is about the task, run, pool and deployment that were asked for."""
        facts = self.the_facts()
        definition = dict(facts.definition.verbatim)
        wrong = [*self._unexpected(facts.task_id, facts.run_id, facts.worker, definition), *self._elsewhere(facts)]
        if wrong:
            raise NotVerified(*wrong)
        return f"task {facts.task_id}, run {int(facts.run_id)}, worker {facts.worker}, of {facts.root_url}"

    def _found_signer(self, signature: bytes, content: bytes, what: str) -> str:
        """Find the key by its signature, not by what an unproved file says of it."""
        for raw in self.trusted.raw_keys():
            if self.checks.verifies(raw, signature, content):
                self.signer = raw
                return f"signed by {fingerprint(raw)}"
        names = ", ".join(map(fingerprint, self.trusted.raw_keys()))
        raise NotVerified(f"the signature is not one by {names} over {what}")

    def _open_envelope(self, keys: tuple[bytes, ...]) -> str:
        try:
            envelope = read_bundle(self.bundle)
        except BadEvidence as error:
            raise NotVerified(f"{PROVENANCE}: {error}") from error
        signed = message(envelope.payload)
        signer = next((raw for raw in keys if self.checks.verifies(raw, envelope.signature, signed)), None)
        if signer is None:
            names = ", ".join(map(fingerprint, keys))
            raise NotVerified(f"{PROVENANCE}: the signature is not one by {names} over payload and type")
        if (envelope.key_id, envelope.hint) != (fingerprint(signer), hint(signer)):
            raise NotVerified(f"{PROVENANCE}: names another key than {fingerprint(signer)}, which signed it")
        self.envelope, self.signer = envelope, signer
        return f"signed by {fingerprint(signer)}"

    def _unexpected(
        self, task_id: TaskId, run_id: RunId, worker: WorkerIdentity, definition: dict[str, Json]
    ) -> Iterator[str]:
        for what, asked, found in (
            ("task", self.expected.task_id, task_id),
            ("run", self.expected.run_id, run_id),
            ("pool", self.expected.worker_pool, worker.pool),
            ("worker", self.expected.worker, worker),
        ):
            if asked is not None and asked != found:
                yield f"it is about the {what} {found}, not {asked}"
        if self.expected.run_state not in {None, "completed"}:
            yield f"the Queue says that the run is {self.expected.run_state}, and not completed"
        if self.expected.definition is not None and _fixed(self.expected.definition) != _fixed(definition):
            yield "the task's definition is not the one that the Queue has"

    def _elsewhere(self, facts: ProvenanceFacts) -> Iterator[str]:
        trusted = self.trusted.root_url if isinstance(self.trusted, Trust) else ""
        for asked in (self.expected.root_url, trusted):
            if asked and asked.rstrip("/") != facts.root_url.rstrip("/"):
                yield f"the run is of {facts.root_url}, not {asked}"

    def the_chain(self) -> ChainOfTrust:
        """Give the chain of trust; call it only in a step after `read_chain`."""
        assert self.chain is not None
        return self.chain

    def the_facts(self) -> ProvenanceFacts:
        """Give the provenance; call it only in a step after `read_statement`."""
        assert self.facts is not None
        return self.facts


def _fixed(definition: Mapping[str, Json]) -> dict[str, Json]:
    """Give what nobody can change of a task: the Queue lets others change its priority, which no worker looks at."""
    return {key: value for key, value in definition.items() if key != "priority"}


S = TypeVar("S", bound=StatementSteps)
Steps = tuple[tuple[str, Callable[[S], str]], ...]
"""Names and methods, in the order in which they are taken."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a verification."""

    number: int
    name: str
    passed: bool
    details: tuple[str, ...]
    """What was found; where it did not pass, everything that is wrong."""


def take(verification: S, steps: Steps[S]) -> Iterator[Step]:
    """Take steps, up to the first that does not pass."""
    for number, (name, step) in enumerate(steps, start=1):
        try:
            yield Step(number, name, passed=True, details=(step(verification),))
        except NotVerified as error:
            yield Step(number, name, passed=False, details=error.args)
            return
