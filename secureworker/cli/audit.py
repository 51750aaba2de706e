"""`secureworker audit`: what an auditor does with the audit log."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from secureworker.cli.push import command as push_command
from secureworker.cli.witnesses import witness_key

if TYPE_CHECKING:
    from secureworker.audit.inspect import Entry
    from secureworker.audit.shards import LogKey
    from secureworker.core.witness import WitnessKey

EXIT_NOT_VERIFIED = 1
_FOLLOW_SECONDS = 0.5
_MAX_FILE_BYTES = 1 << 20


def _reachable(_context: click.Context, _parameter: click.Parameter, path: str) -> str:
    """See that the log can be read: that of a worker without root belongs to one of its user's subordinate ids."""
    if os.geteuid() != 0 and not os.access(path, os.R_OK):
        from secureworker.core.errors import HostError
        from secureworker.host.userns import enter

        try:
            enter()
        except HostError as error:
            raise click.BadParameter(f"{path} is not yours to read, and not your worker's either: {error}") from error
    if not os.access(path, os.R_OK):
        raise click.BadParameter(f"{path} is not readable.")
    return path


_directory = click.argument(
    "directory", type=click.Path(exists=True, file_okay=False, readable=False), callback=_reachable
)
_task = click.option("--task", metavar="ID", help="Only records about this task.")
_event = click.option("--event", "events", multiple=True, metavar="NAME", help="Only these events; may be repeated.")
_witnesses = click.option(
    "--witness", "witnesses", multiple=True, metavar="VKEY", help="Who must have cosigned it: name+id+key; or a file."
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print the records themselves, one a line.")


@click.group("audit")
def command() -> None:
    """Verify, show, prove and export the audit log: what a worker and its signer did, in a form that holds.

    DIRECTORY is the log's: `audit` below the worker's state directory, unless it was put elsewhere.
    """


command.add_command(push_command)


@command.command("verify")
@click.argument("path", type=click.Path(exists=True, readable=False), callback=_reachable)
@click.option(
    "--key", "public_keys", required=True, multiple=True, metavar="PUB", help="Public key, or a file that holds it."
)
@click.option(
    "--checkpoint",
    "kept",
    multiple=True,
    type=click.Path(exists=True),
    metavar="FILE",
    help="A checkpoint that was kept elsewhere, or a directory of such; may be repeated.",
)
@_witnesses
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def verify(
    context: click.Context,
    *,
    path: str,
    public_keys: tuple[str, ...],
    kept: tuple[str, ...],
    witnesses: tuple[str, ...],
    as_json: bool,
) -> None:
    r"""Verify the log in the directory PATH, or the proof in the file PATH (public/audit.tlog-proof of a task).

    Needs no secret. Give --key again for a key that has been replaced. Ends with 0 where everything holds, 1 where
    anything does not, 2 where it cannot be asked.

    \b
    Examples:
      secureworker audit verify /var/lib/secureworker/audit --key signing.key.pub
      secureworker audit verify public/audit.tlog-proof --key signing.key.pub
      secureworker audit verify audit/ --key signing.key.pub --checkpoint witnessed/ --witness "$(cat witness.vkey)"
    """
    from secureworker.audit.inspect import STEP_COUNT, verify_log
    from secureworker.host.sanitise import sanitise_line

    keys = tuple(map(_log_key, public_keys))
    trusted = tuple(map(witness_key, witnesses))
    if Path(path).is_file():
        _verify_proof(context, path, (keys, trusted), as_json=as_json)
        return
    earlier = tuple(_checkpoint_in(_read(file)) for name in kept for file in _checkpoints_at(name))
    steps = verify_log(path, keys, earlier, trusted)
    verified = len(steps) == STEP_COUNT and all(step.passed for step in steps)
    if as_json:
        told = [
            {"number": step.number, "name": step.name, "passed": step.passed, "details": list(step.details)}
            for step in steps
        ]
        click.echo(json.dumps({"verified": verified, "steps": told}, indent=2))
    else:
        # What is not verified may be quoted, and whoever wrote it could have a terminal show "verified" in its place.
        for step in steps:
            for detail in step.details:
                click.echo(f"{step.number} {'ok  ' if step.passed else 'FAIL'} {step.name}: {sanitise_line(detail)}")
        click.echo("verified" if verified else "not verified")
    context.exit(0 if verified else EXIT_NOT_VERIFIED)


def _checkpoints_at(path: str) -> list[str]:
    """Give the file, or the files of checkpoints in the directory."""
    return sorted(map(str, Path(path).glob("*.checkpoint"))) if Path(path).is_dir() else [path]


def _verify_proof(
    context: click.Context, path: str, trusted: "tuple[tuple[LogKey, ...], tuple[WitnessKey, ...]]", *, as_json: bool
) -> None:
    from secureworker.audit.proofs import verify_proof
    from secureworker.core.errors import AuditError
    from secureworker.host.sanitise import sanitise_line

    try:
        entry = verify_proof(_read(path), *trusted)
    except AuditError as error:
        why = json.dumps({"verified": False, "reason": str(error)})
        click.echo(why if as_json else f"not verified: {sanitise_line(str(error))}")
        context.exit(EXIT_NOT_VERIFIED)
    record = json.loads(entry.line)
    if as_json:
        click.echo(json.dumps({"verified": True, "shard": entry.shard, "record": record}, indent=2))
    else:
        click.echo(_sentence(entry))
        for name, digest in entry.record.digests:
            click.echo(f"  {name} sha256 {digest}")
        click.echo("verified: the log has this record")


def _checkpoint_in(content: bytes) -> bytes:
    """Give the checkpoint that a file is, or that a proof in it ends with."""
    return content.partition(b"\n\n")[2] if content.startswith(b"c2sp.org/tlog-proof") else content


@command.command("show")
@_directory
@_task
@_event
@_as_json
def show(*, directory: str, task: str | None, events: tuple[str, ...], as_json: bool) -> None:
    r"""Print the records, oldest first; nothing is verified by it. Ends with 1 where there is none to print.

    \b
    Examples:
      secureworker audit show /var/lib/secureworker/audit --task fN1SbArXTPSVFNUvaOlinQ
      secureworker audit show /var/lib/secureworker/audit --event refusal --json
    """
    found = False
    for entry in _entries(directory, task, events):
        found = True
        click.echo(entry.line.decode() if as_json else _sentence(entry))
    if not found:
        raise click.ClickException(f"the log in {directory} has no such record")


@command.command("tail")
@_directory
@_task
@_event
@_as_json
@click.option("-n", "--lines", type=click.IntRange(0), default=10, show_default=True, metavar="N", help="How many.")
@click.option("-f", "--follow", is_flag=True, help="Go on with those that come.")
def tail(*, directory: str, task: str | None, events: tuple[str, ...], as_json: bool, lines: int, follow: bool) -> None:
    """Print the newest records. Nothing is verified by it."""
    from collections import deque

    def tell(entry: "Entry") -> None:
        click.echo(entry.line.decode() if as_json else _sentence(entry))

    last = (0, 0)
    newest: deque[Entry] = deque(maxlen=lines)
    for entry in _entries(directory, None, ()):
        last = (entry.shard, entry.stamp.index)
        if _wanted(entry, task, events):
            newest.append(entry)
    for entry in newest:
        tell(entry)
    while follow:
        time.sleep(_FOLLOW_SECONDS)
        for entry in _entries(directory, None, ()):
            if (entry.shard, entry.stamp.index) > last:
                last = (entry.shard, entry.stamp.index)
                if _wanted(entry, task, events):
                    tell(entry)


@command.command("prove")
@_directory
@click.argument("index", type=click.IntRange(0), required=False)
@click.option("--shard", type=click.IntRange(1), metavar="N", help="The record's shard; 1 where INDEX is given.")
@click.option("--task", metavar="ID", help="Instead of INDEX: the signature for this task, of its last run.")
@click.option(
    "--checkpoint",
    "kept",
    type=click.File("rb"),
    metavar="FILE",
    help="A checkpoint that was kept: prove that the record was in the log then.",
)
@click.option("--output", type=click.File("wb", lazy=True), default="-", metavar="FILE", help="Where to.")
def prove(*, directory: str, index: int | None, shard: int | None, task: str | None, kept: Any, output: Any) -> None:
    r"""Prove that the record INDEX is in the log, in the form of c2sp.org/tlog-proof; the record goes with it.

    Whoever has the public key verifies it with `audit verify FILE`, or with any verifier of transparency logs. With
    --checkpoint the proof is one for a log that was kept elsewhere: what `verify --log-proof` needs of a revoked key.

    \b
    Examples:
      secureworker audit prove /var/lib/secureworker/audit 1234 --output record.tlog-proof
      secureworker audit prove audit-copy/ --task fN1SbArXTPSVFNUvaOlinQ --checkpoint kept > old.tlog-proof
    """
    from secureworker.audit.proofs import prove as make
    from secureworker.core.checkpoint import write_proof
    from secureworker.core.errors import AuditError

    if (index is None) == (task is None):
        raise click.UsageError("say which record: either its INDEX, or --task")
    note = None if kept is None else _checkpoint_in(kept.read(_MAX_FILE_BYTES))
    try:
        at = _signature_of(directory, task, shard) if task is not None else (shard or 1, int(index or 0))
        click.echo(write_proof(make(directory, *at, kept=note)), file=output, nl=False)
    except AuditError as error:
        raise click.ClickException(str(error)) from error


def _signature_of(directory: str, task: str, shard: int | None) -> tuple[int, int]:
    """Find the newest signature for a task."""
    found = [
        (entry.shard, entry.stamp.index)
        for entry in _entries(directory, task, ("signature",))
        if shard in {None, entry.shard}
    ]
    if not found:
        raise click.ClickException(f"the log in {directory} has no signature for the task {task}")
    return max(found)


@command.command("export")
@_directory
@_task
@click.option("--key", "public_key", metavar="PUB", help="Public key: its form for witnesses is written too.")
@click.option(
    "--witnessed",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="Where `audit push` keeps what a witness signed: written too, and proved by where it can.",
)
def export(*, directory: str, task: str | None, public_key: str | None, witnessed: str | None) -> None:
    r"""Print one JSON document: the checkpoints, and the records (all, or a task's) each with its proof.

    It can be verified without the log: each `proof` is a file for `audit verify`.

    \b
    Example:
      secureworker audit export /var/lib/secureworker/audit --task fN1SbArXTPSVFNUvaOlinQ > audit.json
    """
    from secureworker.audit.proofs import Prover
    from secureworker.audit.shards import checkpoint_file
    from secureworker.core.checkpoint import write_proof
    from secureworker.core.errors import AuditError

    told: list[dict[str, Any]] = []
    checkpoints: dict[int, bytes] = {}
    cosigned = {} if witnessed is None else {Path(path).name: _read(path) for path in _checkpoints_at(witnessed)}
    provers: tuple[Prover, ...] = ()
    try:
        for entry in _entries(directory, task, ()):
            if entry.shard not in checkpoints:
                newest = Prover(directory, entry.shard)
                checkpoints[entry.shard] = newest.note
                kept = cosigned.get(checkpoint_file(entry.shard))
                provers = (newest,) if kept is None else (Prover(directory, entry.shard, kept), newest)
            # As of the cosigned checkpoint where that has it; what is not signed for yet is not there yet.
            prover = next((prover for prover in provers if entry.stamp.index < prover.size), None)
            if prover is not None:
                proof = write_proof(prover.prove(entry.stamp.index, entry.line)).decode()
                told.append({"shard": entry.shard, "record": json.loads(entry.line), "proof": proof})
    except AuditError as error:
        raise click.ClickException(str(error)) from error
    notes = [note.decode() for note in checkpoints.values()]
    document: dict[str, Any] = {"checkpoints": notes, "records": told}
    if witnessed is not None:
        document["cosigned"] = [note.decode("utf-8", "replace") for note in cosigned.values()]
    if public_key is not None:
        key = _log_key(public_key)
        document["keys"] = [key.named(note.partition("\n")[0]).vkey for note in notes]
    click.echo(json.dumps(document, indent=2))


def _log_key(public_key: str) -> "LogKey":
    from secureworker.audit.shards import LogKey
    from secureworker.signing.publickeys import read_public_key

    try:
        key = read_public_key(public_key)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    return LogKey(key.raw, key.verifies)


def _read(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(_MAX_FILE_BYTES)


def _entries(directory: str, task: str | None, events: tuple[str, ...]) -> "Iterator[Entry]":
    from secureworker.audit.inspect import read_entries
    from secureworker.core.audit import Event
    from secureworker.core.errors import AuditError
    from secureworker.core.ids import TaskId

    if task is not None:
        try:
            TaskId(task)
        except ValueError as error:
            raise click.UsageError(f"--task: {error}") from error
    known = {event.value for event in Event}
    for name in events:
        if name not in known:
            raise click.UsageError(f"there is no event {name[:40]!r}; there are {', '.join(sorted(known))}")
    try:
        for entry in read_entries(directory):
            if _wanted(entry, task, events):
                yield entry
    except AuditError as error:
        raise click.ClickException(str(error)) from error


def _wanted(entry: "Entry", task: str | None, events: tuple[str, ...]) -> bool:
    about = entry.record.run is not None and entry.record.run[0] == task
    return (task is None or about) and (not events or entry.record.event.value in events)


def _sentence(entry: "Entry") -> str:
    """Write a record for people, in a line that nothing in it can break."""
    from secureworker.host.logs import harmless

    record, stamp = entry.record, entry.stamp
    when = stamp.time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    run = f" {record.run[0]}/{int(record.run[1])}" if record.run else ""
    details = "".join(f" {name}={json.dumps(value, ensure_ascii=False)}" for name, value in record.details)
    said = f"{stamp.writer} {record.event.value} {record.ending.value}{run}{details}"
    return f"{when} {entry.shard}:{stamp.index} {harmless(said)}"
