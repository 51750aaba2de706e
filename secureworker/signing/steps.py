"""The steps of a verification that look at files; those of the statements themselves are in `core.verification`.

`verify` says in which order they are taken. None believes what a later one has yet to prove.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from secureworker.core.checkpoint import BadNote, parse_proof
from secureworker.core.evidence import (
    SIGNATURE_BYTES,
    Artifacts,
    BadEvidence,
    ChainOfTrust,
    ProvenanceFacts,
    read_bundle,
    strict_json,
)
from secureworker.core.ids import Sha256
from secureworker.core.logproof import LOG_PROOF, MAX_PROOF_BYTES, NotLogged, check_logged
from secureworker.core.provenance import PROVENANCE, message
from secureworker.core.statement import CHAIN_OF_TRUST, CHAIN_OF_TRUST_SIGNATURE
from secureworker.core.summary import SUMMARY, verification_summary
from secureworker.core.trust import Logged, fingerprint, hint
from secureworker.core.verification import MAX_BODY_BYTES, NotVerified, StatementSteps
from secureworker.core.witness import WitnessKey, check_cosigned
from secureworker.host.beneath import open_beneath

_READ_BYTES = 1024 * 1024
_NOT_LISTED = (CHAIN_OF_TRUST, CHAIN_OF_TRUST_SIGNATURE)
_NOT_LISTED_PREFIXES = ("public/logs/", "public/provenance", "public/verification", "public/audit")
"""What the worker itself publishes after, or beside, what it signs."""


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


@dataclass(frozen=True, slots=True)
class LogDemands:
    """What is asked of the signer's log, beyond what a run published."""

    proof: bytes | None = None
    """That the signature is in the log; counts in the place of the proof that was published."""
    witnesses: tuple[WitnessKey, ...] = ()
    """Who must have cosigned the checkpoint of the proof."""


@dataclass
class Verification(StatementSteps):
    """The steps that look at files, beside those of the statements."""

    files: Files | None = None
    summarised: bool = False
    demands: LogDemands = LogDemands()
    others: tuple[str, ...] = field(default=())
    """Paths of files that are to be among the subjects of a bundle that stands alone."""

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

    def check_inputs(self) -> str:
        """Provenance that names inputs comes with the summary of their verification, which follows from it alone."""
        if self.envelope is None:
            return "none are named"
        due = verification_summary(strict_json(self.envelope.payload))
        if due is None:
            return "none are named"
        try:
            found = read_bundle(self._files().read(SUMMARY, 2 * MAX_BODY_BYTES))
        except BadEvidence as error:
            raise NotVerified(f"{SUMMARY}: {error}") from error
        if found.payload != due:
            raise NotVerified(f"{SUMMARY}: is not the summary of the inputs that the provenance names")
        named = (found.key_id, found.hint) == (fingerprint(self.signer), hint(self.signer))
        if not named or not self.checks.verifies(self.signer, found.signature, message(found.payload)):
            raise NotVerified(f"{SUMMARY}: is not signed by {fingerprint(self.signer)}")
        self.summarised = True
        return "the summary of their verification is signed, and follows from the provenance"

    def check_log(self) -> str:
        """A proof that is there proves these very statements: their signature is in the log of the worker's signer."""
        content = self.demands.proof
        if content is None:
            if not self._files().exists(LOG_PROOF):
                return self._without_proof("no proof is there")
            content = self._files().read(LOG_PROOF, MAX_PROOF_BYTES)
        provenance = None if self.envelope is None else self.envelope.payload
        return self._check_proof(content, self.the_chain(), {"chainOfTrust": self.signed, "provenance": provenance})

    def check_lone_log(self) -> str:
        """A proof that was given proves that the signature of this very statement is in its signer's log."""
        if self.demands.proof is None:
            return self._without_proof("no proof was given")
        assert self.envelope is not None
        return self._check_proof(self.demands.proof, self.the_facts(), {"provenance": self.envelope.payload})

    def _without_proof(self, what: str) -> str:
        if self.demands.witnesses:
            raise NotVerified(f"{what}, and the witness {self.demands.witnesses[0].name} is to have cosigned one")
        return what

    def _check_proof(
        self, content: bytes, about: ChainOfTrust | ProvenanceFacts, bodies: Mapping[str, bytes | None]
    ) -> str:
        signer = self.signer

        def verifies(signature: bytes, content: bytes) -> bool:
            return self.checks.verifies(signer, signature, content)

        try:
            self.logged = check_logged(content, (signer, verifies), about, bodies)
        except NotLogged as error:
            raise NotVerified(f"{LOG_PROOF}: {error}") from error
        try:
            for witness in self.demands.witnesses:
                check_cosigned(parse_proof(content).note, witness)
        except BadNote as error:
            raise NotVerified(f"{LOG_PROOF}: {error}; a proof by `audit prove --checkpoint` may be") from error
        by = "".join(f", cosigned by {witness.name}" for witness in self.demands.witnesses)
        return f"the signature is record {self.logged.index} of {self.logged.checkpoint.origin}{by}"

    def check_hashes(self) -> str:
        """Every artifact that is listed is there, as a regular file, with the digest that was signed."""
        wrong = []
        for name, sha256 in sorted(self.the_chain().artifacts.items()):
            try:
                found = self._files().hash(name)
            except OSError as error:
                wrong.append(f"{name}: cannot be read: {error.strerror}")
                continue
            if found != sha256:
                wrong.append(f"{name}: has the sha256 {found}, {sha256} was signed")
        if wrong:
            raise NotVerified(*wrong)
        return f"{len(self.the_chain().artifacts)} artifacts are as they were signed"

    def check_nothing_else(self) -> str:
        """No other file is there but logs, statements and signatures, for which nothing is claimed."""
        known = {*self.the_chain().artifacts, *_NOT_LISTED}
        proved = ((PROVENANCE, self.facts), (SUMMARY, self.summarised or None), (LOG_PROOF, self._published_proof()))
        known |= {name for name, proof in proved if proof is not None}
        others = [name for name in self._files().walk() if name not in known]
        beside = [name for name in others if name.startswith(_NOT_LISTED_PREFIXES)]
        wrong = [f"{name!a}: is not in the chain of trust" for name in others if name not in beside]
        if wrong:
            raise NotVerified(*wrong)
        return "no other artifacts" + (
            f"; not covered by the signature: {', '.join(map(ascii, beside))}" if beside else ""
        )

    def _published_proof(self) -> Logged | None:
        """Give what the published proof proved; one that was given in its place says nothing about it."""
        return self.logged if self.demands.proof is None else None

    def check_given_files(self) -> str:
        """Every file that was given has the digest of a subject, and of that one which its name fits, if any does."""
        wrong, subjects = [], self.the_facts().subjects
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

    def _files(self) -> Files:
        assert self.files is not None
        return self.files


def _is_among(name: str, sha256: Sha256, subjects: Artifacts) -> bool:
    """Whether a file is a subject. One that is named like a subject must be that one, not another in its place."""
    alike = [digest for subject, digest in subjects.items() if subject.rpartition("/")[2] == name]
    return sha256 in (alike or subjects.values())
