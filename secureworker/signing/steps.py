"""The steps of a verification, each a method whose docstring says what is true once it has passed.

`verify` says in which order they are taken. None believes what a later one has yet to prove.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from secureworker.core.claim import Json
from secureworker.core.evidence import (
    SIGNATURE_BYTES,
    Artifacts,
    BadEvidence,
    ChainOfTrust,
    Envelope,
    ProvenanceFacts,
    read_bundle,
    read_chain_of_trust,
    read_provenance,
)
from secureworker.core.ids import RunId, Sha256, TaskId, WorkerIdentity, WorkerPool
from secureworker.core.provenance import PROVENANCE, message
from secureworker.core.statement import CHAIN_OF_TRUST, CHAIN_OF_TRUST_SIGNATURE
from secureworker.core.trust import Implementation, Signed, Trust, Trusted, fingerprint, hint, why_not_trusted
from secureworker.host.beneath import open_beneath
from secureworker.host.trustfile import provenance_schema
from secureworker.signing.keys import PublicKey

MAX_BODY_BYTES = 64 * 1024 * 1024
_READ_BYTES = 1024 * 1024
_CLOCKS_DIFFER = timedelta(minutes=5)
_NOT_LISTED = (CHAIN_OF_TRUST, CHAIN_OF_TRUST_SIGNATURE)
_NOT_LISTED_PREFIXES = ("public/logs/", "public/provenance", "public/verification", "public/audit")
"""What the worker itself publishes after, or beside, what it signs."""


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


@dataclass(frozen=True, slots=True)
class Files:
    """Where files are read: below a directory, and nowhere else."""

    root: int
    directory: str

    def read(self, name: str, limit: int) -> bytes:
        """Give a small file whole."""
        try:
            with self._open(name) as file:
                content = file.read(limit + 1)
        except OSError as error:
            raise NotVerified(f"{name}: cannot be read: {error.strerror}") from error
        if len(content) > limit:
            raise NotVerified(f"{name}: has more than {limit} bytes")
        return content

    def exists(self, name: str) -> bool:
        """Whether anything has this name."""
        return os.path.lexists(Path(self.directory, name))

    def hash(self, name: str) -> str:
        """Give the sha256 of a file of any size."""
        with self._open(name) as file:
            return hash_file(file)

    def walk(self) -> Iterator[str]:
        """Give every file, and everything that is neither file nor directory, sorted."""
        top = Path(self.directory)
        for path in sorted(top.rglob("*")):
            if path.is_symlink() or not path.is_dir():
                yield str(path.relative_to(top))

    def _open(self, name: str) -> BinaryIO:
        descriptor = open_beneath(self.root, name.encode(), 0)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            # A FIFO without a writer would read as an empty file.
            raise OSError(errno.EINVAL, "it is no regular file")
        return os.fdopen(descriptor, "rb")


def hash_file(file: BinaryIO) -> str:
    """Give the sha256 of what is left to read."""
    digest = hashlib.sha256()
    while piece := file.read(_READ_BYTES):
        digest.update(piece)
    return digest.hexdigest()


@dataclass
class Verification:
    """What the steps find out, each for those after it."""

    trusted: Trusted
    expected: Expected
    now: datetime | None
    """None: no statement is too new."""
    files: Files | None = None
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
    others: tuple[str, ...] = field(default=())
    """Paths of files that are to be among the subjects of a bundle that stands alone."""

    # Steps of a directory.

    def read_files(self) -> str:
        """The chain of trust and its signature are there, as regular files of a credible size; provenance may be."""
        files = self._files()
        self.signed = files.read(CHAIN_OF_TRUST, MAX_BODY_BYTES)
        self.signature = files.read(CHAIN_OF_TRUST_SIGNATURE, SIGNATURE_BYTES)
        self.has_bundle = files.exists(PROVENANCE)
        if self.has_bundle:
            self.bundle = files.read(PROVENANCE, 2 * MAX_BODY_BYTES)
        return f"{CHAIN_OF_TRUST} has {len(self.signed)} bytes" + (
            f", {PROVENANCE} has {len(self.bundle)}" if self.has_bundle else ""
        )

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
        chain = self._chain()
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
            pool, signed = self.facts.worker.pool, Signed(self.facts.finished, self.facts.finished)
        else:
            # A chain of trust has no time in it. The Queue gives a run out after `created`, and takes no end of it
            # after `deadline`.
            task = self._chain().definition
            pool, signed = self._chain().worker.pool, Signed(task.created, task.deadline)
        if self.now is not None and signed.earliest > self.now + _CLOCKS_DIFFER:
            raise NotVerified(f"it says of itself that it is of {signed.earliest.astimezone(UTC)}, which is to come")
        why = why_not_trusted(self.trusted, self.signer, pool, signed)
        if why:
            raise NotVerified(why)
        return f"{fingerprint(self.signer)} counts for {pool}"

    def check_envelope(self) -> str:
        """Provenance is there if the worker makes it; its only signature is by the same key, over payload and type."""
        chain = self._chain()
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
            self.facts = read_provenance(self.envelope.payload, provenance_schema())
        except BadEvidence as error:
            raise NotVerified(f"{PROVENANCE}: {error}") from error
        return f"SLSA provenance v1 of {len(self.facts.subjects)} artifacts"

    def check_agreement(self) -> str:
        """Both statements say the same of the same run: task, run, worker, definition, artifacts; and of each other."""
        if self.facts is None:
            return "one statement, nothing to compare"
        chain, facts = self._chain(), self.facts
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

    def check_hashes(self) -> str:
        """Every artifact that is listed is there, as a regular file, with the digest that was signed."""
        wrong = []
        for name, sha256 in sorted(self._chain().artifacts.items()):
            try:
                found = self._files().hash(name)
            except OSError as error:
                wrong.append(f"{name}: cannot be read: {error.strerror}")
                continue
            if found != sha256:
                wrong.append(f"{name}: has the sha256 {found}, {sha256} was signed")
        if wrong:
            raise NotVerified(*wrong)
        return f"{len(self._chain().artifacts)} artifacts are as they were signed"

    def check_nothing_else(self) -> str:
        """No other file is there but logs, statements and signatures, for which nothing is claimed."""
        known = {*self._chain().artifacts, *_NOT_LISTED, *((PROVENANCE,) if self.facts is not None else ())}
        others = [name for name in self._files().walk() if name not in known]
        beside = [name for name in others if name.startswith(_NOT_LISTED_PREFIXES)]
        wrong = [f"{name!a}: is not in the chain of trust" for name in others if name not in beside]
        if wrong:
            raise NotVerified(*wrong)
        return "no other artifacts" + (
            f"; not covered by the signature: {', '.join(map(ascii, beside))}" if beside else ""
        )

    # Steps of a bundle that stands alone.

    def check_lone_envelope(self) -> str:
        """The bundle has one signature, by a trusted key, over its payload and the payload's type."""
        return self._open_envelope(self.trusted.raw_keys())

    def check_lone_subject(self) -> str:
        """The statement is about the task, run, pool and deployment that were asked for."""
        facts = self._facts()
        definition = dict(facts.definition.verbatim)
        wrong = [*self._unexpected(facts.task_id, facts.run_id, facts.worker, definition), *self._elsewhere(facts)]
        if wrong:
            raise NotVerified(*wrong)
        return f"task {facts.task_id}, run {int(facts.run_id)}, worker {facts.worker}, of {facts.root_url}"

    def check_given_files(self) -> str:
        """Every file that was given has the digest of a subject, and of that one which its name fits, if any does."""
        wrong, subjects = [], self._facts().subjects
        for path in self.others:
            try:
                with Path(path).open("rb") as file:
                    found = hash_file(file)
            except OSError as error:
                wrong.append(f"{path}: cannot be read: {error.strerror}")
                continue
            if not _is_among(Path(path).name, Sha256(found), subjects):
                wrong.append(f"{path}: has the sha256 {found}, which was not signed under this name")
        if wrong:
            raise NotVerified(*wrong)
        return f"{len(self.others)} files are as they were signed, of {len(subjects)} subjects"

    # What several steps need.

    def _found_signer(self, signature: bytes, content: bytes, what: str) -> str:
        """Find the key by its signature, not by what an unproved file says of it."""
        for raw in self.trusted.raw_keys():
            if PublicKey(raw).verifies(signature, content):
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
        signer = next((raw for raw in keys if PublicKey(raw).verifies(envelope.signature, signed)), None)
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
        if self.expected.definition is not None and dict(self.expected.definition) != definition:
            yield "the task's definition is not the one that the Queue has"

    def _elsewhere(self, facts: ProvenanceFacts) -> Iterator[str]:
        trusted = self.trusted.root_url if isinstance(self.trusted, Trust) else ""
        for asked in (self.expected.root_url, trusted):
            if asked and asked.rstrip("/") != facts.root_url.rstrip("/"):
                yield f"the run is of {facts.root_url}, not {asked}"

    def _files(self) -> Files:
        assert self.files is not None
        return self.files

    def _chain(self) -> ChainOfTrust:
        assert self.chain is not None
        return self.chain

    def _facts(self) -> ProvenanceFacts:
        assert self.facts is not None
        return self.facts


def _is_among(name: str, sha256: Sha256, subjects: Artifacts) -> bool:
    """Whether a file is a subject. One that is named like a subject must be that one, not another in its place."""
    alike = [digest for subject, digest in subjects.items() if subject.rpartition("/")[2] == name]
    return sha256 in (alike or subjects.values())


StepMethod = Callable[[Verification], str]
