"""Options of `secureworker run` that say how the worker is shown to who operates it."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from secureworker.operation.around import OperationSettings

C = TypeVar("C", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--metrics-textfile",
        envvar="SECUREWORKER_METRICS_TEXTFILE",
        metavar="FILE",
        help="Write metrics there every 15 s, for node_exporter's textfile collector (its name ends in .prom).",
    ),
    click.option(
        "--heartbeat-file",
        envvar="SECUREWORKER_HEARTBEAT_FILE",
        metavar="FILE",
        help="Replace this file every 10 s for as long as the worker is alive, with its state as JSON.",
    ),
    click.option(
        "--worker-metrics",
        envvar="SECUREWORKER_WORKER_METRICS",
        is_flag=True,
        help="Log WORKER_METRICS lines, as generic-worker does.",
    ),
    click.option(
        "--region", envvar="SECUREWORKER_REGION", default="", metavar="NAME", help="What those lines call the region."
    ),
    click.option(
        "--instance-type",
        envvar="SECUREWORKER_INSTANCE_TYPE",
        default="",
        metavar="NAME",
        help="What they call the kind of machine.",
    ),
)


def operation_options(command: C) -> C:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def operation_settings(options: Mapping[str, Any]) -> "OperationSettings":
    """Read the options; and take out of the environment what the service manager says."""
    from secureworker.operation.around import OperationSettings
    from secureworker.operation.notices import Notices
    from secureworker.operation.worker_metrics import Whereabouts

    def absolute(name: str) -> str | None:
        return None if options[name] is None else str(Path(options[name]).absolute())

    return OperationSettings(
        Notices.taken(os.environ),
        absolute("metrics_textfile"),
        absolute("heartbeat_file"),
        options["worker_metrics"],
        Whereabouts(options["region"], options["instance_type"]),
    )
