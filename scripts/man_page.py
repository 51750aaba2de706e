"""Write the manual page from the commands themselves: `python scripts/man_page.py > docs/secureworker.1`."""

import inspect
import re
import textwrap
from collections.abc import Iterator

import click

from secureworker import __version__
from secureworker.cli.main import SUMMARIES, cli

WIDTH = 70
HEAD = r""".\" Made from the program's own help by `python scripts/man_page.py > docs/secureworker.1`: change that.
.TH SECUREWORKER 1 "" "secureworker {version}" "User Commands"
.SH NAME
secureworker \- run release scripts for Taskcluster: allowed by a policy, confined, and signed for
.SH SYNOPSIS
.B secureworker
.B \-\-policy
.I FILE
.RI [ OPTIONS ]
.br
.B secureworker
.I COMMAND
.RI [ ARGUMENTS ]
"""
TAIL = r""".SH FILES
.TP
.I /etc/secureworker/worker.env
Settings of the worker's unit.
.TP
.I /etc/secureworker/policy.yml
What the worker may do.
.TP
.I /etc/secureworker/signer.yml
Settings of the signer's unit.
.TP
.I /etc/secureworker/signing.key
The signing key; root's, mode 0400. Its public half is beside it in
.IR signing.key.pub .
.TP
.I /etc/secureworker/taskcluster.json
The worker's credentials; root's, mode 0600.
.TP
.I /var/lib/secureworker
The worker's own directory. Where the signer is no unit of its own, the audit log is in it.
.TP
.I /var/lib/secureworker-signer/audit
The audit log, where the signer is a unit of its own.
.SH SEE ALSO
.BR systemctl (1),
.BR journalctl (1),
.BR runc (8),
.BR systemd.exec (5)
.PP
The operator's guide, the runbook and the rest of the documentation lie in
.IR /usr/share/doc/secureworker .
"""


def escaped(text: str) -> str:
    """Keep roff from reading anything into a text: backslashes, dashes, quotes, and dots at the start of a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    text = text.replace("…", "...").replace("→", "\\(->")
    return re.sub(r"^\.", r"\\&.", text, flags=re.MULTILINE)


def filled(text: str) -> str:
    """Break a paragraph into lines that a person can read in the source; each begins as roff must not misread it."""
    lines = textwrap.wrap(" ".join(text.split()), WIDTH, break_on_hyphens=False, break_long_words=False)
    return "\n".join(map(escaped, lines))


def paragraphs(text: str) -> Iterator[str]:
    """Give a help text's paragraphs; those that keep their lines begin with click's mark."""
    for part in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if part.startswith("\b"):
            lines = part.removeprefix("\b").strip("\n")
            yield f".PP\n.nf\n{escaped(lines)}\n.fi\n"
        else:
            yield f".PP\n{filled(part)}\n"


def options(command: click.Command, context: click.Context) -> Iterator[str]:
    """Give each option with what it says, and the variable that sets it too."""
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None:
            continue
        flags, says = record
        variables = [parameter.envvar] if isinstance(parameter.envvar, str) else list(parameter.envvar or ())
        also = f" Variable: {variables[0]}." if variables else ""
        yield f".TP\n.B {escaped(flags)}\n{filled(says + also)}\n"


def sections(command: click.Command, context: click.Context) -> Iterator[str]:
    """Give a command's part of the page, and those of all commands below it."""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from _one(below, click.Context(below, info_name=name, parent=context))


def _one(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield f".SS {escaped(context.command_path.removeprefix('secureworker '))}\n"
    yield f".B {escaped(context.command_path)}\n{escaped(usage)}\n"
    if command.help:
        yield from paragraphs(command.help)
    yield from options(command, context)
    if command.epilog:
        yield from paragraphs(command.epilog)
    yield from sections(command, context)


def page() -> str:
    """Give the whole page."""
    context = click.Context(cli, info_name="secureworker")
    parts = [HEAD.format(version=__version__), ".SH DESCRIPTION\n", *list(paragraphs(cli.help or ""))]
    parts[2] = parts[2].removeprefix(".PP\n")
    parts += [f".TP\n.B {escaped(name)}\n{filled(SUMMARIES[name])}\n" for name in cli.list_commands(context)]
    parts += [".SH COMMANDS\n", *sections(cli, context), TAIL]
    return "".join(parts)


if __name__ == "__main__":
    click.echo(page(), nl=False)
