"""`secureworker local-queue`: the embedded Taskcluster as a command."""

import errno
import json
import shlex
import sys

import click


@click.command(
    "local-queue",
    epilog="""\b
Examples:
  secureworker local-queue
  secureworker local-queue --port 8090 --data ./queue
  secureworker local-queue --json > queue.json
""",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="Listen on 127.0.0.1, port N; a free one if not given.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Keep tasks, artifacts and secrets in DIR, and go on with them at the next start. "
    "Without it, all is gone at the end.",
)
@click.option("--client-id", default="root", show_default=True, help="Client that may do everything.")
@click.option(
    "--access-token",
    envvar="SECUREWORKER_LOCAL_QUEUE_TOKEN",
    metavar="TOKEN",
    help="Its access token; also read from the environment variable SECUREWORKER_LOCAL_QUEUE_TOKEN, which other users "
    "of the host cannot see. A new one is made and shown if none is given.",
)
@click.option("--json", "as_json", is_flag=True, help="Print root URL and credentials as one line of JSON.")
def command(*, port: int, data: str | None, client_id: str, access_token: str | None, as_json: bool) -> None:
    """Serve a Taskcluster of your own on this host, for trying things out.

    Queue, Auth, Object and Secrets answer over HTTP on the loopback interface, as the real services do. Root URL and
    credentials are printed as shell variables. Runs until it is interrupted (Ctrl-C) or terminated; then exits with 0.

    Not for production: one client may do everything, and secrets are kept in the clear.
    """
    # Imported here: `secureworker --help` must not wait for an HTTP server.
    import asyncio
    import secrets

    from secureworker.core.claim import Secret
    from secureworker.localqueue.database import UnusableData
    from secureworker.localqueue.settings import Settings, StaticClient
    from secureworker.localqueue.until_signalled import run_until_signalled

    token = access_token or secrets.token_urlsafe(32)
    settings = Settings(clients=(StaticClient(client_id, Secret(token), ("*",)),), port=port, data=data)

    def announce(root_url: str) -> None:
        _announce(root_url, client_id, token, as_json=as_json)

    try:
        asyncio.run(run_until_signalled(settings, announce))
    except UnusableData as problem:
        raise click.ClickException(str(problem)) from problem
    except OSError as problem:
        raise click.ClickException(_explain(problem, port, data)) from problem


def _announce(root_url: str, client_id: str, token: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"rootUrl": root_url, "clientId": client_id, "accessToken": token}))
    else:
        click.echo(f"export TASKCLUSTER_ROOT_URL={root_url}")
        click.echo(f"export TASKCLUSTER_CLIENT_ID={shlex.quote(client_id)}")
        click.echo(f"export TASKCLUSTER_ACCESS_TOKEN={shlex.quote(token)}")
        click.echo(f"serving Queue, Auth, Object and Secrets on {root_url}; press Ctrl-C to end", err=True)
    # Whoever waits for these lines reads a pipe, which is not flushed by lines.
    sys.stdout.flush()


def _explain(problem: OSError, port: int, data: str | None) -> str:
    if problem.errno == errno.EADDRINUSE:
        return f"port {port} of 127.0.0.1 is taken; give another --port, or leave it out for a free one"
    if problem.errno == errno.EACCES and problem.filename is None:
        return f"port {port} of 127.0.0.1 may not be used by this user; give a --port of 1024 or more"
    return f"{problem.filename or data}: {problem.strerror}; give another --data directory"
