"""What went through a run's doors, and what did not: counters for the record, lines for the task log."""

from dataclasses import dataclass
from typing import Final

from secureworker.core.doors import Traffic
from secureworker.ports import TaskLog

MOST_NOTES: Final = 50
_SHOWN: Final = 160


@dataclass(slots=True)
class Meter:
    """What went to one destination, so far."""

    connections: int = 0
    sent: int = 0
    received: int = 0


class Account:
    """Of one run."""

    def __init__(self, log: TaskLog) -> None:
        self._log = log
        self._meters: dict[str, Meter] = {}
        self._noted: set[str] = set()

    def meter(self, destination: str) -> Meter:
        """Give the counters of a destination, one of those that the policy names."""
        return self._meters.setdefault(destination, Meter())

    def traffic(self) -> tuple[Traffic, ...]:
        """Give all counters, by destination."""
        return tuple(
            Traffic(destination, meter.connections, meter.sent, meter.received)
            for destination, meter in sorted(self._meters.items())
        )

    def refuse(self, door: str, what: str, why: str) -> None:
        """Say in the task log that something was refused: once for each door and thing, and not without end.

        Args:
            door: which one, for the reader.
            what: the host, or the request; of the script's making.
            why: the reason, with what to do.
        """
        key = f"{door} {what[:_SHOWN]}"
        if key in self._noted or len(self._noted) > MOST_NOTES:
            return
        self._noted.add(key)
        if len(self._noted) > MOST_NOTES:
            self._log.note(f"{door}: more was refused, which is not listed here")
            return
        self._log.note(f"{door}: refused {what[:_SHOWN]}: {why}")
