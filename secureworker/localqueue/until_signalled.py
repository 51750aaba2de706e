"""The embedded Taskcluster as a program: serves until it is told to end."""

import asyncio
import signal
from collections.abc import Callable

from secureworker.localqueue.server import serve
from secureworker.localqueue.settings import Settings


async def run_until_signalled(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; call `announce` with the root URL once it answers.

    Raises:
        OSError: see `serve`.
        database.UnusableData: see `serve`.
    """
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    async with serve(settings) as running:
        announce(running.root_url)
        await told.wait()
