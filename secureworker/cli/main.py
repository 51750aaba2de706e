"""The command line's top: finds commands, loads only the one that is asked for, and helps with typing errors."""

import difflib
import errno
import importlib
import importlib.util
import os
import sys
import traceback
from typing import Any, Final, NoReturn

import click

from secureworker import __version__

SUMMARIES: Final = {
    "run": "Claim tasks and run them, as the policy says.",
    "init": "Write a first policy, settings, key and units for this host.",
    "run-local": "Run one task definition through the whole line, without a Taskcluster.",
    "status": "Say what a running worker does, and since when.",
    "check": "Check a policy, and say in plain words what it allows.",
    "explain": "Say what a policy makes of a task, and why.",
    "policy": "Sign, verify, compare and test policies.",
    "schema": "Print the schemas of files.",
    "doctor": "Say what this host can do, and what is missing.",
    "demo": "See it work: a small signed release in half a minute.",
    "keys": "Make and show signing keys.",
    "verify": "Check signed artifacts against their chain of trust.",
    "signer": "Hold the signing key in a process of its own.",
    "audit": "Verify, show, prove and export the audit log.",
    "local-queue": "Serve a Taskcluster on loopback, for trying things out.",
}
"""Every command, in the order of `--help`; its module is `secureworker.cli.<name>`, its attribute `command`. The
summaries stand here so that `--help` need not import the modules."""


_CANNOT_BE_WRITTEN: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG})


class LazyGroup(click.Group):
    """Imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Give the commands that are installed."""
        return [name for name in SUMMARIES if importlib.util.find_spec(_module(name))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(_module(cmd_name)).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{_module(cmd_name)}.command is no command")
        _keep_lines(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, SUMMARIES[name]) for name in self.list_commands(ctx)])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; where its output cannot be written, say so in a line and end with 1.

        A pipe that nobody reads any more is click's to handle.
        """
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            if error.errno not in _CANNOT_BE_WRITTEN or not _is_of_output(error):
                raise
            _give_up_output()
            click.echo(f"Error: the output cannot be written: {error.strerror}", err=True)
            sys.exit(1)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take `secureworker --policy FILE` for `secureworker run --policy FILE`."""
        own = {"--help", "-h", "--version"}
        if args and args[0].startswith("-") and args[0] not in own:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which was probably meant."""
        if self.get_command(ctx, args[0]) is None:
            _unknown(args[0], self.list_commands(ctx), ctx)
        return super().resolve_command(ctx, args)


def _is_of_output(error: OSError) -> bool:
    """Whether it was standard output that took no more, and not some file."""
    raised_in = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        raised_in = str(frame.f_globals.get("__name__", ""))
    if raised_in.partition(".")[0] in {"click", "rich"}:
        return True
    try:
        # What could not be written is still in its buffer.
        sys.stdout.flush()
    except OSError:
        return True
    return False


def _give_up_output() -> None:
    """Lead standard output to nowhere: what is left in its buffer must not fail once more when the program ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.__stdout__.fileno() if sys.__stdout__ else 1)
    os.close(nowhere)


def _keep_lines(command: click.Command) -> None:
    r"""Let `\b` before a paragraph of help keep its lines, in raw docstrings too: click looks for the character."""
    command.help = command.help and command.help.replace("\\b\n", "\b\n")
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _keep_lines(below)


def _module(name: str) -> str:
    return f"secureworker.cli.{name.replace('-', '_')}"


def _unknown(name: str, known: list[str], ctx: click.Context) -> NoReturn:
    near = difflib.get_close_matches(name, known, n=2)
    meant = f"did you mean {' or '.join(repr(one) for one in near)}?" if near else f"there are {', '.join(known)}."
    raise click.UsageError(f"there is no command {name[:40]!r}; {meant}", ctx)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  secureworker demo
  secureworker --policy release.yml --worker-group dc1 --worker-id signer-1 --key file:/etc/secureworker/signing.key
  secureworker doctor
""",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Run release scripts for Taskcluster: allowed by a reviewed policy, confined, and signed for.

    `secureworker --policy FILE` is the same as `secureworker run --policy FILE`. Each command explains itself:
    `secureworker COMMAND --help`.
    """
