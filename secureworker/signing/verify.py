"""Verifying what a run published: numbered steps, none of which can be left out.

Needs public keys only. Nothing that is read is believed before the signature over it was found good.
"""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from secureworker.core.trust import OneKey, Trust, Trusted, fingerprint
from secureworker.core.verification import MAX_BODY_BYTES, Checks, Expected, Step, Steps, take
from secureworker.host.trustfile import provenance_schema
from secureworker.signing.publickeys import PublicKey
from secureworker.signing.steps import Files, LogDemands, Verification

__all__ = ["Expected", "LogDemands", "Step", "Verdict", "checks", "verify_bundle", "verify_directory"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """All steps that were taken: the first that did not pass is the last."""

    steps: tuple[Step, ...]
    due: int
    """How many there are."""
    task_id: str | None
    """Only of a body whose signature is good."""
    run_id: int | None
    key: str | None
    """Fingerprint of the key whose signature is good, whether it counts or not."""

    @property
    def verified(self) -> bool:
        """Whether every step was taken, and passed."""
        return len(self.steps) == self.due and all(step.passed for step in self.steps)


NO_DEMANDS: Final = LogDemands()
_DIRECTORY: Final[Steps[Verification]] = (
    ("files", Verification.read_files),
    ("signature", Verification.check_signature),
    ("form", Verification.read_chain),
    ("subject", Verification.check_subject),
    ("provenance", Verification.check_envelope),
    ("statement", Verification.read_statement),
    ("agreement", Verification.check_agreement),
    ("inputs", Verification.check_inputs),
    ("log", Verification.check_log),
    ("key", Verification.check_key),
    ("hashes", Verification.check_hashes),
    ("nothing else", Verification.check_nothing_else),
)
_BUNDLE: Final[Steps[Verification]] = (
    ("provenance", Verification.check_lone_envelope),
    ("statement", Verification.read_statement),
    ("subject", Verification.check_lone_subject),
    ("log", Verification.check_lone_log),
    ("key", Verification.check_key),
    ("hashes", Verification.check_given_files),
)


def verify_directory(
    directory: str,
    trusted: Trust | PublicKey,
    expected: Expected,
    now: datetime | None = None,
    *,
    demands: LogDemands = NO_DEMANDS,
) -> Verdict:
    """Take the steps for a directory of artifacts, up to the first that does not pass.

    Args:
        directory: the artifacts of one run, under their names at the Queue.
        trusted: whose signatures count.
        expected: what they must be about.
        now: the time; a statement from later than that does not pass. None: any time will do.
        demands: what is asked of the signer's log.

    Raises:
        OSError: the directory itself cannot be opened.
        HostError: this host cannot open files below it safely.
    """
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        verification = Verification(
            _trusted(trusted), expected, now, checks(), files=Files(root, directory), demands=demands
        )
        return _verdict(verification, _DIRECTORY)
    finally:
        os.close(root)


def verify_bundle(
    bundle: str,
    files: tuple[str, ...],
    trusted: Trust | PublicKey,
    expected: Expected,
    now: datetime | None = None,
    *,
    demands: LogDemands = NO_DEMANDS,
) -> Verdict:
    """Take the steps for a provenance bundle by itself, and for files that shall be among its subjects.

    Raises:
        OSError: the bundle cannot be read.
        ValueError: it is larger than any.
    """
    with Path(bundle).open("rb") as file:
        content = file.read(2 * MAX_BODY_BYTES + 1)
    if len(content) > 2 * MAX_BODY_BYTES:
        raise ValueError(f"{bundle} has more than {2 * MAX_BODY_BYTES} bytes, and so is no bundle")
    verification = Verification(
        _trusted(trusted), expected, now, checks(), bundle=content, has_bundle=True, others=files, demands=demands
    )
    return _verdict(verification, _BUNDLE)


def checks() -> Checks:
    """Give what the steps in `core` cannot do by themselves."""
    return Checks(_verifies, provenance_schema())


def _verifies(raw: bytes, signature: bytes, content: bytes) -> bool:
    return PublicKey(raw).verifies(signature, content)


def _trusted(trusted: Trust | PublicKey) -> Trusted:
    return OneKey(trusted.raw) if isinstance(trusted, PublicKey) else trusted


def _verdict(verification: Verification, steps: Steps[Verification]) -> Verdict:
    taken = tuple(take(verification, steps))
    about = verification.chain or verification.facts
    key = fingerprint(verification.signer) if verification.signer else None
    if about is None:
        return Verdict(taken, len(steps), task_id=None, run_id=None, key=key)
    return Verdict(taken, len(steps), task_id=about.task_id, run_id=int(about.run_id), key=key)
