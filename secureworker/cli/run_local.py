"""`secureworker run-local`: one task definition through the whole line."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

if TYPE_CHECKING:
    from secureworker.core.claim import Json
    from secureworker.runlocal import Result

MAX_TASK_BYTES = 10 * 1024 * 1024
"""The Queue takes no larger request."""


@click.command("run-local")
@click.argument("task", type=click.File("rb"))
@click.option("--policy", "policy_file", required=True, metavar="FILE", help="The policy.")
@click.option(
    "--artifacts",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="A new or empty directory that the task's artifacts are written to.",
)
@click.option("--runtime", metavar="NAME", help="OCI runtime, name or path; by default the best that is installed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: how the task ended, and its log.")
@click.option("--verbose", is_flag=True, help="Show the worker's own log too.")
@click.pass_context
def command(  # noqa: PLR0913 - click gives every option as an argument
    context: click.Context,
    *,
    task: BinaryIO,
    policy_file: str,
    artifacts: Path | None,
    runtime: str | None,
    as_json: bool,
    verbose: bool,
) -> None:
    r"""Run one task definition, TASK, as the worker would: decided by the policy, in the sandbox, sealed and signed.

    TASK is a file with the body of createTask, or `-`; only `payload` must be in it, and `scopes` where the policy
    asks for them. Everything is the real worker's but the Taskcluster, which runs in this process. Keys and
    credentials are made for the occasion. The task's log goes to standard output.

    Ends with 0 where the task was completed, 1 where it ended otherwise or could not be run, 2 where the task or the
    policy cannot be used.

    \b
    Examples:
      sudo secureworker run-local --policy policies/minimal.yml task.json
      echo '{"payload": {}}' | sudo secureworker run-local --policy policies/minimal.yml -
    """
    # Here and not above: `--help` of the whole program must not load aiohttp, cryptography and schemas.
    import asyncio
    import logging
    from datetime import UTC, datetime

    from secureworker.core.errors import PolicyError, SecureworkerError
    from secureworker.host.logs import LogFormat, configure
    from secureworker.host.userns import enter
    from secureworker.policyfile.load import load
    from secureworker.runlocal import NotATask, complete, describe, run_local

    configure(LogFormat.HUMAN, verbose=verbose)
    if not verbose:
        logging.getLogger().setLevel(logging.ERROR)
    if artifacts is not None and artifacts.exists() and any(artifacts.iterdir()):
        raise click.UsageError(f"{artifacts} is not empty; name a new directory")
    try:
        # Before there is any thread.
        enter()
        policy = load(policy_file)
        body, said = complete(_read(task), policy, datetime.now(UTC))
        for sentence in said:
            click.echo(f"note: {sentence}", err=True)
        reach = (str(Path(policy_file).absolute()),)
        result = asyncio.run(run_local(policy, body, runtime=runtime, artifacts=artifacts, out_of_reach=reach))
    except (PolicyError, NotATask) as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(2)
    except (SecureworkerError, OSError) as error:
        message = describe(error) if isinstance(error, SecureworkerError) else str(error)
        raise click.ClickException(message) from error
    _show(result, artifacts, as_json=as_json)
    context.exit(0 if result.state == "completed" else 1)


def _read(task: BinaryIO) -> "dict[str, Json]":
    from secureworker.host.documents import BadDocument, parse_json
    from secureworker.runlocal import NotATask

    content = task.read(MAX_TASK_BYTES + 1)
    if len(content) > MAX_TASK_BYTES:
        raise NotATask(f"{task.name} has more than {MAX_TASK_BYTES} bytes, which no Queue takes")
    try:
        body = parse_json(content, task.name, most=MAX_TASK_BYTES).value
    except BadDocument as error:
        raise NotATask(str(error)) from error
    if not isinstance(body, dict):
        raise NotATask(f"{task.name} holds no JSON object: a task definition is expected")
    return body


def _show(result: "Result", artifacts: Path | None, *, as_json: bool) -> None:
    if as_json:
        told = {
            "taskId": result.task_id,
            "state": result.state,
            "reason": result.reason,
            "artifacts": list(result.artifacts),
            "log": result.log,
        }
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(result.log, nl=not result.log.endswith("\n"))
    sys.stdout.flush()
    where = f"written to {artifacts}" if artifacts is not None else "not kept: --artifacts DIR keeps them"
    click.echo(f"{result.state} / {result.reason}; artifacts: {len(result.artifacts)}, {where}", err=True)
