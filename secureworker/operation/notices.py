"""Notices to the service manager (sd_notify(3)): ready, what it is at, alive, reloading, stopping."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final, NoReturn, final

from secureworker.core.happening import Claimed, Happening, Phase, PhaseEntered, State, StateEntered
from secureworker.host.sanitise import sanitise_line
from secureworker.operation.heart import Heart
from secureworker.ports import Clock

logger = logging.getLogger(__name__)

_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_MICROSECONDS: Final = 1_000_000
_LONGEST: Final = 500
"""Characters of a status line: systemctl shows one."""


@final
class Notices:
    """Sends notices. To nobody, where no service manager waits for any."""

    def __init__(self, address: str | None = None, watchdog_seconds: float | None = None) -> None:
        self._address = address
        self.watchdog_seconds = watchdog_seconds
        """How long the service manager waits for a sign of life; None: it does not."""

    @classmethod
    def taken(cls, environment: MutableMapping[str, str]) -> "Notices":
        """Take what the service manager says out of the environment: nothing that is started later shall see it."""
        address, microseconds, pid = (environment.pop(name, "") for name in _VARIABLES)
        ours = not pid or pid == str(os.getpid())
        watchdog = int(microseconds) / _MICROSECONDS if microseconds.isdigit() and int(microseconds) and ours else None
        if address and address[0] not in "/@":
            logger.warning(
                "NOTIFY_SOCKET is %r, which is no UNIX socket; nobody is told that the worker is ready", address
            )
            address = ""
        return cls(address or None, watchdog if address else None)

    def send(self, *lines: str) -> None:
        """Send one notice. An error is logged, and goes no further."""
        if self._address is None:
            return
        # A leading @ stands for the NUL of an abstract address.
        where = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                # The service manager may be busy, and this is the event loop.
                channel.setblocking(False)  # noqa: FBT003 - the socket's own signature
                channel.sendto("\n".join(lines).encode(), where)
        except OSError as error:
            logger.debug("the service manager cannot be told %s: %s", lines[0], error)

    def ready(self) -> None:
        """Say that everything is checked, and the first claim is next; or that a reload is done."""
        self.send("READY=1")

    def reloading(self) -> None:
        """Say that a reload begins; `ready` ends it."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Say that the end is near. Not before all runs are over: from then on the service manager counts the time."""
        self.send("STOPPING=1")


@final
class Announcer:
    """The `Watcher` that keeps the service manager's status line."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self._entered = StateEntered(State.STARTING)
        self._running = 0

    def saw(self, happening: Happening) -> None:
        """See `ports.Watcher`."""
        match happening:
            case StateEntered():
                self._entered = happening
            case Claimed():
                self._running += 1
            case PhaseEntered(phase=Phase.ENDED):
                self._running -= 1
            case _:
                return
        self._notices.send(f"STATUS={self._line()}")

    def _line(self) -> str:
        runs = f"{self._running} run{'' if self._running == 1 else 's'}"
        line = f"{self._entered.state.value}, {runs}"
        # One line, and text that can be encoded: what is in an error may be of anywhere.
        why = sanitise_line(" ".join(self._entered.why.split()))
        return (f"{line}: {why}" if why else line)[:_LONGEST]


async def show_life(notices: Notices, heart: Heart, clock: Clock) -> NoReturn:
    """Tell the service manager that the worker is alive, for as long as that is so. Never returns.

    Runs in the worker's loop: one that is blocked tells nothing.
    """
    if notices.watchdog_seconds is None:
        await asyncio.Event().wait()
        raise AssertionError  # nobody sets it
    while True:
        stuck = heart.stuck_seconds
        if stuck:
            logger.error(
                "the claim loop has not come round for %.0f s longer than it may; no sign of life is given", stuck
            )
        else:
            notices.send("WATCHDOG=1")
        await clock.sleep(notices.watchdog_seconds / 2)
