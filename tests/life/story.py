"""What a scenario leaves behind for the checker: what the Queue, the host and the worker's own log say of it."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from secureworker.localqueue.journal import Entry
from tests.life.faults import REPORTS, Seen

RunName = tuple[str, int]


@dataclass
class Sighting:
    """A script's processes, as somebody who looks every now and then has seen them."""

    first: datetime
    last: datetime


@dataclass
class Story:
    """One scenario."""

    journal: list[Entry] = field(default_factory=list)
    """Of the Queue."""
    seen: list[Seen] = field(default_factory=list)
    """What the workers asked for, at the proxy; also what never arrived."""
    sightings: dict[RunName, Sighting] = field(default_factory=dict)
    """By who watches the host's processes."""
    stamps: dict[RunName, list[tuple[str, datetime]]] = field(default_factory=dict)
    """What scripts wrote into their logs: `begun`, `stopped`, `ended`, and when."""
    contents: dict[RunName, dict[str, bytes]] = field(default_factory=dict)
    """Artifacts as anybody can fetch them at the end, decoded."""
    signatures: list[RunName] = field(default_factory=list)
    """Of the workers' audit logs: what was signed."""
    given_up: set[RunName] = field(default_factory=set)
    """Runs that may be left unresolved: their worker was killed, or was cut off until the claim's end."""
    slack: timedelta = timedelta(0)
    """How far the clock of the journal was moved: stamps of processes are by the true one."""

    def reports(self, run: RunName) -> list[Seen]:
        """Give the requests that would resolve a run."""
        return [seen for seen in self.seen if seen.name in REPORTS and (seen.task_id, seen.run_id) == run]


@dataclass
class RunStory:
    """What the journal says of one run."""

    name: RunName
    worker: str = ""
    claims: list[Entry] = field(default_factory=list)
    leases: list[tuple[datetime, datetime]] = field(default_factory=list)
    """(told, takenUntil), in order."""
    ends: list[Entry] = field(default_factory=list)
    stored: list[Entry] = field(default_factory=list)
    created: list[Entry] = field(default_factory=list)

    def taken_until(self, when: datetime) -> datetime | None:
        """Give the end of the claim as it was at a moment; None: it was not claimed."""
        ends = [until for told, until in self.leases if told <= when]
        return ends[-1] if ends else None


def runs_of(journal: list[Entry]) -> list[RunStory]:
    """Sort a journal by runs; those that were claimed."""
    runs: dict[RunName, RunStory] = {}
    for entry in journal:
        run = runs.setdefault((entry.task_id, entry.run_id), RunStory((entry.task_id, entry.run_id)))
        match entry.what:
            case "claimed" | "reclaimed":
                run.leases.append((entry.when, datetime.fromisoformat(entry["takenUntil"])))
                if entry.what == "claimed":
                    run.claims.append(entry)
                    run.worker = entry["worker"]
            case "resolved":
                run.ends.append(entry)
            case "stored":
                run.stored.append(entry)
            case "artifact":
                run.created.append(entry)
            case _:
                pass
    return [run for run in runs.values() if run.claims]
