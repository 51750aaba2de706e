"""The demonstration's last look: at the audit log that the worker's signer has kept."""

import shutil
from pathlib import Path

from secureworker.audit.inspect import STEP_COUNT, read_entries, verify_log
from secureworker.audit.proofs import verify_proof
from secureworker.audit.shards import LogKey, records_file
from secureworker.core.audit import Event
from secureworker.core.errors import AuditError
from secureworker.demo.account import Account
from secureworker.signing.publickeys import PublicKey

AUDIT_LOG = "audit-log"
"""Below the output directory: a copy of the log."""
PROOF = "public/audit.tlog-proof"


def show_log(account: Account, log: Path, key: PublicKey, output: Path, signed: tuple[str, ...]) -> bool:
    """Verify the log as an auditor would, and that it has each signature that was published.

    Args:
        account: where it is told.
        log: the log's directory.
        key: the signer's.
        output: where the artifacts of tasks are, a directory per task.
        signed: the names of those whose outputs were signed.

    Returns:
        Whether all of it holds.

    Raises:
        OSError: it cannot be copied.
    """
    copied = output / AUDIT_LOG
    shutil.copytree(log, copied, ignore=shutil.ignore_patterns("lock"))
    keys = (LogKey(key.raw, key.verifies),)
    steps = verify_log(str(copied), keys)
    for step in steps:
        account.verdict(f"{step.number}. {step.name}: {'; '.join(step.details)}", good=step.passed)
    good = len(steps) == STEP_COUNT and steps[-1].passed
    events = [entry.record.event for entry in read_entries(str(copied))]
    counted = ", ".join(f"{events.count(event)} {event.value}" for event in Event if event in events)
    account.line(f"{copied / records_file(1)} has {counted}")
    for name in signed:
        good = _proved(account, output / name, keys) and good
    return good


def _proved(account: Account, directory: Path, keys: tuple[LogKey, ...]) -> bool:
    try:
        entry = verify_proof((directory / PROOF).read_bytes(), keys)
    except (AuditError, OSError) as error:
        account.verdict(f"{directory.name}: its signature is not in the log: {error}", good=False)
        return False
    account.verdict(f"{directory.name}: its signature is record {entry.stamp.index} of the log", good=True)
    return True
