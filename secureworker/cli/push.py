"""`secureworker audit push`: tell a witness and the journal of the audit log's checkpoints."""

import asyncio
import signal
from typing import TYPE_CHECKING

import click

from secureworker.cli.witnesses import witness_key

if TYPE_CHECKING:
    from secureworker.audit.push import Push
    from secureworker.core.checkpoint import Checkpoint
    from secureworker.core.witness import WitnessKey

EXIT_NOT_TOLD = 1
_JOURNAL = "/run/systemd/journal/socket"  # sd_journal_print(3); not imported: --help loads no more than it needs


@click.command("push")
@click.argument("directory", type=click.Path(exists=True, file_okay=False))
@click.option("--url", metavar="URL", help="The witness; requests go to URL/add-checkpoint.")
@click.option("--witness", metavar="VKEY", help="The witness' key: name+id+key, as it publishes it; or a file.")
@click.option("--store", metavar="DIR", type=click.Path(file_okay=False), help="Where to keep what it signs.")
@click.option(
    "--journal", is_flag=False, flag_value=_JOURNAL, metavar="[SOCKET]", help="A line in the systemd journal for each."
)
@click.option("--follow", is_flag=True, help="Go on until told to end, by SIGTERM.")
@click.option(
    "--every", type=click.FloatRange(0.01, 3600), default=10, show_default=True, metavar="SECONDS", help="How often."
)
def command(  # noqa: PLR0913 - click gives every option as an argument
    *,
    directory: str,
    url: str | None,
    witness: str | None,
    store: str | None,
    journal: str | None,
    follow: bool,
    every: float,
) -> None:
    r"""Show the log's newest checkpoints to a witness (c2sp.org/tlog-witness), and keep its cosignatures.

    It holds no key, and reads the log only. Ends with 0 where all were told, 1 where somebody was not; with --follow
    that is a warning and tried again, and 1 is for a witness that has seen another log of this name, which no waiting
    mends.

    \b
    Example:
      secureworker audit push /var/lib/secureworker-signer/audit --follow --journal \
        --url https://witness.example.org --witness witness.vkey --store /var/lib/secureworker-witness
    """
    from secureworker.core.errors import SecureworkerError
    from secureworker.host.logs import LogFormat, configure

    given = {url, witness, store}
    if None in given and given != {None}:
        raise click.UsageError("a witness needs all three of --url, --witness and --store")
    if given == {None} and journal is None:
        raise click.UsageError("say whom to tell: a witness (--url, --witness and --store), --journal, or both")
    key = None if witness is None else witness_key(witness)
    configure(LogFormat.HUMAN)
    try:
        problems = asyncio.run(_push((directory, url, key, store, journal), every if follow else None))
    except SecureworkerError as error:
        raise click.ClickException(str(error)) from error
    if problems:
        raise click.ClickException("; ".join(problems))


async def _push(
    given: "tuple[str, str | None, WitnessKey | None, str | None, str | None]", every: float | None
) -> tuple[str, ...]:
    from secureworker.audit.journal import Journal
    from secureworker.audit.push import Push
    from secureworker.audit.witness import LIMITS, Pusher, Store, Witness
    from secureworker.host.http import open_session

    directory, url, key, store, socket = given
    journal = None if socket is None else Journal(socket)
    if url is None or key is None or store is None:
        return await _go(Push(directory, None, journal), every)
    kept = Store(store, key)
    try:
        async with open_session(LIMITS) as session:
            return await _go(Push(directory, Pusher(directory, Witness(session, url, key), kept), journal), every)
    finally:
        kept.close()


async def _go(push: "Push", every: float | None) -> tuple[str, ...]:
    if every is None:
        return await push.round(_say)
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    await push.until(told, every, _say)
    return ()


def _say(checkpoint: "Checkpoint") -> None:
    click.echo(f"cosigned: {checkpoint.size} records of {checkpoint.origin}")
