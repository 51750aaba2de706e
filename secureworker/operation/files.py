"""Files for others to read: metrics for node_exporter, and a heartbeat. Each is replaced as a whole."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, Final, NoReturn

from prometheus_client import CollectorRegistry, generate_latest

from secureworker.host.published import replace_file
from secureworker.operation.heart import Heart
from secureworker.ports import Clock

logger = logging.getLogger(__name__)

TEXTFILE_SECONDS: Final = 15.0
"""Prometheus asks as often, by default every 15 to 60 s."""
HEARTBEAT_SECONDS: Final = 10.0


async def write_every(seconds: float, path: str, make: Callable[[], bytes | None], clock: Clock) -> NoReturn:
    """Keep a file new, for ever. None from `make` leaves it as it is. An error is logged once, until it is over."""
    failing = False
    while True:
        try:
            await asyncio.to_thread(_write, path, make)
            if failing:
                logger.info("%s is written again", path)
            failing = False
        except OSError as error:
            if not failing:
                logger.warning("%s cannot be written: %s", path, error.strerror)
            failing = True
        await clock.sleep(seconds)


def _write(path: str, make: Callable[[], bytes | None]) -> None:
    content = make()
    if content is not None:
        replace_file(path, content)


def as_text(registry: CollectorRegistry) -> bytes:
    """Write metrics as Prometheus reads them."""
    return generate_latest(registry)


def as_state(heart: Heart, clock: Clock) -> dict[str, Any]:
    """Say in a few words where the worker is."""
    entered = heart.entered
    return {
        "state": entered.state.value,
        "able": heart.able,
        "alive": heart.stuck_seconds == 0,
        "why": entered.why,
        "hindrances": [{"what": each.what, "why": each.why} for each in entered.hindrances],
        "time": clock.now().isoformat(timespec="seconds"),
    }


def heartbeat(heart: Heart, clock: Clock) -> bytes | None:
    """Give a heartbeat's content; None where the worker is stuck, so that its file becomes old."""
    if heart.stuck_seconds:
        return None
    return f"{json.dumps(as_state(heart, clock))}\n".encode()
