"""The dashboard and the alerts of examples/ name only metrics, labels and values that there are."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from klagg.service.metric_table import METRICS
from klagg.store import GapState
from klagg.store.shares import Settled

EXAMPLES = Path(__file__).parents[1] / "examples"
PROMETHEUS = EXAMPLES / "prometheus"
METRIC = re.compile(r"\b(klagg_[a-z_]+)(?:\{([^}]*)\})?")
VALUES_OF = {
    "state": {"klagg_last_hour_minutes": [one.value for one in Settled], "klagg_gaps": [one.value for one in GapState]},
    "urgency": {"klagg_unverified_candles": ["urgent", "leisure"]},
}
"""Labels whose values are a closed set: by metric, what there is (`klagg.service.metrics`)."""
WORDS = {
    *("sum", "max", "min", "by", "rate", "increase", "time", "up", "job", "le"),
    *("label_values",),
}


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((EXAMPLES / "grafana" / "dashboard.json").read_text("utf-8"))
    return loaded


def rules() -> list[dict[str, Any]]:
    loaded = yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text("utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """Whose it is, and the expression."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["definition"]
    for rule in rules():
        yield rule["alert"], rule["expr"]


def spec_of(name: str) -> tuple[str, set[str]]:
    """The kind of a metric as it is scraped, and its labels."""
    base = re.sub(r"_(sum|count)$", "", name) if name not in METRICS else name
    assert base in METRICS, f"{name} is no metric of the service"
    spec = METRICS[base]
    if base != name:
        assert spec.kind == "summary"
    return spec.kind if base == name else "counter", {"market", *spec.labels}


@pytest.mark.parametrize(("whose", "expression"), list(expressions()))
def test_an_expression_names_what_there_is(whose: str, expression: str) -> None:
    named = METRIC.findall(expression)
    assert named or "up{" in expression
    known: set[str] = {"instance"}
    for name, matchers in named:
        kind, labels = spec_of(name)
        known |= labels
        for label, value in re.findall(r"(\w+)=~?\"([^\"]*)\"", matchers):
            assert label in labels, f"{whose}: {name} has no label {label}"
            if label in VALUES_OF:
                assert any(re.fullmatch(value, there) for there in VALUES_OF[label][name]), f"{whose}: {label} {value}"
        is_rate = re.search(rf"(rate|increase)\({name}[^)]*\[", expression) is not None
        assert is_rate == (kind == "counter"), f"{whose}: {name} is a {kind}"
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        assert {label.strip() for label in group.split(",")} <= known
    # Nothing but functions, metrics and labels: brackets and quotes are even.
    left = re.sub(r"\"[^\"]*\"|\[[^\]]*\]|\b\d[\de.]*\b", "", METRIC.sub(" ", expression))
    assert set(re.findall(r"[a-z_]+", left)) <= WORDS | known
    assert expression.count("(") == expression.count(")")
    assert expression.count('"') % 2 == 0


def test_panels_are_told_apart_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
        legends = [target["legendFormat"] for target in panel.get("targets", [])]
        assert all(legends)


def test_legends_and_texts_name_labels_that_are_left() -> None:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            check_labels(target["expr"], target["legendFormat"])
    for rule in rules():
        for text in rule["annotations"].values():
            check_labels(rule["expr"], text.replace("$labels.", ""))


def check_labels(expression: str, text: str) -> None:
    names = set(re.findall(r"\{\{ ?(\w+) ?\}\}", text))
    grouped = re.findall(r"\bby \(([^)]*)\)", expression)
    left = {label.strip() for group in grouped for label in group.split(",")}
    if not grouped:
        left = {"instance"}.union(*(spec_of(name)[1] for name, _ in METRIC.findall(expression)))
    assert names <= left, f"{text}: of {expression} there are {left}"


def test_alerts_are_whole() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"page", "warn"}
        assert rule["annotations"]["summary"]


def test_the_scrape_configuration() -> None:
    loaded = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text("utf-8"))
    assert [(PROMETHEUS / name).is_file() for name in loaded["rule_files"]] == [True]
    (job,) = loaded["scrape_configs"]
    assert (job["job_name"], job["metrics_path"]) == ("klagg", "/metrics")
    assert 'up{job="klagg"}' in {rule["expr"].split(" ==")[0] for rule in rules()}
