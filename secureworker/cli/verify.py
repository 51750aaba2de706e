"""`secureworker verify`: check what a run published against its statements."""

import asyncio
import json
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from secureworker.cli.witnesses import witness_key

if TYPE_CHECKING:
    from secureworker.artifacts.fetch import Fetched
    from secureworker.core.ids import RunId, TaskId
    from secureworker.core.trust import Trust
    from secureworker.signing.publickeys import PublicKey
    from secureworker.signing.verify import Expected, LogDemands, Verdict


@click.command("verify")
@click.argument("target", metavar="DIRECTORY|BUNDLE|TASK_ID")
@click.argument("files", nargs=-1, metavar="[FILES]...")
@click.option("--trust", "trust_file", metavar="FILE", help="Trust file: pools, and the keys that count for them.")
@click.option("--key", "public_key", metavar="PUB", help="Instead: one public key, or a file that holds it.")
@click.option("--task-id", metavar="ID", help="The task it must be about.")
@click.option("--run-id", type=int, metavar="N", help="The run it must be about; of a TASK_ID, the one to fetch.")
@click.option("--worker-pool", metavar="POOL", help="The pool it must come from: provisioner/worker-type.")
@click.option("--root-url", metavar="URL", help="The deployment it must be of; of a TASK_ID, where to fetch it.")
@click.option(
    "--log-proof",
    type=click.File("rb"),
    metavar="FILE",
    help="A proof by `audit prove`, in the place of the published one: for what a revoked key signed.",
)
@click.option(
    "--witness",
    "witnesses",
    multiple=True,
    metavar="VKEY",
    help="Who must have cosigned the checkpoint of the proof: name+id+key; or a file.",
)
@click.option(
    "--output", metavar="DIR", type=click.Path(file_okay=False), help="Keep what is fetched; a new directory."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(  # noqa: PLR0913 - click gives every option as an argument
    context: click.Context,
    *,
    target: str,
    files: tuple[str, ...],
    trust_file: str | None,
    public_key: str | None,
    task_id: str | None,
    run_id: int | None,
    worker_pool: str | None,
    root_url: str | None,
    log_proof: BinaryIO | None,
    witnesses: tuple[str, ...],
    output: str | None,
    as_json: bool,
) -> None:
    r"""Check what a run published: both its statements, and every artifact against them.

    DIRECTORY holds the artifacts under their names at the Queue. BUNDLE is a public/provenance.sigstore.json by
    itself, and FILES are what must be among its subjects. A TASK_ID is fetched, without credentials, and held against
    what the Queue says of it too.

    Ends with 0 where everything is as it was signed, 1 where anything is not, 2 where it cannot be asked. Trust a key,
    or a trust file, only from a source of its own.

    \b
    Examples:
      secureworker verify fN1SbArXTPSVFNUvaOlinQ --trust trust.yml
      secureworker verify fN1SbArXTPSVFNUvaOlinQ --key signing.key.pub --root-url https://tc.example.com
      secureworker verify release/ --trust trust.yml --worker-pool releng-hardened/release
      secureworker verify public/provenance.sigstore.json app.apk --trust trust.yml
    """
    # Here and not above: `--help` of the whole program must not load cryptography.
    from secureworker.core.errors import HostError, ServiceError
    from secureworker.core.ids import RunId, TaskId, WorkerPool
    from secureworker.core.logproof import MAX_PROOF_BYTES
    from secureworker.host.sanitise import sanitise_line
    from secureworker.signing.verify import Expected, LogDemands, verify_bundle, verify_directory

    now = datetime.now(UTC)
    # A byte too many is enough for the step to say that it is larger than any.
    proof = None if log_proof is None else log_proof.read(MAX_PROOF_BYTES + 1)
    demands = LogDemands(proof, tuple(map(witness_key, witnesses)))
    try:
        trusted = _trusted(trust_file, public_key)
        expected = Expected(
            task_id=None if task_id is None else TaskId(task_id),
            run_id=None if run_id is None else RunId(run_id),
            worker_pool=None if worker_pool is None else WorkerPool.parse(worker_pool),
            root_url=root_url,
        )
        if files and not Path(target).is_file():
            raise click.UsageError("FILES are for a BUNDLE; a directory has all of its files checked")
        if Path(target).is_dir():
            verdict = verify_directory(target, trusted, expected, now, demands=demands)
        elif Path(target).is_file():
            verdict = verify_bundle(target, files, trusted, expected, now, demands=demands)
        else:
            where = root_url or str(getattr(trusted, "root_url", ""))
            fetching = _Fetching(_task_id(target), where, output, demands)
            verdict = asyncio.run(_verify_task(fetching, trusted, expected))
    except (ValueError, OSError, HostError, ServiceError) as error:
        raise click.UsageError("\n".join(map(sanitise_line, str(error).split("\n")))) from error
    _show(verdict, as_json=as_json)
    context.exit(0 if verdict.verified else 1)


def _trusted(trust_file: str | None, public_key: str | None) -> "Trust | PublicKey":
    from secureworker.host.trustfile import load_trust
    from secureworker.signing.publickeys import read_public_key

    if (trust_file is None) == (public_key is None):
        raise click.UsageError("say whose signatures count: either --trust or --key")
    return load_trust(trust_file) if trust_file is not None else read_public_key(str(public_key))


def _task_id(text: str) -> "TaskId":
    from secureworker.core.ids import TaskId

    try:
        return TaskId(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is no directory, no file, and no task id") from None


@dataclass(frozen=True, slots=True)
class _Fetching:
    """What is to be fetched, from where, to where."""

    task_id: "TaskId"
    root_url: str
    output: str | None
    demands: "LogDemands"


async def _verify_task(fetching: _Fetching, trusted: "Trust | PublicKey", expected: "Expected") -> "Verdict":
    """Fetch a run into a directory of its own, and verify that."""
    from secureworker.host.sanitise import sanitise_line
    from secureworker.signing.verify import verify_directory

    task_id, root_url, output = fetching.task_id, fetching.root_url, fetching.output
    if not root_url:
        raise click.UsageError("say by --root-url, or in the trust file, which deployment the task is of")
    if expected.task_id not in {None, task_id}:
        raise click.UsageError(f"{task_id} is to be fetched, and {expected.task_id} is to be verified")
    with tempfile.TemporaryDirectory(prefix="secureworker-verify-") as temporary:
        directory = output or temporary
        if output is not None:
            try:
                await asyncio.to_thread(Path(output).mkdir, parents=True)
            except FileExistsError:
                raise click.UsageError(f"{output} is there already; name a new directory") from None
        fetched = await _fetch(root_url, task_id, expected.run_id, directory)
        if fetched.state != "completed":
            click.echo(f"the Queue says: run {fetched.run_id} is {fetched.state}; only completed runs verify", err=True)
        for line in fetched.missing:
            click.echo(f"not fetched: {sanitise_line(line)}", err=True)
        about = replace(
            expected,
            task_id=task_id,
            run_id=fetched.run_id,
            root_url=root_url,
            worker=fetched.worker,
            definition=fetched.definition,
            run_state=fetched.state,
        )
        return await asyncio.to_thread(
            verify_directory, directory, trusted, about, datetime.now(UTC), demands=fetching.demands
        )


async def _fetch(root_url: str, task_id: "TaskId", run_id: "RunId | None", directory: str) -> "Fetched":
    from secureworker.artifacts.fetch import RunFetcher
    from secureworker.host.clock import SystemClock
    from secureworker.host.http import open_session

    async with open_session() as session:
        return await RunFetcher(session, SystemClock(), root_url).fetch(task_id, run_id, directory)


def _show(verdict: "Verdict", *, as_json: bool) -> None:
    if as_json:
        steps = [
            {"number": step.number, "name": step.name, "passed": step.passed, "details": list(step.details)}
            for step in verdict.steps
        ]
        told = {"verified": verdict.verified, "key": verdict.key, "taskId": verdict.task_id, "runId": verdict.run_id}
        click.echo(json.dumps({**told, "steps": steps}, indent=2))
        return
    from secureworker.host.sanitise import sanitise_line

    # What is not verified may be quoted, and whoever wrote it could have a terminal show "verified" in its place.
    for step in verdict.steps:
        for detail in step.details:
            click.echo(f"{step.number:>2} {'ok  ' if step.passed else 'FAIL'} {step.name}: {sanitise_line(detail)}")
    click.echo("verified" if verdict.verified else "not verified")
