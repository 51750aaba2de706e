"""A status document as tables for a terminal. Every text in it is made harmless once more: who sent it is not known."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from secureworker.core.standing import cut
from secureworker.host.sanitise import sanitise_line
from secureworker.operation.view import duration

_STYLES: Final = {
    "claiming": "bold green",
    "full": "bold green",
    "starting": "bold cyan",
    "draining": "bold yellow",
    "ended": "bold yellow",
    "hindered": "bold red",
    "unanswered": "bold red",
    "completed": "green",
    "not-ours": "dim",
    "worker-shutdown": "yellow",
    "warning": "yellow",
    "error": "bold red",
    "admitted": "green",
    "refused": "red",
}
_MOST_CELL: Final = 600
"""Characters of a cell; the whole is in `--json` and on the page."""
_LAST: Final = 5
"""Of decisions, resolutions and errors; the page has more."""


def as_tables(document: dict[str, Any]) -> RenderableType:
    """Draw the document."""
    worker, state, now = document["worker"], document["state"], document["time"]
    parts: list[RenderableType] = [
        _line(("", "bold"), (f"{worker['pool']}/{worker['workerGroup']}/{worker['workerId']}", "bold")),
        _line((state["name"], _STYLES.get(state["name"], "bold")), (f" for {_since(state['since'], now)}", "")),
    ]
    if state["why"] and not state["hindrances"]:
        parts.append(_line((state["why"], "")))
    parts += [_line((f"  {each['what']}: ", "bold red"), (each["why"], "")) for each in state["hindrances"]]
    parts += [Text(""), _facts(document), Text("")]
    parts.append(_runs(document["runs"], now) if document["runs"] else _line(("nothing runs", "dim")))
    for title, rows in (
        ("last decisions", map(_decision, document["decisions"][:_LAST])),
        ("last resolutions", map(_resolution, document["resolutions"][:_LAST])),
        ("last errors and warnings", map(_error, document["errors"][:_LAST])),
    ):
        found = list(rows)
        if found:
            parts += [Text(""), _table((title, "", "", ""), found)]
    return Group(*parts)


def print_to(console: Console, document: dict[str, Any]) -> None:
    """Print the document; rich leaves the colours out where there is no terminal, or NO_COLOR says so."""
    console.print(as_tables(document), soft_wrap=False)


def _facts(document: dict[str, Any]) -> Table:
    worker, policy, counts = document["worker"], document["policy"], document["counts"]
    signer, passed, audit = document["signer"], document["selfTest"], document["audit"]
    ended = ", ".join(f"{count} {name}" for name, count in counts["resolutions"].items()) or "none"
    facts = [
        ("version", f"secureworker {worker['version']}, started {worker['started']}"),
        ("taskcluster", worker["rootUrl"]),
        ("policy", f"sha256:{policy['sha256']} since {policy['since']}"),
        ("signing key", signer["key"] if signer else "not met yet"),
        ("self-test", f"{passed['probes']} probes failed to get out, {passed['time']}" if passed else "not made yet"),
        ("audit log", f"{audit['size']} records, root {audit['root']}" if audit else "nothing written yet"),
        ("claims", f"{counts['claims']}: {counts['admitted']} admitted, {counts['refused']} refused"),
        ("resolved", f"{ended}; {counts['unreported']} not reported"),
    ]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(_text(name), _text(value))
    return table


def _runs(runs: list[dict[str, Any]], now: str) -> Table:
    rows = []
    for run in runs:
        at = Text.assemble((_safe(run["phase"]), "bold cyan"), f" {_since(run['since'], now)}")
        rows.append((_task(run), _text(run["script"]), at, _text(f"claimed {_since(run['claimed'], now)} ago")))
    return _table(("runs", "script", "at", ""), rows)


def _decision(each: dict[str, Any]) -> tuple[Text, ...]:
    made = "admitted" if each["admitted"] else "refused"
    why = "; ".join(f"{reason['rule'] or 'task'}: {reason['message']}" for reason in each["reasons"])
    return _task(each), _styled(made), _text(why or each["script"]), _text(each["time"])


def _resolution(each: dict[str, Any]) -> tuple[Text, ...]:
    return _task(each), _styled(each["resolution"]), _text(each["summary"]), _text(each["time"])


def _error(each: dict[str, Any]) -> tuple[Text, ...]:
    times = f"{each['times']} times" if each["times"] != 1 else ""
    return _styled(each["what"]), _text(times), _text(each["message"]), _text(each["last"])


def _table(columns: tuple[str, ...], rows: Iterable[tuple[Text, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", ratio=3 if number == 2 else None)  # noqa: PLR2004 - why
    for row in rows:
        table.add_row(*row)
    return table


def _task(each: dict[str, Any]) -> Text:
    return Text.assemble(
        _safe(each["name"]), "\n" if each["name"] else "", (f"{each['taskId']}/{each['runId']}", "dim")
    )


def _styled(word: str) -> Text:
    return Text(_safe(word), style=_STYLES.get(word, "bold red"))


def _text(value: str) -> Text:
    """Text, not markup: brackets in a task's name are no style."""
    return Text(_safe(value))


def _line(*parts: tuple[str, str]) -> Text:
    return Text.assemble(*((_safe(text), style) for text, style in parts))


def _safe(text: str) -> str:
    return cut(sanitise_line(text), _MOST_CELL)


def _since(time: str, now: str) -> str:
    return duration((datetime.fromisoformat(now) - datetime.fromisoformat(time)).total_seconds())
