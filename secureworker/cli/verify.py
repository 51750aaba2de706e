"""`secureworker verify`: check a directory of artifacts against its chain of trust."""

import json

import click


@click.command("verify")
@click.argument("directory", type=click.Path(exists=True, file_okay=False))
@click.option("--key", "public_key", required=True, metavar="PUB", help="Public key, or a file that holds it.")
@click.option("--task-id", metavar="ID", help="The task it must be about.")
@click.option("--run-id", type=int, metavar="N", help="The run it must be about.")
@click.option("--worker-pool", metavar="POOL", help="The pool it must come from: provisioner/worker-type.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(  # noqa: PLR0913 - click gives every option as an argument
    context: click.Context,
    *,
    directory: str,
    public_key: str,
    task_id: str | None,
    run_id: int | None,
    worker_pool: str | None,
    as_json: bool,
) -> None:
    """Check the artifacts in DIRECTORY, named as at the Queue, against the chain of trust among them.

    PUB is base64 of the 32 bytes, an OpenSSH line, or a file with either or with PEM; trust it only from a source of
    its own. Ends with 0 where everything is as it was signed, 1 where anything is not, 2 where it cannot be asked.
    """
    # Here and not above: `--help` of the whole program must not load cryptography.
    from secureworker.core.errors import HostError
    from secureworker.core.ids import RunId, TaskId, WorkerPool
    from secureworker.signing.keys import read_public_key
    from secureworker.signing.verify import Expected, verify_directory

    try:
        key = read_public_key(public_key)
        expected = Expected(
            task_id=None if task_id is None else TaskId(task_id),
            run_id=None if run_id is None else RunId(run_id),
            worker_pool=None if worker_pool is None else WorkerPool.parse(worker_pool),
        )
        verdict = verify_directory(directory, key, expected)
    except (ValueError, OSError, HostError) as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        steps = [
            {"number": step.number, "name": step.name, "passed": step.passed, "details": list(step.details)}
            for step in verdict.steps
        ]
        told = {"verified": verdict.verified, "key": key.fingerprint, "taskId": verdict.task_id}
        click.echo(json.dumps({**told, "runId": verdict.run_id, "steps": steps}, indent=2))
    else:
        for step in verdict.steps:
            for detail in step.details:
                click.echo(f"{step.number:>2} {'ok  ' if step.passed else 'FAIL'} {step.name}: {detail}")
        click.echo("verified" if verdict.verified else "not verified")
    context.exit(0 if verdict.verified else 1)
