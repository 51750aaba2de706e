"""Keeps what is shown of a worker: a watcher of what happens, and of what its log warns of."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from secureworker.core.happening import Began, Faulted, Happening
from secureworker.core.standing import MOST_TEXT, Standing, after, at_start
from secureworker.ports import Clock


@final
class Board:
    """The `Watcher` that keeps a `Standing`. Safe to call from threads."""

    def __init__(self, began: Began, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._standing = at_start(began, clock.now())

    def saw(self, happening: Happening) -> None:
        """See `ports.Watcher`."""
        with self._lock:
            self._standing = after(self._standing, happening, self._clock.now())

    @property
    def standing(self) -> Standing:
        """Where the worker stands now."""
        return self._standing


class _Warnings(logging.Handler):
    def __init__(self, board: Board) -> None:
        super().__init__(logging.WARNING)
        self._board = board

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line, without its traceback: that is in the log."""
        try:
            message = record.getMessage()[: MOST_TEXT + 1]
            if record.exc_info and record.exc_info[0] is not None:
                message = f"{message} ({record.exc_info[0].__name__})"
            self._board.saw(Faulted("error" if record.levelno >= logging.ERROR else "warning", message))
        except Exception:  # noqa: BLE001 - as every handler of the standard library: logging must not fail its caller
            self.handleError(record)


@contextmanager
def showing_warnings(board: Board) -> Iterator[None]:
    """Show what the worker's log says at WARNING and above, while the block runs."""
    handler = _Warnings(board)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
