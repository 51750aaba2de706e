"""The status page: a status document and the tails of logs as HTML that needs no script and loads nothing."""

from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

from secureworker.operation.page_html import Child, Html, element, joined, style
from secureworker.operation.page_style import SHADES, rules, source
from secureworker.operation.server_http import NOTHING_ELSE
from secureworker.operation.view import duration

FASTEST_SECONDS: Final = 2
SLOWEST_SECONDS: Final = 3600
_TONES: Final[Mapping[str, str]] = {
    "claiming": "good",
    "full": "busy",
    "starting": "busy",
    "draining": "warn",
    "hindered": "bad",
    "unanswered": "bad",
    "ended": "warn",
    "completed": "good",
    "not-ours": "quiet",
    "worker-shutdown": "warn",
}
_BAR: Final = 1000
"""Units across a phase bar."""


def security_policy() -> str:
    """Give the page's content security policy: its own style, and nothing else."""
    return f"{NOTHING_ELSE}; style-src {source()}"


def as_page(document: Mapping[str, Any], tails: Mapping[tuple[str, int], str], every: int | None = None) -> bytes:
    """Write the page.

    Args:
        document: as `view.as_document` gives it.
        tails: by task and run: the last lines of logs, sanitised.
        every: seconds after which a browser asks for it again; None: it does not.
    """
    worker = document["worker"]
    who = f"{worker['pool']}/{worker['workerGroup']}/{worker['workerId']}"
    state = document["state"]["name"]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        None if every is None else element("meta", http_equiv="refresh", content=every),
        element("title", f"{state} - {who} - secureworker"),
        style(rules()),
    )
    body = element(
        "body",
        element("a", "Skip to the runs", class_="skip", href="#runs"),
        _header(document, who, every),
        element(
            "main",
            _state(document),
            _runs(document, tails),
            _decisions(document["decisions"]),
            _resolutions(document["resolutions"]),
            _errors(document["errors"]),
            _about(document),
        ),
        _footer(every),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en').text}\n".encode()


def _header(document: Mapping[str, Any], who: str, every: int | None) -> Html:
    again = f", read again every {every} s" if every else ""
    return element(
        "header",
        element("h1", _theirs(who)),
        element("p", f"As of {document['time']}{again}.", class_="quiet"),
    )


def _state(document: Mapping[str, Any]) -> Html:
    state = document["state"]
    hindrances = [
        element("li", element("strong", each["what"]), ": ", _theirs(each["why"])) for each in state["hindrances"]
    ]
    since = _ago(state["since"], document["time"])
    return _section(
        "state",
        "State",
        element("p", element("span", state["name"], class_=f"state {_tone(state['name'])}"), f" for {since}"),
        element("p", _theirs(state["why"])) if state["why"] and not hindrances else None,
        element("ul", *hindrances, class_="bad") if hindrances else None,
    )


def _runs(document: Mapping[str, Any], tails: Mapping[tuple[str, int], str]) -> Html:
    runs = [_run(run, document["time"], tails.get((run["taskId"], run["runId"]))) for run in document["runs"]]
    return _section("runs", "Runs", *(runs or [element("p", "Nothing runs.", class_="quiet")]))


def _run(run: Mapping[str, Any], now: str, tail: str | None) -> Html:
    named = f"{run['taskId']}/{run['runId']}"
    log = f"/runs/{named}/log"
    return element(
        "article",
        element("h3", _theirs(run["name"]) if run["name"] else named),
        element(
            "p",
            element("span", run["phase"], class_="state busy"),
            f" for {_ago(run['since'], now)}; claimed {_ago(run['claimed'], now)} ago, ",
            f"renewed {_times(run['renewals'])}",
        ),
        element(
            "dl",
            element("dt", "task"),
            element("dd", element("code", named)),
            element("dt", "script"),
            element("dd", run["script"] or "not admitted yet"),
        ),
        _bar(run["phases"], now),
        None
        if tail is None
        else joined(
            element("p", element("a", "The log's last 64 KiB, as text", href=log)),
            element("pre", tail, tabindex=0, role="log", aria_label=f"the end of the log of {named}"),
        ),
        aria_label=f"run {named}",
    )


def _bar(steps: list[Mapping[str, Any]], end: str) -> Html:
    """Draw how long each phase took, and say it. The last one goes on until `end`."""
    times = [*(_seconds(step["since"]) for step in steps), _seconds(end)]
    lengths = [max(0.0, later - earlier) for earlier, later in pairwise(times)]
    whole = sum(lengths) or 1.0
    drawn: list[Html] = []
    place = 0.0
    for number, length in enumerate(lengths):
        width = _BAR * length / whole
        shade = f"shade{number % len(SHADES)}"
        drawn.append(element("rect", x=f"{place:.1f}", y=0, width=f"{width:.1f}", height=10, class_=shade))
        place += width
    told = [
        element("li", step["phase"], " ", element("span", duration(length), class_="quiet"))
        for step, length in zip(steps, lengths, strict=True)
    ]
    picture = element("svg", *drawn, viewBox=f"0 0 {_BAR} 10", preserveAspectRatio="none", aria_hidden="true")
    return joined(picture, element("ol", *told, class_="steps", aria_label="phases"))


def _decisions(decisions: list[Mapping[str, Any]]) -> Html:
    rows: list[tuple[Child, ...]] = []
    for each in decisions:
        reasons = [
            element("li", element("code", reason["rule"] or "task"), ": ", _theirs(reason["message"]))
            for reason in each["reasons"]
        ]
        made = "admitted" if each["admitted"] else "refused"
        what = element("span", made, class_=f"state {'good' if each['admitted'] else 'bad'}")
        why = element("ul", *reasons) if reasons else joined("runs ", element("code", each["script"]))
        rows.append((each["time"], _task(each), what, why))
    return _table("decisions", "Last decisions", ("time", "task", "decision", "why"), rows)


def _resolutions(resolutions: list[Mapping[str, Any]]) -> Html:
    rows: list[tuple[Child, ...]] = []
    for each in resolutions:
        told = "" if each["reported"] or each["resolution"] == "not-ours" else " (the Queue does not know)"
        what = element("span", each["resolution"], told, class_=f"state {_tone(each['resolution'])}")
        took = _bar(each["phases"], each["time"]) if each["phases"] else None
        rows.append((each["time"], _task(each), what, joined(_theirs(each["summary"]), took)))
    return _table("resolutions", "Last resolutions", ("time", "task", "resolution", "how"), rows)


def _errors(errors: list[Mapping[str, Any]]) -> Html:
    rows: list[tuple[Child, ...]] = []
    for each in errors:
        tone = "warn" if each["what"] == "warning" else "bad"
        what = element("span", each["what"], class_=f"state {tone}")
        again = f" ({each['times']} times since {each['first']})" if each["times"] > 1 else None
        rows.append((each["last"], what, joined(_theirs(each["message"]), again)))
    return _table("errors", "Last errors and warnings", ("time", "kind", "message"), rows)


def _about(document: Mapping[str, Any]) -> Html:
    worker, policy, counts = document["worker"], document["policy"], document["counts"]
    signer, passed, audit = document["signer"], document["selfTest"], document["audit"]
    ended = ", ".join(f"{count} {name}" for name, count in counts["resolutions"].items()) or "none"
    facts: list[tuple[str, Child]] = [
        ("Taskcluster", _theirs(worker["rootUrl"])),
        ("version", f"secureworker {worker['version']}"),
        ("started", worker["started"]),
        ("policy", joined(element("code", f"sha256:{policy['sha256']}"), f" since {policy['since']}")),
        ("signing key", element("code", signer["key"]) if signer else "not met yet"),
        ("self-test", f"{passed['probes']} probes failed to get out, {passed['time']}" if passed else "not made yet"),
        ("claims", f"{counts['claims']}; {counts['admitted']} admitted, {counts['refused']} refused"),
        ("resolved", joined(ended, f"; {counts['unreported']} that the Queue does not know of")),
        ("audit log", _theirs(audit["origin"]) if audit else "nothing written yet"),
    ]
    if audit:
        facts += [("records", audit["size"]), ("root", element("code", audit["root"]))]
    listed = [joined(element("dt", name), element("dd", value)) for name, value in facts]
    note = None
    if audit:
        note = element("pre", audit["checkpoint"], tabindex=0, aria_label="the audit log's checkpoint, signed")
    return _section("worker", "Worker", element("dl", *listed), note)


def _footer(every: int | None) -> Html:
    again = element("a", "stop reading again", href="/") if every else element("a", "every 5 s", href="/?every=5")
    return element(
        "footer",
        element("nav", again, " · ", element("a", "as JSON", href="/status.json"), aria_label="this page"),
    )


def _section(name: str, title: str, *children: Child) -> Html:
    heading = element("h2", title, id=f"{name}-title")
    return element("section", heading, *children, id=name, aria_labelledby=f"{name}-title")


def _table(name: str, title: str, columns: tuple[str, ...], rows: list[tuple[Child, ...]]) -> Html:
    if not rows:
        return _section(name, title, element("p", "None yet.", class_="quiet"))
    head = element("tr", *(element("th", column, scope="col") for column in columns))
    body = [
        element("tr", *(element("td", cell, class_=column) for column, cell in zip(columns, row, strict=True)))
        for row in rows
    ]
    made = element(
        "table",
        element("caption", "newest first"),
        element("thead", head),
        element("tbody", *body),
        aria_labelledby=f"{name}-title",
    )
    # A table that is too wide scrolls in a place of its own, which the keyboard must reach (WCAG 2.1.1).
    return _section(
        name, title, element("div", made, class_="wide", tabindex=0, role="region", aria_labelledby=f"{name}-title")
    )


def _task(each: Mapping[str, Any]) -> Html:
    named = element("code", f"{each['taskId']}/{each['runId']}")
    return joined(_theirs(each["name"]), " ", named) if each["name"] else named


def _theirs(text: str) -> Html:
    """Show what others wrote, so that letters that are read from right to left turn nothing around it."""
    return element("bdi", text)


def _tone(name: str) -> str:
    return _TONES.get(name, "bad")


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _ago(time: str, now: str) -> str:
    return duration(max(0.0, _seconds(now) - _seconds(time)))


def _times(count: int) -> str:
    return {0: "never", 1: "once"}.get(count, f"{count} times")
