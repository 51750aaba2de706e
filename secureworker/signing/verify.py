"""Verifying a directory of artifacts against its chain of trust: numbered steps, none of which can be left out.

Needs the public key only. Nothing that is read is believed before step 2 has passed.
"""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from secureworker.core.claim import parse_definition
from secureworker.core.ids import ArtifactName, RunId, Sha256, TaskId, WorkerIdentity, WorkerPool
from secureworker.core.statement import CHAIN_OF_TRUST, CHAIN_OF_TRUST_SIGNATURE
from secureworker.host.beneath import open_beneath
from secureworker.signing.keys import PublicKey

_SIGNATURE_BYTES = 64
_MAX_BODY_BYTES = 64 * 1024 * 1024
_READ_BYTES = 1024 * 1024
_FIELDS = frozenset(
    {
        "artifacts",
        "chainOfTrustVersion",
        "environment",
        "runId",
        "task",
        "taskId",
        "workerGroup",
        "workerId",
        "workerType",
    }
)
_NOT_LISTED = (CHAIN_OF_TRUST, CHAIN_OF_TRUST_SIGNATURE)
_NOT_LISTED_PREFIXES = ("public/logs/", "public/provenance")
"""What the worker itself publishes after, or beside, what it signs."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the chain of trust must be about; None: whatever it says."""

    task_id: TaskId | None = None
    run_id: RunId | None = None
    worker_pool: WorkerPool | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a verification."""

    number: int
    name: str
    passed: bool
    details: tuple[str, ...]
    """What was found; where it did not pass, everything that is wrong."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """All steps that were taken: the first that did not pass is the last."""

    steps: tuple[Step, ...]
    task_id: str | None
    """Only of a body whose signature is good."""
    run_id: int | None

    @property
    def verified(self) -> bool:
        """Whether every step was taken, and passed."""
        return len(self.steps) == len(_STEPS) and all(step.passed for step in self.steps)


class _NotVerified(Exception):
    """A step does not pass; its arguments say why."""


class _Verification:
    """What the steps find out, each for those after it."""

    def __init__(self, root: int, directory: str, key: PublicKey, expected: Expected) -> None:
        self.root = root
        self.directory = directory
        self.key = key
        self.expected = expected
        self.signed = b""
        self.signature = b""
        self.body: dict[str, Any] = {}
        self.pool: WorkerPool
        self.artifacts: dict[ArtifactName, Sha256] = {}

    def files(self) -> str:
        """1. The chain of trust and its signature are there, as regular files of a credible size."""
        self.signed = self._read(CHAIN_OF_TRUST, _MAX_BODY_BYTES)
        self.signature = self._read(CHAIN_OF_TRUST_SIGNATURE, _SIGNATURE_BYTES)
        return f"{CHAIN_OF_TRUST} has {len(self.signed)} bytes"

    def check_signature(self) -> str:
        """2. The signature is the given key's, over exactly the bytes of the file."""
        if not self.key.verifies(self.signature, self.signed):
            raise _NotVerified(f"the signature is not one by {self.key.fingerprint} over {CHAIN_OF_TRUST}")
        return f"signed by {self.key.fingerprint}"

    def form(self) -> str:
        """3. The body has exactly the fields of a Chain of Trust v1, each of its form; no key is there twice."""
        try:
            body = json.loads(self.signed, object_pairs_hook=_no_duplicates)
            if not isinstance(body, dict) or set(body) != _FIELDS:
                raise _NotVerified("it does not have exactly the fields of a chain of trust")
            # `is`: True == 1, and 1.0 == 1.
            if type(body["chainOfTrustVersion"]) is not int or body["chainOfTrustVersion"] != 1:
                raise _NotVerified("its version is not 1")
            if type(body["runId"]) is not int:
                raise _NotVerified("its run id is no number")
            TaskId(body["taskId"])
            RunId(body["runId"])
            pool = parse_definition(body["task"]).pool
            WorkerIdentity(pool, body["workerGroup"], body["workerId"])
            self.artifacts = _artifacts(body["artifacts"])
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise _NotVerified(f"it is no chain of trust: {error}") from error
        self.body = body
        self.pool = pool
        return "a chain of trust, version 1"

    def subject(self) -> str:
        """4. It is about the task, run and pool that were asked for, and agrees with the definition it holds."""
        body = self.body
        wrong = []
        if body["workerType"] != self.pool.worker_type:
            wrong.append(f"the worker's type is not that of its task's pool, {self.pool}")
        for what, asked, found in (
            ("task", self.expected.task_id, body["taskId"]),
            ("run", self.expected.run_id, body["runId"]),
            ("pool", self.expected.worker_pool, self.pool),
        ):
            if asked is not None and asked != found:
                wrong.append(f"it is about the {what} {found}, not {asked}")
        if wrong:
            raise _NotVerified(*wrong)
        return f"task {body['taskId']}, run {body['runId']}, pool {self.pool}, worker {body['workerId']}"

    def hashes(self) -> str:
        """5. Every artifact that is listed is there, as a regular file, with the digest that was signed."""
        wrong = []
        for name, sha256 in sorted(self.artifacts.items()):
            try:
                found = self._hash(name)
            except OSError as error:
                wrong.append(f"{name}: cannot be read: {error.strerror}")
                continue
            if found != sha256:
                wrong.append(f"{name}: has the sha256 {found}, {sha256} was signed")
        if wrong:
            raise _NotVerified(*wrong)
        return f"{len(self.artifacts)} artifacts are as they were signed"

    def nothing_else(self) -> str:
        """6. No other file is there but logs, statements and signatures, for which nothing is claimed."""
        known = {*self.artifacts, *_NOT_LISTED}
        others = [name for name in _walk(self.directory) if name not in known]
        beside = [name for name in others if name.startswith(_NOT_LISTED_PREFIXES)]
        wrong = [f"{name!a}: is not in the chain of trust" for name in others if name not in beside]
        if wrong:
            raise _NotVerified(*wrong)
        return "no other artifacts" + (
            f"; not covered by the signature: {', '.join(map(ascii, beside))}" if beside else ""
        )

    def _read(self, name: ArtifactName, limit: int) -> bytes:
        try:
            with self._open(name) as file:
                content = file.read(limit + 1)
        except OSError as error:
            raise _NotVerified(f"{name}: cannot be read: {error.strerror}") from error
        if len(content) > limit:
            raise _NotVerified(f"{name}: has more than {limit} bytes")
        return content

    def _hash(self, name: ArtifactName) -> str:
        digest = hashlib.sha256()
        with self._open(name) as file:
            while piece := file.read(_READ_BYTES):
                digest.update(piece)
        return digest.hexdigest()

    def _open(self, name: ArtifactName) -> BinaryIO:
        descriptor = open_beneath(self.root, name.encode(), 0)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            # A FIFO without a writer would read as an empty file.
            raise OSError(errno.EINVAL, "it is no regular file")
        return os.fdopen(descriptor, "rb")


