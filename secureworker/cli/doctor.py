"""`secureworker doctor`: what this host can do, what is missing, and how to get it."""

import json
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from secureworker.sandbox.checkup import Point


@click.command(short_help="Say whether this host can sandbox, and what is missing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(*, as_json: bool) -> None:
    r"""Look at the kernel, control groups, OCI runtime and the rest that the sandbox needs.

    Changes nothing, and works for every user. Exits with 0 if scripts can be sandboxed here, else with 1.

    \b
    Examples:
      secureworker doctor
      secureworker doctor --json
    """
    from secureworker.sandbox import checkup

    points = checkup.examine()
    able = checkup.able(points)
    if as_json:
        answer = [
            {"name": point.name, "state": point.state.value, "found": point.found, "advice": point.advice}
            for point in points
        ]
        click.echo(json.dumps({"able": able, "checks": answer}, indent=2))
    else:
        _show(points, able=able)
    sys.exit(0 if able else 1)


def _show(points: "tuple[Point, ...]", *, able: bool) -> None:
    """Print a table; rich leaves the colours out where there is no terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "note": "yellow", "missing": "bold red"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "what", "found"):
        table.add_column(column, overflow="fold")
    for point in points:
        # Text, not markup: a version string with brackets in it is no style.
        found = Text(point.found)
        if point.advice:
            found.append(f"\n→ {point.advice}", style=styles[point.state.value])
        table.add_row(Text(point.state.value, style=styles[point.state.value]), Text(point.name), found)
    console = Console()
    console.print(table)
    missing = [point.name for point in points if point.state.value == "missing"]
    verdict = "This host can sandbox scripts." if able else f"This host cannot sandbox scripts: {', '.join(missing)}."
    console.print(Text(f"\n{verdict}", style="bold green" if able else "bold red"))
