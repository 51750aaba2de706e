"""`secureworker signer`: the process that holds the key."""

import os
from typing import BinaryIO

import click

EXIT_FAULT = 1
MAX_BYTES = 1 << 20


@click.command("signer")
@click.option(
    "--config", type=click.File("rb"), metavar="FILE", help="Its settings; schemas/signer.schema.json describes them."
)
@click.option("--config-fd", type=click.IntRange(3), metavar="N", hidden=True)
@click.option("--channel-fd", type=click.IntRange(3), metavar="N", hidden=True)
@click.option(
    "--log-format", type=click.Choice(["human", "json"]), default="human", show_default=True, help="On standard error."
)
@click.option("--verbose", is_flag=True, help="Log details too.")
@click.pass_context
def command(
    context: click.Context,
    *,
    config: BinaryIO | None,
    config_fd: int | None,
    channel_fd: int | None,
    log_format: str,
    verbose: bool,
) -> None:
    r"""Hold the signing key, sign what one worker may say, and keep the audit log.

    A worker starts a signer of its own where it is given none. As a unit of its own it listens on a UNIX socket, for
    `secureworker run --signer unix:/path`; give it a user of its own. It ends with SIGTERM.

    \b
    Example:
      secureworker signer --config /etc/secureworker/signer.yml
    """
    import logging

    from secureworker.core.errors import SecureworkerError
    from secureworker.host.logs import LogFormat, configure
    from secureworker.signer import open_channel, read_settings, run

    if config is None and None in {config_fd, channel_fd}:
        raise click.UsageError("a signer needs its settings; give them with --config")
    configure(LogFormat(log_format), verbose=verbose)
    logger = logging.getLogger(__name__)
    try:
        if config_fd is not None and channel_fd is not None:
            with os.fdopen(config_fd, "rb") as file:
                settings = read_settings(file.read(MAX_BYTES), "settings.json")
            with open_channel(channel_fd) as channel:
                run(settings, channel)
        elif config is not None:
            run(read_settings(config.read(MAX_BYTES), config.name), None)
    except SecureworkerError as error:
        logger.error("the signer ends: %s", error)  # noqa: TRY400 - the sentence says it all
        context.exit(EXIT_FAULT)