_STEPS: tuple[tuple[str, Callable[[_Verification], str]], ...] = (
    ("files", _Verification.files),
    ("signature", _Verification.check_signature),
    ("form", _Verification.form),
    ("subject", _Verification.subject),
    ("hashes", _Verification.hashes),
    ("nothing else", _Verification.nothing_else),
)


def verify_directory(directory: str, key: PublicKey, expected: Expected) -> Verdict:
    """Take the steps in their order, up to the first that does not pass.

    Raises:
        OSError: the directory itself cannot be opened.
        HostError: this host cannot open files below it safely.
    """
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        verification = _Verification(root, directory, key, expected)
        steps = tuple(_take(verification))
    finally:
        os.close(root)
    body = verification.body
    return Verdict(steps, task_id=body.get("taskId"), run_id=body.get("runId"))


def _take(verification: _Verification) -> Iterator[Step]:
    for number, (name, step) in enumerate(_STEPS, start=1):
        try:
            yield Step(number, name, passed=True, details=(step(verification),))
        except _NotVerified as error:
            yield Step(number, name, passed=False, details=error.args)
            return


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _artifacts(listed: object) -> dict[ArtifactName, Sha256]:
    if not isinstance(listed, dict):
        raise ValueError("its artifacts are no object")
    found = {}
    for name, digests in listed.items():
        if not isinstance(digests, dict) or set(digests) != {"sha256"} or not isinstance(digests["sha256"], str):
            raise ValueError(f"the artifact {name[:80]!a} has not exactly a sha256")
        found[ArtifactName(name)] = Sha256(digests["sha256"])
    return found


def _walk(directory: str) -> Iterator[str]:
    """Give every file, and everything that is neither file nor directory, by its name below `directory`, sorted."""
    top = Path(directory)
    for path in sorted(top.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            yield str(path.relative_to(top))
