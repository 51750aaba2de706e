"""`secureworker status`: what a running worker does."""

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from secureworker.operation.view_fetch import Place

EXIT_HINDERED: Final = 1
EXIT_NOT_RUNNING: Final = 3
_UNBROKEN: Final = 160
"""Columns where the output is no terminal: digests stay whole, for who greps or copies them."""
_NOT_WORKING: Final = frozenset({"hindered", "unanswered", "ended"})


@click.command(
    "status",
    epilog="""\b
Exit codes:
  0  the worker claims tasks or runs them, starts, or drains
  1  it claims none: something on its host hinders it, the Queue does not answer as it should, or it has ended
  2  the command line is wrong
  3  no worker answers, or this user may not ask it

\b
Examples:
  secureworker status
  secureworker status --watch
  secureworker status --json --state-dir /srv/secureworker | jq .state
""",
)
@click.option(
    "--state-dir",
    envvar=["SECUREWORKER_STATE_DIR", "STATE_DIRECTORY"],
    default="/var/lib/secureworker",
    show_default=True,
    metavar="DIR",
    help="The worker's directory, with its socket in it.",
)
@click.option("--socket", metavar="PATH", help="The socket, where it is elsewhere (`run --status unix:PATH`).")
@click.option("--url", metavar="URL", help="Or http://127.0.0.1:PORT (`run --status 127.0.0.1:PORT`).")
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C.")
@click.option(
    "--every", type=click.FloatRange(0.2), default=2.0, show_default=True, metavar="N", help="With --watch: seconds."
)
@click.option("--json", "as_json", is_flag=True, help="Print the document (`secureworker schema status`) instead.")
@click.pass_context
def command(context: click.Context, /, *, watch: bool, every: float, as_json: bool, **where: Any) -> None:
    """Say what a running worker does and since when: its state, runs, last decisions, resolutions and errors."""
    from secureworker.operation.view_fetch import NoStatus, NotRunning

    place = _place(where)
    if watch:
        context.exit(_watch(place, every, as_json=as_json))
    try:
        document = _ask(place)
    except (NotRunning, NoStatus) as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(EXIT_NOT_RUNNING)
    _print(document, as_json=as_json)
    context.exit(EXIT_HINDERED if document["state"]["name"] in _NOT_WORKING else 0)


def _place(where: dict[str, Any]) -> "Place":
    from secureworker.operation.view_fetch import Place, parse_url
    from secureworker.operation.view_open import SOCKET

    if where["url"] is not None and where["socket"] is not None:
        raise click.UsageError("--socket and --url do not go together.")
    if where["url"] is None:
        return Place(path=where["socket"] or str(Path(where["state_dir"]) / SOCKET))
    try:
        return parse_url(where["url"])
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _ask(place: "Place") -> dict[str, Any]:
    """Fetch the document, and see that it is one."""
    from secureworker.core.schemas import CompiledSchema
    from secureworker.host.sanitise import sanitise_line
    from secureworker.operation.view_fetch import NoStatus, fetch
    from secureworker.policyfile.load import read_schema

    document = fetch(place)
    problems = CompiledSchema(read_schema("status")).problems(document)
    if problems:
        raise NoStatus(f"what answers at {place} is no worker of this version: {sanitise_line(problems[0].message)}")
    return document


def _print(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    from rich.console import Console

    from secureworker.operation.view_table import print_to

    told = sys.stdout.isatty() or "COLUMNS" in os.environ
    print_to(Console(width=None if told else _UNBROKEN), document)


def _watch(place: "Place", every: float, *, as_json: bool) -> int:
    """Print again and again; on a terminal, in one place. Ctrl-C is how it ends."""
    try:
        if as_json or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
            _follow(place, every, as_json=as_json)
        else:
            _redraw(place, every)
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # Who read has seen enough; and there is nowhere to flush to when this process ends.
        sys.stdout = None
    return 0


def _follow(place: "Place", every: float, *, as_json: bool) -> None:
    from secureworker.operation.view_fetch import NoStatus, NotRunning

    while True:
        try:
            document = _ask(place)
        except (NotRunning, NoStatus) as error:
            click.echo(f"Error: {error}", err=True)
        else:
            if as_json:
                click.echo(json.dumps(document))
            else:
                _print(document, as_json=False)
        time.sleep(every)


def _redraw(place: "Place", every: float) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from secureworker.operation.view_fetch import NoStatus, NotRunning
    from secureworker.operation.view_table import as_tables

    with Live(console=Console(), auto_refresh=False, screen=True, vertical_overflow="ellipsis") as live:
        while True:
            try:
                live.update(as_tables(_ask(place)), refresh=True)
            except (NotRunning, NoStatus) as error:
                live.update(Text(str(error), style="bold red"), refresh=True)
            time.sleep(every)
