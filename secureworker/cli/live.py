"""The options of `run` that say where live logs are shown."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from secureworker.livelog.settings import LiveLogSettings

_PORT = 60098
"""generic-worker's for its live logs."""


def live_log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    options = (
        click.option(
            "--live-log-url",
            envvar="SECUREWORKER_LIVE_LOG_URL",
            metavar="URL",
            help="Where readers find the logs of running scripts whose rule has `live-log: true`: "
            f"https://build1.example.com:{_PORT}.",
        ),
        click.option(
            "--live-log-listen",
            envvar="SECUREWORKER_LIVE_LOG_LISTEN",
            default=f"0.0.0.0:{_PORT}",
            show_default=True,
            metavar="ADDRESS:PORT",
            help="Where live logs are served.",
        ),
        click.option(
            "--live-log-certificate",
            envvar="SECUREWORKER_LIVE_LOG_CERTIFICATE",
            metavar="FILE",
            help="PEM file with the certificate, and those between it and the root, for live logs.",
        ),
        click.option(
            "--live-log-key",
            envvar="SECUREWORKER_LIVE_LOG_KEY",
            metavar="FILE",
            help="PEM file with the certificate's key, mode 0600.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def live_log_settings(options: Mapping[str, Any]) -> "LiveLogSettings | None":
    """Read the options; None where live logs are not asked for.

    Raises:
        SettingsError: an address cannot be read.
        click.UsageError: they do not go together.
    """
    url, certificate, key = options["live_log_url"], options["live_log_certificate"], options["live_log_key"]
    if url is None:
        if certificate is not None or key is not None:
            raise click.UsageError("Missing option '--live-log-url': where readers find what the certificate is for.")
        return None
    if certificate is None or key is None:
        raise click.UsageError("Missing option '--live-log-certificate' or '--live-log-key'; live logs need TLS.")
    from secureworker.livelog.settings import LiveLogSettings, read_place, read_url

    listen = read_place(options["live_log_listen"])
    return LiveLogSettings(read_url(url), listen, certificate, key, options["log_format"])


def live_log_secrets(settings: "LiveLogSettings | None") -> tuple[str, ...]:
    """Give the files that no script may get at."""
    return () if settings is None else (settings.key,)
