"""Write docs/cli.md from the commands themselves: `python scripts/cli_reference.py > docs/cli.md`."""

import click

from secureworker.cli.main import cli

WIDTH = 100
HEAD = """# Commands

Made from the program's own `--help` by `python scripts/cli_reference.py > docs/cli.md`; a test fails when it is stale.
"""


def sections(command: click.Command, context: click.Context) -> list[str]:
    """Give the help of a command, and of all commands below it, each under a heading."""
    text = command.get_help(context).rstrip()
    found = [f"## {context.command_path}\n\n```text\n{text}\n```\n"]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                found += sections(below, _context(below, name, context))
    return found


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    return click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        **command.context_settings,
    )


if __name__ == "__main__":
    cli.context_settings.pop("max_content_width", None)
    click.echo("\n".join([HEAD, *sections(cli, _context(cli, "secureworker"))]), nl=False)
