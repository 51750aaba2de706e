"""The dashboard, the alerts and the reference speak of metrics that there are, and of all of them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from secureworker.core.happening import HINDRANCES, Phase, State
from secureworker.core.outcome import Resolution
from secureworker.host.clock import SystemClock
from secureworker.operation.metrics import Metrics

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "secureworker.json"
RULES = ROOT / "deploy" / "prometheus" / "secureworker.rules.yml"
REFERENCE = ROOT / "docs" / "metrics.md"
_STRING = re.compile(r'"[^"]*"')
_NAME = re.compile(r"\b(?:secureworker|process)_[a-z0-9_]+\b")
_LABEL = re.compile(r'([a-z_]+)(=~|=|!=)"([^"]*)"')
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LABELS = {
    "state": {state.value for state in State},
    "what": {*HINDRANCES, "host", "error", "warning"},
    "decision": {"admitted", "refused"},
    "resolution": {resolution.value for resolution in Resolution},
    "phase": {phase.value for phase in Phase},
    "request": {"sign", "append", "check"},
}


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    return Metrics(SystemClock())


def queries(panels: list[dict[str, Any]]) -> Iterator[str]:
    for panel in panels:
        yield from (target["expr"] for target in panel.get("targets", []))
        yield from queries(panel.get("panels", []))


def of_dashboard() -> list[str]:
    board = json.loads(DASHBOARD.read_text())
    asked = [each["query"]["query"] for each in board["templating"]["list"] if isinstance(each["query"], dict)]
    return [*queries(board["panels"]), *asked]


def rules() -> list[dict[str, Any]]:
    return [rule for group in YAML(typ="safe").load(RULES)["groups"] for rule in group["rules"]]


def of_rules() -> list[str]:
    return [rule["expr"] for rule in rules()]


EXPRESSIONS = {"dashboard": of_dashboard, "rules": of_rules}


@pytest.mark.parametrize("source", EXPRESSIONS)
def test_every_metric_that_is_asked_for_is_there(metrics: Metrics, source: str) -> None:
    known = set(metrics.names())
    for query in EXPRESSIONS[source]():
        names = set(_NAME.findall(_STRING.sub("", query)))
        assert names, f"nothing of the worker's is asked for in: {query}"
        assert names <= known, query


@pytest.mark.parametrize("source", EXPRESSIONS)
def test_every_value_of_a_label_that_is_asked_for_can_be(source: str) -> None:
    for query in EXPRESSIONS[source]():
        for label, _, value in _LABEL.findall(query):
            if label in LABELS:
                assert set(value.split("|")) <= LABELS[label], query


@pytest.mark.parametrize("source", EXPRESSIONS)
def test_a_name_that_there_is_not_would_be_found(metrics: Metrics, source: str) -> None:
    query = EXPRESSIONS[source]()[0].replace("secureworker_", "secureworker_no_")
    assert not set(_NAME.findall(query)) <= set(metrics.names())


def test_counters_are_asked_for_by_their_rate_and_histograms_by_their_buckets(metrics: Metrics) -> None:
    kinds = {family.name: family.type for family in metrics.registry.collect()}
    for query in (*of_dashboard(), *of_rules()):
        for name in _NAME.findall(_STRING.sub("", query)):
            if name.endswith("_total"):
                assert re.search(rf"(rate|increase)\({name}", query), query
            if name.endswith("_bucket"):
                assert kinds[name.removesuffix("_bucket")] == "histogram"
                assert "histogram_quantile(" in query
                assert re.search(r"by \([^)]*\ble\b", query), query
            assert kinds.get(name) not in {"counter", "histogram"}, f"{name} has no sample of this name"


def test_parentheses_and_braces_are_closed() -> None:
    for query in (*of_dashboard(), *of_rules()):
        bare = _STRING.sub("", query)
        for opening, closing in ("()", "{}", "[]"):
            assert bare.count(opening) == bare.count(closing), query


def test_everything_that_is_counted_is_on_the_dashboard(metrics: Metrics) -> None:
    shown = " ".join(of_dashboard())
    for family in metrics.registry.collect():
        if family.name.startswith("secureworker_"):
            assert family.name in shown, f"{family.name} is shown nowhere"


def test_every_alert_says_what_it_is_and_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "action"}
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}


def test_the_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    ids = []
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        ids.append(panel["id"])
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len(ids) == len(set(ids))


def test_the_reference_names_every_metric_with_its_kind_and_labels(metrics: Metrics) -> None:
    rows = re.findall(r"^\| `(secureworker_[a-z_]+)` \| (.*) \|$", REFERENCE.read_text(), re.MULTILINE)
    labels = {each._name: each._labelnames for each in vars(metrics).values() if hasattr(each, "_labelnames")}
    described = []
    for family in metrics.registry.collect():
        if family.name.startswith("secureworker_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            its = ", ".join(f"`{label}`" for label in labels[family.name]) or "-"
            described.append((name, f"{family.type} | {its} | {family.documentation}"))
    assert rows == described, "docs/metrics.md is stale: its rows are those that are printed here"
