"""`secureworker demo`: a small real release, told step by step."""

from pathlib import Path

import click


@click.command("demo")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where the signed artifacts go; by default a new directory below the temporary one.",
)
@click.pass_context
def command(context: click.Context, *, output: Path | None) -> None:
    r"""Show the worker at work: four tasks on an embedded Taskcluster, each of which must end in its own way.

    Starts the embedded Taskcluster, makes a key and restricted credentials, starts the worker as a separate process
    with the policy demo.yml, and runs: a task that builds a release and is signed; one that asks for a scope that the
    policy forbids; one that tries to get at this host's secrets and network; one that is cancelled.

    Ends with 0 only where every task ended as it should and every signature verifies; with 1 where not.

    \b
    Examples:
      sudo secureworker demo
      sudo secureworker demo --output /tmp/release
    """
    # Here and not above: `--help` of the whole program must not load rich, aiohttp and cryptography.
    import asyncio
    import shutil
    import sys
    import tempfile

    from rich.console import Console

    from secureworker.core.errors import HostError
    from secureworker.demo.account import Account
    from secureworker.demo.play import PUBLIC_KEY, play
    from secureworker.demo.stage import WorkerEnded

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # of a log file: nothing there has to wrap
    account = Account(console)
    if output is None:
        output = Path(tempfile.mkdtemp(prefix="secureworker-release-"))
    elif output.exists() and any(output.iterdir()):
        raise click.UsageError(f"{output} is not empty; name a new directory")
    directory = Path(tempfile.mkdtemp(prefix="secureworker-demo-"))
    try:
        good = asyncio.run(play(account, directory, output))
    except (WorkerEnded, HostError, TimeoutError) as error:
        raise click.ClickException(
            f"{str(error) or 'a task did not end in time'}; `secureworker doctor` says what this host lacks"
        ) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    account.line(f"The signed artifacts are in {output}. To verify them once more, by themselves:")
    # scripts/demo installs into a directory that is not on the PATH.
    beside = Path(sys.executable).with_name("secureworker")
    program = "secureworker" if shutil.which("secureworker") or not beside.exists() else str(beside)
    account.line(f"  {program} verify {output}/build-tarball --key {output}/{PUBLIC_KEY}")
    account.verdict("every task ended as it should" if good else "not every task ended as it should", good=good)
    context.exit(0 if good else 1)
